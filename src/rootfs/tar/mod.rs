//! Streaming tar reader for image layers: ustar, GNU, PAX, sparse files of every dialect.
//!
//! The `tar` crate reads layers well enough to unpack most of them, but loses what an image must
//! keep: it splits PAX values at newlines (file capabilities are binary), reads PAX sparse files
//! as their raw encoding, turns the holes of GNU sparse files into zeros (an 8 TiB file would be
//! 8 TiB of input), ignores global headers, and reads long names whole whatever size they claim.
//! So headers and framing are read here, over any buffered source, with bounds on everything.
//! The crate serves as the independent writer in the tests.
//!
//! References: POSIX.1-2017 `pax` ("pax Interchange Format"), GNU tar manual ("Basic Tar
//! Format", "Storing Sparse Files").

mod header;
mod pax;
mod sparse;

use std::io::{self, BufRead};

use dock2uni_format::erofs::Time;

use self::{header::Header, pax::Records};

pub(crate) use self::sparse::Segment;

const BLOCK: usize = 512;
/// Longest extension (PAX records, GNU long name) that is read, in bytes; the same bound as
/// other readers of layers use.
const MAX_EXTENSION: u64 = 1 << 20;

/// What an entry makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// One entry with all extensions applied. Reused from entry to entry.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    pub kind: Option<Kind>,
    /// Permission bits, 12 of them.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    /// Length of the file in bytes, holes included.
    pub size: u64,
    pub dev: (u32, u32),
    /// Full name and value.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Segments that hold data, ascending and apart, if the file is sparse.
    pub sparse: Option<Vec<Segment>>,
}

