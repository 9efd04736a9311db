//! Loop devices: files as block devices (loop(4)).

use super::block::SECTOR;
use crate::errno::{Errno, Result};
use crate::fs::devices::{register_block, register_char};
use crate::fs::inode::Opened;
use crate::fs::{File, FileOps, FileType, Inode, Path};
use crate::io::{IoDst, IoSrc, Plain, get_user, put_user};
use crate::sync::SpinLock;
use crate::task::current;
use alloc::sync::Arc;

/// Major number of loop devices.
pub const MAJOR: u32 = 7;
/// How many there are.
pub const COUNT: u32 = 8;
/// Major and minor number of `/dev/loop-control`.
pub const CONTROL: (u32, u32) = (10, 237);

const READ_ONLY: u32 = 1;
const AUTOCLEAR: u32 = 4;

/// `struct loop_info64`
#[derive(Clone, Copy)]
#[repr(C)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    name: [u8; 64],
    rest: [u64; 14],
}
// SAFETY: integers only, and no padding between them.
unsafe impl Plain for Info {}

/// `struct loop_info` of x86-64.
#[derive(Clone, Copy)]
#[repr(C)]
struct OldInfo {
    number: u32,
    pad: u32,
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u32,
    encrypt: [u32; 2],
    flags: u32,
    name: [u8; 64],
    rest: [u64; 7],
}
// SAFETY: integers only, the padding made explicit.
unsafe impl Plain for OldInfo {}

/// A file that a device shows.
#[derive(Clone)]
struct Bound {
    file: Arc<File>,
    offset: u64,
    limit: u64,
    flags: u32,
    name: [u8; 64],
}

static DEVICES: [SpinLock<Option<Bound>>; COUNT as usize] =
    [const { SpinLock::new(None) }; COUNT as usize];

/// Announces the drivers. Once, at boot.
pub fn register() {
    register_block(MAJOR, 0..=COUNT - 1, |number, _, path| {
        Ok(Opened::Ops(Arc::new(Device { number, inode: path.inode()?.clone() })))
    });
    register_char(CONTROL.0, CONTROL.1..=CONTROL.1, |_, _, path: &Path| {
        Ok(Opened::Ops(Arc::new(Control(path.inode()?.clone()))))
    });
}

struct Control(Arc<dyn Inode>);

impl FileOps for Control {
    fn inode(&self) -> Arc<dyn Inode> {
        self.0.clone()
    }

    fn ioctl(&self, _file: &File, request: u32, arg: usize) -> Result<usize> {
        const ADD: u32 = 0x4c80;
        const REMOVE: u32 = 0x4c81;
        const GET_FREE: u32 = 0x4c82;
        match request {
            GET_FREE => {
                let free = DEVICES.iter().position(|device| device.lock().is_none());
                free.ok_or(Errno::ENOSPC)
            }
            ADD if arg < COUNT as usize => Err(Errno::EEXIST),
            // The number of devices is fixed.
            ADD => Err(Errno::ENOSPC),
            REMOVE if arg < COUNT as usize => Err(Errno::EBUSY),
            REMOVE => Err(Errno::ENODEV),
            _ => Err(Errno::ENOTTY),
        }
    }
}

struct Device {
    number: u32,
    inode: Arc<dyn Inode>,
}

impl Bound {
    /// Bytes that the device shows: whole sectors.
    fn len(&self) -> u64 {
        let size = self.file.with_inode(|inode| inode.metadata().size).saturating_sub(self.offset);
        let size = if self.limit == 0 { size } else { size.min(self.limit) };
        size / SECTOR * SECTOR
    }
}

impl Device {
    fn slot(&self) -> &'static SpinLock<Option<Bound>> {
        &DEVICES[self.number as usize]
    }

    fn bound(&self) -> Result<Bound> {
        self.slot().lock().clone().ok_or(Errno::ENXIO)
    }

    fn change(&self, change: impl FnOnce(&mut Bound)) -> Result<usize> {
        self.slot().lock().as_mut().map(change).ok_or(Errno::ENXIO)?;
        Ok(0)
    }

    fn bind(&self, fd: i32, read_only: bool, info: Option<&Info>) -> Result<usize> {
        let file = current().with_files(|files| files.get(fd))?;
        let kind = file.with_inode(|inode| inode.file_type());
        if !matches!(kind, FileType::Regular | FileType::BlockDevice) || !file.readable() {
            return Err(Errno::EINVAL);
        }
        // A device that shows itself would never answer.
        if file.downcast::<Device>().is_some() {
            return Err(Errno::EBADF);
        }
        let mut bound = Bound { file, offset: 0, limit: 0, flags: 0, name: [0; 64] };
        if let Some(info) = info {
            (bound.offset, bound.limit, bound.name) = (info.offset, info.limit, info.name);
            bound.flags = info.flags & AUTOCLEAR;
        }
        let flags = info.map_or(0, |info| info.flags);
        if read_only || !bound.file.writable() || flags & READ_ONLY != 0 {
            bound.flags |= READ_ONLY;
        }
        let mut slot = self.slot().lock();
        if slot.is_some() {
            return Err(Errno::EBUSY);
        }
        *slot = Some(bound);
        Ok(0)
    }

    fn info(&self) -> Result<Info> {
        let bound = self.bound()?;
        let meta = bound.file.with_inode(|inode| inode.metadata());
        Ok(Info {
            device: meta.dev,
            inode: meta.ino,
            rdevice: meta.rdev,
            offset: bound.offset,
            limit: bound.limit,
            number: self.number,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: bound.flags,
            name: bound.name,
            rest: [0; 14],
        })
    }
}

