//! Writing layers: plain tar streams, straight into the store.
//!
//! Layers made here are not compressed: nobody sends them anywhere, their digest is their diff ID,
//! and data can be read from any place in them.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use super::error::Error;
use super::index::{Kind, Meta, data as data_of};
use super::tree::Data;
use crate::rootfs::{self, error::Stop};
use crate::source::digest::Hasher;
use crate::source::{Compression, Digest, Layer, Store};

/// Block of a tar stream.
const BLOCK: usize = 512;
const BUFFER: usize = 256 << 10;

/// An entry to be written.
#[derive(Clone, Debug)]
pub struct Item {
    /// Path without slashes at its ends; empty for the root.
    pub path: Vec<u8>,
    /// What it makes.
    pub make: Make,
}

/// What an entry makes.
#[derive(Clone, Debug)]
pub enum Make {
    /// A file, with the digest that its data had when it was chosen.
    File(Meta, Data, Option<[u8; 32]>),
    /// Another name for the file at this path of the same layer.
    Link(Vec<u8>),
}

/// Writes a layer of these entries into the store.
///
/// # Errors
/// If data can't be read, has changed since it was chosen, or can't be written.
pub fn write(store: &Store, items: &[Item]) -> Result<Layer, Error> {
    let mut out = Out::new(store)?;
    let mut links = Vec::new();
    // Compressed layers are read once each, in their order.
    let mut compressed: BTreeMap<[u8; 32], (Arc<Layer>, HashMap<u32, Vec<&Item>>)> =
        BTreeMap::new();
    for item in items {
        match &item.make {
            Make::Link(_) => links.push(item),
            Make::File(meta, Data::Layer { layer, entry, offset, .. }, _) => {
                if let Some(offset) = offset
                    && super::index::is_plain(layer)
                {
                    out.header(&item.path, meta, None)?;
                    out.plain(layer, *offset, meta.size)?;
                } else {
                    let group = compressed.entry(layer.diff_id.0);
                    let (_, wanted) = group.or_insert_with(|| (layer.clone(), HashMap::new()));
                    wanted.entry(*entry).or_default().push(item);
                }
            }
            Make::File(meta, Data::Host { root, name, path }, digest) => {
                out.header(&item.path, meta, None)?;
                let shown = name.join(Path::new(std::ffi::OsStr::from_bytes(path)));
                let file = open_beneath(root, path).map_err(|e| Error::io("open", &shown, e))?;
                out.file(file, meta.size, *digest, &shown)?;
            }
            Make::File(meta, Data::Bytes(bytes), _) => {
                out.header(&item.path, meta, None)?;
                out.data(bytes)?;
                out.pad(bytes.len() as u64)?;
            }
            Make::File(meta, Data::None, _) => out.header(&item.path, meta, None)?,
        }
    }
    for (layer, wanted) in compressed.into_values() {
        out.take_compressed(&layer, &wanted)?;
    }
    for item in links {
        if let Make::Link(target) = &item.make {
            out.header(&item.path, &Meta::file(0o644, 0, (0, 0)), Some(target))?;
        }
    }
    out.finish()
}

/// Opens a file of a directory without following any symbolic link: the tree that named it had
/// none there, and one that appeared since must not lead out.
pub fn open_beneath(root: &std::os::fd::OwnedFd, path: &[u8]) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let file = File::from(openat2(root, path, flags, Mode::empty(), resolve)?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file any more"));
    }
    Ok(file)
}

/// SHA-256 of some data that isn't in a layer.
///
/// # Errors
/// If the file can't be read.
pub fn digest(data: &Data, size: u64) -> Result<[u8; 32], Error> {
    Ok(match data {
        Data::None => Digest::of(b"").0,
        Data::Layer { digest, .. } => *digest,
        Data::Bytes(bytes) => Digest::of(bytes).0,
        Data::Host { root, name, path } => {
            let shown = name.join(Path::new(std::ffi::OsStr::from_bytes(path)));
            let fail = |error| Error::io("read", &shown, error);
            let file = open_beneath(root, path).map_err(fail)?;
            let mut hasher = Hasher::new();
            // What comes after is noticed when the file is copied.
            io::copy(&mut file.take(size), &mut hasher).map_err(fail)?;
            hasher.finish().0
        }
    })
}

