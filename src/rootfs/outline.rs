//! Roots whose files are looked at before their contents are here.
//!
//! Of layers with a table of contents ([`Table`]) only the table is read: the root is a sparse file
//! with all its metadata and room for the contents. Whoever reads it there ([`Outlined`]) makes the
//! chunks come, each checked by its digest in the table.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use dock2uni_format::erofs::{BLOCK, Time};

use super::tar::{Entry, Kind};
use super::{Error, Options, With, merge};
use crate::erofs::ReadAt;
use crate::source::image::Layer;
use crate::source::table::{Chunk, Listed, ListedKind, Table};
use crate::source::{self, Parts};

/// So many bytes of a blob are fetched together: small files lie side by side, and a request costs more
/// than a few of them.
const TOGETHER: u64 = 256 << 10;

/// What is not here, while a root is made.
#[derive(Default)]
pub(super) struct Outline<'a> {
    tables: &'a [Option<Table>],
    pub pieces: RefCell<Vec<Piece>>,
}

impl<'a> Outline<'a> {
    pub fn table(&self, layer: usize) -> Option<&'a Table> {
        self.tables.get(layer)?.as_ref()
    }
}

/// A part of the root that is not here yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    /// Where it goes in the image.
    at: u64,
    layer: u16,
    zstd: bool,
    chunk: Chunk,
}

/// The entry that the archive has for a file in a table. Times are left out: nothing that is looked at
/// depends on them.
pub(super) fn entry(listed: &Listed, entry: &mut Entry) {
    *entry = Entry {
        path: listed.path.clone().into_bytes(),
        link: listed.link.clone().into_bytes(),
        kind: Some(match listed.kind {
            ListedKind::Reg => Kind::File,
            ListedKind::Dir => Kind::Directory,
            ListedKind::Symlink => Kind::Symlink,
            ListedKind::Hardlink => Kind::HardLink,
            ListedKind::Char => Kind::CharDevice,
            ListedKind::Block => Kind::BlockDevice,
            ListedKind::Fifo => Kind::Fifo,
        }),
        mode: listed.mode,
        uid: listed.uid,
        gid: listed.gid,
        mtime: Time::default(),
        size: listed.size,
        dev: listed.dev,
        xattrs: listed
            .xattrs
            .iter()
            .map(|(name, value)| (name.clone().into_bytes(), value.clone()))
            .collect(),
        sparse: None,
    };
}

/// Notes what belongs to a file whose first block is `block`.
pub(super) fn pieces(listed: &Listed, layer: u16, zstd: bool, block: u32, out: &mut Vec<Piece>) {
    let mut at = u64::from(block) * BLOCK as u64;
    for &chunk in &listed.chunks {
        // Zeros are there already.
        if chunk.digest.is_some() {
            out.push(Piece { at, layer, zstd, chunk });
        }
        at += chunk.len;
    }
}

/// A root that is completed as it is read.
pub(crate) struct Outlined<'a> {
    file: File,
    layers: &'a [Layer],
    parts: Parts<'a>,
    /// By place in the image.
    pieces: Vec<Piece>,
    /// By layer and place in its blob.
    by_blob: Vec<u32>,
    here: RefCell<Vec<bool>>,
    /// Bytes of blobs that have come.
    read: Cell<u64>,
    failed: RefCell<Option<source::Error>>,
}

impl<'a> Outlined<'a> {
    /// Makes the root of `layers` in `file`, which is empty, with what `tables` say of some of them.
    ///
    /// # Errors
    /// As [`build`](super::build).
    pub fn make(
        layers: &'a [Layer],
        tables: &[Option<Table>],
        options: &Options,
        file: File,
        parts: Parts<'a>,
    ) -> Result<Outlined<'a>, Error> {
        let outline = Outline { tables, pieces: RefCell::default() };
        merge(layers, &outline, &With::default(), options, &file, 0, &|_| {})?;
        let pieces = outline.pieces.into_inner();
        // As many as entries that were counted, and their bound fits.
        let mut by_blob: Vec<u32> = (0..pieces.len() as u32).collect();
        by_blob.sort_by_key(|&piece| {
            let piece = &pieces[piece as usize];
            (piece.layer, piece.chunk.from)
        });
        let here = RefCell::new(vec![false; pieces.len()]);
        let (read, failed) = (Cell::new(0), RefCell::default());
        Ok(Outlined { file, layers, parts, pieces, by_blob, here, read, failed })
    }

    /// Bytes of the blobs that have been read.
    pub fn read(&self) -> u64 {
        self.read.get()
    }

    /// Why something could not be read, if that has happened. Whoever has looked at the root must ask,
    /// for to them it was just a file that cannot be read.
    pub fn failed(&self) -> Option<source::Error> {
        self.failed.take()
    }

    /// Makes the contents of a part of the image come.
    fn complete(&self, offset: u64, len: u64) -> Result<(), source::Error> {
        let end = offset.saturating_add(len);
        let first = self.pieces.partition_point(|piece| piece.at + piece.chunk.len <= offset);
        for (index, piece) in self.pieces.iter().enumerate().skip(first) {
            if piece.at >= end {
                break;
            }
            if !self.here.borrow()[index] {
                self.fetch(piece)?;
            }
        }
        Ok(())
    }

    /// Fetches a piece, and those after it in the blob that may as well come along.
    fn fetch(&self, piece: &Piece) -> Result<(), source::Error> {
        let key = (piece.layer, piece.chunk.from);
        let of = |index: u32| {
            let piece = &self.pieces[index as usize];
            (piece.layer, piece.chunk.from)
        };
        let first = self.by_blob.partition_point(|&index| of(index) < key);
        let (from, mut to) = (piece.chunk.from, piece.chunk.to);
        let mut wanted = Vec::new();
        for &index in &self.by_blob[first..] {
            let next = &self.pieces[index as usize];
            let same = of(index) == key;
            if next.layer != piece.layer
                || !same && (next.chunk.to > from + TOGETHER || self.here.borrow()[index as usize])
            {
                break;
            }
            to = to.max(next.chunk.to);
            wanted.push(index as usize);
        }
        let layer = &self.layers[usize::from(piece.layer)];
        let bytes = (self.parts)(layer, from, to)?;
        self.read.set(self.read.get() + bytes.len() as u64);
        for index in wanted {
            let Piece { at, zstd, chunk, .. } = self.pieces[index];
            // Within the bytes that were asked for, which have come.
            let part = &bytes[(chunk.from - from) as usize..(chunk.to - from) as usize];
            let plain = chunk.unpack(zstd, part).map_err(|error| source::Error::Malformed {
                what: format!("layer {}", layer.digest),
                reason: error.to_string(),
            })?;
            let written = self.file.write_all_at(&plain, at);
            written.map_err(|e| source::Error::io("write", &std::env::temp_dir(), e))?;
            self.here.borrow_mut()[index] = true;
        }
        Ok(())
    }
}

impl ReadAt for Outlined<'_> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if let Err(error) = self.complete(offset, buffer.len() as u64) {
            let text = error.to_string();
            self.failed.borrow_mut().get_or_insert(error);
            return Err(io::Error::other(text));
        }
        FileExt::read_exact_at(&self.file, buffer, offset)
    }
}