impl FileOps for Device {
    fn seekable(&self) -> bool {
        true
    }

    fn pollable(&self) -> bool {
        false
    }

    fn read_at(&self, _file: &File, offset: u64, dst: &mut IoDst<'_>) -> Result<usize> {
        let Ok(bound) = self.bound() else { return Ok(0) };
        dst.limit(usize::try_from(bound.len().saturating_sub(offset)).unwrap_or(usize::MAX));
        bound.file.ops.read_at(&bound.file, bound.offset + offset, dst)
    }

    fn write_at(&self, _file: &File, offset: u64, src: &mut IoSrc<'_>) -> Result<(usize, u64)> {
        let bound = self.bound().map_err(|_| Errno::ENOSPC)?;
        if bound.flags & READ_ONLY != 0 {
            return Err(Errno::EPERM);
        }
        let left = bound.len().saturating_sub(offset);
        if left == 0 && src.remaining() > 0 {
            return Err(Errno::ENOSPC);
        }
        src.limit(usize::try_from(left).unwrap_or(usize::MAX));
        let (n, _) = bound.file.ops.write_at(&bound.file, bound.offset + offset, src)?;
        Ok((n, offset + n as u64))
    }

    fn seek_data(&self, _file: &File, _offset: u64, _hole: bool) -> Result<u64> {
        Err(Errno::EINVAL)
    }

    fn sync(&self, _file: &File, data_only: bool) -> Result<()> {
        let Ok(bound) = self.bound() else { return Ok(()) };
        bound.file.ops.sync(&bound.file, data_only)
    }

    fn inode(&self) -> Arc<dyn Inode> {
        self.inode.clone()
    }

    fn ioctl(&self, file: &File, request: u32, arg: usize) -> Result<usize> {
        const SET_FD: u32 = 0x4c00;
        const CLR_FD: u32 = 0x4c01;
        const SET_STATUS: u32 = 0x4c02;
        const GET_STATUS: u32 = 0x4c03;
        const SET_STATUS64: u32 = 0x4c04;
        const GET_STATUS64: u32 = 0x4c05;
        const SET_CAPACITY: u32 = 0x4c07;
        const SET_DIRECT_IO: u32 = 0x4c08;
        const SET_BLOCK_SIZE: u32 = 0x4c09;
        const CONFIGURE: u32 = 0x4c0a;
        const BLKROGET: u32 = 0x125e;
        const BLKGETSIZE: u32 = 0x1260;
        const BLKFLSBUF: u32 = 0x1261;
        const BLKSSZGET: u32 = 0x1268;
        const BLKBSZGET: u32 = 0x8008_1270;
        const BLKPBSZGET: u32 = 0x127b;
        const BLKGETSIZE64: u32 = 0x8008_1272;
        let len = || self.bound().map_or(0, |bound| bound.len());
        match request {
            SET_FD => self.bind(arg as i32, !file.writable(), None),
            CONFIGURE => {
                let [fd, _block_size]: [u32; 2] = get_user(arg)?;
                let info: Info = get_user(arg + 8)?;
                self.bind(fd as i32, !file.writable(), Some(&info))
            }
            CLR_FD => {
                let old = self.slot().lock().take().ok_or(Errno::ENXIO)?;
                drop(old);
                Ok(0)
            }
            SET_STATUS => {
                let info: OldInfo = get_user(arg)?;
                self.change(|bound| {
                    (bound.offset, bound.name) = (info.offset.into(), info.name);
                    bound.flags = bound.flags & !AUTOCLEAR | info.flags & AUTOCLEAR;
                })
            }
            SET_STATUS64 => {
                let info: Info = get_user(arg)?;
                self.change(|bound| {
                    (bound.offset, bound.limit) = (info.offset, info.limit);
                    bound.name = info.name;
                    bound.flags = bound.flags & !AUTOCLEAR | info.flags & AUTOCLEAR;
                })
            }
            GET_STATUS => {
                let info = self.info()?;
                let old = OldInfo {
                    number: info.number,
                    pad: 0,
                    device: info.device,
                    inode: info.inode,
                    rdevice: info.rdevice,
                    offset: u32::try_from(info.offset).map_err(|_| Errno::EOVERFLOW)?,
                    encrypt: [0; 2],
                    flags: info.flags,
                    name: info.name,
                    rest: [0; 7],
                };
                put_user(arg, &old).map(|()| 0)
            }
            GET_STATUS64 => put_user(arg, &self.info()?).map(|()| 0),
            SET_CAPACITY | SET_DIRECT_IO => self.bound().map(|_| 0),
            SET_BLOCK_SIZE if arg as u64 == SECTOR => self.bound().map(|_| 0),
            SET_BLOCK_SIZE => Err(Errno::EINVAL),
            BLKROGET => {
                let read_only = self.bound().is_ok_and(|bound| bound.flags & READ_ONLY != 0);
                put_user(arg, &u32::from(read_only)).map(|()| 0)
            }
            BLKGETSIZE => put_user(arg, &(len() / SECTOR)).map(|()| 0),
            BLKGETSIZE64 => put_user(arg, &len()).map(|()| 0),
            BLKSSZGET | BLKPBSZGET => put_user(arg, &(SECTOR as u32)).map(|()| 0),
            BLKBSZGET => put_user(arg, &4096u32).map(|()| 0),
            BLKFLSBUF => Ok(0),
            _ => Err(Errno::ENOTTY),
        }
    }
}
