//! virtio-blk: many requests in flight, each of several segments.

use super::queue::{INDIRECT_SEGMENTS, Queue, Segment};
use super::{Doorbell, Handler, Transport, feature, negotiate, ready, start_queue};
use crate::arch::{PAGE_SIZE, cpu};
use crate::drivers::block::{self, BlockDevice, SECTOR};
use crate::errno::{Errno, Result};
use crate::event::Events;
use crate::mm::PageRef;
use crate::sync::{IrqLock, Once, WaitQueue};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

const SEG_MAX: u64 = 1 << 2;
const READ_ONLY: u64 = 1 << 5;
const FLUSH: u64 = 1 << 9;

const READ: u32 = 0;
const WRITE: u32 = 1;
const FLUSH_REQUEST: u32 = 4;
/// Status byte while the device hasn't answered.
const PENDING: u8 = 0xff;

/// A disk.
pub struct VirtioBlk {
    name: String,
    capacity: u64,
    read_only: bool,
    can_flush: bool,
    /// Pages per request.
    max_pages: usize,
    queue: Once<IrqLock<Queue<Arc<Request>>>>,
    doorbell: Once<Doorbell>,
    /// Woken when requests complete while the queue was full.
    space: WaitQueue,
    /// Whether a failure was reported.
    complained: AtomicBool,
    _transport: Arc<dyn Transport>,
}

/// Header and status of one request, in memory that the device may reach.
#[repr(C)]
struct Wire {
    header: [u32; 4],
    status: AtomicU8,
}

struct Request {
    wire: UnsafeCell<Wire>,
    /// Set once the device has returned the request, to its status or to EIO.
    result: AtomicU8,
    done: WaitQueue,
}

// SAFETY: the header is written before the request is handed over, and the status is atomic.
unsafe impl Sync for Request {}
// SAFETY: plain data.
unsafe impl Send for Request {}

/// Starts a disk.
pub fn attach(transport: Arc<dyn Transport>) -> Result<()> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let disk = start(transport, &block::virtio_name(NEXT.load(Ordering::Relaxed)))?;
    NEXT.fetch_add(1, Ordering::Relaxed);
    block::register(disk);
    Ok(())
}

/// Starts a disk under a name.
pub fn start(transport: Arc<dyn Transport>, name: &str) -> Result<Arc<VirtioBlk>> {
    let wanted = SEG_MAX | READ_ONLY | FLUSH | feature::INDIRECT | feature::EVENT_IDX;
    let features = negotiate(&*transport, wanted)?;
    let sectors = transport.config_u64(0);
    let segments = match features & SEG_MAX {
        0 => 1,
        _ => transport.config_u32(12).max(1) as usize,
    };
    let indirect = features & feature::INDIRECT != 0;
    let table = if indirect { INDIRECT_SEGMENTS } else { 10 };
    let disk = Arc::new(VirtioBlk {
        name: name.into(),
        capacity: sectors.saturating_mul(SECTOR),
        read_only: features & READ_ONLY != 0,
        can_flush: features & FLUSH != 0,
        max_pages: segments.min(table - 2),
        queue: Once::new(),
        doorbell: Once::new(),
        space: WaitQueue::new(),
        complained: AtomicBool::new(false),
        _transport: transport.clone(),
    });
    // The disk lives as long as the kernel: its interrupt handler may come at any time.
    let arg = Arc::into_raw(disk.clone()) as usize;
    let handler = Handler { function: interrupt, arg, cpu: 0 };
    let (mut queue, doorbell) = start_queue(&*transport, 0, 128, features, Some(handler))?;
    if usize::from(queue.size()) < disk.max_pages + 2 && !indirect {
        return Err(Errno::ENODEV);
    }
    queue.enable_interrupts(1);
    // Both are set here and nowhere else.
    let _ = disk.queue.set(IrqLock::new(queue));
    let _ = disk.doorbell.set(doorbell);
    ready(&*transport);
    Ok(disk)
}

fn interrupt(arg: usize) {
    // SAFETY: `start` leaked one reference as the argument.
    let disk = unsafe { &*(arg as *const VirtioBlk) };
    disk.complete();
}

impl VirtioBlk {
    fn queue(&self) -> Result<&IrqLock<Queue<Arc<Request>>>> {
        self.queue.get().ok_or(Errno::ENODEV)
    }

    /// Takes back finished requests.
    pub fn complete(&self) {
        let Ok(queue) = self.queue() else { return };
        let mut any = false;
        loop {
            let mut locked = queue.lock();
            match locked.pop() {
                Ok(Some((request, _))) => {
                    drop(locked);
                    any = true;
                    request.finish();
                }
                Ok(None) => {
                    if !locked.enable_interrupts(1) {
                        break;
                    }
                }
                Err(_) => {
                    // The device lies: nothing that it holds will come back in order.
                    let lost: Vec<_> = locked.reclaim().collect();
                    drop(locked);
                    for request in lost {
                        request.fail();
                    }
                    break;
                }
            }
        }
        if any {
            self.space.wake_all(Events::OUT);
        }
    }

    /// Waits until `ready`; before there are tasks by asking the device over and over.
    fn wait(&self, queue: &WaitQueue, mut ready: impl FnMut() -> bool) {
        if cpu::current_task().is_null() {
            while !ready() {
                self.complete();
                cpu::relax();
            }
            return;
        }
        queue.wait_uninterruptible(|| ready().then_some(()));
    }

