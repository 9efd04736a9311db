//! First half of layer application: each layer is read once, from the top one down.
//!
//! What an entry *does* is only recorded ([`Op`]); [`apply`](super::apply) works it out in the
//! layers' own order. What needs doing while the stream passes is to decide which files' data to
//! keep. A file is passed over when an upper layer hides its path *as written*. That can be wrong
//! in two rare ways, neither of which harms the result:
//! - the data is needed after all, through a second hard link that is not hidden: the layer is
//!   read again for it ([`Collector::fetch`]);
//! - the data is kept but not needed, because the path runs through a symbolic link or the entry
//!   is repeated in its own layer: some blocks of the image stay unused.

use dock2uni_format::erofs::{NAME_MAX, XattrPrefix, encode_dev};

use super::{
    Limits,
    error::{EntryFault, Stop, show},
    layer::Stream,
    outline::{self, Piece},
    select::Selection,
    tar::{self, Entry, Kind},
    tree::{Inode, InodeId, MAX_MAPS, NONE, NodeId, Placement, Tree, mode},
    xattr::XattrSet,
};
use crate::erofs::Writer;
use crate::source::table::Table;

/// An upper layer has something other than a directory here, or a whiteout: nothing of lower
/// layers is seen here or below.
const COVERED: u8 = 1;
/// An upper layer hides what lower layers have in this directory.
const OPAQUE: u8 = 2;
/// An upper layer has a directory here.
const DIRECTORY: u8 = 4;
/// An upper layer has a hard link to this path.
const WANTED: u8 = 8;

const XATTRS_MAX: usize = 255;
const XATTR_BYTES_MAX: usize = 64 << 10;
const WARNINGS_MAX: usize = 32;

/// What one entry does to the tree. Nodes are paths as written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    Add(NodeId, InodeId),
    Link(NodeId, NodeId),
    Whiteout(NodeId),
    Opaque(NodeId),
}

/// What one layer does.
#[derive(Debug, Default)]
pub(crate) struct LayerOps {
    pub ops: Vec<Op>,
    /// The first inode that the layer made; the others follow in the archive's order.
    pub first_inode: usize,
}

/// What an entry is, once its path is understood.
enum Action {
    /// Metadata of aufs: of no meaning outside it.
    Ignore,
    Whiteout(NodeId),
    Opaque(NodeId),
    Link(NodeId, NodeId),
    Add(NodeId, Kind),
}

/// Counts kept over all layers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub entries: u64,
    /// Bytes of files that were passed over because an upper layer hides them.
    pub hidden_bytes: u64,
    pub sparse_segments: usize,
    pub warnings: Vec<String>,
}

/// Reads layers into the tree's inodes and the image's data.
pub(crate) struct Collector<'a, 'f> {
    pub tree: &'a mut Tree,
    pub writer: &'a mut Writer<'f>,
    pub limits: Limits,
    /// The files that become part of the image, if not all do.
    pub selection: Option<&'a Selection>,
    pub counts: Counts,
}

impl Collector<'_, '_> {
    /// Reads one layer up to the end of its archive. On an error, `entry.path` names the entry.
    pub fn layer(
        &mut self,
        index: u16,
        reader: &mut tar::Reader<Stream>,
        entry: &mut Entry,
    ) -> Result<LayerOps, Stop> {
        let mut layer = LayerOps { ops: Vec::new(), first_inode: self.tree.inodes.len() };
        while reader.next(entry)? {
            let op = self.op(index, entry, |collector, node, id| {
                if collector.is_hidden(node) || collector.is_dropped(node) {
                    collector.counts.hidden_bytes += entry.size;
                    return Ok(());
                }
                collector.data(reader, entry, id)
            })?;
            layer.ops.extend(op);
        }
        self.mark(&layer.ops);
        Ok(layer)
    }

    /// As [`Collector::layer`] for a layer of which only the table of contents is here: files get room,
    /// and `pieces` says what belongs there.
    pub fn listed(
        &mut self,
        index: u16,
        table: &Table,
        entry: &mut Entry,
        pieces: &mut Vec<Piece>,
    ) -> Result<LayerOps, Stop> {
        let mut layer = LayerOps { ops: Vec::new(), first_inode: self.tree.inodes.len() };
        for listed in &table.entries {
            outline::entry(listed, entry);
            let op = self.op(index, entry, |collector, _, id| {
                let block = collector.writer.room(entry.size)?;
                collector.tree.inodes[id.index()].set_placement(Placement::Blocks(block));
                outline::pieces(listed, index, table.zstd, block, pieces);
                Ok(())
            })?;
            layer.ops.extend(op);
        }
        self.mark(&layer.ops);
        Ok(layer)
    }

