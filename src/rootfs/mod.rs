//! From layers to the root filesystem: one merged tree, one EROFS image, one pass.
//!
//! # Use
//! [`build`] writes the image and returns what it is; [`erofs::Reader`](crate::erofs::Reader)
//! looks files up in it, symbolic links resolved inside the root:
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let layers: Vec<dock2uni::source::image::Layer> = Vec::new();
//! use dock2uni::rootfs;
//! let out = std::fs::File::options().read(true).write(true).create_new(true).open("root.part")?;
//! let root = rootfs::build(&layers, &rootfs::Options::default(), &out, 0, &|_bytes| {})?;
//! let reader = root.reader(&out)?;
//! let passwd: Option<Vec<u8>> = reader.read_file(b"/etc/passwd", 1 << 20)?;
//! let sh = reader.lookup(b"/bin/sh")?; // Option<Node>: mode, size, owner
//! println!("{} bytes, {} files", root.len, root.stats.files);
//! # Ok(()) }
//! ```
//!
//! # How
//! Layers are read from the top one down, so that files which an upper layer hides are never
//! written; every other file's data goes to the image as it streams by (`collect`). Then the
//! recorded entries are applied to the [`Tree`] from the lowest layer up, exactly as a runtime
//! would apply them to a directory (`apply`), and the metadata follows the data. No layer is
//! unpacked anywhere, and memory holds the tree, not the files.
//!
//! Every layer is hashed as it is read and must match its diff ID before anything is accepted.

mod apply;
mod collect;
pub(crate) mod error;
pub(crate) mod layer;
mod limits;
pub(crate) mod outline;
pub mod select;
pub(crate) mod tar;
pub mod tree;
pub mod xattr;

use std::{
    fs::File,
    io::{self, BufRead},
    thread,
};

use dock2uni_format::verity::Verity;
use sha2::{Digest as _, Sha256};

pub(crate) use self::collect::components;
use self::{
    collect::{Collector, Counts, LayerOps},
    error::{Stop, show},
    layer::{Stream, StreamFault},
    outline::Outline,
    select::Selection,
    tree::{InodeId, Placement},
};
pub use self::{
    error::{EntryFault, Error},
    limits::Limits,
    tree::Tree,
};
use crate::{
    erofs::{Compression, Finished, Identity, ReadError, Reader, Writer, verity},
    source::{
        self, Opener,
        image::{Digest, Layer},
    },
};

/// Part of every UUID: raised when the same layers would give other bytes.
pub(crate) const FORMAT: &str = "dock2uni root 3";

/// How to build a root image. The result does not depend on `threads`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bounds on what the image may ask for.
    pub limits: Limits,
    /// Threads that inflate layers; 0 means as many as there are processors, up to 4.
    pub threads: usize,
    /// Bytes of small files and ends of files held in memory before they are written apart from
    /// the other metadata.
    pub tail_memory: usize,
    /// How files are compressed, if they are.
    pub compression: Option<Compression>,
}

impl Default for Options {
    fn default() -> Options {
        Options { limits: Limits::default(), threads: 0, tail_memory: 16 << 20, compression: None }
    }
}

/// A root image that has been written.
#[derive(Debug)]
pub struct RootImage {
    /// Where it starts in its file, in bytes.
    pub start: u64,
    /// Its length in bytes with its hash tree, a multiple of 4,096.
    pub len: u64,
    /// What vouches for it.
    pub verity: Verity,
    /// UUID in its superblock; the same for the same layers.
    pub uuid: [u8; 16],
    /// What it holds.
    pub stats: Stats,
    /// The merged tree.
    pub tree: Tree,
    /// What could not be kept, in words.
    pub warnings: Vec<String>,
}

impl RootImage {
    /// A reader of the image, which is in `file`.
    pub fn reader<'f>(&self, file: &'f File) -> Result<Reader<&'f File>, ReadError> {
        Reader::open(file, self.start)
    }
}

/// What a root image holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Layers applied.
    pub layers: usize,
    /// Entries in them.
    pub entries: u64,
    /// Inodes in the image.
    pub inodes: u32,
    /// Regular files, hard links counted once.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Bytes in regular files, holes included.
    pub file_bytes: u64,
    /// Bytes of files that were not written because an upper layer hides them.
    pub hidden_bytes: u64,
    /// Bytes of the layers when inflated.
    pub layer_bytes: u64,
    /// Layers that were read a second time for data behind a hidden hard link.
    pub reread_layers: usize,
}

