//! virtio-9p: messages to a file server of the host and back (virtio 1.2 has no section for it; QEMU
//! `hw/9pfs/virtio-9p-device.c`).

use super::queue::{Queue, Segment};
use super::{Doorbell, Handler, Transport, negotiate, ready, start_queue};
use crate::arch::PAGE_SIZE;
use crate::errno::{Errno, Result};
use crate::event::Events;
use crate::mm::PageRef;
use crate::sync::{IrqLock, Once, SpinLock, WaitQueue};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

/// Feature: the device says its mount tag.
const MOUNT_TAG: u64 = 1;
/// Longest tag that is looked at.
const TAG_MAX: usize = 64;
/// Length of an answer that hasn't come, and of one that never will.
const PENDING: u32 = u32::MAX;
const LOST: u32 = u32::MAX - 1;

/// One share of the host.
pub struct Channel {
    tag: String,
    queue: Once<IrqLock<Queue<Arc<Request>>>>,
    doorbell: Once<Doorbell>,
    /// Woken when requests come back while the queue was full.
    space: WaitQueue,
    _transport: Arc<dyn Transport>,
}

struct Request {
    /// The question, then room for the answer; kept until the device is done with them.
    frames: [Vec<PageRef>; 2],
    len: AtomicU32,
    done: WaitQueue,
}

static CHANNELS: SpinLock<Vec<Arc<Channel>>> = SpinLock::new(Vec::new());

/// The share of that tag.
pub fn find(tag: &str) -> Option<Arc<Channel>> {
    CHANNELS.lock().iter().find(|channel| channel.tag == tag).cloned()
}

/// Starts a share.
pub fn attach(transport: Arc<dyn Transport>) -> Result<()> {
    let features = negotiate(&*transport, MOUNT_TAG | super::feature::INDIRECT)?;
    if features & MOUNT_TAG == 0 {
        return Err(Errno::ENODEV);
    }
    let len = usize::from(transport.config_u16(0)).min(TAG_MAX);
    let tag = (0..len).map(|at| char::from(transport.config_u8(2 + at))).collect();
    let channel = Arc::new(Channel {
        tag,
        queue: Once::new(),
        doorbell: Once::new(),
        space: WaitQueue::new(),
        _transport: transport.clone(),
    });
    // It lives as long as the kernel: its interrupt handler may come at any time.
    let arg = Arc::into_raw(channel.clone()) as usize;
    let handler = Handler { function: interrupt, arg, cpu: 0 };
    let (mut queue, doorbell) = start_queue(&*transport, 0, 128, features, Some(handler))?;
    queue.enable_interrupts(1);
    // Both are set here and nowhere else.
    let _ = channel.queue.set(IrqLock::new(queue));
    let _ = channel.doorbell.set(doorbell);
    ready(&*transport);
    CHANNELS.lock().push(channel);
    Ok(())
}

fn interrupt(arg: usize) {
    // SAFETY: `attach` leaked one reference as the argument.
    let channel = unsafe { &*(arg as *const Channel) };
    channel.complete();
}

fn frames(len: usize) -> Result<Vec<PageRef>> {
    let count = len.div_ceil(PAGE_SIZE).max(1);
    let mut frames = Vec::new();
    frames.try_reserve_exact(count).map_err(|_| Errno::ENOMEM)?;
    for _ in 0..count {
        frames.push(PageRef::alloc_kernel(false)?);
    }
    Ok(frames)
}

fn segments(frames: &[PageRef], len: usize) -> Vec<Segment> {
    let part = |at: usize| (len - at * PAGE_SIZE).min(PAGE_SIZE) as u32;
    let pieces = frames.iter().enumerate();
    pieces.map(|(at, frame)| Segment { addr: frame.paddr(), len: part(at) }).collect()
}

impl Channel {
    fn complete(&self) {
        let Some(queue) = self.queue.get() else { return };
        loop {
            let mut locked = queue.lock();
            match locked.pop() {
                Ok(Some((request, len))) => {
                    drop(locked);
                    request.settle(len.min(LOST - 1));
                }
                Ok(None) => {
                    if !locked.enable_interrupts(1) {
                        break;
                    }
                }
                Err(_) => {
                    let lost: Vec<_> = locked.reclaim().collect();
                    drop(locked);
                    lost.iter().for_each(|request| request.settle(LOST));
                    break;
                }
            }
        }
        self.space.wake_all(Events::OUT);
    }

    /// Sends a message and waits for the answer, of at most `room` bytes. EIO if the device breaks.
    pub fn call(&self, message: &[u8], room: usize) -> Result<Vec<u8>> {
        let queue = self.queue.get().ok_or(Errno::ENODEV)?;
        let request = Arc::new(Request {
            frames: [frames(message.len())?, frames(room)?],
            len: AtomicU32::new(PENDING),
            done: WaitQueue::new(),
        });
        for (bytes, frame) in message.chunks(PAGE_SIZE).zip(&request.frames[0]) {
            frame.write(0, bytes);
        }
        let out = segments(&request.frames[0], message.len());
        let into = segments(&request.frames[1], room);
        let count = out.len() + into.len();
        loop {
            let mut locked = queue.lock();
            if locked.broken() {
                return Err(Errno::EIO);
            }
            if locked.push(&out, &into, request.clone()).is_ok() {
                let notify = locked.should_notify();
                drop(locked);
                if let (true, Some(doorbell)) = (notify, self.doorbell.get()) {
                    doorbell.ring();
                }
                break;
            }
            drop(locked);
            self.space.wait_uninterruptible(|| {
                let locked = queue.lock();
                (locked.broken() || locked.fits(count)).then_some(())
            });
        }
        let len = request.done.wait_uninterruptible(|| {
            let len = request.len.load(Ordering::Acquire);
            (len != PENDING).then_some(len)
        });
        let len = len as usize;
        if len > room {
            return Err(Errno::EIO);
        }
        let mut answer = Vec::new();
        answer.try_reserve_exact(len).map_err(|_| Errno::ENOMEM)?;
        answer.resize(len, 0);
        for (bytes, frame) in answer.chunks_mut(PAGE_SIZE).zip(&request.frames[1]) {
            frame.read(0, bytes);
        }
        Ok(answer)
    }
}

impl Request {
    fn settle(&self, len: u32) {
        self.len.store(len, Ordering::Release);
        self.done.wake_all(Events::IN);
    }
}
