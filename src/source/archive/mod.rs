//! Images packed into tar files: OCI layouts and what `docker save` writes, compressed or not.
//!
//! A compressed tar file can only be read from its start. So one pass notes what there is and
//! keeps the small documents, and a second one copies the layers that the store lacks into it;
//! nothing but layers is unpacked, and memory is bounded.
//!
//! A pipe or a socket can't be read twice: there the first pass sets aside in the store what may be
//! a layer, and what was one is given its name afterwards ([`spool`]).

mod docker;
mod oci;
mod spool;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use self::spool::Data;
use super::assemble::Context;
use super::error::Error;
use super::image::{Compression, Image};
use super::manifest::MAX_DOCUMENT;
use super::reference::STDIN;
use super::store::{BUFFER, Writer};
use crate::rootfs::tar::{Entry, Fault, Kind as EntryKind, Reader};

/// Entries that are noted; archives of images have a few per layer.
const MAX_ENTRIES: usize = 1 << 16;
/// Files up to this size are kept in memory by the first pass, for they may be documents.
const SMALL: u64 = 256 << 10;
/// All that are kept together.
const MAX_SMALL: u64 = 32 << 20;
/// Links followed from one name; Docker's archives have chains of one.
const MAX_LINKS: u32 = 8;

/// The forms of archives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An OCI layout.
    Oci,
    /// `manifest.json`, configuration and layers.
    Docker,
}

/// Where an archive's bytes come from.
enum Input {
    /// A file that can be read as often as is needed.
    File(PathBuf),
    /// A stream that can be read once.
    Stream,
}

/// Reads an image out of an archive file, a pipe, or standard input (`-`); without a `kind` its
/// content tells. Docker's newer archives are both: as an OCI layout every layer has a digest.
pub(super) fn resolve(
    context: &Context<'_>,
    path: &Path,
    kind: Option<Kind>,
    wanted: Option<&str>,
    name: String,
) -> Result<Image, Error> {
    let archive = if path == Path::new(STDIN) {
        Archive::scan_stream(context, "standard input".into(), Box::new(io::stdin()))?
    } else {
        let io = |e: io::Error| match e.kind() {
            io::ErrorKind::NotFound => Error::PathNotFound { path: path.into() },
            _ => Error::io("read", path, e),
        };
        use std::os::unix::fs::FileTypeExt as _;
        let file_type = std::fs::metadata(path).map_err(io)?.file_type();
        let place = format!("`{}`", path.display());
        if file_type.is_file() {
            Archive::scan_file(context, place, path)?
        } else if file_type.is_fifo() {
            Archive::scan_stream(context, place, Box::new(File::open(path).map_err(io)?))?
        } else {
            return Err(Error::Unsupported { what: place, reason: "it is not a file".into() });
        }
    };
    choose(&archive, kind, wanted, name)
}

/// Reads the only image out of an archive that `stream` brings from `place`.
pub(super) fn resolve_stream(
    context: &Context<'_>,
    place: String,
    stream: Box<dyn Read>,
    name: String,
) -> Result<Image, Error> {
    choose(&Archive::scan_stream(context, place, stream)?, None, None, name)
}

fn choose(
    archive: &Archive<'_>,
    kind: Option<Kind>,
    wanted: Option<&str>,
    name: String,
) -> Result<Image, Error> {
    let has = |file: &str| archive.files.contains_key(file);
    match kind {
        Some(Kind::Oci) | None if has("index.json") && has("oci-layout") => {
            oci::resolve(archive, wanted, name)
        }
        Some(Kind::Docker) | None if has("manifest.json") => docker::resolve(archive, wanted, name),
        kind => Err(Error::Unsupported {
            what: archive.name(),
            reason: match kind {
                Some(Kind::Oci) => "it is no OCI archive: it has no `oci-layout` and `index.json`",
                Some(Kind::Docker) => "it is no Docker archive: it has no `manifest.json`",
                None => "it is a tar file, but neither an OCI nor a Docker archive",
            }
            .into(),
        }),
    }
}

/// A tar file and what it holds.
struct Archive<'a> {
    context: &'a Context<'a>,
    /// Its name in messages.
    place: String,
    input: Input,
    files: HashMap<String, Noted>,
    /// Names that are links, and the names they stand for.
    links: HashMap<String, String>,
    /// Files of a stream that were set aside.
    aside: Mutex<HashMap<String, Writer>>,
}

/// A file seen in the first pass.
struct Noted {
    size: u64,
    compression: Compression,
    content: Option<Vec<u8>>,
}

type Stream = Reader<Box<dyn BufRead>>;

impl<'a> Archive<'a> {
    fn scan_file(context: &'a Context<'a>, place: String, path: &Path) -> Result<Self, Error> {
        let mut archive = Self::new(context, place, Input::File(path.into()));
        let mut stream = archive.open()?;
        archive.scan(&mut stream)?;
        Ok(archive)
    }

