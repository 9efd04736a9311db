//! The merged file tree: what the image's files are, without any I/O.
//!
//! Built for millions of files: a name costs 28 bytes and its text, an inode 48. Paths are a trie
//! of [`NodeId`]s; a node is *live* when it names an [`Inode`], and every ancestor of a live node
//! is a live directory. Nodes that only ever occurred in hidden entries stay in the trie, dead,
//! and are passed over by every public method.

use std::{cmp::Ordering, hash::BuildHasher};

use dock2uni_format::erofs::{Time, decode_dev};
use hashbrown::{DefaultHashBuilder, HashTable};

use super::{
    Limits,
    xattr::{XattrSet, XattrTable},
};
use crate::erofs::PackedMap;

/// "No such index" in the packed fields below.
pub(crate) const NONE: u32 = u32::MAX;

/// File type bits of `st_mode`.
pub mod mode {
    /// Mask of the file type.
    pub const TYPE: u16 = 0o170_000;
    /// Regular file.
    pub const REGULAR: u16 = 0o100_000;
    /// Directory.
    pub const DIRECTORY: u16 = 0o040_000;
    /// Symbolic link.
    pub const SYMLINK: u16 = 0o120_000;
    /// Character device.
    pub const CHAR: u16 = 0o020_000;
    /// Block device.
    pub const BLOCK: u16 = 0o060_000;
    /// FIFO.
    pub const FIFO: u16 = 0o010_000;
}

/// A name in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub(crate) u32);

/// A file in the tree; several names may share one (hard links).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InodeId(pub(crate) u32);

impl NodeId {
    /// The root directory.
    pub const ROOT: NodeId = NodeId(0);

    fn index(self) -> usize {
        self.0 as usize
    }
}

impl InodeId {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// Metadata of one file.
#[derive(Clone, Debug)]
pub struct Inode {
    pub(crate) mtime_secs: i64,
    /// Regular file: size. Symlink: place of the target. Device: `i_rdev`.
    pub(crate) a: u64,
    pub(crate) mtime_nanos: u32,
    /// File type and permissions, as in `st_mode`.
    pub mode: u16,
    /// Index of the layer that the file came from, lowest first.
    pub layer: u16,
    /// Number of names; for a directory, 2 and its subdirectories.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Extended attributes.
    pub xattrs: XattrSet,
    /// Regular file: see [`Placement`].
    pub(crate) b: u32,
    /// Regular file: start of the tail among the pending tails, or [`NONE`].
    pub(crate) tail: u32,
}

impl Inode {
    /// Modification time.
    pub fn mtime(&self) -> Time {
        Time { secs: self.mtime_secs, nanos: self.mtime_nanos }
    }

    /// Whether this is a directory.
    pub fn is_dir(&self) -> bool {
        self.mode & mode::TYPE == mode::DIRECTORY
    }

    /// Whether this is a regular file.
    pub fn is_file(&self) -> bool {
        self.mode & mode::TYPE == mode::REGULAR
    }

    /// Whether this is a symbolic link.
    pub fn is_symlink(&self) -> bool {
        self.mode & mode::TYPE == mode::SYMLINK
    }

    pub(crate) fn placement(&self) -> Placement {
        match self.b {
            NONE => Placement::Absent,
            b if b & PACKED == PACKED => Placement::Packed(b & !PACKED),
            b if b & SPARSE != 0 => Placement::Sparse(b & !SPARSE),
            b => Placement::Blocks(b),
        }
    }

