//! How the machine ends, and what the host is told.

use crate::arch;
use crate::task::exit::MainExit;
use dock2uni_format::status::Status;

/// Learns when the main process ends.
pub(super) struct MainProcess;

impl MainExit for MainProcess {
    /// Tells the host the status as a container's would be told, and powers off.
    fn main_exited(&self, status: i32) {
        // Before the host learns of the end: what the application has written is durable then.
        crate::fs::mount::close_all();
        if let Some(calls) = crate::syscall::lock::recorded() {
            report(Status::Syscalls(calls));
        }
        let signal = status & 0x7f;
        if signal == 0 {
            let code = (status >> 8) as u8;
            report(Status::Exit(code));
            arch::power::power_off(code)
        }
        report(Status::Signal(signal as u8));
        // As a shell says it.
        arch::power::power_off(128 + signal as u8)
    }
}

/// Tells the host over the status channel, if it listens.
pub(super) fn report(status: Status<'_>) {
    crate::drivers::virtio::console::report(status);
}

/// Last call of a panic, to tell the host. `what` fits on a line.
pub fn panicked(what: &str) {
    report(Status::Panic(what));
}
