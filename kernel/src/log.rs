//! The kernel's own messages on the console. The application owns the console, so by default only
//! errors are printed; `d2u.log=debug` on the boot line prints what the kernel does while it
//! starts.

use crate::arch::console_write;
use crate::sync::IrqLock;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// How much is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// What the user must know: something failed or is missing.
    Error = 0,
    /// What the kernel does, for its developers.
    Debug = 1,
}

static LEVEL: AtomicU8 = AtomicU8::new(Level::Error as u8);
static TRACE: AtomicBool = AtomicBool::new(false);
static LOCK: IrqLock<()> = IrqLock::new(());

/// Sets the level, whether syscalls are traced, and whether what programs use is told to the host,
/// from the boot line.
pub fn configure(cmdline: &str) {
    for word in cmdline.split_ascii_whitespace() {
        match word {
            "d2u.log=debug" => LEVEL.store(Level::Debug as u8, Ordering::Relaxed),
            "d2u.witness" => crate::witness::start(),
            "d2u.trace" => TRACE.store(true, Ordering::Relaxed),
            _ => {}
        }
    }
}

/// Whether messages of this level are printed.
pub fn enabled(level: Level) -> bool {
    level as u8 <= LEVEL.load(Ordering::Relaxed)
}

/// Whether syscalls are printed as strace does (`d2u.trace`).
#[inline]
pub fn tracing() -> bool {
    TRACE.load(Ordering::Relaxed)
}

/// Prints one message and a line end. Callable from anywhere.
pub fn print(message: fmt::Arguments<'_>) {
    let _guard = LOCK.lock();
    let _ = writeln!(Console, "{message}");
}

/// Prints without a lock and without a line end, for panics.
pub fn emergency(message: fmt::Arguments<'_>) {
    let _ = Console.write_fmt(message);
}

/// How often a message is printed that programs cause: ten times in five seconds, as Linux has it for
/// those. What a crowd of crashing programs says would otherwise bury everything else.
pub struct Limit(IrqLock<Window>);

struct Window {
    since: u64,
    printed: u32,
    missed: u32,
}

impl Limit {
    const SPAN: u64 = 5_000_000_000;
    const MOST: u32 = 10;

    /// Nothing was printed yet.
    pub const fn new() -> Limit {
        Limit(IrqLock::new(Window { since: 0, printed: 0, missed: 0 }))
    }

    /// Whether a message may be printed at `now`, in nanoseconds: with how many were not since the
    /// last one.
    pub fn pass(&self, now: u64) -> Option<u32> {
        let mut window = self.0.lock();
        if now.saturating_sub(window.since) >= Self::SPAN {
            (window.since, window.printed) = (now, 0);
        }
        if window.printed >= Self::MOST {
            window.missed = window.missed.saturating_add(1);
            return None;
        }
        window.printed += 1;
        Some(core::mem::take(&mut window.missed))
    }

    /// As [`pass`](Limit::pass), now; says first how many `what` were left out.
    pub fn allows(&self, what: &str) -> bool {
        match self.pass(crate::time::now_ns()) {
            Some(0) => true,
            Some(missed) => {
                crate::error!("{missed} more {what} were not printed");
                true
            }
            None => false,
        }
    }
}

impl Default for Limit {
    fn default() -> Self {
        Limit::new()
    }
}

struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // A serial console wants the carriage return that a terminal driver would have added.
        let mut rest = text.as_bytes();
        while let Some(at) = rest.iter().position(|&byte| byte == b'\n') {
            console_write(&rest[..at]);
            console_write(b"\r\n");
            rest = &rest[at + 1..];
        }
        console_write(rest);
        Ok(())
    }
}

/// Prints a message that the user must see: `error!("virtio: {what} failed")`.
#[macro_export]
macro_rules! error {
    ($($arg:tt)*) => { $crate::log::print(format_args!($($arg)*)) };
}

/// Prints a message if `d2u.log=debug` is on the boot line.
#[macro_export]
macro_rules! debug {
    ($($arg:tt)*) => {
        if $crate::log::enabled($crate::log::Level::Debug) {
            $crate::log::print(format_args!($($arg)*));
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_counts_what_it_keeps_back() {
        let limit = Limit::new();
        let passed = (0..25).filter(|_| limit.pass(7_000_000_000).is_some()).count();
        assert_eq!(passed, 10);
        assert_eq!(limit.pass(11_999_999_999), None);
        assert_eq!(limit.pass(12_000_000_000), Some(16));
        assert_eq!(limit.pass(12_000_000_001), Some(0));
    }
}
