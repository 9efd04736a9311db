//! Reader of finished images: looks files up and reads them.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::{Mutex, PoisonError},
};

use dock2uni_format::erofs::{
    self, BLOCK, BLOCK_BITS, COMPACT_LEN, ChunkInfo, DirBlock, EXTENDED_LEN, Extent, FileType,
    Inode, LCLUSTER_INDEX_LEN, Layout, MAP_ALIGN, MAP_HEADER_LEN, MapHeader, Stored, Superblock,
    Time, XattrBody, XattrEntry, inode_len,
};
use dock2uni_format::lz4;

/// Symbolic links followed for one path, as in Linux.
const MAX_LINKS: u32 = 40;
/// Longest symbolic link and longest directory that is read into memory, in bytes.
const MAX_LINK: u64 = 4096;
const MAX_DIRECTORY: u64 = 1 << 30;

/// Reads at a position without a cursor.
pub trait ReadAt {
    /// Fills `buffer` from `offset` on, or fails.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for File {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }
}

impl ReadAt for [u8] {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = usize::try_from(offset).ok().and_then(|start| self.get(start..));
        let bytes = bytes.and_then(|rest| rest.get(..buffer.len()));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl<T: ReadAt + ?Sized> ReadAt for &T {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        (**self).read_exact_at(buffer, offset)
    }
}

/// Why an image cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file under the image.
    #[error("cannot read the root filesystem image")]
    Io(#[from] io::Error),
    /// The image's structures.
    #[error("damaged root filesystem image: {0}")]
    Format(#[from] erofs::Error),
    /// Offsets or sizes beyond reason.
    #[error("damaged root filesystem image: inode {0} points nowhere")]
    Bounds(u64),
    /// A path whose symbolic links go in circles.
    #[error("too many symbolic links in `{0}`")]
    SymlinkLoop(String),
    /// The file is larger than the caller wants.
    #[error("`{path}` is {size} bytes long, more than {max}")]
    TooLong {
        /// Path of the file.
        path: String,
        /// Its length in bytes.
        size: u64,
        /// The caller's bound in bytes.
        max: u64,
    },
}

/// A file in an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// Inode number.
    pub nid: u64,
    /// Metadata.
    pub inode: Inode,
}

impl Node {
    /// Type of the file.
    pub fn file_type(&self) -> FileType {
        FileType::of_mode(self.inode.mode)
    }

    /// Whether this is a directory.
    pub fn is_dir(&self) -> bool {
        self.file_type() == FileType::Directory
    }

    /// Whether this is a regular file.
    pub fn is_file(&self) -> bool {
        self.file_type() == FileType::Regular
    }
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// Inode number.
    pub nid: u64,
    /// Type of the file.
    pub file_type: FileType,
    /// Name, any bytes.
    pub name: Vec<u8>,
}

/// An extended attribute: full name and value.
pub type Xattr = (Vec<u8>, Vec<u8>);

/// Reader of an EROFS image, ours or a plain one of `mkfs.erofs`.
///
/// Paths are resolved inside the image: symbolic links are followed, absolute ones from the
/// image's root, and `..` stops there.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let image = std::fs::File::open("root.erofs")?;
/// let reader = dock2uni::erofs::Reader::open(&image, 0)?;
/// let passwd = reader.read_file(b"/etc/passwd", 1 << 20)?;
/// let shell = reader.lookup(b"/bin/sh")?.is_some_and(|node| node.inode.mode & 0o111 != 0);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Reader<R> {
    source: R,
    start: u64,
    superblock: Superblock,
    /// The extent that was decoded last: who reads on needs it again.
    decoded: Mutex<Decoded>,
}

/// A compressed extent's contents.
#[derive(Debug, Default)]
struct Decoded {
    /// The file's inode number and the extent's first block in it.
    of: Option<(u64, u64)>,
    bytes: Vec<u8>,
}

/// Where bytes of a file are.
enum Place {
    /// Nowhere: so many zeros.
    Hole(u64),
    /// At this position of the image, so many.
    At(u64, u64),
    /// In this compressed extent, whose bytes lie at a position, so many.
    In(Extent, u64, usize),
}

impl<R: ReadAt> Reader<R> {
    /// Opens the image that starts at byte `start` of `source`.
    pub fn open(source: R, start: u64) -> Result<Reader<R>, ReadError> {
        let mut block = vec![0; BLOCK];
        source.read_exact_at(&mut block, start)?;
        let superblock = Superblock::parse(&block)?;
        Ok(Reader { source, start, superblock, decoded: Mutex::default() })
    }