    /// What an entry does, if anything. `contents` takes care of those of a regular file, whose inode
    /// is in the tree.
    fn op(
        &mut self,
        index: u16,
        entry: &Entry,
        contents: impl FnOnce(&mut Self, NodeId, InodeId) -> Result<(), Stop>,
    ) -> Result<Option<Op>, Stop> {
        self.counts.entries += 1;
        if self.counts.entries > self.limits.entries {
            return Err(Stop::Limit("entries", self.limits.entries));
        }
        Ok(Some(match self.action(entry)? {
            Action::Ignore => return Ok(None),
            Action::Whiteout(node) => Op::Whiteout(node),
            Action::Opaque(node) => Op::Opaque(node),
            Action::Link(node, target) => Op::Link(node, target),
            Action::Add(node, kind) => {
                let inode = self.inode(index, entry, kind)?;
                let id = self.tree.push_inode(inode)?;
                if kind == Kind::File {
                    contents(self, node, id)?;
                }
                Op::Add(node, id)
            }
        }))
    }

    /// Reads a layer again for the data of these inodes of its own, in ascending order.
    pub fn fetch(
        &mut self,
        first_inode: usize,
        wanted: &[InodeId],
        reader: &mut tar::Reader<Stream>,
        entry: &mut Entry,
    ) -> Result<(), Stop> {
        let mut wanted = wanted.iter().peekable();
        let mut at = first_inode;
        while wanted.peek().is_some() && reader.next(entry)? {
            if let Action::Add(..) = self.action(entry)? {
                if let Some(&id) = wanted.next_if(|id| id.index() == at) {
                    self.data(reader, entry, id)?;
                }
                at += 1;
            }
        }
        Ok(())
    }

    fn action(&mut self, entry: &Entry) -> Result<Action, Stop> {
        if entry.path.len() > self.limits.path_bytes {
            return Err(EntryFault::PathTooLong(self.limits.path_bytes).into());
        }
        let parts = components(&entry.path).ok_or(EntryFault::Escape)?;
        let kind = entry.kind.unwrap_or(Kind::File);
        let Some((&base, parents)) = parts.split_last() else {
            return match kind {
                Kind::Directory => Ok(Action::Add(NodeId::ROOT, kind)),
                _ => Err(EntryFault::RootType.into()),
            };
        };
        if base == b".wh..wh..opq" {
            return Ok(Action::Opaque(self.node(parents)?));
        }
        if parts.iter().any(|part| part.starts_with(b".wh..wh.")) {
            return Ok(Action::Ignore);
        }
        if let Some(name) = base.strip_prefix(b".wh.") {
            if matches!(name, b"" | b"." | b"..") {
                return Err(EntryFault::Whiteout.into());
            }
            let parent = self.node(parents)?;
            return Ok(Action::Whiteout(self.intern(parent, name)?));
        }
        let node = self.node(&parts)?;
        if kind != Kind::HardLink {
            return Ok(Action::Add(node, kind));
        }
        if entry.link.len() > self.limits.path_bytes {
            return Err(EntryFault::PathTooLong(self.limits.path_bytes).into());
        }
        let target = components(&entry.link).ok_or(EntryFault::LinkEscape)?;
        Ok(Action::Link(node, self.node(&target)?))
    }

    fn node(&mut self, parts: &[&[u8]]) -> Result<NodeId, Stop> {
        parts.iter().try_fold(NodeId::ROOT, |at, part| self.intern(at, part))
    }

    fn intern(&mut self, parent: NodeId, name: &[u8]) -> Result<NodeId, Stop> {
        if name.len() > NAME_MAX {
            return Err(EntryFault::NameTooLong.into());
        }
        Ok(self.tree.intern(parent, name)?)
    }

    fn inode(&mut self, layer: u16, entry: &Entry, kind: Kind) -> Result<Inode, Stop> {
        let (file_type, a) = match kind {
            Kind::File | Kind::HardLink => (mode::REGULAR, entry.size),
            Kind::Directory => (mode::DIRECTORY, 0),
            Kind::Fifo => (mode::FIFO, 0),
            Kind::CharDevice | Kind::BlockDevice => {
                let (major, minor) = entry.dev;
                let dev = encode_dev(major, minor).ok_or(EntryFault::Device(major, minor))?;
                let is_char = kind == Kind::CharDevice;
                (if is_char { mode::CHAR } else { mode::BLOCK }, u64::from(dev))
            }
            Kind::Symlink => {
                let len = entry.link.len();
                if !(1..=4095).contains(&len) {
                    return Err(EntryFault::SymlinkTarget(len).into());
                }
                (mode::SYMLINK, self.tree.push_target(&entry.link)?)
            }
        };
        // Links have no permissions of their own; Linux shows all of them.
        let permissions = if kind == Kind::Symlink { 0o777 } else { entry.mode };
        Ok(Inode {
            mtime_secs: entry.mtime.secs,
            a,
            mtime_nanos: entry.mtime.nanos,
            mode: file_type | permissions,
            layer,
            nlink: 1,
            uid: entry.uid,
            gid: entry.gid,
            xattrs: self.xattrs(entry)?,
            b: NONE,
            tail: NONE,
        })
    }