    pub(crate) fn set_placement(&mut self, placement: Placement) {
        self.b = match placement {
            Placement::Absent => NONE,
            Placement::Sparse(map) => map | SPARSE,
            Placement::Packed(map) => map | PACKED,
            Placement::Blocks(block) => block,
        };
    }
}

/// Marks a sparse map in `Inode::b`. Block addresses stay below it: 2^31 blocks are 8 TiB.
const SPARSE: u32 = 1 << 31;
/// Marks a compressed file's map in `Inode::b`.
const PACKED: u32 = 3 << 30;
/// So many maps of either kind there can be.
pub(crate) const MAX_MAPS: usize = (1 << 30) - 1;
/// First block address that an image may not reach.
pub(crate) const MAX_BLOCKS: u32 = SPARSE;

/// Where a regular file's whole blocks lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// Not in the image: not wanted, or not read yet.
    Absent,
    /// From this block of the image on; the tail may be apart.
    Blocks(u32),
    /// By this sparse map.
    Sparse(u32),
    /// Compressed, by this map.
    Packed(u32),
}

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// Names; see [`Tree::children`].
    Directory,
    /// A path, any bytes.
    Symlink(&'a [u8]),
    /// A device's major and minor number; the mode tells which kind.
    Device(u32, u32),
    /// Nothing: a FIFO.
    Fifo,
    /// Data of this length in bytes; a reader of the image gives it out.
    File(u64),
}

/// Chunks of a sparse file that are present.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SparseMap {
    /// log2 of the chunk size.
    pub bits: u8,
    /// Runs of chunks: first chunk, number of chunks, first block; ascending.
    pub runs: Vec<(u32, u32, u32)>,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    parent: u32,
    /// Start of the name in `names`: a length byte, then the text.
    name: u32,
    /// Live names in this directory, and the live neighbours in the directory above.
    first_child: u32,
    next_sibling: u32,
    previous_sibling: u32,
    /// The inode while the node is live.
    inode: u32,
    marks: u8,
}

/// The merged tree; see the module's documentation.
#[derive(Debug)]
pub struct Tree {
    names: Vec<u8>,
    nodes: Vec<Node>,
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
    pub(crate) inodes: Vec<Inode>,
    targets: Vec<u8>,
    pub(crate) sparse: Vec<SparseMap>,
    /// Compressed files; see [`Placement::Packed`].
    pub(crate) packed: Vec<PackedMap>,
    /// The attributes that [`Inode::xattrs`] refers to.
    pub xattrs: XattrTable,
    /// Bounds: nodes and inodes each, bytes of names and targets each.
    max_items: usize,
    max_text: usize,
}

/// Largest index of a node or inode.
const MAX_ITEMS: usize = (NONE - 1) as usize;
/// Most bytes of names, and of symlink targets.
const MAX_TEXT: usize = 1 << 30;

/// The tree has outgrown its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// Too many names or files: the bound.
    Items(usize),
    /// Too long names or targets: the bound in bytes.
    Text(usize),
}

impl Default for Tree {
    fn default() -> Tree {
        let root = Node {
            parent: 0,
            name: 0,
            first_child: NONE,
            next_sibling: NONE,
            previous_sibling: NONE,
            inode: NONE,
            marks: 0,
        };
        Tree {
            names: vec![0],
            nodes: vec![root],
            index: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            inodes: Vec::new(),
            targets: Vec::new(),
            sparse: Vec::new(),
            packed: Vec::new(),
            xattrs: XattrTable::default(),
            max_items: MAX_ITEMS,
            max_text: MAX_TEXT,
        }
    }
}

/// Reading.
impl Tree {
    /// The file that a name stands for; `None` for names that are not part of the tree.
    pub fn inode_id(&self, node: NodeId) -> Option<InodeId> {
        Some(self.nodes[node.index()].inode).filter(|&id| id != NONE).map(InodeId)
    }

    /// Metadata of the file that a name stands for.
    pub fn inode(&self, node: NodeId) -> Option<&Inode> {
        self.inode_id(node).map(|id| &self.inodes[id.index()])
    }

