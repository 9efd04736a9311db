//! /dev: a tmpfs with the device nodes and links of a container, and the drivers of the memory
//! devices.

use super::devices::register_char;
use super::inode::{NewNode, Opened, make_dev, mode::*};
use super::memfs::{MemFs, Options};
use super::{File, FileOps, FileSystem, Inode, Path, hooks};
use crate::drivers::loopback;
use crate::errno::{Errno, Result};
use crate::event::{Events, PollTable};
use crate::io::{IoDst, IoSrc, put_user};
use crate::mm::PageCache;
use alloc::sync::Arc;

/// Major number of virtio disks (dynamic in Linux; this is what it usually is).
pub const VIRTIO_MAJOR: u32 = 254;
const MEM_MAJOR: u32 = 1;
const TTY_MAJOR: u32 = 5;

/// Device nodes: name, major, minor, permissions.
const NODES: [(&str, u32, u32, u32); 8] = [
    ("null", MEM_MAJOR, 3, 0o666),
    ("zero", MEM_MAJOR, 5, 0o666),
    ("full", MEM_MAJOR, 7, 0o666),
    ("random", MEM_MAJOR, 8, 0o666),
    ("urandom", MEM_MAJOR, 9, 0o666),
    ("tty", TTY_MAJOR, 0, 0o666),
    ("console", TTY_MAJOR, 1, 0o620),
    ("ptmx", TTY_MAJOR, 2, 0o666),
];

const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
];

/// Makes the filesystem and announces the drivers. Once, at boot.
pub fn filesystem() -> Result<Arc<dyn FileSystem>> {
    register_char(MEM_MAJOR, 3..=9, open_memory);
    let fs = MemFs::tmpfs(&Options { mode: 0o755, size: 64 << 20, ..Options::default() });
    let root = fs.root();
    let node = |mode, rdev| NewNode { mode, uid: 0, gid: 0, rdev };
    for (name, major, minor, mode) in NODES {
        root.create(name.as_bytes(), &node(S_IFCHR | mode, make_dev(major, minor)))?;
    }
    loopback::register();
    let (major, minor) = loopback::CONTROL;
    root.create(b"loop-control", &node(S_IFCHR | 0o660, make_dev(major, minor)))?;
    for number in 0..loopback::COUNT {
        let name = alloc::format!("loop{number}");
        let rdev = make_dev(loopback::MAJOR, number);
        root.create(name.as_bytes(), &node(S_IFBLK | 0o660, rdev))?;
    }
    for (name, target) in LINKS {
        root.symlink(name.as_bytes(), target.as_bytes(), &node(S_IFLNK | 0o777, 0))?;
    }
    for (name, mode) in [("pts", 0o755), ("shm", 0o1777), ("mqueue", 0o1777)] {
        root.create(name.as_bytes(), &node(S_IFDIR | mode, 0))?;
    }
    Ok(fs)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Null,
    Zero,
    Full,
    Random,
}

struct MemoryDevice {
    kind: Kind,
    inode: Arc<dyn Inode>,
}

fn open_memory(minor: u32, _flags: u32, path: &Path) -> Result<Opened> {
    let kind = match minor {
        3 => Kind::Null,
        5 => Kind::Zero,
        7 => Kind::Full,
        8 | 9 => Kind::Random,
        _ => return Err(Errno::ENXIO),
    };
    Ok(Opened::Ops(Arc::new(MemoryDevice { kind, inode: path.inode()?.clone() })))
}

impl FileOps for MemoryDevice {
    fn seekable(&self) -> bool {
        true
    }

    fn read_at(&self, _file: &File, _offset: u64, dst: &mut IoDst<'_>) -> Result<usize> {
        match self.kind {
            Kind::Null => Ok(0),
            Kind::Zero | Kind::Full => dst.zero(dst.remaining()),
            Kind::Random => {
                let mut done = 0;
                let mut piece = [0; 256];
                while dst.remaining() > 0 {
                    let n = piece.len().min(dst.remaining());
                    crate::random::fill(&mut piece[..n]);
                    match dst.write(&piece[..n]) {
                        Ok(moved) => done += moved,
                        Err(_) if done > 0 => break,
                        Err(error) => return Err(error),
                    }
                    if hooks::interrupted() {
                        break;
                    }
                }
                Ok(done)
            }
        }
    }

    fn write_at(&self, _file: &File, offset: u64, src: &mut IoSrc<'_>) -> Result<(usize, u64)> {
        match self.kind {
            Kind::Full if src.remaining() > 0 => Err(Errno::ENOSPC),
            _ => Ok((src.remaining(), offset)),
        }
    }

    fn poll(&self, _file: &File, _table: &mut PollTable<'_>) -> Events {
        Events::IN | Events::OUT | Events::RDNORM | Events::WRNORM
    }

    fn pollable(&self) -> bool {
        self.kind == Kind::Random
    }

    fn asynchronous(&self) -> bool {
        self.kind == Kind::Random
    }

    fn seek_data(&self, _file: &File, _offset: u64, _hole: bool) -> Result<u64> {
        Err(Errno::EINVAL)
    }

    fn ioctl(&self, _file: &File, request: u32, arg: usize) -> Result<usize> {
        match (self.kind, request) {
            (Kind::Random, linux_raw_sys::ioctl::RNDGETENTCNT) => {
                put_user(arg, &256i32)?;
                Ok(0)
            }
            // What random(4) answers to everything it doesn't know.
            (Kind::Random, _) => Err(Errno::EINVAL),
            _ => Err(Errno::ENOTTY),
        }
    }

    fn mapping(&self, _file: &File) -> Result<Arc<PageCache>> {
        match self.kind {
            Kind::Zero => Ok(PageCache::anonymous(i64::MAX as u64 & !0xfff)),
            _ => Err(Errno::ENODEV),
        }
    }

    fn inode(&self) -> Arc<dyn Inode> {
        self.inode.clone()
    }
}
