//! Calls to other CPUs.

use super::apic::{self, Message};
use super::{cpu, irq, paging};
use crate::arch::{MAX_CPUS, PAGE_SIZE};
use crate::sync::{preempt_disable, softirq};
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Above this many pages a whole flush is cheaper than single ones.
const MAX_SINGLE: usize = 32;

/// Makes `cpu` run its scheduler soon.
pub fn reschedule(cpu: usize) {
    if cpu == super::cpu::id() {
        super::cpu::set_pending(softirq::RESCHEDULE);
    } else {
        apic::send(super::cpu::apic_id(cpu), Message::Vector(irq::RESCHEDULE));
    }
}

pub(super) fn reschedule_interrupt() {
    cpu::set_pending(softirq::RESCHEDULE);
}

/// One CPU's request to forget translations; each CPU has at most one under way.
struct Request {
    start: AtomicUsize,
    pages: AtomicUsize,
    /// CPUs that haven't done it yet.
    waiting: AtomicU32,
}

static REQUESTS: [Request; MAX_CPUS] = [const {
    Request { start: AtomicUsize::new(0), pages: AtomicUsize::new(0), waiting: AtomicU32::new(0) }
}; MAX_CPUS];
/// For each CPU, whose requests wait for it.
static INBOX: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(0) }; MAX_CPUS];

/// Makes the CPUs in `cpus` (one bit each; this one's is ignored) forget their translations of
/// `pages` pages from `start` on, of whatever root they use, and waits until they have.
/// `usize::MAX` pages means all of user space.
///
/// Task or softirq context; no `IrqLock` may be held.
pub fn flush_tlb(cpus: u32, start: usize, pages: usize) {
    let guard = preempt_disable();
    let me = cpu::id();
    let targets = cpus & !(1 << me) & ((1u32 << cpu::count()) - 1);
    if targets == 0 {
        return;
    }
    let request = &REQUESTS[me];
    request.start.store(start, Ordering::Relaxed);
    request.pages.store(pages, Ordering::Relaxed);
    request.waiting.store(targets, Ordering::Release);
    for target in (0..cpu::count()).filter(|target| targets & 1 << target != 0) {
        // The interrupt is under way already if the inbox wasn't empty.
        if INBOX[target].fetch_or(1 << me, Ordering::AcqRel) == 0 {
            apic::send(cpu::apic_id(target), Message::Vector(irq::FLUSH));
        }
    }
    while request.waiting.load(Ordering::Acquire) != 0 {
        // Two CPUs may wait for each other, with interrupts off.
        flush_interrupt();
        cpu::relax();
    }
    drop(guard);
}

/// Forgets this CPU's translations of a user range.
pub fn flush_range_local(start: usize, pages: usize) {
    if pages > MAX_SINGLE {
        return paging::flush_local();
    }
    for page in 0..pages {
        paging::invlpg(start + page * PAGE_SIZE);
    }
}

pub(super) fn flush_interrupt() {
    let me = cpu::id();
    if INBOX[me].load(Ordering::Relaxed) == 0 {
        return;
    }
    let from = INBOX[me].swap(0, Ordering::AcqRel);
    for sender in (0..MAX_CPUS).filter(|sender| from & 1 << sender != 0) {
        let request = &REQUESTS[sender];
        let pages = request.pages.load(Ordering::Relaxed);
        flush_range_local(request.start.load(Ordering::Relaxed), pages);
        request.waiting.fetch_and(!(1 << me), Ordering::AcqRel);
    }
}

/// Sends every other CPU an NMI, for a panic.
pub(super) fn nmi_others() {
    let me = cpu::id();
    for other in (0..cpu::count()).filter(|&other| other != me) {
        apic::send(cpu::apic_id(other), Message::Nmi);
    }
}