    fn scan_stream(
        context: &'a Context<'a>,
        place: String,
        bytes: Box<dyn Read>,
    ) -> Result<Self, Error> {
        let mut archive = Self::new(context, place, Input::Stream);
        let mut stream = archive.inflate(bytes)?;
        archive.scan(&mut stream)?;
        spool::drain(stream.into_source());
        Ok(archive)
    }

    fn new(context: &'a Context<'a>, place: String, input: Input) -> Self {
        let (files, links, aside) = (HashMap::new(), HashMap::new(), Mutex::default());
        Self { context, place, input, files, links, aside }
    }

    /// The first pass.
    fn scan(&mut self, stream: &mut Stream) -> Result<(), Error> {
        let archive = self;
        let mut entry = Entry::default();
        let mut kept = 0;
        let mut first = true;
        loop {
            match stream.next(&mut entry) {
                Ok(true) => first = false,
                Ok(false) if first => return Err(archive.malformed("it is empty")),
                Ok(false) => return Ok(()),
                Err(Fault::Checksum | Fault::Truncated) if first => {
                    return Err(Error::Unsupported {
                        what: archive.name(),
                        reason: "it is not a tar file".into(),
                    });
                }
                Err(fault) => return Err(archive.fault(fault)),
            }
            if archive.context.cancelled.load(Ordering::Relaxed) {
                return Err(Error::Cancelled);
            }
            if archive.files.len() + archive.links.len() >= MAX_ENTRIES {
                return Err(archive.malformed("it has too many entries for an image"));
            }
            // Names that aren't UTF-8 are none that a manifest could name.
            let Some(name) = normal(&entry.path) else { continue };
            match entry.kind {
                Some(EntryKind::File) if entry.sparse.is_none() => {
                    let size = entry.size;
                    let document = matches!(name.as_str(), "index.json" | "manifest.json");
                    let keep = if document {
                        size <= MAX_DOCUMENT
                    } else {
                        size <= SMALL && kept + size <= MAX_SMALL
                    };
                    let want = if keep { size } else { size.min(4) };
                    let content = read(stream, want).map_err(|e| archive.fault(e))?;
                    let compression = Compression::detect(&content);
                    if !keep && matches!(archive.input, Input::Stream) {
                        let writer = archive.set_aside(&name, size, &content, stream)?;
                        archive.aside().insert(name.clone(), writer);
                    }
                    let content = keep.then_some(content);
                    kept += content.as_ref().map_or(0, |_| size);
                    archive.files.insert(name, Noted { size, compression, content });
                }
                Some(EntryKind::HardLink) => {
                    let target = normal(&entry.link);
                    archive.links.extend(target.map(|target| (name, target)));
                }
                Some(EntryKind::Symlink) => {
                    let target = symlink_target(&name, &entry.link);
                    archive.links.extend(target.map(|target| (name, target)));
                }
                _ => {}
            }
        }
    }

    /// Its name in messages.
    fn name(&self) -> String {
        self.place.clone()
    }

    fn aside(&self) -> std::sync::MutexGuard<'_, HashMap<String, Writer>> {
        // Entries are put in and taken out whole, so a poisoned lock is as good as any.
        self.aside.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn malformed(&self, reason: impl Into<String>) -> Error {
        Error::Malformed { what: self.name(), reason: reason.into() }
    }

    fn fault(&self, fault: Fault) -> Error {
        match fault {
            // What decompressors say has no system error code; what the disk says has one.
            Fault::Io(e) if e.raw_os_error().is_some() => {
                Error::io("read", Path::new(self.place.trim_matches('`')), e)
            }
            Fault::Io(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                self.malformed("it is truncated")
            }
            Fault::Truncated => self.malformed("it is truncated"),
            other => self.malformed(other.to_string()),
        }
    }

    /// The tar stream from its start.
    fn open(&self) -> Result<Stream, Error> {
        let Input::File(path) = &self.input else {
            return Err(self.malformed("it can't be read twice"));
        };
        let file = File::open(path).map_err(|e| Error::io("read", path, e))?;
        self.inflate(Box::new(file))
    }

    /// The tar stream that these bytes hold, compressed or not.
    fn inflate(&self, mut bytes: Box<dyn Read>) -> Result<Stream, Error> {
        let io = |e: io::Error| self.fault(Fault::Io(e));
        let mut head = Vec::new();
        (&mut bytes).take(6).read_to_end(&mut head).map_err(io)?;
        let file = io::Cursor::new(head.clone()).chain(bytes);
        let file = BufReader::with_capacity(BUFFER, file);
        let plain: Box<dyn io::Read> = match Compression::detect(&head) {
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
            Compression::Zstd => Box::new(zstd::Decoder::with_buffer(file).map_err(io)?),
            Compression::None => {
                let tool = match head.as_slice() {
                    [b'B', b'Z', b'h', ..] => Some("bunzip2"),
                    [0xfd, b'7', b'z', b'X', b'Z', 0] => Some("unxz"),
                    _ => None,
                };
                if let Some(tool) = tool {
                    let reason = format!(
                        "gzip, zstd and uncompressed archives are; unpack it with `{tool}`"
                    );
                    return Err(Error::Unsupported { what: self.name(), reason });
                }
                Box::new(file)
            }
        };
        let limit = self.context.options.archive_bytes;
        let plain = BufReader::with_capacity(BUFFER, spool::Bounded::new(plain, limit));
        Ok(Reader::new(Box::new(plain) as Box<dyn BufRead>, 0))
    }