/// Reads a small file whole.
///
/// # Errors
/// If it can't be read.
pub fn read(data: &Data, size: u64) -> Result<Vec<u8>, Error> {
    match data {
        Data::None => Ok(Vec::new()),
        Data::Bytes(bytes) => Ok(bytes.to_vec()),
        Data::Host { root, name, path } => {
            let shown = name.join(Path::new(std::ffi::OsStr::from_bytes(path)));
            let fail = |error| Error::io("read", &shown, error);
            let file = open_beneath(root, path).map_err(fail)?;
            let mut bytes = Vec::new();
            file.take(size).read_to_end(&mut bytes).map_err(fail)?;
            Ok(bytes)
        }
        Data::Layer { layer, offset: Some(offset), .. } if super::index::is_plain(layer) => {
            let fail = |error| Error::io("read", &layer.path, error);
            // The caller has bounded it.
            let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
            let file = File::open(&layer.path).map_err(fail)?;
            file.read_exact_at(&mut bytes, *offset).map_err(fail)?;
            Ok(bytes)
        }
        Data::Layer { layer, entry: wanted, .. } => {
            let mut bytes = Vec::new();
            let mut number = 0;
            rootfs::read_layer(layer, |reader, entry| {
                while reader.next(entry)? {
                    if number == *wanted {
                        data_of(reader, entry, &mut |part| {
                            bytes.extend_from_slice(part);
                            Ok(())
                        })?;
                    }
                    number += 1;
                }
                Ok(())
            })?;
            Ok(bytes)
        }
    }
}

/// Makes files in a directory of this machine, all of them this user's. Symbolic links are made
/// last, so none can be gone through.
///
/// # Errors
/// If they can't be made.
pub fn place(items: &[Item], dir: &Path) -> Result<(), Error> {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let at = |path: &[u8]| dir.join(Path::new(std::ffi::OsStr::from_bytes(path)));
    let mut last = Vec::new();
    for item in items {
        let host = at(&item.path);
        let fail = |error| Error::io("create", &host, error);
        match &item.make {
            Make::File(meta, ..) if meta.kind == Kind::Directory => {
                std::fs::create_dir(&host).map_err(fail)?;
            }
            Make::File(meta, Data::Host { root, path, .. }, _) => {
                let mut from = open_beneath(root, path).map_err(fail)?;
                let mut to = File::create_new(&host).map_err(fail)?;
                io::copy(&mut from, &mut to).map_err(fail)?;
                let mode = std::fs::Permissions::from_mode(u32::from(meta.mode));
                to.set_permissions(mode).map_err(fail)?;
            }
            _ => last.push(item),
        }
    }
    for item in last {
        let host = at(&item.path);
        let fail = |error| Error::io("create", &host, error);
        match &item.make {
            Make::Link(target) => std::fs::hard_link(at(target), &host).map_err(fail)?,
            Make::File(meta, ..) if meta.kind == Kind::Symlink => {
                symlink(std::ffi::OsStr::from_bytes(&meta.target), &host).map_err(fail)?;
            }
            // Devices and pipes of a build context are nothing that a mount needs.
            Make::File(..) => {}
        }
    }
    for item in items.iter().rev() {
        if let Make::File(meta, ..) = &item.make
            && meta.kind == Kind::Directory
        {
            let host = at(&item.path);
            // Its owner must be able to remove what is in it.
            let mode = std::fs::Permissions::from_mode(u32::from(meta.mode | 0o700));
            std::fs::set_permissions(&host, mode).map_err(|e| Error::io("change", &host, e))?;
        }
    }
    Ok(())
}

/// A layer being written.
pub struct Out {
    writer: crate::source::store::Writer,
    buffer: Vec<u8>,
}

impl Out {
    /// An empty layer.
    pub fn new(store: &Store) -> Result<Out, Error> {
        Ok(Out { writer: store.import()?, buffer: vec![0; BUFFER] })
    }

    /// Passes bytes of a tar stream on.
    pub fn data(&mut self, bytes: &[u8]) -> Result<(), Error> {
        Ok(self.writer.write(bytes)?)
    }

    fn pad(&mut self, len: u64) -> Result<(), Error> {
        // Less than a block.
        let padding = (len.wrapping_neg() % BLOCK as u64) as usize;
        self.data(&[0; BLOCK][..padding])
    }

    fn header(&mut self, path: &[u8], meta: &Meta, link: Option<&[u8]>) -> Result<(), Error> {
        let bytes = header(path, meta, link);
        self.data(&bytes)
    }

    fn plain(&mut self, layer: &Layer, offset: u64, size: u64) -> Result<(), Error> {
        let fail = |error| Error::io("read", &layer.path, error);
        let file = File::open(&layer.path).map_err(fail)?;
        let mut done = 0;
        while done < size {
            // Not longer than the buffer.
            let want = (size - done).min(BUFFER as u64) as usize;
            file.read_exact_at(&mut self.buffer[..want], offset + done).map_err(fail)?;
            self.writer.write(&self.buffer[..want])?;
            done += want as u64;
        }
        self.pad(size)
    }

