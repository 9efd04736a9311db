//! What is in a layer: its entries without their data.
//!
//! A layer is read once for its index, which is kept beside the store; trees are put together
//! from indexes, so a cached build reads no layer at all.

use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::Error;
use crate::atomic::Aside;
use crate::rootfs::{
    self, EntryFault, components,
    error::Stop,
    tar::{self, Entry as TarEntry, Kind as TarKind},
};
use crate::source::{Compression, Digest, Layer, digest::Hasher};

/// Raised when an index's form changes.
const VERSION: u32 = 1;
/// Most bytes that a file with holes may have when it is copied.
pub const MAX_SPARSE: u64 = 4 << 30;
/// Most entries of a layer.
const MAX_ENTRIES: usize = 4_000_000;

/// Kinds of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A named pipe.
    Fifo,
}

/// Everything about a file but its name and data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// What it is.
    pub kind: Kind,
    /// Permissions, 12 bits.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time: seconds since 1970 and nanoseconds.
    pub mtime: (i64, u32),
    /// Length in bytes, of a regular file.
    pub size: u64,
    /// Major and minor number, of a device.
    pub dev: (u32, u32),
    /// Extended attributes: whole name and value.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Target of a symbolic link.
    pub target: Vec<u8>,
}

impl Meta {
    /// A directory of root's.
    pub fn directory(mode: u16, mtime: (i64, u32)) -> Meta {
        Meta { kind: Kind::Directory, ..Meta::file(mode, 0, mtime) }
    }

    /// A file of root's.
    pub fn file(mode: u16, size: u64, mtime: (i64, u32)) -> Meta {
        Meta {
            kind: Kind::File,
            mode,
            uid: 0,
            gid: 0,
            mtime,
            size,
            dev: (0, 0),
            xattrs: Vec::new(),
            target: Vec::new(),
        }
    }

    /// What the host's metadata say of a file: all but its attributes and the target of a link.
    /// `None` for sockets, which no image can hold.
    pub fn of_host(found: &Metadata) -> Option<Meta> {
        let file_type = found.file_type();
        let kind = if file_type.is_file() {
            Kind::File
        } else if file_type.is_dir() {
            Kind::Directory
        } else if file_type.is_symlink() {
            Kind::Symlink
        } else if file_type.is_fifo() {
            Kind::Fifo
        } else if file_type.is_char_device() {
            Kind::Char
        } else if file_type.is_block_device() {
            Kind::Block
        } else {
            return None;
        };
        let device = matches!(kind, Kind::Char | Kind::Block);
        let rdev = found.rdev();
        Some(Meta {
            kind,
            // Twelve bits.
            mode: if kind == Kind::Symlink { 0o777 } else { (found.mode() & 0o7777) as u16 },
            uid: found.uid(),
            gid: found.gid(),
            // Nanoseconds are below a thousand million.
            mtime: (found.mtime(), found.mtime_nsec() as u32),
            size: if kind == Kind::File { found.len() } else { 0 },
            dev: if device { (rustix::fs::major(rdev), rustix::fs::minor(rdev)) } else { (0, 0) },
            xattrs: Vec::new(),
            target: Vec::new(),
        })
    }
}

/// What an entry of a layer does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Makes a file.
    Add {
        /// What it is.
        meta: Meta,
        /// SHA-256 of its data, of a regular file.
        digest: [u8; 32],
        /// Where its data starts in the tar stream; `None` if it is stored with holes.
        offset: Option<u64>,
    },
    /// Another name for a file: its path.
    Link(Vec<u8>),
    /// Hides a name of the layers below.
    Whiteout,
    /// Hides what the layers below have in this directory.
    Opaque,
}

/// A layer's entries in order: path without slashes at its ends, and what is done there. The
/// position of an entry is its number among all entries of the archive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// `None` for entries that do nothing.
    pub entries: Vec<Option<(Vec<u8>, Op)>>,
}

impl Index {
    /// The index of a layer: as kept in `dir`, or made now.
    ///
    /// # Errors
    /// [`Error::Rootfs`] if the layer is damaged or isn't what its diff ID says.
    pub fn of(layer: &Layer, dir: &Path) -> Result<Index, Error> {
        let path = path(dir, &layer.diff_id);
        if let Ok(bytes) = fs::read(&path)
            && let Ok((VERSION, index)) = postcard::from_bytes::<(u32, Index)>(&bytes)
        {
            return Ok(index);
        }
        let index = Index::read(layer)?;
        // Serialising plain data to memory does not fail.
        let bytes = postcard::to_allocvec(&(VERSION, &index)).unwrap_or_default();
        let kept = Aside::beside(&path).and_then(|aside| {
            std::io::Write::write_all(&mut aside.file(), &bytes)?;
            aside.publish(&path)
        });
        kept.map_err(|error| Error::io("write", &path, error))?;
        Ok(index)
    }

