//! Descriptors of processes: pidfd_open(2), pidfd_send_signal(2), pidfd_getfd(2); and kcmp(2).

use super::fs_path::file;
use super::{install_file, signal};
use crate::errno::{Errno, Result};
use crate::event::pidfd::PidFd;
use crate::fs::procfs;
use crate::sync::Once;
use crate::task::inspect::{Identity, may_inspect};
use crate::task::signal::{SigInfo, code, send};
use crate::task::{Process, Task, current, find_process, find_task};
use alloc::sync::Arc;
use linux_raw_sys::general::O_NONBLOCK;

/// pidfd_open(2)
pub fn open(pid: i32, flags: u32) -> Result<usize> {
    if pid <= 0 || flags & !O_NONBLOCK != 0 {
        return Err(Errno::EINVAL);
    }
    let Some(process) = find_process(pid) else {
        // A thread that doesn't lead its process has none of its own.
        return Err(if find_task(pid).is_some() { Errno::EINVAL } else { Errno::ESRCH });
    };
    install_file(PidFd::open(process, flags), true)
}

/// pidfd_send_signal(2)
pub fn send_signal(fd: i32, number: i32, info: usize, flags: u32) -> Result<usize> {
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let file = file(fd)?;
    // A directory of /proc stands for its process, too.
    let directory = file.with_inode(procfs::of_directory);
    let process = match &directory {
        Some(process) => process,
        None => PidFd::process(&file)?,
    };
    let wanted = signal::number_or_none(number)?;
    let sender = current();
    let to_self = Arc::ptr_eq(process, sender.process());
    let given = match info {
        0 => None,
        addr => {
            let given = signal::info_from(addr, number, to_self)?;
            let claimed: i32 = crate::io::get_user(addr)?;
            if claimed != number {
                return Err(Errno::EINVAL);
            }
            Some(given)
        }
    };
    if process.is_reaped() {
        return Err(Errno::ESRCH);
    }
    send::check_permission(process, wanted)?;
    if let Some(signal) = wanted {
        let uid = sender.with_creds(|creds| creds.uid);
        let own = || SigInfo::sent_by(signal, code::SI_USER, sender.pid(), uid);
        send::send(process, None, signal, given.unwrap_or_else(own), send::Force::No)?;
    }
    Ok(0)
}

/// Whether the caller may look into another process (ptrace(2), "Ptrace access mode checking").
/// EPERM if not.
pub fn check_inspect(target: &Task) -> Result<()> {
    let may = may_inspect(target.process(), &target.creds(), Identity::Real);
    if may { Ok(()) } else { Err(Errno::EPERM) }
}

fn main_thread(process: &Process) -> Result<Arc<Task>> {
    process.main_thread().ok_or(Errno::ESRCH)
}

/// pidfd_getfd(2)
pub fn getfd(pidfd: i32, target: i32, flags: u32) -> Result<usize> {
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let file = file(pidfd)?;
    let task = main_thread(PidFd::process(&file)?)?;
    check_inspect(&task)?;
    let found = task.try_files().ok_or(Errno::ESRCH)?.get_any(target)?;
    install_file(found, true)
}

/// kcmp(2): 0 if the two share the resource, else 1 or 2 by an order that tells no addresses.
pub fn kcmp(first: i32, second: i32, kind: u32, left: usize, right: usize) -> Result<usize> {
    const FILE: u32 = 0;
    const VM: u32 = 1;
    const FILES: u32 = 2;
    const FS: u32 = 3;
    const SIGHAND: u32 = 4;
    const IO: u32 = 5;
    const SYSVSEM: u32 = 6;
    let [one, other] =
        [find_task(first).ok_or(Errno::ESRCH)?, find_task(second).ok_or(Errno::ESRCH)?];
    check_inspect(&one)?;
    check_inspect(&other)?;
    let at = |task: &Task, index: usize| -> Result<usize> {
        let address = |pointer: *const u8| pointer as usize;
        Ok(match kind {
            FILE => {
                let files = task.try_files().ok_or(Errno::EBADF)?;
                let file = files.get_any(i32::try_from(index).map_err(|_| Errno::EBADF)?)?;
                address(Arc::as_ptr(&file).cast())
            }
            VM => task.mm().map_or(0, |mm| address(Arc::as_ptr(&mm).cast())),
            FILES => task.try_files().map_or(0, |files| address(Arc::as_ptr(&files).cast())),
            FS => task.try_fs().map_or(0, |fs| address(Arc::as_ptr(&fs).cast())),
            SIGHAND => {
                let actions = task.process().signal.lock().actions.clone();
                address(Arc::as_ptr(&actions).cast())
            }
            // Nobody has any.
            IO | SYSVSEM => 0,
            _ => return Err(Errno::EINVAL),
        })
    };
    let (one, other) = (at(&one, left)?, at(&other, right)?);
    if one == other {
        return Ok(0);
    }
    static KEYS: Once<[usize; 2]> = Once::new();
    let [mask, factor] = *KEYS.get_or_init(|| {
        let mut bytes = [[0; 8]; 2];
        bytes.iter_mut().for_each(|bytes| crate::random::fill(bytes));
        bytes.map(|bytes| usize::from_ne_bytes(bytes) | 1)
    });
    let order = |address: usize| (address ^ mask).wrapping_mul(factor);
    Ok(if order(one) < order(other) { 1 } else { 2 })
}
