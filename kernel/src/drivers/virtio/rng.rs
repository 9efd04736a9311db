//! virtio-rng: the host's entropy.

use super::queue::{Queue, Segment};
use super::{Transport, negotiate, ready, start_queue};
use crate::arch::{clock, cpu};
use crate::errno::{Errno, Result};
use crate::sync::SpinLock;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Bytes asked for at once.
const CHUNK: usize = 64;
/// How long the host may think, in nanoseconds.
const PATIENCE: u64 = 20_000_000;

struct Rng {
    queue: Queue<Box<[u8; CHUNK]>>,
    doorbell: super::Doorbell,
    _transport: Arc<dyn Transport>,
}

static SOURCES: SpinLock<Vec<Rng>> = SpinLock::new(Vec::new());

/// Starts a source.
pub fn attach(transport: Arc<dyn Transport>) -> Result<()> {
    let features = negotiate(&*transport, 0)?;
    let (queue, doorbell) = start_queue(&*transport, 0, 2, features, None)?;
    ready(&*transport);
    SOURCES.lock().push(Rng { queue, doorbell, _transport: transport });
    Ok(())
}

/// Random bytes from the host. ENODEV without a source, ETIMEDOUT if it doesn't answer soon.
pub fn read() -> Result<[u8; CHUNK]> {
    let mut sources = SOURCES.lock();
    let rng = sources.first_mut().ok_or(Errno::ENODEV)?;
    if rng.queue.in_flight() == 0 {
        let buf = Box::new([0; CHUNK]);
        let segment = Segment::of(&*buf);
        rng.queue.push(&[], &[segment], buf).map_err(|_| Errno::EIO)?;
        if rng.queue.should_notify() {
            rng.doorbell.ring();
        }
    }
    let deadline = clock::now_ns() + PATIENCE;
    loop {
        if let Some((buf, len)) = rng.queue.pop()? {
            return if len as usize == CHUNK { Ok(*buf) } else { Err(Errno::EIO) };
        }
        if clock::now_ns() > deadline {
            return Err(Errno::ETIMEDOUT);
        }
        cpu::relax();
    }
}