    /// What the image is in.
    pub fn source(&self) -> &R {
        &self.source
    }

    /// The superblock.
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// The root directory.
    pub fn root(&self) -> Result<Node, ReadError> {
        self.node(u64::from(self.superblock.root_nid))
    }

    /// The file with an inode number.
    pub fn node(&self, nid: u64) -> Result<Node, ReadError> {
        let offset = self.superblock.inode_offset(nid).ok_or(ReadError::Bounds(nid))?;
        let mut bytes = [0; EXTENDED_LEN];
        self.read(&mut bytes[..COMPACT_LEN], offset)?;
        let len = inode_len([bytes[0], bytes[1]]);
        if len > COMPACT_LEN {
            self.read(&mut bytes[COMPACT_LEN..], offset + COMPACT_LEN as u64)?;
        }
        Ok(Node { nid, inode: Inode::parse(&bytes[..len])? })
    }

    /// The file at a path, symbolic links followed; `None` if there is none.
    pub fn lookup(&self, path: &[u8]) -> Result<Option<Node>, ReadError> {
        self.resolve(path, true)
    }

    /// The file at a path; if it is a symbolic link, the link itself.
    pub fn lookup_link(&self, path: &[u8]) -> Result<Option<Node>, ReadError> {
        self.resolve(path, false)
    }

    /// The contents of the regular file at a path, symbolic links followed; `None` if there is
    /// none. A file above `max` bytes is an error.
    pub fn read_file(&self, path: &[u8], max: u64) -> Result<Option<Vec<u8>>, ReadError> {
        let Some(node) = self.lookup(path)?.filter(Node::is_file) else { return Ok(None) };
        if node.inode.size > max {
            let path = String::from_utf8_lossy(path).into_owned();
            return Err(ReadError::TooLong { path, size: node.inode.size, max });
        }
        self.contents(&node).map(Some)
    }

    /// Modification time of a file.
    pub fn mtime(&self, node: &Node) -> Time {
        node.inode.mtime.unwrap_or(self.superblock.build_time)
    }

    /// Target of a symbolic link.
    pub fn read_link(&self, node: &Node) -> Result<Vec<u8>, ReadError> {
        if node.inode.size > MAX_LINK {
            return Err(ReadError::Bounds(node.nid));
        }
        self.contents(node)
    }

    /// The names in a directory, `.` and `..` left out, sorted as bytes.
    pub fn read_dir(&self, node: &Node) -> Result<Vec<DirEntry>, ReadError> {
        if node.inode.size > MAX_DIRECTORY {
            return Err(ReadError::Bounds(node.nid));
        }
        let mut entries = Vec::new();
        for block in self.contents(node)?.chunks(BLOCK) {
            for entry in DirBlock::parse(block)?.iter() {
                let entry = entry?;
                if entry.name != b"." && entry.name != b".." {
                    let name = entry.name.to_vec();
                    entries.push(DirEntry { nid: entry.nid, file_type: entry.file_type, name });
                }
            }
        }
        Ok(entries)
    }

