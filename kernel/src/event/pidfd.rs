//! Descriptors of processes (pidfd_open(2)): readable once the process has ended.

use super::{Events, PollTable};
use crate::errno::{Errno, Result};
use crate::fs::{File, FileOps};
use crate::task::Process;
use alloc::string::String;
use alloc::sync::Arc;
use linux_raw_sys::general::{O_CLOEXEC, O_NONBLOCK, O_RDWR};

/// A reference to one process, which its number may outlive.
pub struct PidFd(Arc<Process>);

impl PidFd {
    /// A description; of `flags` only `O_NONBLOCK` counts.
    pub fn open(process: Arc<Process>, flags: u32) -> Arc<File> {
        File::anonymous(Arc::new(PidFd(process)), O_RDWR | flags & O_NONBLOCK & !O_CLOEXEC)
    }

    /// The process of an open file. EBADF if it is of another kind.
    pub fn process(file: &File) -> Result<&Arc<Process>> {
        Ok(&file.downcast::<PidFd>().ok_or(Errno::EBADF)?.0)
    }
}

impl FileOps for PidFd {
    fn poll(&self, _file: &File, table: &mut PollTable<'_>) -> Events {
        table.register(&self.0.exit_events);
        if self.0.is_zombie() { Events::IN | Events::RDNORM } else { Events::empty() }
    }

    fn inode(&self) -> Arc<dyn crate::fs::Inode> {
        crate::fs::anon::inode()
    }

    fn describe(&self) -> String {
        String::from("anon_inode:[pidfd]")
    }
}
