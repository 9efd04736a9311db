//! Files: open file descriptions, descriptors, names, and the filesystems behind them.
//!
//! | module | what it holds |
//! |---|---|
//! | [`inode`] | what a filesystem shows: the [`Inode`] and [`FileSystem`] traits |
//! | [`dcache`], [`mount`], [`walk`] | the tree of names and how names are resolved |
//! | [`setup`] | filesystems on their way to being mounted |
//! | [`ops`], [`perm`] | operations on names, with permission checks |
//! | [`file`], [`fdtable`], [`locks`], [`leases`] | open files, descriptors, locks and leases on files |
//! | [`write_errors`] | what fsync(2) tells of writing back |
//! | [`memfs`], [`erofs`] | the root and tmpfs; the image underneath |
//! | [`ext4`], [`ninep`], [`volumes`] | volumes, directories of the host, and what is mounted at boot |
//! | [`iso9660`] | disks of files, such as secrets |
//! | [`pipe`], [`anon`] | files without names |
//! | [`devfs`], [`devices`], [`procfs`], [`sysfs`], [`pseudo`] | /dev, /proc, /sys |
//! | [`boot`] | the namespace that a container finds |

pub mod anon;
pub mod boot;
pub mod context;
pub mod dcache;
pub mod devfs;
pub mod devices;
pub mod erofs;
pub mod ext4;
pub mod fdtable;
pub mod file;
pub mod hooks;
pub mod inode;
pub mod iso9660;
pub mod leases;
pub mod locks;
pub mod memfs;
pub mod mount;
pub mod ninep;
pub mod notify;
pub mod nsfs;
pub mod ops;
pub mod pathonly;
pub mod perm;
pub mod pipe;
pub mod procfs;
pub mod pseudo;
pub mod setup;
pub mod sysfs;
pub mod volumes;
pub mod walk;
pub mod write_errors;

pub use context::FsContext;
pub use dcache::Dentry;
pub use fdtable::FdTable;
pub use file::{File, FileOps};
pub use inode::{FileSystem, FileType, Inode, Metadata};
pub use mount::{Mount, Path};

#[cfg(test)]
mod boot_tests;