    /// Hands one request to the device.
    fn submit(&self, kind: u32, sector: u64, data: &[Segment]) -> Result<Arc<Request>> {
        let header = [kind, 0, sector as u32, (sector >> 32) as u32].map(u32::to_le);
        let request = Arc::new(Request {
            wire: UnsafeCell::new(Wire { header, status: AtomicU8::new(PENDING) }),
            result: AtomicU8::new(PENDING),
            done: WaitQueue::new(),
        });
        let wire = request.wire.get();
        let base = crate::arch::virt_to_phys(wire as usize);
        let header = Segment { addr: base, len: 16 };
        let status = Segment { addr: base + core::mem::offset_of!(Wire, status), len: 1 };
        let mut readable = Vec::with_capacity(data.len() + 1);
        let mut writable = Vec::with_capacity(data.len() + 1);
        readable.push(header);
        let side = if kind == READ { &mut writable } else { &mut readable };
        side.extend_from_slice(data);
        writable.push(status);
        let queue = self.queue()?;
        let count = readable.len() + writable.len();
        loop {
            let mut locked = queue.lock();
            if locked.broken() {
                return Err(Errno::EIO);
            }
            if locked.push(&readable, &writable, request.clone()).is_ok() {
                let notify = locked.should_notify();
                drop(locked);
                if let (true, Some(doorbell)) = (notify, self.doorbell.get()) {
                    doorbell.ring();
                }
                return Ok(request);
            }
            drop(locked);
            self.wait(&self.space, || {
                let locked = queue.lock();
                locked.broken() || locked.fits(count)
            });
        }
    }

    /// Moves pages: every request is submitted before the first is waited for.
    fn transfer(&self, kind: u32, offset: u64, pages: &[PageRef]) -> Result<()> {
        let mut requests = Vec::with_capacity(pages.len().div_ceil(self.max_pages));
        let mut failed = None;
        for (at, chunk) in pages.chunks(self.max_pages).enumerate() {
            let start = offset + (at * self.max_pages * PAGE_SIZE) as u64;
            let mut data: Vec<Segment> = Vec::with_capacity(chunk.len());
            let mut left = self.capacity.saturating_sub(start);
            for page in chunk {
                let len = left.min(PAGE_SIZE as u64) as u32;
                left -= u64::from(len);
                if (len as usize) < PAGE_SIZE && kind == READ {
                    page.zero(len as usize, PAGE_SIZE - len as usize);
                }
                if len == 0 {
                    continue;
                }
                match data.last_mut() {
                    Some(last) if last.addr + last.len as usize == page.paddr() => last.len += len,
                    _ => data.push(Segment { addr: page.paddr(), len }),
                }
            }
            if data.is_empty() {
                continue;
            }
            match self.submit(kind, start / SECTOR, &data) {
                Ok(request) => requests.push(request),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        // All of them, even after a failure: the device may still write into the pages.
        for request in requests {
            if let Err(error) = self.finish(&request) {
                failed = Some(error);
            }
        }
        let Some(error) = failed else { return Ok(()) };
        if !self.complained.swap(true, Ordering::Relaxed) {
            let what = if kind == READ { "read" } else { "write" };
            crate::error!(
                "{}: the disk fails to {what} {} KiB at {} KiB; programs get EIO",
                self.name,
                pages.len() * PAGE_SIZE / 1024,
                offset / 1024
            );
        }
        Err(error)
    }

    fn finish(&self, request: &Request) -> Result<()> {
        self.wait(&request.done, || request.result.load(Ordering::Acquire) != PENDING);
        match request.result.load(Ordering::Acquire) {
            0 => Ok(()),
            2 => Err(Errno::EOPNOTSUPP),
            _ => Err(Errno::EIO),
        }
    }
}

impl Request {
    fn finish(&self) {
        // SAFETY: the status is atomic, and the header isn't touched.
        let status = unsafe { &(*self.wire.get()).status }.load(Ordering::Acquire);
        self.settle(if status == PENDING { 1 } else { status });
    }

    fn fail(&self) {
        self.settle(1);
    }

    fn settle(&self, result: u8) {
        self.result.store(result, Ordering::Release);
        self.done.wake_all(Events::IN);
    }
}

impl BlockDevice for VirtioBlk {
    fn name(&self) -> &str {
        &self.name
    }
    fn capacity(&self) -> u64 {
        self.capacity
    }
    fn read_only(&self) -> bool {
        self.read_only
    }
    fn read_pages(&self, offset: u64, pages: &[PageRef]) -> Result<()> {
        if !offset.is_multiple_of(SECTOR) {
            return Err(Errno::EINVAL);
        }
        self.transfer(READ, offset, pages)
    }
    fn write_pages(&self, offset: u64, pages: &[PageRef]) -> Result<()> {
        let end = offset.checked_add((pages.len() * PAGE_SIZE) as u64);
        if self.read_only {
            return Err(Errno::EROFS);
        }
        if !offset.is_multiple_of(SECTOR) || end.is_none_or(|end| end > self.capacity) {
            return Err(Errno::EINVAL);
        }
        self.transfer(WRITE, offset, pages)
    }
    fn flush(&self) -> Result<()> {
        if !self.can_flush {
            return Ok(());
        }
        let request = self.submit(FLUSH_REQUEST, 0, &[])?;
        self.finish(&request)
    }
    fn read_bytes(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(out.len() as u64).ok_or(Errno::EINVAL)?;
        if end > self.capacity {
            return Err(Errno::EINVAL);
        }
        let mut done = 0;
        while done < out.len() {
            let at = offset + done as u64;
            let sector = at / SECTOR * SECTOR;
            let skip = (at - sector) as usize;
            let page = PageRef::alloc(true)?;
            self.transfer(READ, sector, core::slice::from_ref(&page))?;
            let n = (PAGE_SIZE - skip).min(out.len() - done);
            page.read(skip, &mut out[done..done + n]);
            done += n;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