    fn file(
        &mut self,
        mut file: File,
        size: u64,
        expected: Option<[u8; 32]>,
        name: &Path,
    ) -> Result<(), Error> {
        let changed = || {
            let source = io::Error::other("it was changed while the image was built");
            Error::io("read", name, source)
        };
        let mut hasher = Hasher::new();
        loop {
            let got = match file.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::io("read", name, error)),
            };
            hasher.update(&self.buffer[..got]);
            if hasher.len() > size {
                return Err(changed());
            }
            self.writer.write(&self.buffer[..got])?;
        }
        if hasher.len() != size || expected.is_some_and(|digest| digest != hasher.finish().0) {
            return Err(changed());
        }
        self.pad(size)
    }

    fn take_compressed(
        &mut self,
        layer: &Layer,
        wanted: &HashMap<u32, Vec<&Item>>,
    ) -> Result<(), Error> {
        let mut number = 0;
        let mut failed = None;
        let read = rootfs::read_layer(layer, |reader, entry| {
            while reader.next(entry)? {
                let items = wanted.get(&number).map_or(&[][..], Vec::as_slice);
                number += 1;
                let Some((first, others)) = items.split_first() else { continue };
                let mut copies = Vec::new();
                let mut stop = |result: Result<(), Error>| {
                    result.map_err(|error| {
                        failed = Some(error);
                        Stop::Write(io::Error::other("the copy failed"))
                    })
                };
                if let Make::File(meta, ..) = &first.make {
                    stop(self.header(&first.path, meta, None))?;
                }
                data_of(reader, entry, &mut |bytes| {
                    if !others.is_empty() {
                        copies.extend_from_slice(bytes);
                    }
                    stop(self.data(bytes))
                })?;
                stop(self.pad(entry.size))?;
                // The same file copied to several places, but not as links.
                for other in others {
                    if let Make::File(meta, ..) = &other.make {
                        stop(self.header(&other.path, meta, None))?;
                        stop(self.data(&copies))?;
                        stop(self.pad(entry.size))?;
                    }
                }
            }
            Ok(())
        });
        match failed {
            Some(error) => Err(error),
            None => Ok(read?),
        }
    }

    /// Ends the archive.
    pub fn finish(mut self) -> Result<Layer, Error> {
        self.data(&[0; 2 * BLOCK])?;
        self.commit()
    }

    /// Puts a whole archive that was passed on into the store.
    pub fn commit(self) -> Result<Layer, Error> {
        let size = self.writer.len();
        let (digest, path) = self.writer.commit("layer", "the build")?;
        Ok(Layer { digest, size, diff_id: digest, compression: Compression::None, path })
    }
}

/// The blocks before an entry's data: PAX records where the old fields don't do, and the header.
pub fn header(path: &[u8], meta: &Meta, link: Option<&[u8]>) -> Vec<u8> {
    let mut records = Vec::new();
    let mut name = if path.is_empty() { b".".to_vec() } else { path.to_vec() };
    if meta.kind == Kind::Directory && link.is_none() {
        name.push(b'/');
    }
    let target = link.unwrap_or(&meta.target);
    let fits = |bytes: &[u8]| bytes.len() <= 100 && bytes.is_ascii();
    if !fits(&name) {
        record(&mut records, b"path", &name);
    }
    if !fits(target) {
        record(&mut records, b"linkpath", target);
    }
    const MAX_OCTAL: u64 = 0o7777777;
    for (key, id) in [(&b"uid"[..], meta.uid), (b"gid", meta.gid)] {
        if u64::from(id) > MAX_OCTAL {
            record(&mut records, key, id.to_string().as_bytes());
        }
    }
    let size = if meta.kind == Kind::File && link.is_none() { meta.size } else { 0 };
    if size > 0o77777777777 {
        record(&mut records, b"size", size.to_string().as_bytes());
    }
    let (secs, nanos) = meta.mtime;
    if nanos != 0 || !(0..=0o77777777777).contains(&secs) {
        record(&mut records, b"mtime", decimal(secs, nanos).as_bytes());
    }
    if link.is_none() {
        for (key, value) in &meta.xattrs {
            record(&mut records, &[b"SCHILY.xattr.", key.as_slice()].concat(), value);
        }
    }
    let mut out = Vec::new();
    if !records.is_empty() {
        out.extend(block(b"PaxHeaders/entry", b'x', b"", records.len() as u64, |_| {}));
        let padding = records.len().wrapping_neg() % BLOCK;
        out.extend_from_slice(&records);
        out.resize(out.len() + padding, 0);
    }
    let kind = match (link, meta.kind) {
        (Some(_), _) => b'1',
        (None, Kind::File) => b'0',
        (None, Kind::Symlink) => b'2',
        (None, Kind::Char) => b'3',
        (None, Kind::Block) => b'4',
        (None, Kind::Directory) => b'5',
        (None, Kind::Fifo) => b'6',
    };
    let short = |bytes: &[u8]| bytes[..bytes.len().min(100)].to_vec();
    out.extend(block(&short(&name), kind, &short(target), size.min(0o77777777777), |header| {
        header.set_mode(u32::from(meta.mode));
        header.set_uid(u64::from(meta.uid).min(MAX_OCTAL));
        header.set_gid(u64::from(meta.gid).min(MAX_OCTAL));
        header.set_mtime(u64::try_from(secs).unwrap_or(0).min(0o77777777777));
        if matches!(meta.kind, Kind::Char | Kind::Block) && link.is_none() {
            // A ustar header has these fields.
            let _ = header.set_device_major(meta.dev.0);
            let _ = header.set_device_minor(meta.dev.1);
        }
    }));
    out
}