    /// The file that a name stands for, links followed.
    fn file(&self, name: &str) -> Option<(&str, &Noted)> {
        let mut name = name;
        for _ in 0..=MAX_LINKS {
            if let Some((name, noted)) = self.files.get_key_value(name) {
                return Some((name, noted));
            }
            name = self.links.get(name)?;
        }
        None
    }

    /// A whole document; `None` if there is none of that name.
    fn document(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let Some((name, noted)) = self.file(name) else { return Ok(None) };
        if noted.size > MAX_DOCUMENT {
            let what = format!("`{name}` in {}", self.name());
            return Err(Error::TooLarge { what, size: noted.size, limit: MAX_DOCUMENT });
        }
        if let Some(content) = &noted.content {
            return Ok(Some(content.clone()));
        }
        let mut found = None;
        self.each(&mut |entry_name, entry, stream| {
            if found.is_none() && entry_name == name && entry.size <= MAX_DOCUMENT {
                found = Some(read(stream, entry.size).map_err(|e| self.fault(e))?);
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// A further pass over all regular files of an archive that can be read again.
    fn each(
        &self,
        visit: &mut dyn FnMut(&str, &Entry, &mut Stream) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut stream = self.open()?;
        let mut entry = Entry::default();
        while stream.next(&mut entry).map_err(|e| self.fault(e))? {
            if self.context.cancelled.load(Ordering::Relaxed) {
                return Err(Error::Cancelled);
            }
            let plain = entry.kind == Some(EntryKind::File) && entry.sparse.is_none();
            if let Some(name) = normal(&entry.path).filter(|_| plain) {
                visit(&name, &entry, &mut stream)?;
            }
        }
        Ok(())
    }

    /// The data of the `wanted` files, by the names that [`Archive::file`] gave, each once. Returns
    /// the wishes that nothing in the archive meets.
    fn bring<T>(
        &self,
        mut wanted: HashMap<String, T>,
        visit: &mut dyn FnMut(&str, T, Data<'_>) -> Result<(), Error>,
    ) -> Result<HashMap<String, T>, Error> {
        // Small files are in memory, and those of a stream in the store.
        let (mut names, mut aside): (Vec<_>, _) = (wanted.keys().cloned().collect(), self.aside());
        names.sort();
        for name in names {
            let content = self.files.get(&name).and_then(|noted| noted.content.as_deref());
            let data = match (content, aside.remove(&name)) {
                (Some(bytes), _) => Data::Bytes(bytes),
                (None, Some(writer)) => Data::Aside(writer),
                (None, None) => continue,
            };
            if let Some(wish) = wanted.remove(&name) {
                visit(&name, wish, data)?;
            }
        }
        drop(aside);
        if !wanted.is_empty() && matches!(self.input, Input::File(_)) {
            self.each(&mut |name, _, stream| match wanted.remove(name) {
                Some(wish) => visit(name, wish, Data::Stream(stream)),
                None => Ok(()),
            })?;
        }
        Ok(wanted)
    }
}

/// Reads `len` bytes of the current entry.
fn read(stream: &mut Stream, len: u64) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < len {
        let data = stream.data(len - bytes.len() as u64)?;
        let n = data.len();
        if n == 0 {
            return Err(Fault::Truncated);
        }
        bytes.extend_from_slice(data);
        stream.consume(n);
    }
    Ok(bytes)
}

/// A name without `.` components and slashes at its ends, `..` resolved; `None` if it leads out.
fn normal(name: &[u8]) -> Option<String> {
    join("", std::str::from_utf8(name).ok()?)
}

/// What a symbolic link at `name` stands for. An absolute target starts at the archive's root.
fn symlink_target(name: &str, target: &[u8]) -> Option<String> {
    let target = std::str::from_utf8(target).ok()?;
    let dir = name.rsplit_once('/').map_or("", |(dir, _)| dir);
    join(if target.starts_with('/') { "" } else { dir }, target)
}

fn join(dir: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = dir.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_comparable_and_never_lead_out() {
        assert_eq!(normal(b"./a/./b").as_deref(), Some("a/b"));
        assert_eq!(normal(b"/a//b/").as_deref(), Some("a/b"));
        assert_eq!(normal(b"a/../b").as_deref(), Some("b"));
        assert_eq!(normal(b"../a"), None);
        assert_eq!(normal(b"./"), None);
        assert_eq!(normal(b"\xff"), None);
        assert_eq!(
            symlink_target("x/layer.tar", b"../y/layer.tar").as_deref(),
            Some("y/layer.tar")
        );
        assert_eq!(symlink_target("x/l", b"/y").as_deref(), Some("y"));
        assert_eq!(symlink_target("x", b"../y"), None);
    }
}
