//! System calls.

mod aio;
pub mod cred;
pub mod dispatch;
mod entry;
pub mod event;
pub mod fs_attr;
pub mod fs_control;
pub mod fs_dir;
pub mod fs_handle;
pub mod fs_io;
pub mod fs_mount;
pub mod fs_notify;
pub mod fs_open;
pub mod fs_path;
pub mod fs_space;
pub mod fs_stat;
pub mod futex;
pub mod keys;
pub mod lock;
pub mod misc;
pub mod mm;
pub mod mqueue;
pub mod msg;
pub mod net;
pub mod numa;
pub mod pidfd;
pub mod process;
pub mod ptrace;
pub mod sched;
pub mod sem;
pub mod shm;
pub mod signal;
mod system;
pub mod time;

pub use dock2uni_format::syscalls::name;
pub use entry::enter;

use crate::errno::Result;
use crate::fs::File;
use crate::fs::fdtable::Reserved;
use crate::fs::hooks;
use alloc::sync::Arc;

/// Keeps a descriptor of the current task for a file that a call is about to open. EMFILE if it has
/// as many as it may.
pub fn reserve_descriptor() -> Result<Reserved> {
    crate::task::current().files().reserve(hooks::descriptor_limit())
}

/// Gives a file the lowest free descriptor of the current task.
pub fn install_file(file: Arc<File>, cloexec: bool) -> Result<usize> {
    let files = crate::task::current().files();
    Ok(files.alloc(file, cloexec, hooks::descriptor_limit())? as usize)
}