/// A decimal time as PAX has it: the nanoseconds count forward, before 1970 too.
fn decimal(secs: i64, nanos: u32) -> String {
    let text = if secs < 0 && nanos > 0 {
        format!("-{}.{:09}", -(secs + 1), 1_000_000_000 - nanos)
    } else {
        format!("{secs}.{nanos:09}")
    };
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A PAX record, whose length counts its own digits.
fn record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    let _ = write!(out, "{len} ");
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn block(
    name: &[u8],
    kind: u8,
    link: &[u8],
    size: u64,
    fill: impl FnOnce(&mut tar::Header),
) -> [u8; BLOCK] {
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_size(size);
    let old = header.as_old_mut();
    old.name[..name.len()].copy_from_slice(name);
    old.linkname[..link.len()].copy_from_slice(link);
    fill(&mut header);
    header.set_cksum();
    *header.as_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::index::{Index, Op};
    use super::*;

    #[test]
    fn whatever_is_written_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let long = format!("{}/{}", "d".repeat(120), "f".repeat(200));
        let metas = [
            ("a", Meta::file(0o4755, 3, (1_700_000_000, 123_456_789))),
            (
                long.as_str(),
                Meta { uid: 4_000_000_000, gid: 3_000_000, ..Meta::file(0o600, 3, (0, 0)) },
            ),
            ("d", Meta::directory(0o1777, (-5, 500_000_000))),
            (
                "s",
                Meta {
                    kind: Kind::Symlink,
                    mode: 0o777,
                    target: vec![b'x'; 300],
                    ..Meta::file(0, 0, (1, 0))
                },
            ),
            ("c", Meta { kind: Kind::Char, dev: (1, 3), ..Meta::file(0o666, 0, (1, 0)) }),
            (
                "caps",
                Meta {
                    xattrs: vec![(b"security.capability".to_vec(), vec![1, 0, b'\n', 255])],
                    ..Meta::file(0o755, 3, (1, 0))
                },
            ),
            ("ü", Meta::file(0o644, 3, (1, 0))),
        ];
        let mut items: Vec<Item> = metas
            .iter()
            .map(|(path, meta)| {
                let data = if meta.kind == Kind::File {
                    Data::Bytes(b"abc"[..].into())
                } else {
                    Data::None
                };
                Item { path: path.as_bytes().to_vec(), make: Make::File(meta.clone(), data, None) }
            })
            .collect();
        items.push(Item { path: b"b".to_vec(), make: Make::Link(b"a".to_vec()) });
        let layer = write(&store, &items).unwrap();
        let index = Index::read(&layer).unwrap();
        for (entry, (path, meta)) in index.entries.iter().zip(&metas) {
            let Some((found, Op::Add { meta: read, digest, .. })) = entry else {
                panic!("{entry:?}")
            };
            assert_eq!(found, path.as_bytes());
            assert_eq!(read, meta);
            if meta.kind == Kind::File {
                assert_eq!(*digest, Digest::of(b"abc").0);
            }
        }
        assert_eq!(index.entries.last().unwrap(), &Some((b"b".to_vec(), Op::Link(b"a".to_vec()))));
        // Read by another's code too.
        let mut archive = tar::Archive::new(File::open(&layer.path).unwrap());
        assert_eq!(archive.entries().unwrap().map(Result::unwrap).count(), items.len());
    }
}
