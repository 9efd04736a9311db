//! What a filesystem shows of its files: inodes and their attributes.

use super::{FileOps, Path};
use crate::errno::{Errno, Result};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;

/// Bits of `st_mode` (inode(7)).
pub mod mode {
    pub use linux_raw_sys::general::{
        S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK, S_ISGID, S_ISUID,
        S_ISVTX,
    };
}
use mode::S_IFMT;

/// Longest file name in bytes.
pub const NAME_MAX: usize = 255;
/// Longest path in bytes, terminator included.
pub const PATH_MAX: usize = 4096;
/// Most names of one file.
pub const LINK_MAX: u32 = 65_000;

/// A point in time: seconds since the epoch (may be negative) and nanoseconds after them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Seconds since 1970-01-01 00:00:00 UTC.
    pub secs: i64,
    /// Nanoseconds, below 1,000,000,000.
    pub nanos: u32,
}

impl Time {
    /// The wall clock now.
    pub fn now() -> Time {
        let ns = crate::time::realtime_ns();
        Time { secs: (ns / 1_000_000_000) as i64, nanos: (ns % 1_000_000_000) as u32 }
    }
}

/// Type of a file, with the numbers of `d_type` (readdir(3)), which are those of `st_mode >> 12`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FileType {
    /// FIFO.
    Fifo = 1,
    /// Character device.
    CharDevice = 2,
    /// Directory.
    Directory = 4,
    /// Block device.
    BlockDevice = 6,
    /// Regular file.
    Regular = 8,
    /// Symbolic link.
    Symlink = 10,
    /// Socket.
    Socket = 12,
}

impl FileType {
    /// The type that a mode says; a mode that says none is a regular file (mknod(2)).
    pub fn of_mode(mode: u32) -> FileType {
        match mode & S_IFMT {
            mode::S_IFIFO => FileType::Fifo,
            mode::S_IFCHR => FileType::CharDevice,
            mode::S_IFDIR => FileType::Directory,
            mode::S_IFBLK => FileType::BlockDevice,
            mode::S_IFLNK => FileType::Symlink,
            mode::S_IFSOCK => FileType::Socket,
            _ => FileType::Regular,
        }
    }

    /// The bits for `st_mode`.
    pub fn mode(self) -> u32 {
        (self as u32) << 12
    }
}

/// What stat(2) tells.
#[derive(Clone, Copy, Debug, Default)]
pub struct Metadata {
    /// Device number of the filesystem.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Type and permissions.
    pub mode: u32,
    /// Number of names.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node.
    pub rdev: u64,
    /// Length in bytes.
    pub size: u64,
    /// Space taken, in units of 512 bytes.
    pub blocks: u64,
    /// Last access.
    pub atime: Time,
    /// Last change of contents.
    pub mtime: Time,
    /// Last change of attributes.
    pub ctime: Time,
    /// Creation.
    pub btime: Time,
}

/// Who may do what: the part of the attributes that permission checks read.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// Type and permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Attributes to change; `None` leaves one as it is. Permission has been checked by the caller.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change {
    /// Permission bits (type bits are ignored).
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Last access.
    pub atime: Option<Time>,
    /// Last change of contents.
    pub mtime: Option<Time>,
}

/// What a new file gets.
#[derive(Clone, Copy, Debug)]
pub struct NewNode {
    /// Type and permissions, umask applied.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node, else 0.
    pub rdev: u64,
}

/// What statfs(2) tells.
#[derive(Clone, Copy, Debug, Default)]
pub struct StatFs {
    /// Magic number of the filesystem type.
    pub kind: u64,
    /// Preferred transfer size in bytes.
    pub bsize: u64,
    /// Size in blocks.
    pub blocks: u64,
    /// Free blocks.
    pub bfree: u64,
    /// Inodes.
    pub files: u64,
    /// Free inodes.
    pub ffree: u64,
}

