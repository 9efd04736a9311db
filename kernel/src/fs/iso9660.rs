//! Files on a disk in ISO 9660 (ECMA-119) with the names of Rock Ridge (SUSP and RRIP 1.12): how
//! KubeVirt shows Secrets, and what xorriso and genisoimage make of directories. All of it is copied
//! to memory at once: it is little, and the disk need not stay as it is.
//!
//! A disk is untrusted: positions and lengths are checked where they are used. Damage is EUCLEAN.

use super::inode::{FileSystem, NewNode, Opened, mode::*};
use super::memfs::{MemFs, Options};
use super::{Dentry, File, Mount, Path};
use crate::drivers::block::{self, BlockDevice};
use crate::errno::{Errno, Result};
use crate::io::IoSrc;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use linux_raw_sys::general::O_WRONLY;

const SECTOR: usize = 2048;
/// Most bytes that are copied, directories included.
const MAX_BYTES: usize = 16 << 20;
/// Most areas that one name is spread over.
const MAX_AREAS: usize = 8;

/// Reads at any offset of a disk.
type Read<'a> = &'a dyn Fn(u64, &mut [u8]) -> Result<()>;

/// Where a file or directory lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    block: u32,
    len: u32,
}

/// A name in a directory.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    name: Vec<u8>,
    dir: bool,
    extent: Extent,
}

/// The disk with this label.
pub fn find(label: &str) -> Option<Arc<dyn BlockDevice>> {
    let labelled = |disk: &Arc<dyn BlockDevice>| {
        let found = volume(&|at, out| disk.read_bytes(at, out));
        found.is_some_and(|(name, _)| name.trim_ascii_end().eq_ignore_ascii_case(label.as_bytes()))
    };
    block::disks().into_iter().find(labelled)
}

/// Copies what is on a disk: directories that all may enter, files that all may read. EFBIG if it is
/// too much.
pub fn load(disk: &dyn BlockDevice) -> Result<Arc<dyn FileSystem>> {
    let read: Read<'_> = &|at, out| disk.read_bytes(at, out);
    let (_, extent) = volume(read).ok_or(Errno::EUCLEAN)?;
    let fs: Arc<dyn FileSystem> = MemFs::tmpfs(&Options { mode: 0o755, ..Options::default() });
    let root = Path { mount: Mount::internal(fs.clone()), dentry: Dentry::root(fs.root()) };
    let (mut left, mut work) = (MAX_BYTES, vec![(extent, root)]);
    while let Some((extent, dir)) = work.pop() {
        for entry in entries(read, extent, &mut left)? {
            let mode = if entry.dir { S_IFDIR | 0o755 } else { S_IFREG | 0o444 };
            let node = NewNode { mode, uid: 0, gid: 0, rdev: 0 };
            let inode = dir.inode()?.create(&entry.name, &node)?;
            let dentry = dir.dentry.remember(&entry.name, Some(inode));
            let path = Path { mount: dir.mount.clone(), dentry };
            if entry.dir {
                work.push((entry.extent, path));
            } else {
                write(&path, &contents(read, entry.extent, &mut left)?)?;
            }
        }
    }
    Ok(fs)
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let file = match path.inode()?.clone().open(O_WRONLY, path)? {
        Opened::Ops(ops) => File::named(ops, O_WRONLY, path.clone()),
        Opened::File(file) => file,
    };
    let (mut src, mut at) = (IoSrc::kernel(bytes), 0);
    while src.remaining() > 0 {
        (_, at) = file.ops.write_at(&file, at, &mut src)?;
    }
    Ok(())
}

/// Label and root directory of the primary volume descriptor (ECMA-119, 8.4).
fn volume(read: Read<'_>) -> Option<([u8; 32], Extent)> {
    let mut sector = [0; 190];
    read(16 * SECTOR as u64, &mut sector).ok()?;
    let block_size = [sector[128], sector[129]] == (SECTOR as u16).to_le_bytes();
    (sector.starts_with(b"\x01CD001") && block_size)
        .then(|| (core::array::from_fn(|n| sector[40 + n]), extent(&sector[156..])))
}

/// What a directory record says (9.1); it has at least 34 bytes.
fn extent(record: &[u8]) -> Extent {
    Extent { block: u32_at(record, 2), len: u32_at(record, 10) }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn contents(read: Read<'_>, extent: Extent, left: &mut usize) -> Result<Vec<u8>> {
    let len = extent.len as usize;
    *left = left.checked_sub(len).ok_or(Errno::EFBIG)?;
    let mut bytes = vec![0; len];
    read(u64::from(extent.block) * SECTOR as u64, &mut bytes)?;
    Ok(bytes)
}

/// What is in a directory. Records do not cross sectors (6.8.1.1).
fn entries(read: Read<'_>, dir: Extent, left: &mut usize) -> Result<Vec<Entry>> {
    let mut found = Vec::new();
    for mut sector in contents(read, dir, left)?.chunks(SECTOR) {
        while let Some(&len @ 1..) = sector.first() {
            let (record, rest) = sector.split_at_checked(len.into()).ok_or(Errno::EUCLEAN)?;
            sector = rest;
            let name_len = usize::from(*record.get(32).ok_or(Errno::EUCLEAN)?);
            let name = record.get(33..33 + name_len).ok_or(Errno::EUCLEAN)?;
            // The directory itself and the one above.
            if matches!(name, [0 | 1]) {
                continue;
            }
            // A byte fills up to an even length.
            let area = record.get((33 + name_len).next_multiple_of(2)..).unwrap_or_default();
            let name = rock_ridge_name(read, area.to_vec())?;
            let bad = matches!(&name[..], b"" | b"." | b"..") || name.contains(&b'/');
            if bad || name.contains(&0) {
                return Err(Errno::EUCLEAN);
            }
            let flags = record[25];
            // It goes on in another extent, after four gigabytes.
            if flags & 0x80 != 0 {
                return Err(Errno::EFBIG);
            }
            found.push(Entry { name, dir: flags & 2 != 0, extent: extent(record) });
        }
    }
    Ok(found)
}

/// The name in a system use area, `NM` (RRIP, 4.1.4), which may go on elsewhere, `CE` (SUSP, 5.1).
fn rock_ridge_name(read: Read<'_>, mut area: Vec<u8>) -> Result<Vec<u8>> {
    let mut name = Vec::new();
    for _ in 0..MAX_AREAS {
        let mut next = None;
        let mut rest = &area[..];
        while let Some(&len @ 4..) = rest.get(2) {
            let Some((entry, tail)) = rest.split_at_checked(len.into()) else { break };
            rest = tail;
            match &entry[..2] {
                b"NM" => name.extend_from_slice(entry.get(5..).unwrap_or_default()),
                b"CE" if entry.len() >= 28 => {
                    let at = u64::from(u32_at(entry, 4)) * SECTOR as u64;
                    next = Some((at + u64::from(u32_at(entry, 12)), u32_at(entry, 20) as usize));
                }
                b"ST" => break,
                _ => {}
            }
        }
        match next {
            None => return Ok(name),
            Some((_, len)) if len > SECTOR => break,
            Some((at, len)) => {
                area = vec![0; len];
                read(at, &mut area)?;
            }
        }
    }
    Err(Errno::EUCLEAN)
}

#[cfg(test)]
mod tests;
