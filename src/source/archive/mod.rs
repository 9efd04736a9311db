//! Images packed into tar files: OCI layouts and what `docker save` writes, compressed or not.
//!
//! A compressed tar file can only be read from its start. So one pass notes what there is and
//! keeps the small documents, and a second one copies the layers that the store lacks into it;
//! nothing but layers is unpacked, and memory is bounded.

mod docker;
mod oci;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _, Seek as _};
use std::path::Path;
use std::sync::atomic::Ordering;

use super::assemble::Context;
use super::error::Error;
use super::image::{Compression, Image};
use super::manifest::MAX_DOCUMENT;
use super::progress::Bar;
use super::store::{BUFFER, Writer};
use crate::rootfs::tar::{Entry, Fault, Kind as EntryKind, Reader};

/// Entries that are noted; archives of images have a few per layer.
const MAX_ENTRIES: usize = 1 << 16;
/// Files up to this size are kept in memory by the first pass, for they may be documents.
const SMALL: u64 = 256 << 10;
/// All that are kept together.
const MAX_SMALL: u64 = 32 << 20;
/// Most bytes that an archive may inflate to.
const MAX_BYTES: u64 = 1 << 40;
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

/// Reads an image out of an archive; without a `kind` its content tells. Docker's newer archives
/// are both: as an OCI layout every layer has a digest.
pub(super) fn resolve(
    context: &Context<'_>,
    path: &Path,
    kind: Option<Kind>,
    wanted: Option<&str>,
    name: String,
) -> Result<Image, Error> {
    let archive = Archive::scan(context, path)?;
    let has = |file: &str| archive.files.contains_key(file);
    match kind {
        Some(Kind::Oci) | None if has("index.json") && has("oci-layout") => {
            oci::resolve(&archive, wanted, name)
        }
        Some(Kind::Docker) | None if has("manifest.json") => {
            docker::resolve(&archive, wanted, name)
        }
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
    path: &'a Path,
    files: HashMap<String, Noted>,
    /// Names that are links, and the names they stand for.
    links: HashMap<String, String>,
}

/// A file seen in the first pass.
struct Noted {
    size: u64,
    compression: Compression,
    content: Option<Vec<u8>>,
}

type Stream = Reader<Box<dyn BufRead>>;

impl<'a> Archive<'a> {
    /// The first pass.
    fn scan(context: &'a Context<'a>, path: &'a Path) -> Result<Self, Error> {
        let mut archive = Self { context, path, files: HashMap::new(), links: HashMap::new() };
        let mut stream = archive.open()?;
        let mut entry = Entry::default();
        let mut kept = 0;
        let mut first = true;
        loop {
            match stream.next(&mut entry) {
                Ok(true) => first = false,
                Ok(false) if first => return Err(archive.malformed("it is empty")),
                Ok(false) => return Ok(archive),
                Err(Fault::Checksum | Fault::Truncated) if first => {
                    return Err(Error::Unsupported {
                        what: archive.name(),
                        reason: "it is not a tar file".into(),
                    });
                }
                Err(fault) => return Err(archive.fault(fault)),
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
                    let content = read(&mut stream, want).map_err(|e| archive.fault(e))?;
                    let compression = Compression::detect(&content);
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
        format!("`{}`", self.path.display())
    }

    fn malformed(&self, reason: impl Into<String>) -> Error {
        Error::Malformed { what: self.name(), reason: reason.into() }
    }

    fn fault(&self, fault: Fault) -> Error {
        match fault {
            // What decompressors say has no system error code; what the disk says has one.
            Fault::Io(e) if e.raw_os_error().is_some() => Error::io("read", self.path, e),
            Fault::Io(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                self.malformed("it is truncated")
            }
            Fault::Truncated => self.malformed("it is truncated"),
            other => self.malformed(other.to_string()),
        }
    }

    /// The tar stream from its start.
    fn open(&self) -> Result<Stream, Error> {
        let io = |e: io::Error| match e.kind() {
            io::ErrorKind::NotFound => Error::PathNotFound { path: self.path.into() },
            _ => Error::io("read", self.path, e),
        };
        if !std::fs::metadata(self.path).map_err(io)?.is_file() {
            let reason = "it is not a file".into();
            return Err(Error::Unsupported { what: self.name(), reason });
        }
        let mut file = File::open(self.path).map_err(io)?;
        let mut head = Vec::new();
        (&mut file).take(6).read_to_end(&mut head).map_err(io)?;
        file.rewind().map_err(io)?;
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
        let plain = BufReader::with_capacity(BUFFER, plain.take(MAX_BYTES));
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

    /// A further pass over all regular files.
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

    /// Copies the current entry's data into a writer.
    fn copy(
        &self,
        stream: &mut Stream,
        writer: &mut Writer,
        bar: &mut dyn Bar,
    ) -> Result<(), Error> {
        loop {
            let data = stream.data(u64::MAX).map_err(|e| self.fault(e))?;
            let len = data.len();
            if len == 0 {
                return Ok(());
            }
            writer.write(data)?;
            bar.advance(len as u64);
            stream.consume(len);
        }
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
