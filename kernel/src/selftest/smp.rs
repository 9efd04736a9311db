//! Several CPUs: shared counting, and page table flushes that all of them ask for at once.

use crate::arch::{MAX_CPUS, clock, cpu, ipi, irq};
use crate::sync::SpinLock;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

static GO: AtomicBool = AtomicBool::new(false);
static DONE: AtomicUsize = AtomicUsize::new(0);
static SHARED: SpinLock<[usize; 17]> = SpinLock::new([0; 17]);

const ROUNDS: usize = 100;

fn work() {
    for round in 0..ROUNDS {
        SHARED.lock()[round % 17] += 1;
        ipi::flush_tlb(u32::MAX, 0x1000 * (round + 1), 1 + round % 40);
    }
    DONE.fetch_add(1, Ordering::AcqRel);
}

/// The other CPUs' part; returns at once unless the check runs.
pub fn join() {
    let chosen = crate::arch::boot_info::get()
        .is_some_and(|boot| boot.option("d2u.selftest") == Some("smp"));
    if chosen {
        irq::enable();
        while !GO.load(Ordering::Acquire) {
            core::hint::spin_loop();
        }
        work();
    }
}

/// The boot CPU's part.
pub fn run() -> Result<(), &'static str> {
    irq::enable();
    GO.store(true, Ordering::Release);
    work();
    let deadline = clock::now_ns() + 20_000_000_000;
    while DONE.load(Ordering::Acquire) < cpu::count() {
        if clock::now_ns() > deadline {
            return Err("a CPU didn't finish");
        }
        // Others may wait for this CPU to flush.
        core::hint::spin_loop();
    }
    irq::disable();
    crate::error!("selftest: {} CPUs", cpu::count());
    let sum: usize = SHARED.lock().iter().sum();
    if sum != ROUNDS * cpu::count() || cpu::count() > MAX_CPUS {
        return Err("the CPUs lost counts");
    }
    Ok(())
}