/// Why a stream is not a tar archive that can be applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The source failed: the stream does not decompress, or cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the archive ends in the middle of an entry")]
    Truncated,
    #[error("header checksum mismatch")]
    Checksum,
    #[error("the {0} field of the header is not a number")]
    Number(&'static str),
    #[error("the {0} is out of range")]
    Range(&'static str),
    #[error("malformed PAX extended header")]
    Pax,
    #[error("malformed sparse map")]
    Sparse,
    #[error("more than {0} segments in a sparse file")]
    SparseLimit(usize),
    #[error("an extended header or long name of {0} bytes is too long")]
    Extension(u64),
    #[error("entry type `{}` is not supported", .0.escape_ascii())]
    Type(u8),
    #[error("the {0} contains a NUL byte")]
    Nul(&'static str),
}

/// Reader over a stream of tar blocks.
pub(crate) struct Reader<R> {
    source: R,
    /// Bytes taken from the source.
    offset: u64,
    /// Data bytes of the current entry not yet taken, and the padding after them.
    remaining: u64,
    padding: u64,
    globals: Records,
    locals: Records,
    max_segments: usize,
    ended: bool,
}

impl<R: BufRead> Reader<R> {
    pub fn new(source: R, max_segments: usize) -> Reader<R> {
        Reader {
            source,
            offset: 0,
            remaining: 0,
            padding: 0,
            globals: Records::default(),
            locals: Records::default(),
            max_segments,
            ended: false,
        }
    }

    /// Bytes of the stream taken so far, for messages.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    pub fn into_source(self) -> R {
        self.source
    }

    /// Reads up to the next entry's data, skipping what is left of the one before. `false` at the
    /// end of the archive. On an error, `entry.path` names the entry as far as it is known.
    pub fn next(&mut self, entry: &mut Entry) -> Result<bool, Fault> {
        entry.path.clear();
        self.skip_data()?;
        self.locals.clear();
        let (mut long_name, mut long_link) = (None, None);
        loop {
            let Some(header) = self.header()? else {
                return Ok(false);
            };
            match header.kind() {
                b'x' | b'X' => {
                    let text = self.extension(&header)?;
                    self.locals.parse(&text, self.max_segments)?;
                }
                b'g' => {
                    let text = self.extension(&header)?;
                    self.globals.parse(&text, self.max_segments)?;
                }
                b'L' => long_name = Some(self.extension(&header)?),
                b'K' => long_link = Some(self.extension(&header)?),
                _ => {
                    self.fill(entry, &header, long_name, long_link)?;
                    return Ok(true);
                }
            }
        }
    }

    /// The next bytes of the current entry's data, at most `max`; empty at its end.
    /// [`Reader::consume`] takes them.
    pub fn data(&mut self, max: u64) -> Result<&[u8], Fault> {
        let want = self.remaining.min(max);
        if want == 0 {
            return Ok(&[]);
        }
        let bytes = fill_buf(&mut self.source)?;
        if bytes.is_empty() {
            return Err(Fault::Truncated);
        }
        // `want` bounds the slice only where it is shorter, so the cast is exact there.
        Ok(if want < bytes.len() as u64 { &bytes[..want as usize] } else { bytes })
    }

    /// Takes `len` bytes that [`Reader::data`] returned.
    pub fn consume(&mut self, len: usize) {
        self.source.consume(len);
        self.remaining -= len as u64;
        self.offset += len as u64;
    }

    fn skip_data(&mut self) -> Result<(), Fault> {
        let (data, padding) = (self.remaining, self.padding);
        (self.remaining, self.padding) = (0, 0);
        if self.skip(data)? < data {
            return Err(Fault::Truncated);
        }
        // An archive that was never closed ends behind the last entry's data; Go's reader, and Docker and
        // containerd with it, take it for whole.
        self.skip(padding).map(drop)
    }

    /// Passes over bytes; returns how many there were.
    fn skip(&mut self, len: u64) -> Result<u64, Fault> {
        let mut left = len;
        while left > 0 {
            let have = fill_buf(&mut self.source)?.len() as u64;
            if have == 0 {
                break;
            }
            let take = have.min(left);
            // `take` is at most the length of a slice.
            self.source.consume(take as usize);
            self.offset += take;
            left -= take;
        }
        Ok(len - left)
    }

    /// Reads one header block; `None` at the end of the archive.
    fn header(&mut self) -> Result<Option<Header>, Fault> {
        if self.ended {
            return Ok(None);
        }
        let mut block = [0; BLOCK];
        let got = self.read(&mut block)?;
        if got == 0 || (got == BLOCK && block.iter().all(|&b| b == 0)) {
            self.ended = true;
            return Ok(None);
        }
        if got < BLOCK {
            return Err(Fault::Truncated);
        }
        let header = Header::new(block);
        header.check()?;
        Ok(Some(header))
    }

    fn read(&mut self, out: &mut [u8]) -> Result<usize, Fault> {
        let mut done = 0;
        while done < out.len() {
            let bytes = fill_buf(&mut self.source)?;
            if bytes.is_empty() {
                break;
            }
            let take = bytes.len().min(out.len() - done);
            out[done..done + take].copy_from_slice(&bytes[..take]);
            self.source.consume(take);
            self.offset += take as u64;
            done += take;
        }
        Ok(done)
    }

    fn read_all(&mut self, out: &mut [u8]) -> Result<(), Fault> {
        if self.read(out)? < out.len() { Err(Fault::Truncated) } else { Ok(()) }
    }

    /// Reads the data of an extension entry.
    fn extension(&mut self, header: &Header) -> Result<Vec<u8>, Fault> {
        let size = header.size()?;
        if size > MAX_EXTENSION {
            return Err(Fault::Extension(size));
        }
        let mut text = vec![0; size as usize];
        self.read_all(&mut text)?;
        self.padding = padding(size);
        self.skip_data()?;
        Ok(text)
    }

    fn fill(
        &mut self,
        entry: &mut Entry,
        header: &Header,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<(), Fault> {
        let pax = &self.locals;
        header.path(&mut entry.path);
        if let Some(name) = long_name.as_deref().map(until_nul).or(pax.get(pax::PATH)) {
            name.clone_into(&mut entry.path);
        }
        if let Some(name) = pax.sparse_name() {
            name.clone_into(&mut entry.path);
        }
        entry.link.clear();
        entry.link.extend_from_slice(header.link());
        if let Some(link) = long_link.as_deref().map(until_nul).or(pax.get(pax::LINKPATH)) {
            link.clone_into(&mut entry.link);
        }
        if entry.path.contains(&0) {
            return Err(Fault::Nul("name"));
        }
        if entry.link.contains(&0) {
            return Err(Fault::Nul("link target"));
        }
        let kind = match header.kind() {
            // Before POSIX, a slash at the end was the only sign of a directory.
            0 if entry.path.ends_with(b"/") => Kind::Directory,
            0 | b'0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => return Err(Fault::Type(other)),
        };
        entry.kind = Some(kind);
        entry.mode = (header.mode()? & 0o7777) as u16;
        let number = |key, field: &'static str| -> Result<Option<u64>, Fault> {
            pax.get(key).or(self.globals.get(key)).map(|v| pax::number(v, field)).transpose()
        };
        let id = |from_pax: Option<u64>, from_header: Result<u64, Fault>, field| {
            let id = from_pax.map_or(from_header, Ok)?;
            u32::try_from(id).map_err(|_| Fault::Range(field))
        };
        entry.uid = id(number(pax::UID, "uid")?, header.uid(), "uid")?;
        entry.gid = id(number(pax::GID, "gid")?, header.gid(), "gid")?;
        entry.mtime = match pax.get(pax::MTIME).or(self.globals.get(pax::MTIME)) {
            Some(text) => pax::time(text)?,
            None => Time { secs: header.mtime()?, nanos: 0 },
        };
        entry.dev = match kind {
            Kind::CharDevice | Kind::BlockDevice => header.dev()?,
            _ => (0, 0),
        };
        entry.xattrs.clear();
        // A record of the entry replaces a global one of the same name.
        entry.xattrs.extend(self.globals.xattrs().filter(|(n, _)| !pax.has_xattr(n)).cloned());
        entry.xattrs.extend(pax.xattrs().cloned());
        let stored = match kind {
            Kind::File => match pax.get(pax::SIZE) {
                Some(text) => pax::number(text, "size")?,
                None => header.size()?,
            },
            // Only files have data; a size in other headers means nothing.
            _ => 0,
        };
        entry.size = stored;
        entry.sparse = None;
        self.remaining = stored;
        self.padding = padding(stored);
        if kind == Kind::File {
            self.sparse(entry, header)?;
        }
        Ok(())
    }

    /// Finds out whether the entry is sparse, and reads its map.
    fn sparse(&mut self, entry: &mut Entry, header: &Header) -> Result<(), Fault> {
        let (size, segments) = if header.kind() == b'S' {
            let mut segments = Vec::new();
            let mut more = header.gnu_segments(&mut segments)?;
            while more {
                let mut block = [0; BLOCK];
                self.read_all(&mut block)?;
                more = sparse::extension_block(&block, &mut segments)?;
                if segments.len() > self.max_segments {
                    return Err(Fault::SparseLimit(self.max_segments));
                }
            }
            (header.gnu_real_size()?, segments)
        } else if let Some((size, segments)) = self.locals.take_sparse_map()? {
            (size, segments)
        } else if let Some(size) = self.locals.sparse_1_0()? {
            (size, self.sparse_map_in_data()?)
        } else {
            return Ok(());
        };
        sparse::check(&segments, size, self.remaining)?;
        entry.size = size;
        entry.sparse = Some(segments);
        Ok(())
    }

    /// PAX sparse format 1.0: decimal lines at the start of the data, padded to a block.
    fn sparse_map_in_data(&mut self) -> Result<Vec<Segment>, Fault> {
        let mut lines = sparse::Lines::new(self.max_segments);
        loop {
            if self.remaining < BLOCK as u64 {
                return Err(Fault::Sparse);
            }
            let mut block = [0; BLOCK];
            self.read_all(&mut block)?;
            self.remaining -= BLOCK as u64;
            if let Some(segments) = lines.feed(&block)? {
                return Ok(segments);
            }
        }
    }
}

fn fill_buf<R: BufRead>(source: &mut R) -> Result<&[u8], Fault> {
    Ok(source.fill_buf()?)
}

fn padding(size: u64) -> u64 {
    // Blocks are 512 bytes: the distance to the next multiple is below that.
    size.wrapping_neg() % BLOCK as u64
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&b| b == 0).next().unwrap_or_default()
}