/// How setxattr(2) treats an attribute that exists or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XattrMode {
    /// Set in either case.
    Any,
    /// `XATTR_CREATE`: EEXIST if it exists.
    Create,
    /// `XATTR_REPLACE`: ENODATA if it doesn't.
    Replace,
}

/// A file, directory, link or device of a filesystem.
///
/// Methods with names are called on directories by the name layer ([`super::ops`]), which has
/// checked permissions and name length, and which holds the directory's lock, so a filesystem sees
/// one change or lookup of a directory at a time. Defaults are the errors of a file that can't do
/// it.
pub trait Inode: Any + Send + Sync {
    /// Every attribute.
    fn metadata(&self) -> Metadata;

    /// The attributes that permission checks need.
    fn access(&self) -> Access {
        let meta = self.metadata();
        Access { mode: meta.mode, uid: meta.uid, gid: meta.gid }
    }

    /// Changes attributes; the change time becomes now.
    fn change(&self, _change: &Change) -> Result<()> {
        Err(Errno::EPERM)
    }

    /// Whether the name layer may remember names found (or not found) in this directory.
    fn remember_names(&self) -> bool {
        true
    }

    /// The file of that name.
    fn lookup(&self, _name: &[u8]) -> Result<Arc<dyn Inode>> {
        Err(Errno::ENOTDIR)
    }

    /// Makes a regular file, directory, FIFO, socket or device node. The name doesn't exist.
    fn create(&self, _name: &[u8], _node: &NewNode) -> Result<Arc<dyn Inode>> {
        Err(Errno::EROFS)
    }

    /// Makes a regular file without a name (`O_TMPFILE`).
    fn create_unnamed(&self, _node: &NewNode) -> Result<Arc<dyn Inode>> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Makes a symbolic link. The name doesn't exist.
    fn symlink(&self, _name: &[u8], _target: &[u8], _node: &NewNode) -> Result<Arc<dyn Inode>> {
        Err(Errno::EROFS)
    }

    /// Gives `inode`, of the same filesystem, another name. The name doesn't exist.
    fn link(&self, _name: &[u8], _inode: &Arc<dyn Inode>) -> Result<()> {
        Err(Errno::EROFS)
    }

    /// Removes the name of a file that isn't a directory.
    fn unlink(&self, _name: &[u8], _inode: &Arc<dyn Inode>) -> Result<()> {
        Err(Errno::EROFS)
    }

    /// Removes an empty directory.
    fn rmdir(&self, _name: &[u8], _inode: &Arc<dyn Inode>) -> Result<()> {
        Err(Errno::EROFS)
    }

    /// Moves a name, replacing `target`'s if there is one (types and ancestry are checked; whether
    /// a target directory is empty is not). With `exchange` the two names swap.
    fn rename(&self, _move: &Rename<'_>) -> Result<()> {
        Err(Errno::EROFS)
    }

    /// The text of a symbolic link.
    fn read_link(&self) -> Result<Vec<u8>> {
        Err(Errno::EINVAL)
    }

    /// Where a link leads that isn't followed by its text (`/proc/PID/fd/N`, `exe`, `cwd`, `root`).
    fn magic_link(&self) -> Option<Result<Path>> {
        None
    }

    /// The operations of a new open file description. `path` is the name it is opened by.
    fn open(self: Arc<Self>, _flags: u32, _path: &Path) -> Result<Opened> {
        Err(Errno::ENXIO)
    }

    /// Sets the length of a regular file.
    fn truncate(&self, _len: u64) -> Result<()> {
        Err(Errno::EINVAL)
    }

    /// Value of an extended attribute; `None` if it isn't set.
    fn xattr(&self, _name: &[u8]) -> Result<Option<Vec<u8>>> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Sets an extended attribute.
    fn set_xattr(&self, _name: &[u8], _value: &[u8], _mode: XattrMode) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Removes an extended attribute.
    fn remove_xattr(&self, _name: &[u8]) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Names of the extended attributes, each followed by a NUL.
    fn list_xattrs(&self) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }
}