    /// What a file holds.
    pub fn content(&self, inode: &Inode) -> Content<'_> {
        match inode.mode & mode::TYPE {
            mode::DIRECTORY => Content::Directory,
            mode::SYMLINK => Content::Symlink(self.target(inode)),
            mode::CHAR | mode::BLOCK => {
                let (major, minor) = decode_dev(inode.a as u32);
                Content::Device(major, minor)
            }
            mode::FIFO => Content::Fifo,
            _ => Content::File(inode.a),
        }
    }

    /// Length of the file's contents in bytes; 0 for directories.
    pub fn size(&self, inode: &Inode) -> u64 {
        match self.content(inode) {
            Content::File(size) => size,
            Content::Symlink(target) => target.len() as u64,
            _ => 0,
        }
    }

    /// The last component of a node's path; empty for the root.
    pub fn name(&self, node: NodeId) -> &[u8] {
        let at = self.nodes[node.index()].name as usize;
        let len = usize::from(self.names[at]);
        &self.names[at + 1..at + 1 + len]
    }

    /// The directory that holds the name; the root is its own parent.
    pub fn parent(&self, node: NodeId) -> NodeId {
        NodeId(self.nodes[node.index()].parent)
    }

    /// The node's path from the root, with a leading slash.
    pub fn path(&self, node: NodeId) -> Vec<u8> {
        let mut chain = Vec::new();
        let mut at = node;
        while at != NodeId::ROOT {
            chain.push(at);
            at = self.parent(at);
        }
        if chain.is_empty() {
            return b"/".to_vec();
        }
        let mut path = Vec::new();
        for &part in chain.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(self.name(part));
        }
        path
    }

    /// The names in a directory, sorted as bytes once the tree is complete.
    pub fn children(&self, directory: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        let first = self.nodes[directory.index()].first_child;
        std::iter::successors(Some(first).filter(|&n| n != NONE), |&node| {
            Some(self.nodes[node as usize].next_sibling).filter(|&n| n != NONE)
        })
        .map(NodeId)
    }

    /// A name in a directory.
    pub fn child(&self, directory: NodeId, name: &[u8]) -> Option<NodeId> {
        self.find(directory, name).filter(|&node| self.is_live(node))
    }

    /// The node at a path as written: symbolic links are not followed.
    pub fn get(&self, path: &[u8]) -> Option<NodeId> {
        path.split(|&b| b == b'/')
            .filter(|part| !part.is_empty() && *part != b".")
            .try_fold(NodeId::ROOT, |at, part| self.child(at, part))
    }

    /// All names, parents before their children.
    pub fn walk(&self) -> impl Iterator<Item = NodeId> + '_ {
        let mut stack: Vec<NodeId> =
            Some(NodeId::ROOT).filter(|&n| self.is_live(n)).into_iter().collect();
        std::iter::from_fn(move || {
            let node = stack.pop()?;
            let start = stack.len();
            stack.extend(self.children(node));
            stack[start..].reverse();
            Some(node)
        })
    }

    fn target(&self, inode: &Inode) -> &[u8] {
        let (start, len) = ((inode.a >> 16) as usize, (inode.a & 0xffff) as usize);
        &self.targets[start..start + len]
    }

    fn is_live(&self, node: NodeId) -> bool {
        self.nodes[node.index()].inode != NONE
    }

    fn find(&self, directory: NodeId, name: &[u8]) -> Option<NodeId> {
        let hash = self.hasher.hash_one((directory.0, name));
        let same = |&node: &u32| {
            self.nodes[node as usize].parent == directory.0 && self.name(NodeId(node)) == name
        };
        self.index.find(hash, same).copied().map(NodeId)
    }
}

/// Building, for layer application only.
impl Tree {
    /// An empty tree for at most so many entries. Directories that entries imply count too, hence
    /// the margin.
    pub(crate) fn bounded(limits: &Limits) -> Tree {
        let items = limits.entries.saturating_mul(2).saturating_add(1 << 16);
        let max_items = usize::try_from(items).map_or(MAX_ITEMS, |items| items.min(MAX_ITEMS));
        Tree { max_items, ..Tree::default() }
    }

