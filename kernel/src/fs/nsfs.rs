//! Namespaces as files (namespaces(7), ioctl_ns(2)): what /proc/PID/ns leads to. There is one of each
//! kind, but several of mounts.

use super::inode::{Access, Inode, Metadata, Opened, Time, anonymous_dev, mode::S_IFREG};
use super::mount::Namespace;
use super::{File, FileOps, Path, anon};
use crate::errno::{Errno, Result};
use crate::io::put_user;
use crate::sync::Once;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use linux_raw_sys::general::*;

const NSFS_MAGIC: u64 = 0x6e73_6673;

/// `CLONE_NEWTIME`
const NEWTIME: u32 = 0x80;

/// A kind of namespace.
pub struct Kind {
    /// As links show it.
    pub name: &'static str,
    /// `CLONE_NEW*`
    pub flag: u32,
    /// The number of the first one, as Linux gives it.
    number: u64,
}

const fn kind(name: &'static str, flag: u32, number: u64) -> Kind {
    Kind { name, flag, number }
}

/// Mounts.
pub static MNT: Kind = kind("mnt", CLONE_NEWNS, 4_026_531_841);
/// Control groups.
pub static CGROUP: Kind = kind("cgroup", CLONE_NEWCGROUP, 4_026_531_835);
/// System V IPC and POSIX message queues.
pub static IPC: Kind = kind("ipc", CLONE_NEWIPC, 4_026_531_839);
/// Network.
pub static NET: Kind = kind("net", CLONE_NEWNET, 4_026_531_840);
/// Process numbers.
pub static PID: Kind = kind("pid", CLONE_NEWPID, 4_026_531_836);
/// Clocks.
pub static TIME: Kind = kind("time", NEWTIME, 4_026_531_834);
/// Users.
pub static USER: Kind = kind("user", CLONE_NEWUSER, 4_026_531_837);
/// Host and domain name.
pub static UTS: Kind = kind("uts", CLONE_NEWUTS, 4_026_531_838);

/// Every kind's flag.
pub const ALL: u32 = CLONE_NEWNS
    | CLONE_NEWCGROUP
    | CLONE_NEWIPC
    | CLONE_NEWNET
    | CLONE_NEWPID
    | NEWTIME
    | CLONE_NEWUSER
    | CLONE_NEWUTS;

/// A namespace.
#[derive(Clone)]
pub struct NamespaceFile {
    /// Its kind.
    pub kind: &'static Kind,
    /// Which one, of mounts.
    pub mounts: Option<Arc<Namespace>>,
}

impl NamespaceFile {
    /// The number that tells it from others of its kind.
    fn number(&self) -> u64 {
        self.kind.number + self.mounts.as_ref().map_or(0, |mounts| mounts.number())
    }

    /// As links show it.
    pub fn text(&self) -> String {
        format!("{}:[{}]", self.kind.name, self.number())
    }

    /// A place for it, for calls that want one.
    pub fn place(self) -> Path {
        anon::place_on("nsfs", NSFS_MAGIC, Arc::new(self))
    }
}

impl Inode for NamespaceFile {
    fn metadata(&self) -> Metadata {
        static DEV: Once<u64> = Once::new();
        let now = Time::now();
        Metadata {
            dev: *DEV.get_or_init(anonymous_dev),
            ino: self.number(),
            mode: S_IFREG | 0o444,
            nlink: 1,
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
            ..Metadata::default()
        }
    }

    fn access(&self) -> Access {
        Access { mode: S_IFREG | 0o444, uid: 0, gid: 0 }
    }

    fn open(self: Arc<Self>, _flags: u32, _path: &Path) -> Result<Opened> {
        Ok(Opened::Ops(self))
    }
}

impl FileOps for NamespaceFile {
    fn ioctl(&self, _file: &File, request: u32, arg: usize) -> Result<usize> {
        const NS_GET_USERNS: u32 = 0xb701;
        const NS_GET_PARENT: u32 = 0xb702;
        const NS_GET_NSTYPE: u32 = 0xb703;
        const NS_GET_OWNER_UID: u32 = 0xb704;
        let user = self.kind.flag == CLONE_NEWUSER;
        match request {
            NS_GET_NSTYPE => Ok(self.kind.flag as usize),
            // What is above the first ones is out of everybody's sight.
            NS_GET_USERNS if user => Err(Errno::EPERM),
            NS_GET_PARENT if user || self.kind.flag == CLONE_NEWPID => Err(Errno::EPERM),
            NS_GET_PARENT => Err(Errno::EINVAL),
            NS_GET_USERNS => {
                let file = Arc::new(NamespaceFile { kind: &USER, mounts: None });
                crate::syscall::install_file(File::anonymous(file, O_RDONLY), true)
            }
            NS_GET_OWNER_UID if user => put_user(arg, &0u32).map(|()| 0),
            NS_GET_OWNER_UID => Err(Errno::EINVAL),
            _ => Err(Errno::ENOTTY),
        }
    }

    fn pollable(&self) -> bool {
        false
    }

    fn inode(&self) -> Arc<dyn Inode> {
        Arc::new(self.clone())
    }

    fn describe(&self) -> String {
        self.text()
    }
}
