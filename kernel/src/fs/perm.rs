//! Permission checks (path_resolution(7), credentials(7), capabilities(7)).

use super::Inode;
use super::inode::{Access, mode::*};
use crate::errno::{Errno, Result};
use alloc::sync::Arc;

/// Permission to execute a file or to pass through a directory.
pub const EXEC: u32 = 1;
/// Permission to write.
pub const WRITE: u32 = 2;
/// Permission to read.
pub const READ: u32 = 4;

/// Capabilities that filesystems look at, by their numbers in capabilities(7).
pub mod cap {
    #![allow(missing_docs, reason = "the names are those of capabilities(7)")]
    pub const CHOWN: u32 = 0;
    pub const DAC_OVERRIDE: u32 = 1;
    pub const DAC_READ_SEARCH: u32 = 2;
    pub const FOWNER: u32 = 3;
    pub const FSETID: u32 = 4;
    pub const SYS_CHROOT: u32 = 18;
    pub const SYS_ADMIN: u32 = 21;
    pub const SYS_RESOURCE: u32 = 24;
    pub const MKNOD: u32 = 27;
    pub const LEASE: u32 = 28;
    pub const SETFCAP: u32 = 31;
}

/// Who asks.
pub trait Subject {
    /// User ID for filesystem checks.
    fn fsuid(&self) -> u32;
    /// Group ID for filesystem checks.
    fn fsgid(&self) -> u32;
    /// Whether `gid` is a supplementary group.
    fn in_groups(&self, gid: u32) -> bool;
    /// Whether the capability is effective.
    fn capable(&self, cap: u32) -> bool;
}

/// The kernel itself: may do everything.
pub struct Kernel;

impl Subject for Kernel {
    fn fsuid(&self) -> u32 {
        0
    }
    fn fsgid(&self) -> u32 {
        0
    }
    fn in_groups(&self, _gid: u32) -> bool {
        false
    }
    fn capable(&self, _cap: u32) -> bool {
        true
    }
}

/// Checks `want` ([`READ`] | [`WRITE`] | [`EXEC`]) against an inode. EACCES if refused.
pub fn check(who: &dyn Subject, inode: &Arc<dyn Inode>, want: u32) -> Result<()> {
    check_access(who, inode.access(), want)
}

/// As [`check`], with the attributes at hand.
pub fn check_access(who: &dyn Subject, access: Access, want: u32) -> Result<()> {
    let Access { mode, uid, gid } = access;
    let granted = if who.fsuid() == uid {
        mode >> 6
    } else if who.fsgid() == gid || who.in_groups(gid) {
        mode >> 3
    } else {
        mode
    };
    if want & !granted & 7 == 0 {
        return Ok(());
    }
    let dir = mode & S_IFMT == S_IFDIR;
    // Root may execute a file only if somebody may.
    if (dir || want & EXEC == 0 || mode & 0o111 != 0) && who.capable(cap::DAC_OVERRIDE) {
        return Ok(());
    }
    let harmless = want == READ || dir && want & WRITE == 0;
    if harmless && who.capable(cap::DAC_READ_SEARCH) {
        return Ok(());
    }
    Err(Errno::EACCES)
}

/// Whether the caller owns the file or may act as if.
pub fn owner_or_capable(who: &dyn Subject, access: Access) -> bool {
    who.fsuid() == access.uid || who.capable(cap::FOWNER)
}

/// Whether a group is one of the caller's.
pub fn in_group(who: &dyn Subject, gid: u32) -> bool {
    who.fsgid() == gid || who.in_groups(gid)
}

/// Checks that the caller may remove or rename `victim` in `dir`: write and search permission, and
/// in a sticky directory ownership of either. EACCES or EPERM.
pub fn check_delete(
    who: &dyn Subject,
    dir: &Arc<dyn Inode>,
    victim: &Arc<dyn Inode>,
) -> Result<()> {
    let access = dir.access();
    check_access(who, access, WRITE | EXEC)?;
    if access.mode & S_ISVTX != 0
        && access.uid != who.fsuid()
        && victim.access().uid != who.fsuid()
        && !who.capable(cap::FOWNER)
    {
        return Err(Errno::EPERM);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct User(u32, u32, &'static [u32]);
    impl Subject for User {
        fn fsuid(&self) -> u32 {
            self.0
        }
        fn fsgid(&self) -> u32 {
            self.1
        }
        fn in_groups(&self, gid: u32) -> bool {
            self.2.contains(&gid)
        }
        fn capable(&self, _cap: u32) -> bool {
            self.0 == 0
        }
    }

    #[test]
    fn the_first_class_that_matches_decides() {
        let access = |mode| Access { mode: S_IFREG | mode, uid: 5, gid: 50 };
        let table = [
            (User(5, 1, &[]), 0o077, READ, false),
            (User(5, 1, &[]), 0o400, READ, true),
            (User(6, 50, &[]), 0o707, READ, false),
            (User(6, 1, &[50]), 0o040, READ, true),
            (User(6, 1, &[]), 0o004, READ | WRITE, false),
            (User(0, 0, &[]), 0o000, READ | WRITE, true),
            (User(0, 0, &[]), 0o666, EXEC, false),
            (User(0, 0, &[]), 0o010, EXEC, true),
        ];
        for (who, mode, want, ok) in table {
            assert_eq!(check_access(&who, access(mode), want).is_ok(), ok, "{mode:o} {want}");
        }
    }
}