    /// The trie node of a name, made if need be; `name` is 1 to 255 bytes.
    pub(crate) fn intern(&mut self, directory: NodeId, name: &[u8]) -> Result<NodeId, Full> {
        if let Some(node) = self.find(directory, name) {
            return Ok(node);
        }
        let len = u8::try_from(name.len()).map_err(|_| Full::Text(255))?;
        let at = self.names.len();
        if at + name.len() > self.max_text {
            return Err(Full::Text(self.max_text));
        }
        if self.nodes.len() >= self.max_items {
            return Err(Full::Items(self.max_items));
        }
        // Both were just found to be below 2^32.
        let (at, id) = (at as u32, self.nodes.len() as u32);
        self.names.push(len);
        self.names.extend_from_slice(name);
        self.nodes.push(Node {
            parent: directory.0,
            name: at,
            first_child: NONE,
            next_sibling: NONE,
            previous_sibling: NONE,
            inode: NONE,
            marks: 0,
        });
        let Tree { index, hasher, nodes, names, .. } = self;
        let hash_of = |&node: &u32| {
            let Node { parent, name, .. } = nodes[node as usize];
            let (start, len) = (name as usize + 1, usize::from(names[name as usize]));
            hasher.hash_one((parent, &names[start..start + len]))
        };
        index.insert_unique(hash_of(&id), id, hash_of);
        Ok(NodeId(id))
    }

    /// The live node in `directory` with the same name as `like`.
    pub(crate) fn find_child(&self, directory: NodeId, like: NodeId) -> Option<NodeId> {
        self.child(directory, self.name(like))
    }

    /// The trie node in `directory` with the same name as `like`.
    pub(crate) fn intern_same(&mut self, directory: NodeId, like: NodeId) -> Result<NodeId, Full> {
        let name = self.name(like).to_vec();
        self.intern(directory, &name)
    }

    pub(crate) fn push_inode(&mut self, inode: Inode) -> Result<InodeId, Full> {
        if self.inodes.len() >= self.max_items {
            return Err(Full::Items(self.max_items));
        }
        self.inodes.push(inode);
        // Below `max_items`, which is below 2^32.
        Ok(InodeId((self.inodes.len() - 1) as u32))
    }

    /// Stores a symlink target of at most 65,535 bytes; the result goes to [`Inode::a`].
    pub(crate) fn push_target(&mut self, target: &[u8]) -> Result<u64, Full> {
        let start = self.targets.len();
        if start + target.len() > self.max_text {
            return Err(Full::Text(self.max_text));
        }
        self.targets.extend_from_slice(target);
        Ok((start as u64) << 16 | target.len() as u64)
    }

    /// Makes the node name the inode. The node's parent is a live directory.
    pub(crate) fn set(&mut self, node: NodeId, inode: InodeId) {
        let was_live = self.is_live(node);
        self.nodes[node.index()].inode = inode.0;
        if was_live || node == NodeId::ROOT {
            return;
        }
        let parent = self.parent(node);
        let next = std::mem::replace(&mut self.nodes[parent.index()].first_child, node.0);
        if next != NONE {
            self.nodes[next as usize].previous_sibling = node.0;
        }
        let linked = &mut self.nodes[node.index()];
        (linked.previous_sibling, linked.next_sibling) = (NONE, next);
    }

    /// Takes a name and everything below it out of the tree. Takes time by what is taken out,
    /// whatever else has been in the directory before.
    pub(crate) fn remove(&mut self, node: NodeId) {
        if !self.is_live(node) {
            return;
        }
        self.remove_children(node);
        let Node { parent, next_sibling, previous_sibling, .. } = self.nodes[node.index()];
        self.nodes[node.index()].inode = NONE;
        if next_sibling != NONE {
            self.nodes[next_sibling as usize].previous_sibling = previous_sibling;
        }
        if previous_sibling != NONE {
            self.nodes[previous_sibling as usize].next_sibling = next_sibling;
        } else if node != NodeId::ROOT {
            self.nodes[parent as usize].first_child = next_sibling;
        }
    }

    /// Takes everything below a name out of the tree.
    pub(crate) fn remove_children(&mut self, node: NodeId) {
        let mut stack = vec![node];
        while let Some(node) = stack.pop() {
            let start = stack.len();
            stack.extend(self.children(node));
            for child in &stack[start..] {
                self.nodes[child.index()].inode = NONE;
            }
            self.nodes[node.index()].first_child = NONE;
        }
    }

    pub(crate) fn marks(&self, node: NodeId) -> u8 {
        self.nodes[node.index()].marks
    }

    pub(crate) fn mark(&mut self, node: NodeId, marks: u8) {
        self.nodes[node.index()].marks |= marks;
    }