/// Applies `layers`, lowest first, and writes the root image to `out` from byte `start` on.
///
/// `out` holds nothing from `start` on; `start` is a multiple of 4,096. On an error it holds
/// part of an image: writing aside and renaming is the caller's part. `progress` is told how many
/// more bytes of the blobs have been read, from any thread; they add up to the layers' sizes
/// unless a layer is read twice.
pub fn build(
    layers: &[Layer],
    options: &Options,
    out: &File,
    start: u64,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<RootImage, Error> {
    build_with(layers, &With::default(), options, out, start, progress)
}

/// What else there is to say about a build.
#[derive(Clone, Copy, Default)]
pub struct With<'a> {
    /// The files that are kept, if not all are.
    pub selection: Option<&'a Selection>,
    /// Where the layers' bytes come from, if not from their files.
    pub open: Option<Opener<'a>>,
    /// Nobody reads the files of the root soon: they are written past the page cache where that is
    /// possible.
    pub direct: bool,
}

impl std::fmt::Debug for With<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("With").field("selection", &self.selection).finish_non_exhaustive()
    }
}

/// As [`build`], with more to say.
pub fn build_with(
    layers: &[Layer],
    with: &With<'_>,
    options: &Options,
    out: &File,
    start: u64,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<RootImage, Error> {
    let merged = merge(layers, &Outline::default(), with, options, out, start, progress)?;
    let Merged { tree, uuid, finished, counts, left, reread_layers } = merged;
    let (verity, len) = verity::append(out, start, finished.len, uuid, &finished.leaves)
        .map_err(|source| failure(layers.last(), "", 0, Stop::Write(source)))?;
    let mut stats = Stats {
        layers: layers.len(),
        entries: counts.entries,
        inodes: finished.inodes,
        hidden_bytes: counts.hidden_bytes,
        layer_bytes: options.limits.layer_bytes - left,
        reread_layers,
        ..Stats::default()
    };
    count(&tree, &mut stats);
    Ok(RootImage { start, len, verity, uuid, stats, tree, warnings: counts.warnings })
}

/// A root without its hash tree.
struct Merged {
    tree: Tree,
    uuid: [u8; 16],
    finished: Finished,
    counts: Counts,
    /// Inflated bytes that might still have come.
    left: u64,
    reread_layers: usize,
}

/// Applies the layers; those of which the outline has tables are not read.
fn merge(
    layers: &[Layer],
    outline: &Outline<'_>,
    with: &With<'_>,
    options: &Options,
    out: &File,
    start: u64,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Merged, Error> {
    let selection = with.selection;
    let open = with.open.unwrap_or(&source::stored);
    let mut tree = Tree::bounded(&options.limits);
    let unnamed = |stop| failure(layers.last(), "", 0, stop);
    let limits = options.limits;
    let (tails, compression) = (options.tail_memory, options.compression);
    let writer = Writer::new(out, start, limits.image_bytes, tails, compression, with.direct);
    let mut writer = writer.map_err(unnamed)?;
    if layers.len() > usize::from(u16::MAX) {
        return Err(unnamed(Stop::Limit("layers", u64::from(u16::MAX))));
    }
    let counts = Counts::default();
    let mut collector =
        Collector { tree: &mut tree, writer: &mut writer, limits, selection, counts };
    let (ops, left) = collect(layers, outline, options, open, &mut collector, progress)?;
    // From here on the tree says where files are, and which are nowhere.
    collector.writer.settle(collector.tree).map_err(unnamed)?;
    for (ops, layer) in ops.iter().rev().zip(layers) {
        apply::apply(collector.tree, ops).map_err(|(node, stop)| {
            let path = collector.tree.path(node);
            failure(Some(layer), &show(path.strip_prefix(b"/").unwrap_or_default()), 0, stop)
        })?;
    }
    apply::ensure_root(collector.tree).map_err(unnamed)?;
    if let Some(selection) = selection {
        selection.apply(collector.tree);
    }
    let live = collector.tree.complete();
    let reread_layers = fetch_missing(layers, &ops, options, open, &mut collector, left)?;
    collector.writer.settle(collector.tree).map_err(unnamed)?;
    let counts = collector.counts;
    drop(ops);
    let uuid = uuid(layers, selection, options.compression);
    let finished = writer.finish(&tree, live, Identity { uuid }).map_err(unnamed)?;
    Ok(Merged { tree, uuid, finished, counts, left, reread_layers })
}

/// Reads all layers, top one first. Returns what each does, top one first, and how many inflated
/// bytes may still come.
fn collect(
    layers: &[Layer],
    outline: &Outline<'_>,
    options: &Options,
    open: Opener<'_>,
    collector: &mut Collector<'_, '_>,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(Vec<LayerOps>, u64), Error> {
    thread::scope(|scope| {
        let streamed = layers.iter().enumerate().rev();
        let streamed = streamed.filter(|(index, _)| outline.table(*index).is_none());
        let streamed = streamed.map(|(_, layer)| layer);
        let streams = layer::start(scope, streamed, threads(options), open, progress);
        let mut left = options.limits.layer_bytes;
        let mut all = Vec::new();
        let mut streams = streams.map_err(Error::Thread)?.into_iter();
        for (index, layer) in layers.iter().enumerate().rev() {
            let listed = |table| {
                let (mut entry, mut pieces) = (tar::Entry::default(), outline.pieces.borrow_mut());
                // The number of layers was checked to fit.
                let ops = collector.listed(index as u16, table, &mut entry, &mut pieces);
                ops.map_err(|stop| failure(Some(layer), &show(&entry.path), 0, stop))
            };
            if let Some(ops) = outline.table(index).map(listed) {
                all.push(ops?);
                continue;
            }
            // There is one for each layer that has no table.
            let Some(mut stream) = streams.next() else { break };
            stream.allow(left, options.limits.layer_bytes);
            let (ops, rest) =
                read(layer, stream, collector.limits.sparse_segments, |reader, entry| {
                    // The number of layers was checked to fit.
                    collector.layer(index as u16, reader, entry)
                })?;
            left = rest;
            all.push(ops);
        }
        Ok((all, left))
    })
}

/// Writes a layer's tar stream to `out`, inflated, and checks its diff ID.
pub(crate) fn inflate(layer: &Layer, out: &mut dyn io::Write) -> Result<(), Error> {
    let limit = Limits::default().layer_bytes;
    let about = |stop| failure(Some(layer), "", 0, stop);
    thread::scope(|scope| {
        let streams = layer::start(scope, std::iter::once(layer), 1, &source::stored, &|_| {});
        // One layer was given, so there is one stream.
        let mut stream = streams.map_err(Error::Thread)?.remove(0);
        stream.allow(limit, limit);
        loop {
            let bytes = stream.fill_buf().map_err(|error| about(Stop::Tar(error.into())))?;
            let len = bytes.len();
            if len == 0 {
                break;
            }
            out.write_all(bytes).map_err(|error| about(Stop::Write(error)))?;
            stream.consume(len);
        }
        check(layer, stream.finish().map_err(|error| about(Stop::Tar(error.into())))?)
    })
}

/// Reads a layer alone with `body`, then checks its diff ID.
pub(crate) fn read_layer<T>(
    layer: &Layer,
    body: impl FnOnce(&mut tar::Reader<Stream>, &mut tar::Entry) -> Result<T, Stop>,
) -> Result<T, Error> {
    let limits = Limits::default();
    thread::scope(|scope| {
        let streams = layer::start(scope, std::iter::once(layer), 1, &source::stored, &|_| {});
        // One layer was given, so there is one stream.
        let mut stream = streams.map_err(Error::Thread)?.remove(0);
        stream.allow(limits.layer_bytes, limits.layer_bytes);
        Ok(read(layer, stream, limits.sparse_segments, body)?.0)
    })
}

/// Reads one layer with `body`, then checks its diff ID. Returns the bytes that may still come.
fn read<T>(
    layer: &Layer,
    stream: Stream,
    max_segments: usize,
    body: impl FnOnce(&mut tar::Reader<Stream>, &mut tar::Entry) -> Result<T, Stop>,
) -> Result<(T, u64), Error> {
    let mut reader = tar::Reader::new(stream, max_segments);
    let mut entry = tar::Entry::default();
    let result = body(&mut reader, &mut entry);
    let offset = reader.offset();
    let mut stream = reader.into_source();
    let about = |stop| failure(Some(layer), &show(&entry.path), offset, stop);
    let value = match result {
        Ok(value) => value,
        // A wrong diff ID explains a malformed archive better than the first oddity in it does.
        Err(Stop::Tar(fault)) if !matches!(fault, tar::Fault::Io(_)) => {
            if let Ok(found) = stream.finish() {
                check(layer, found)?;
            }
            return Err(about(Stop::Tar(fault)));
        }
        Err(stop) => return Err(about(stop)),
    };
    let found = stream.finish().map_err(|error| about(Stop::Tar(error.into())))?;
    check(layer, found)?;
    Ok((value, stream.allowance()))
}

fn check(layer: &Layer, found: Digest) -> Result<(), Error> {
    if found == layer.diff_id {
        return Ok(());
    }
    Err(Error::DiffId { layer: layer.digest, expected: layer.diff_id, found })
}

/// Reads layers again for files that are part of the tree but were passed over. Returns how many
/// layers that took.
fn fetch_missing(
    layers: &[Layer],
    ops: &[LayerOps],
    options: &Options,
    open: Opener<'_>,
    collector: &mut Collector<'_, '_>,
    mut left: u64,
) -> Result<usize, Error> {
    let mut missing: Vec<Vec<InodeId>> = vec![Vec::new(); layers.len()];
    for (index, inode) in collector.tree.inodes.iter().enumerate() {
        if inode.nlink > 0 && inode.is_file() && inode.placement() == Placement::Absent {
            // Inode numbers fit: they were given out as such.
            missing[usize::from(inode.layer)].push(InodeId(index as u32));
        }
    }
    let mut reread = 0;
    for (index, wanted) in missing.iter().enumerate().filter(|(_, wanted)| !wanted.is_empty()) {
        reread += 1;
        let layer = &layers[index];
        let first = ops[layers.len() - 1 - index].first_inode;
        left = thread::scope(|scope| {
            let streams = layer::start(scope, std::iter::once(layer), 1, open, &|_| {});
            let Some(mut stream) = streams.map_err(Error::Thread)?.pop() else { return Ok(left) };
            stream.allow(left, options.limits.layer_bytes);
            let segments = collector.limits.sparse_segments;
            let ((), left) = read(layer, stream, segments, |reader, entry| {
                collector.fetch(first, wanted, reader, entry)
            })?;
            Ok(left)
        })?;
    }
    Ok(reread)
}

fn threads(options: &Options) -> usize {
    match options.threads {
        0 => thread::available_parallelism().map_or(1, |n| n.get().min(4)),
        n => n,
    }
}

/// A UUID of the custom kind (RFC 9562, version 8) that follows from the layers' contents.
fn uuid(
    layers: &[Layer],
    selection: Option<&Selection>,
    compression: Option<Compression>,
) -> [u8; 16] {
    let mut hasher = Sha256::new();
    hasher.update(FORMAT);
    for layer in layers {
        hasher.update(layer.diff_id.0);
    }
    if let Some(selection) = selection {
        hasher.update(selection.fingerprint());
    }
    if let Some(compression) = compression {
        hasher.update(compression.name());
    }
    let digest: [u8; 32] = hasher.finalize().into();
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&digest[..16]);
    uuid[6] = uuid[6] & 0x0f | 0x80;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    uuid
}

fn count(tree: &Tree, stats: &mut Stats) {
    for inode in tree.inodes.iter().filter(|inode| inode.nlink > 0) {
        stats.directories += u64::from(inode.is_dir());
        stats.symlinks += u64::from(inode.is_symlink());
        if inode.is_file() {
            stats.files += 1;
            stats.file_bytes += tree.size(inode);
        }
    }
}

/// Gives a failure the names it needs.
fn failure(layer: Option<&Layer>, entry: &str, offset: u64, stop: Stop) -> Error {
    let name = layer.map_or(Digest([0; 32]), |layer| layer.digest);
    match stop {
        Stop::Entry(reason) => Error::Entry { layer: name, entry: entry.to_owned(), reason },
        Stop::Limit(what, limit) => Error::Limit { layer: name, what, limit },
        Stop::Write(source) => Error::Write(source),
        Stop::Tar(tar::Fault::Io(error)) => stream_failure(layer, name, error),
        Stop::Tar(fault) => {
            Error::Tar { layer: name, entry: entry.to_owned(), offset, reason: fault.to_string() }
        }
    }
}

fn stream_failure(layer: Option<&Layer>, name: Digest, error: io::Error) -> Error {
    let fault = error.downcast::<StreamFault>();
    match (fault, layer) {
        (Ok(StreamFault::Decompress(source)), Some(layer)) => {
            Error::Decompress { layer: name, compression: layer.compression, source }
        }
        (Ok(StreamFault::Read(source)), Some(layer)) => {
            Error::Read { layer: name, path: layer.path.clone(), source }
        }
        (Ok(StreamFault::Limit(limit)), _) => {
            Error::Limit { layer: name, what: "bytes in its layers", limit }
        }
        (Ok(StreamFault::Memory(source)), _)
        | (Ok(StreamFault::Decompress(source) | StreamFault::Read(source)), None)
        | (Err(source), _) => Error::Read { layer: name, path: Default::default(), source },
    }
}
