//! signalfd(2).

use super::{Events, PollTable};
use crate::errno::{Errno, Result};
use crate::fs::{File, FileOps};
use crate::io::IoDst;
use crate::sync::{SpinLock, WaitMode};
use crate::task::current;
use crate::task::signal::{SigInfo, SigSet, pending_for_current, take_for_current};
use alloc::string::String;
use alloc::sync::Arc;

/// Size of `struct signalfd_siginfo`.
const INFO_SIZE: usize = 128;

/// Reads the signals that the *reading* task has pending, so it means something else after a fork
/// or when passed on.
pub struct SignalFd {
    mask: SpinLock<SigSet>,
}

impl SignalFd {
    /// A descriptor for the signals in `mask`.
    pub fn new(mask: SigSet) -> Arc<SignalFd> {
        Arc::new(SignalFd { mask: SpinLock::new(mask.blockable()) })
    }

    /// Replaces the set.
    pub fn set_mask(&self, mask: SigSet) {
        *self.mask.lock() = mask.blockable();
        // Somebody may be waiting for one of the new ones.
        current().process().signal_events.wake_all(Events::IN);
    }

    fn take(&self) -> Option<SigInfo> {
        let mask = *self.mask.lock();
        take_for_current(mask)
    }
}

/// `struct signalfd_siginfo` of a signal.
fn describe(info: &SigInfo) -> [u8; INFO_SIZE] {
    use crate::task::signal::code::*;
    let mut out = [0; INFO_SIZE];
    let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &info.signo.to_ne_bytes());
    put(4, &info.errno.to_ne_bytes());
    put(8, &info.code.to_ne_bytes());
    let [first, second, third, fourth] = info.body;
    let (low, high) = ((first as u32).to_ne_bytes(), ((first >> 32) as u32).to_ne_bytes());
    match info.code {
        SI_TIMER => {
            put(24, &low); // ssi_tid
            put(32, &high); // ssi_overrun
            put(44, &(second as u32).to_ne_bytes()); // ssi_int
            put(48, &second.to_ne_bytes()); // ssi_ptr
        }
        CLD_EXITED..=CLD_CONTINUED if info.signo == linux_raw_sys::general::SIGCHLD as i32 => {
            put(12, &low);
            put(16, &high);
            put(40, &(second as u32).to_ne_bytes()); // ssi_status
            put(56, &third.to_ne_bytes()); // ssi_utime
            put(64, &fourth.to_ne_bytes()); // ssi_stime
        }
        _ => {
            put(12, &low); // ssi_pid
            put(16, &high); // ssi_uid
            put(44, &(second as u32).to_ne_bytes());
            put(48, &second.to_ne_bytes());
        }
    }
    out
}

impl FileOps for SignalFd {
    fn read(&self, file: &File, dst: &mut IoDst<'_>) -> Result<usize> {
        if dst.remaining() < INFO_SIZE {
            return Err(Errno::EINVAL);
        }
        let mut next = if file.nonblocking() {
            Some(self.take().ok_or(Errno::EAGAIN)?)
        } else {
            let events = &current().process().signal_events;
            let first = events.wait(WaitMode::Interruptible, None, || self.take());
            Some(first.map_err(|_| Errno::ERESTARTSYS)?)
        };
        let mut total = 0;
        while let Some(info) = next {
            match dst.write(&describe(&info)) {
                Ok(INFO_SIZE) => total += INFO_SIZE,
                _ if total > 0 => break,
                _ => return Err(Errno::EFAULT),
            }
            next = if dst.remaining() >= INFO_SIZE { self.take() } else { None };
        }
        Ok(total)
    }

    fn poll(&self, _file: &File, table: &mut PollTable<'_>) -> Events {
        table.register(&current().process().signal_events);
        let wanted = pending_for_current().and(*self.mask.lock());
        if wanted.is_empty() { Events::empty() } else { Events::IN }
    }

    fn inode(&self) -> Arc<dyn crate::fs::Inode> {
        crate::fs::anon::inode()
    }

    fn describe(&self) -> String {
        String::from("anon_inode:[signalfd]")
    }
}