    /// Sorts every directory by name and counts links. Returns the live
    /// inodes' number.
    pub(crate) fn complete(&mut self) -> u32 {
        for inode in &mut self.inodes {
            inode.nlink = 0;
        }
        let mut live = 0;
        let mut stack = vec![NodeId::ROOT];
        let mut children = Vec::new();
        while let Some(directory) = stack.pop() {
            let Some(id) = self.inode_id(directory) else { continue };
            if directory == NodeId::ROOT {
                live += 1;
            }
            self.inodes[id.index()].nlink += 2;
            children.clear();
            children.extend(self.children(directory));
            children.sort_unstable_by(|&a, &b| self.compare_names(a, b));
            let mut next = NONE;
            for &child in children.iter().rev() {
                self.nodes[child.index()].next_sibling = next;
                if next != NONE {
                    self.nodes[next as usize].previous_sibling = child.0;
                }
                next = child.0;
                let Some(inode) = self.inode_id(child) else { continue };
                if self.inodes[inode.index()].is_dir() {
                    live += 1;
                    self.inodes[id.index()].nlink += 1;
                    stack.push(child);
                } else {
                    live += u32::from(self.inodes[inode.index()].nlink == 0);
                    self.inodes[inode.index()].nlink += 1;
                }
            }
            if next != NONE {
                self.nodes[next as usize].previous_sibling = NONE;
            }
            self.nodes[directory.index()].first_child = next;
        }
        live
    }

    fn compare_names(&self, a: NodeId, b: NodeId) -> Ordering {
        self.name(a).cmp(self.name(b))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inode(mode: u16) -> Inode {
        Inode {
            mtime_secs: 0,
            a: 0,
            mtime_nanos: 0,
            mode,
            layer: 0,
            nlink: 0,
            uid: 0,
            gid: 0,
            xattrs: XattrSet::EMPTY,
            b: NONE,
            tail: NONE,
        }
    }

    #[test]
    fn an_inode_stays_small() {
        assert_eq!(size_of::<Inode>(), 48);
        assert_eq!(size_of::<Node>(), 28);
    }

    #[test]
    fn names_are_sorted_counted_and_found() {
        let mut tree = Tree::default();
        let dir = tree.push_inode(inode(mode::DIRECTORY)).unwrap();
        let sub = tree.push_inode(inode(mode::DIRECTORY)).unwrap();
        let file = tree.push_inode(inode(mode::REGULAR)).unwrap();
        tree.set(NodeId::ROOT, dir);
        for (name, id) in [(&b"z"[..], file), (b"a", file), (b"m", sub), (b"dead", file)] {
            let node = tree.intern(NodeId::ROOT, name).unwrap();
            tree.set(node, id);
        }
        tree.remove(tree.get(b"/dead").unwrap());
        assert_eq!(tree.complete(), 3);
        let names: Vec<&[u8]> = tree.children(NodeId::ROOT).map(|n| tree.name(n)).collect();
        assert_eq!(names, [b"a", b"m", b"z"]);
        assert_eq!(tree.inodes[file.index()].nlink, 2);
        assert_eq!(tree.inodes[dir.index()].nlink, 3);
        assert_eq!(tree.get(b"./m/"), tree.child(NodeId::ROOT, b"m"));
        assert_eq!(tree.get(b"/dead"), None);
        let paths: Vec<Vec<u8>> = tree.walk().map(|n| tree.path(n)).collect();
        assert_eq!(paths, [&b"/"[..], b"/a", b"/m", b"/z"]);
    }

    #[test]
    fn removing_a_directory_removes_what_is_below() {
        let mut tree = Tree::default();
        let dir = tree.push_inode(inode(mode::DIRECTORY)).unwrap();
        tree.set(NodeId::ROOT, dir);
        let a = tree.intern(NodeId::ROOT, b"a").unwrap();
        let b = tree.intern(a, b"b").unwrap();
        tree.set(a, dir);
        tree.set(b, dir);
        tree.remove(a);
        assert_eq!(tree.get(b"a"), None);
        tree.set(a, dir);
        assert_eq!(tree.get(b"a/b"), None);
        assert_eq!(tree.path(b), b"/a/b");
    }
}
