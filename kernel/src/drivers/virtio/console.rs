//! virtio-console, port 0: the status channel to the host ([`dock2uni_format::status`]), and what
//! the host says on it ([`dock2uni_format::control`]).

use super::queue::{Queue, Segment};
use super::{Doorbell, Handler, Transport, negotiate, ready, start_queue};
use crate::arch::{clock, cpu};
use crate::errno::Result;
use crate::sync::{IrqLock, softirq};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Write;
use dock2uni_format::control::{Control, MAX_LINE};
use dock2uni_format::status::Status;

/// Queues of port 0.
const RX: u16 = 0;
const TX: u16 = 1;
/// How long the host may take to accept a line, in nanoseconds.
const PATIENCE: u64 = 100_000_000;

struct Port {
    queue: Queue<Box<[u8]>>,
    doorbell: Doorbell,
    receive: (Queue<Box<[u8; MAX_LINE]>>, Doorbell),
    /// What has come of a line that isn't complete.
    line: Vec<u8>,
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
    let handler = Handler { function: |_| softirq::raise(softirq::Kind::Misc), arg: 0, cpu: 0 };
    let (mut receive, bell) = start_queue(&*transport, RX, 2, features, Some(handler))?;
    let (queue, doorbell) = start_queue(&*transport, TX, 16, features, None)?;
    listen(&mut receive, Box::new([0; MAX_LINE]));
    ready(&*transport);
    bell.ring();
    let (receive, line) = ((receive, bell), Vec::new());
    *PORT.lock() = Some(Port { queue, doorbell, receive, line, _transport: transport });
    Ok(())
}

fn listen(queue: &mut Queue<Box<[u8; MAX_LINE]>>, buffer: Box<[u8; MAX_LINE]>) {
    let segment = Segment::of(&*buffer);
    // One buffer fits into an empty queue; a broken queue stays silent.
    let _ = queue.push(&[], &[segment], buffer);
}

/// Calls `act` with what the host has said. Softirq context.
pub fn receive(act: &mut dyn FnMut(Control)) {
    while let Some(bytes) = received() {
        for control in bytes.split(|&byte| byte == b'\n') {
            let text = core::str::from_utf8(control).ok();
            if let Some(control) = text.and_then(Control::parse) {
                act(control);
            }
        }
    }
}

/// Whole lines that have come.
fn received() -> Option<Vec<u8>> {
    let mut port = PORT.lock();
    let Port { receive: (queue, bell), line, .. } = port.as_mut()?;
    let (buffer, len) = queue.pop().ok()??;
    let len = (len as usize).min(buffer.len());
    // A line that never ends is none: what is too long is dropped.
    if line.len() > MAX_LINE {
        line.clear();
    }
    line.extend_from_slice(&buffer[..len]);
    listen(queue, buffer);
    if queue.should_notify() {
        bell.ring();
    }
    let end = line.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    let rest = line.split_off(end);
    Some(core::mem::replace(line, rest))
}

/// Tells the host, and waits (a little) until it has heard. Without a channel nothing happens.
/// Usable in a panic, unless that came from in here.
pub fn report(status: Status<'_>) {
    if let Some(mut port) = PORT.try_lock() {
        send(&mut port, status);
    }
}

/// As [`report`], but waits for its turn: for what must not get lost. Not for panics.
pub fn tell(status: Status<'_>) {
    send(&mut PORT.lock(), status);
}

fn send(port: &mut Option<Port>, status: Status<'_>) {
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
