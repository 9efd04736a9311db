//! Controlling terminals (credentials(7), tty_ioctl(4)).

use super::{Process, family, pid};
use crate::errno::{Errno, Result};
use alloc::sync::Arc;

/// What a session needs of its terminal; implemented by the terminal driver.
pub trait Terminal: Send + Sync {
    /// A number that tells terminals apart (`tty_nr` of /proc/PID/stat).
    fn device(&self) -> u64;
    /// The session gives the terminal up, because its leader ended or asked for it: SIGHUP to the
    /// foreground group (and SIGCONT, unless the leader ended), and the terminal is free.
    fn disowned(&self, ended: bool);
    /// The foreground process group.
    fn foreground(&self) -> i32;
    /// As `Any`, so that the driver finds its own type again.
    fn as_any(&self) -> &dyn core::any::Any;
}

impl Process {
    /// The controlling terminal.
    pub fn terminal(&self) -> Option<Arc<dyn Terminal>> {
        self.terminal.lock().clone()
    }
}

/// Makes `terminal` the controlling terminal of the caller's session (TIOCSCTTY). EPERM unless the
/// caller leads its session and has none.
pub fn acquire_terminal(leader: &Arc<Process>, terminal: Arc<dyn Terminal>) -> Result<()> {
    let _family = family::lock();
    if leader.sid() != leader.pid() || leader.terminal.lock().is_some() {
        return Err(Errno::EPERM);
    }
    for member in pid::processes() {
        if member.sid() == leader.sid() {
            *member.terminal.lock() = Some(terminal.clone());
        }
    }
    Ok(())
}

/// Gives a session leader that does not run yet its controlling terminal.
pub(super) fn grant_terminal(leader: &Process, terminal: Arc<dyn Terminal>) {
    *leader.terminal.lock() = Some(terminal);
}

/// Takes the controlling terminal from every member of a session (TIOCNOTTY by the leader,
/// hang-up).
pub fn release_terminal(sid: i32) {
    let _family = family::lock();
    for member in pid::processes() {
        if member.sid() == sid {
            let old = member.terminal.lock().take();
            drop(old);
        }
    }
}

/// Takes the controlling terminal from one process (TIOCNOTTY by another than the leader).
pub fn drop_terminal(process: &Process) {
    drop(process.terminal.lock().take());
}