    fn xattrs(&mut self, entry: &Entry) -> Result<XattrSet, Stop> {
        let mut known: Vec<(XattrPrefix, &[u8], &[u8])> = Vec::new();
        for (full, value) in &entry.xattrs {
            match XattrPrefix::split(full) {
                Some((prefix, name)) => known.push((prefix, name, value)),
                None if self.counts.warnings.len() < WARNINGS_MAX => {
                    self.counts.warnings.push(format!(
                        "`{}`: extended attribute `{}` has no place in EROFS and is left out",
                        show(&entry.path),
                        show(full)
                    ));
                }
                None => {}
            }
        }
        let bytes: usize = known.iter().map(|(_, name, value)| name.len() + value.len()).sum();
        if known.len() > XATTRS_MAX || bytes > XATTR_BYTES_MAX {
            return Err(EntryFault::Xattrs.into());
        }
        let set = self.tree.xattrs.intern(&mut known).ok_or(EntryFault::Xattrs)?;
        if self.tree.xattrs.memory() > self.limits.xattr_bytes {
            let limit = self.limits.xattr_bytes as u64;
            return Err(Stop::Limit("bytes of extended attributes", limit));
        }
        Ok(set)
    }

    /// Copies the entry's data to the image.
    fn data(
        &mut self,
        reader: &mut tar::Reader<Stream>,
        entry: &Entry,
        id: InodeId,
    ) -> Result<(), Stop> {
        let xattrs = self.tree.inodes[id.index()].xattrs;
        let Some(segments) = &entry.sparse else {
            let mut file = self.writer.file(id, entry.size, self.tree.xattrs.get(xattrs))?;
            loop {
                let bytes = reader.data(u64::MAX)?;
                if bytes.is_empty() {
                    break;
                }
                file.write(self.tree, bytes)?;
                let len = bytes.len();
                reader.consume(len);
            }
            return file.end(self.tree);
        };
        self.counts.sparse_segments += segments.len();
        if self.counts.sparse_segments > self.limits.sparse_segments {
            let limit = self.limits.sparse_segments as u64;
            return Err(Stop::Limit("segments of sparse files", limit));
        }
        let mut file = self.writer.sparse_file(self.tree, entry.size)?;
        for segment in segments {
            let mut at = segment.offset;
            let end = segment.offset + segment.len;
            while at < end {
                let bytes = reader.data(end - at)?;
                if bytes.is_empty() {
                    return Err(tar::Fault::Truncated.into());
                }
                file.write(at, bytes)?;
                let len = bytes.len();
                at += len as u64;
                reader.consume(len);
            }
        }
        let map = file.end()?;
        let index = map_index(self.tree.sparse.len())?;
        self.tree.sparse.push(map);
        self.tree.inodes[id.index()].set_placement(Placement::Sparse(index));
        Ok(())
    }

    /// Whether the selection leaves out a file at this path as written. The path may lead through
    /// links: what is left out wrongly is read again, as hidden data is.
    fn is_dropped(&self, node: NodeId) -> bool {
        self.selection.is_some_and(|selection| !selection.has(&self.tree.path(node)))
    }

    /// Whether an upper layer hides a regular file at this path as written.
    fn is_hidden(&self, node: NodeId) -> bool {
        let marks = self.tree.marks(node);
        if marks & WANTED != 0 {
            return false;
        }
        if marks & (COVERED | DIRECTORY) != 0 {
            return true;
        }
        let mut at = node;
        while at != NodeId::ROOT {
            at = self.tree.parent(at);
            if self.tree.marks(at) & (COVERED | OPAQUE) != 0 {
                return true;
            }
        }
        false
    }

    /// Lets the layer's entries hide those of lower layers.
    fn mark(&mut self, ops: &[Op]) {
        for &op in ops {
            match op {
                Op::Add(node, inode) if self.tree.inodes[inode.index()].is_dir() => {
                    self.tree.mark(node, DIRECTORY);
                }
                Op::Add(node, _) | Op::Whiteout(node) => self.tree.mark(node, COVERED),
                Op::Link(node, target) => {
                    self.tree.mark(node, COVERED);
                    self.tree.mark(target, WANTED);
                }
                Op::Opaque(node) => self.tree.mark(node, OPAQUE),
            }
        }
    }
}

/// Number of the map that is made after `made` others.
fn map_index(made: usize) -> Result<u32, Stop> {
    // What is below the limit fits 32 bits.
    (made < MAX_MAPS).then_some(made as u32).ok_or(Stop::Limit("mapped files", MAX_MAPS as u64))
}

/// Splits a path into components relative to the root, resolving `.` and `..` as written; `None`
/// if it climbs out.
pub(crate) fn components(path: &[u8]) -> Option<Vec<&[u8]>> {
    let mut parts = Vec::new();
    for part in path.split(|&b| b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::components;

    #[test]
    fn paths_are_cleaned_but_never_climb_out() {
        let joined = |path: &'static [u8]| components(path).map(|parts| parts.join(&b'|'));
        assert_eq!(joined(b"./usr//bin/").as_deref(), Some(&b"usr|bin"[..]));
        assert_eq!(joined(b"/etc/passwd").as_deref(), Some(&b"etc|passwd"[..]));
        assert_eq!(joined(b"a/../b").as_deref(), Some(&b"b"[..]));
        assert_eq!(joined(b"./").as_deref(), Some(&b""[..]));
        assert_eq!(joined(b"a/../../b"), None);
        assert_eq!(joined(b"../b"), None);
    }
}