    /// Reads a layer from end to end.
    ///
    /// # Errors
    /// As [`Index::of`].
    pub fn read(layer: &Layer) -> Result<Index, Error> {
        let index = rootfs::read_layer(layer, |reader, entry| {
            let mut index = Index::default();
            while reader.next(entry)? {
                if index.entries.len() == MAX_ENTRIES {
                    return Err(Stop::Limit("entries", MAX_ENTRIES as u64));
                }
                let at = reader.offset();
                let mut hasher = Hasher::new();
                if entry.kind == Some(TarKind::File) {
                    data(reader, entry, &mut |bytes| {
                        hasher.update(bytes);
                        Ok(())
                    })?;
                }
                index.entries.push(operation(entry, hasher.finish(), at)?);
            }
            Ok(index)
        });
        Ok(index?)
    }
}

/// Where the index of a layer is kept.
fn path(dir: &Path, diff_id: &Digest) -> PathBuf {
    dir.join(diff_id.hex())
}

/// Whether data of this layer can be read in any order.
pub fn is_plain(layer: &Layer) -> bool {
    layer.compression == Compression::None
}

fn operation(
    entry: &TarEntry,
    digest: Digest,
    at: u64,
) -> Result<Option<(Vec<u8>, Op)>, EntryFault> {
    let parts = components(&entry.path).ok_or(EntryFault::Escape)?;
    if parts.iter().any(|part| part.len() > 255) {
        return Err(EntryFault::NameTooLong);
    }
    let kind = match entry.kind {
        Some(TarKind::HardLink) => {
            let target = components(&entry.link).ok_or(EntryFault::LinkEscape)?;
            return Ok(Some((parts.join(&b'/'), Op::Link(target.join(&b'/')))));
        }
        Some(TarKind::Directory) => Kind::Directory,
        Some(TarKind::Symlink) => Kind::Symlink,
        Some(TarKind::CharDevice) => Kind::Char,
        Some(TarKind::BlockDevice) => Kind::Block,
        Some(TarKind::Fifo) => Kind::Fifo,
        Some(TarKind::File) | None => Kind::File,
    };
    let Some((&base, parents)) = parts.split_last() else {
        if kind != Kind::Directory {
            return Err(EntryFault::RootType);
        }
        return Ok(Some((Vec::new(), add(entry, kind, digest, at)?)));
    };
    if base == b".wh..wh..opq" {
        return Ok(Some((parents.join(&b'/'), Op::Opaque)));
    }
    if parts.iter().any(|part| part.starts_with(b".wh..wh.")) {
        return Ok(None);
    }
    if let Some(name) = base.strip_prefix(b".wh.") {
        if matches!(name, b"" | b"." | b"..") {
            return Err(EntryFault::Whiteout);
        }
        let mut path = parents.to_vec();
        path.push(name);
        return Ok(Some((path.join(&b'/'), Op::Whiteout)));
    }
    Ok(Some((parts.join(&b'/'), add(entry, kind, digest, at)?)))
}

fn add(entry: &TarEntry, kind: Kind, digest: Digest, at: u64) -> Result<Op, EntryFault> {
    if kind == Kind::Symlink && !(1..=4095).contains(&entry.link.len()) {
        return Err(EntryFault::SymlinkTarget(entry.link.len()));
    }
    let is_link = kind == Kind::Symlink;
    let meta = Meta {
        kind,
        mode: if is_link { 0o777 } else { entry.mode },
        uid: entry.uid,
        gid: entry.gid,
        mtime: (entry.mtime.secs, entry.mtime.nanos),
        size: if kind == Kind::File { entry.size } else { 0 },
        dev: entry.dev,
        xattrs: entry.xattrs.clone(),
        target: if is_link { entry.link.clone() } else { Vec::new() },
    };
    let offset = entry.sparse.is_none().then_some(at);
    Ok(Op::Add { meta, digest: digest.0, offset })
}

/// Hands on the data of the current entry, holes as zeros.
pub fn data<R: std::io::BufRead>(
    reader: &mut tar::Reader<R>,
    entry: &TarEntry,
    each: &mut dyn FnMut(&[u8]) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let Some(segments) = &entry.sparse else {
        return pass(reader, u64::MAX, each).map(drop);
    };
    if entry.size > MAX_SPARSE {
        return Err(Stop::Limit("bytes in a file with holes", MAX_SPARSE));
    }
    let mut at = 0;
    for segment in segments {
        zeros(segment.offset - at, each)?;
        if pass(reader, segment.len, each)? < segment.len {
            return Err(tar::Fault::Truncated.into());
        }
        at = segment.offset + segment.len;
    }
    zeros(entry.size - at, each)
}

fn pass<R: std::io::BufRead>(
    reader: &mut tar::Reader<R>,
    max: u64,
    each: &mut dyn FnMut(&[u8]) -> Result<(), Stop>,
) -> Result<u64, Stop> {
    let mut done = 0;
    while done < max {
        let bytes = reader.data(max - done)?;
        if bytes.is_empty() {
            break;
        }
        each(bytes)?;
        let len = bytes.len();
        done += len as u64;
        reader.consume(len);
    }
    Ok(done)
}

fn zeros(mut len: u64, each: &mut dyn FnMut(&[u8]) -> Result<(), Stop>) -> Result<(), Stop> {
    const ZEROS: [u8; 4096] = [0; 4096];
    while len > 0 {
        // Not longer than the array.
        let part = len.min(ZEROS.len() as u64) as usize;
        each(&ZEROS[..part])?;
        len -= part as u64;
    }
    Ok(())
}
