//! The serial line from the host's terminal: a terminal of its own with `-t`, else what standard
//! input reads.
//!
//! Bytes wait in a ring between the interrupt and whoever takes them. A full ring stops the serial
//! port, and that stops the host: nothing is lost.

use super::ROLES;
use super::terminal::{Output, Tty};
use crate::drivers::console;
use crate::errno::{Errno, Result};
use crate::event::Events;
use crate::fs::Path;
use crate::fs::inode::{Opened, make_dev};
use crate::sync::{IrqLock, Once, SpinLock, WaitQueue, softirq};
use alloc::sync::Arc;
use dock2uni_format::control::Control;

#[cfg(guest)]
use crate::arch::serial;

/// What may wait.
const RING: usize = 2048;

struct Input {
    ring: [u8; RING],
    start: usize,
    len: usize,
    /// Bytes that have arrived since boot.
    arrived: u64,
    /// How many will have at the end, once the host has said so.
    end: Option<u64>,
    /// The port waits for room.
    held: bool,
}

static INPUT: IrqLock<Input> =
    IrqLock::new(Input { ring: [0; RING], start: 0, len: 0, arrived: 0, end: None, held: false });
static TERMINAL: Once<Arc<Tty>> = Once::new();
/// Woken when there is something to read for those who read the console as a stream.
static READABLE: Once<Arc<WaitQueue>> = Once::new();

/// Starts listening; `terminal`: as a terminal. Once, when the main process is about to start.
pub fn init(terminal: bool) {
    let _ = READABLE.set(Arc::default());
    if terminal {
        let tty = Tty::new(make_dev(ROLES, 1), "console".into(), Arc::new(Line::default()));
        let _ = TERMINAL.set(tty);
    }
    softirq::register(softirq::Kind::Misc, look);
    #[cfg(guest)]
    serial::on_receive(interrupt);
    // What the host has said so far, the window's size above all.
    softirq::raise(softirq::Kind::Misc);
}

/// The console as a terminal, if it is one.
pub fn terminal() -> Option<&'static Arc<Tty>> {
    TERMINAL.get()
}

/// Opens /dev/console.
pub(super) fn open(flags: u32, _path: &Path) -> Result<Opened> {
    match TERMINAL.get() {
        Some(tty) => Ok(Opened::Ops(tty.open(flags)?)),
        None => Ok(Opened::Ops(console::stream())),
    }
}

/// The host's terminal.
#[derive(Default)]
struct Line(SpinLock<()>);

impl Output for Line {
    fn write(&self, bytes: &[u8]) {
        if !bytes.is_empty() {
            let _one = self.0.lock();
            console::emit(bytes);
        }
    }
    fn room(&self) -> usize {
        // The port takes everything; it is the writer who waits.
        usize::MAX
    }
    fn input_taken(&self) {
        softirq::raise(softirq::Kind::Misc);
    }
}

#[cfg(guest)]
fn interrupt() {
    fetch(&mut INPUT.lock());
    softirq::raise(softirq::Kind::Misc);
}

/// Moves what the port has into the ring.
#[cfg(guest)]
fn fetch(input: &mut Input) {
    while input.len < RING {
        let Some(byte) = serial::read() else { break };
        let at = (input.start + input.len) % RING;
        input.ring[at] = byte;
        input.len += 1;
        input.arrived += 1;
    }
    let full = input.len == RING;
    if full != input.held {
        input.held = full;
        serial::accept(!full);
    }
}

#[cfg(not(guest))]
fn fetch(_input: &mut Input) {}

impl Input {
    /// Copies the first bytes of the ring.
    fn peek(&self, out: &mut [u8]) -> usize {
        let n = out.len().min(self.len);
        for (at, byte) in out[..n].iter_mut().enumerate() {
            *byte = self.ring[(self.start + at) % RING];
        }
        n
    }

    /// Drops the first bytes of the ring, and lets the port go on if it waited for room.
    fn consume(&mut self, n: usize) {
        self.start = (self.start + n) % RING;
        self.len -= n;
        if self.held {
            fetch(self);
        }
    }
}

/// Bytes for one who reads the console as a stream; `Some(0)` at the end, `None` if there are none
/// yet.
pub(crate) fn read(out: &mut [u8]) -> Option<usize> {
    let mut input = INPUT.lock();
    let n = input.peek(out);
    input.consume(n);
    let ended = input.end.is_some_and(|end| input.arrived >= end);
    (n > 0 || out.is_empty() || ended).then_some(n)
}

/// Whether [`read`] would return something.
pub(crate) fn readable() -> bool {
    let input = INPUT.lock();
    input.len > 0 || input.end.is_some_and(|end| input.arrived >= end)
}

/// Softirq: passes on what has come.
fn look() {
    crate::drivers::virtio::console::receive(&mut obey);
    match TERMINAL.get() {
        Some(tty) => {
            // One CPU at a time, so that what is typed stays in order.
            static TYPING: SpinLock<()> = SpinLock::new(());
            let _one = TYPING.lock();
            let mut piece = [0; 64];
            loop {
                let n = INPUT.lock().peek(&mut piece);
                let taken = if n > 0 { tty.receive(&piece[..n]) } else { 0 };
                if taken == 0 {
                    break;
                }
                INPUT.lock().consume(taken);
            }
        }
        None if readable() => {
            if let Some(queue) = READABLE.get() {
                queue.wake_all(Events::IN | Events::RDNORM);
            }
        }
        None => {}
    }
}

/// What the host asks for.
fn obey(control: Control) {
    match control {
        Control::Size { rows, columns } => {
            if let Some(tty) = TERMINAL.get() {
                tty.resize([rows, columns, 0, 0]);
            }
        }
        Control::InputEnd { bytes } => INPUT.lock().end = Some(bytes),
    }
}

/// The queue of stream readers. ENXIO before the console listens.
pub(crate) fn queue() -> Result<&'static Arc<WaitQueue>> {
    READABLE.get().ok_or(Errno::ENXIO)
}
