//! virtio-console, port 0, output only: the status channel to the host
//! ([`dock2uni_format::status`]).

use super::queue::{Queue, Segment};
use super::{Transport, negotiate, ready, start_queue};
use crate::arch::{clock, cpu};
use crate::errno::Result;
use crate::sync::IrqLock;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt::Write;
use dock2uni_format::status::Status;

/// Transmit queue of port 0.
const TX: u16 = 1;
/// How long the host may take to accept a line, in nanoseconds.
const PATIENCE: u64 = 100_000_000;

struct Port {
    queue: Queue<Box<[u8]>>,
    doorbell: super::Doorbell,
    _transport: Arc<dyn Transport>,
}

static PORT: IrqLock<Option<Port>> = IrqLock::new(None);

/// Starts the channel. Only the first device counts.
pub fn attach(transport: Arc<dyn Transport>) -> Result<()> {
    if PORT.lock().is_some() {
        return Ok(());
    }
    // Without VIRTIO_CONSOLE_F_MULTIPORT port 0 is open from the start.
    let features = negotiate(&*transport, 0)?;
    // The receive queue must exist for some devices to work, though nothing is ever received.
    let (receive, _) = start_queue::<()>(&*transport, 0, 2, features, None)?;
    core::mem::forget(receive);
    let (queue, doorbell) = start_queue(&*transport, TX, 16, features, None)?;
    ready(&*transport);
    *PORT.lock() = Some(Port { queue, doorbell, _transport: transport });
    Ok(())
}

/// Tells the host, and waits (a little) until it has heard. Without a channel nothing happens.
/// Usable in a panic, unless that came from in here.
pub fn report(status: Status<'_>) {
    let Some(mut port) = PORT.try_lock() else { return };
    let Some(port) = port.as_mut() else { return };
    let mut line = alloc::string::String::new();
    // Writing to a string can't fail.
    let _ = writeln!(line, "{status}");
    let line = line.into_bytes().into_boxed_slice();
    let segment = Segment::of(&line);
    if port.queue.push(&[segment], &[], line).is_err() {
        return;
    }
    if port.queue.should_notify() {
        port.doorbell.ring();
    }
    let deadline = clock::now_ns() + PATIENCE;
    while port.queue.in_flight() > 0 && clock::now_ns() < deadline {
        match port.queue.pop() {
            Ok(_) => cpu::relax(),
            Err(_) => return,
        }
    }
}