    /// Extended attributes of a file, sorted by name.
    pub fn xattrs(&self, node: &Node) -> Result<Vec<Xattr>, ReadError> {
        let len = node.inode.xattr_len();
        if len == 0 {
            return Ok(Vec::new());
        }
        let mut body = vec![0; len];
        self.read(&mut body, self.after_inode(node)?)?;
        let body = XattrBody::parse(&body)?;
        let mut found = Vec::new();
        let full = |entry: XattrEntry<'_>| {
            let name = [entry.prefix.as_str().as_bytes(), entry.name].concat();
            (name, entry.value.to_vec())
        };
        for id in body.shared() {
            let at = self.superblock.shared_xattr_offset(id);
            let mut head = [0; 4];
            self.read(&mut head, at)?;
            let value_len = usize::from(u16::from_le_bytes([head[2], head[3]]));
            let mut bytes = vec![0; head.len() + usize::from(head[0]) + value_len];
            self.read(&mut bytes, at)?;
            found.push(full(XattrEntry::parse(&bytes)?));
        }
        for entry in body.inline() {
            found.push(full(entry?));
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Reads from a file at `offset`; returns the bytes read, fewer than asked for only at the
    /// file's end.
    pub fn read_at(&self, node: &Node, offset: u64, buffer: &mut [u8]) -> Result<usize, ReadError> {
        let left = node.inode.size.saturating_sub(offset);
        // Bounded by the buffer's length.
        let want = left.min(buffer.len() as u64) as usize;
        let mut done = 0;
        while done < want {
            let at = offset + done as u64;
            let part = &mut buffer[done..want];
            // Bounded by the buffer's length.
            let bound = |run: u64| run.min(part.len() as u64) as usize;
            done += match self.place(node, at)? {
                Place::At(place, run) => {
                    let take = bound(run);
                    self.read(&mut part[..take], place)?;
                    take
                }
                Place::Hole(run) => {
                    let take = bound(run);
                    part[..take].fill(0);
                    take
                }
                Place::In(extent, place, len) => {
                    self.decode(node, &extent, (place, len), at, part)?
                }
            };
        }
        Ok(want)
    }

    /// Where byte `at` of a file lies. `at` is below the file's size.
    fn place(&self, node: &Node, at: u64) -> Result<Place, ReadError> {
        let inode = &node.inode;
        let bounds = || ReadError::Bounds(node.nid);
        let left = inode.size.checked_sub(at).ok_or_else(bounds)?;
        let blocks = u64::from(inode.u) << BLOCK_BITS;
        match inode.layout {
            Layout::Plain => Ok(Place::At(blocks.saturating_add(at), left)),
            Layout::Inline => {
                let whole = inode.size - inode.tail_len() as u64;
                if at < whole {
                    return Ok(Place::At(blocks.saturating_add(at), whole - at));
                }
                let tail = self.after_inode(node)? + inode.xattr_len() as u64;
                Ok(Place::At(tail + (at - whole), left))
            }
            Layout::Chunk => {
                let info = ChunkInfo::parse(inode.u)?;
                let len = info.entry_len();
                let table = self.after_inode(node)? + inode.xattr_len() as u64;
                let table = table.next_multiple_of(len as u64);
                let mut element = [0; 8];
                // Chunks have 12 bits or more and elements 3, so the product fits.
                let place = table.saturating_add((at >> info.bits) * len as u64);
                self.read(&mut element[..len], place)?;
                let within = at & ((1 << info.bits) - 1);
                let place = info.block(&element[..len])?;
                let run = left.min((1 << info.bits) - within);
                Ok(match place {
                    Some(block) => Place::At((u64::from(block) << BLOCK_BITS) + within, run),
                    None => Place::Hole(run),
                })
            }
            Layout::Compressed => {
                let map = self.after_inode(node)? + inode.xattr_len() as u64;
                let map = map.next_multiple_of(MAP_ALIGN as u64);
                let mut header = [0; MAP_HEADER_LEN];
                self.read(&mut header, map)?;
                let header = MapHeader::parse(&header)?;
                let indexes = map + MAP_HEADER_LEN as u64;
                let total = inode.size.div_ceil(BLOCK as u64);
                let extent = Extent::find(header, at >> BLOCK_BITS, total, |index| {
                    let mut bytes = [0; LCLUSTER_INDEX_LEN];
                    // Numbers of blocks have 52 bits.
                    let place = indexes.saturating_add(index * LCLUSTER_INDEX_LEN as u64);
                    self.read(&mut bytes, place).map(|()| bytes)
                })?;
                let within = at % BLOCK as u64;
                let place = |block: u32| u64::from(block) << BLOCK_BITS;
                Ok(match extent.stored {
                    Stored::Plain(block) => {
                        Place::At(place(block) + within, left.min(BLOCK as u64 - within))
                    }
                    Stored::Blocks(block, blocks) => {
                        Place::In(extent, place(block), usize::from(blocks) * BLOCK)
                    }
                    Stored::Inline => {
                        let at = indexes.saturating_add(total * LCLUSTER_INDEX_LEN as u64);
                        Place::In(extent, at, usize::from(header.inline_len))
                    }
                })
            }
        }
    }

    /// Copies bytes of a compressed extent, which lies at `place`, from byte `at` of the file on.
    /// Returns their number.
    fn decode(
        &self,
        node: &Node,
        extent: &Extent,
        (place, len): (u64, usize),
        at: u64,
        out: &mut [u8],
    ) -> Result<usize, ReadError> {
        let start = extent.first << BLOCK_BITS;
        // Extents and what they are stored in are bounded.
        let size = (node.inode.size - start).min(extent.count << BLOCK_BITS) as usize;
        let mut decoded = self.decoded.lock().unwrap_or_else(PoisonError::into_inner);
        if decoded.of != Some((node.nid, extent.first)) {
            let mut stored = vec![0; len];
            self.read(&mut stored, place)?;
            decoded.of = None;
            decoded.bytes.resize(size, 0);
            lz4::decode(padded(&stored), &mut decoded.bytes)
                .map_err(|lz4::Damaged| erofs::Error::Compression)?;
            decoded.of = Some((node.nid, extent.first));
        }
        // Where the extent was found to be.
        let bytes = &decoded.bytes[(at - start) as usize..];
        let take = bytes.len().min(out.len());
        out[..take].copy_from_slice(&bytes[..take]);
        Ok(take)
    }

    /// All of a file.
    fn contents(&self, node: &Node) -> Result<Vec<u8>, ReadError> {
        let mut bytes = Vec::new();
        // A damaged size must not become an allocation: memory follows what can be read.
        while (bytes.len() as u64) < node.inode.size {
            let start = bytes.len();
            let step = (node.inode.size - start as u64).min(1 << 20);
            bytes.resize(start + step as usize, 0);
            self.read_at(node, start as u64, &mut bytes[start..])?;
        }
        Ok(bytes)
    }

    fn after_inode(&self, node: &Node) -> Result<u64, ReadError> {
        let offset = self.superblock.inode_offset(node.nid).ok_or(ReadError::Bounds(node.nid))?;
        let mut first = [0; 2];
        self.read(&mut first, offset)?;
        // The read has shown that the offset is one of a file.
        Ok(offset + inode_len(first) as u64)
    }

    fn read(&self, buffer: &mut [u8], at: u64) -> Result<(), ReadError> {
        let at = self.start.checked_add(at).ok_or(io::ErrorKind::UnexpectedEof);
        Ok(self.source.read_exact_at(buffer, at.map_err(io::Error::from)?)?)
    }

    fn resolve(&self, path: &[u8], follow_last: bool) -> Result<Option<Node>, ReadError> {
        let mut links = 0;
        // Directories from the root to where we are, and what is left of the path, reversed.
        let mut trail = vec![self.root()?];
        let mut left: Vec<Vec<u8>> = parts(path).rev().collect();
        while let Some(part) = left.pop() {
            let here = trail[trail.len() - 1];
            if part == b".." {
                trail.truncate((trail.len() - 1).max(1));
                continue;
            }
            if !here.is_dir() {
                return Ok(None);
            }
            let Some(found) = self.find(&here, &part)? else { return Ok(None) };
            if found.file_type() != FileType::Symlink || (left.is_empty() && !follow_last) {
                trail.push(found);
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                let path = String::from_utf8_lossy(path).into_owned();
                return Err(ReadError::SymlinkLoop(path));
            }
            let target = self.read_link(&found)?;
            if target.starts_with(b"/") {
                trail.truncate(1);
            }
            left.extend(parts(&target).rev());
        }
        Ok(trail.pop())
    }

    /// Looks a name up in one directory.
    fn find(&self, directory: &Node, name: &[u8]) -> Result<Option<Node>, ReadError> {
        // The block to search is the last one whose first name is not greater.
        let mut block = [0; BLOCK];
        let (mut low, mut high) = (0, directory.inode.size.div_ceil(BLOCK as u64));
        while low < high {
            let middle = low.midpoint(high);
            let got = self.read_at(directory, middle * BLOCK as u64, &mut block)?;
            let entries = DirBlock::parse(&block[..got])?;
            if entries.get(0)?.name > name {
                high = middle;
                continue;
            }
            if let Some(entry) = entries.find(name)? {
                return self.node(entry.nid).map(Some);
            }
            if entries.get(entries.len() - 1)?.name > name {
                return Ok(None);
            }
            low = middle + 1;
        }
        Ok(None)
    }
}

/// What the zeros before an extent's bytes leave of them; they start with something else.
fn padded(stored: &[u8]) -> &[u8] {
    let zeros = stored.iter().position(|&byte| byte != 0);
    &stored[zeros.unwrap_or(stored.len())..]
}

fn parts(path: &[u8]) -> impl DoubleEndedIterator<Item = Vec<u8>> + '_ {
    path.split(|&b| b == b'/').filter(|part| !matches!(*part, b"" | b".")).map(<[u8]>::to_vec)
}
