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