/// What an inode's `open` gives.
pub enum Opened {
    /// Operations for a new description of this name.
    Ops(Arc<dyn FileOps>),
    /// A description that exists already (`/dev/fd/N` of some devices, the terminal behind
    /// `/dev/tty`).
    File(Arc<super::File>),
}

/// One move of a name.
pub struct Rename<'a> {
    /// Name in the directory that the call is made on.
    pub old_name: &'a [u8],
    /// What it names.
    pub inode: &'a Arc<dyn Inode>,
    /// The directory that gets the name; of the same filesystem.
    pub new_dir: &'a Arc<dyn Inode>,
    /// The name it gets.
    pub new_name: &'a [u8],
    /// What has that name now.
    pub target: Option<&'a Arc<dyn Inode>>,
    /// `RENAME_EXCHANGE`: the two names swap.
    pub exchange: bool,
}

impl dyn Inode {
    /// Type of the file.
    pub fn file_type(&self) -> FileType {
        FileType::of_mode(self.access().mode)
    }

    /// The inode as a `T`.
    pub fn downcast<T: Inode>(&self) -> Option<&T> {
        (self as &dyn Any).downcast_ref()
    }
}

/// A number that tells inodes apart for as long as the inode lives.
pub fn identity(inode: &Arc<dyn Inode>) -> usize {
    Arc::as_ptr(inode).cast::<u8>() as usize
}

/// A mounted filesystem.
pub trait FileSystem: Send + Sync {
    /// Type name, as in /proc/mounts.
    fn name(&self) -> &'static str;
    /// The root directory.
    fn root(&self) -> Arc<dyn Inode>;
    /// Size and usage.
    fn statfs(&self) -> StatFs;
    /// Device number, as `st_dev` has it.
    fn dev(&self) -> u64;
    /// What a file is found by as long as it exists, whatever it is called
    /// (name_to_handle_at(2)); `None` if files aren't found that way.
    fn handle(&self, _inode: &Arc<dyn Inode>) -> Option<[u32; 3]> {
        None
    }
    /// The file of a handle, which may be anything. ESTALE if there is none.
    fn by_handle(&self, _handle: [u32; 3]) -> Result<Arc<dyn Inode>> {
        Err(Errno::ESTALE)
    }
    /// Makes all changes durable (sync(2)).
    fn sync(&self) -> Result<()> {
        Ok(())
    }
    /// The machine goes off: as [`sync`](FileSystem::sync), and no changes after that.
    fn close(&self) -> Result<()> {
        Ok(())
    }
    /// Changes options (mount(2): `MS_REMOUNT`); names and values were checked. EINVAL for those that
    /// can't be changed any more.
    fn reconfigure(&self, _options: &str) -> Result<()> {
        Ok(())
    }
    /// Options for /proc/mounts after `rw` or `ro`, each with a leading comma.
    fn options(&self) -> alloc::string::String {
        alloc::string::String::new()
    }
}

/// A new device number for a filesystem without a device (major 0).
pub fn anonymous_dev() -> u64 {
    use core::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(32);
    let minor = NEXT.fetch_add(1, Ordering::Relaxed);
    make_dev(0, minor as u32)
}

/// A device number in the form that stat(2) and mknod(2) use on x86-64.
pub const fn make_dev(major: u32, minor: u32) -> u64 {
    let (major, minor) = (major as u64, minor as u64);
    (minor & 0xff) | (major & 0xfff) << 8 | (minor & !0xff) << 12 | (major & !0xfff) << 32
}

/// Major part of a device number.
pub const fn dev_major(dev: u64) -> u32 {
    ((dev >> 8) & 0xfff | (dev >> 32) & !0xfff) as u32
}

/// Minor part of a device number.
pub const fn dev_minor(dev: u64) -> u32 {
    (dev & 0xff | (dev >> 12) & 0xffff_ff00) as u32
}
