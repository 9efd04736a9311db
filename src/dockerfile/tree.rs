//! A file tree in memory: names and metadata, with data left where it is.
//!
//! Images, stages, build contexts and archives are all such trees, so COPY is one piece of code,
//! and a path can't lead out of any of them: symbolic links are resolved in the tree, where `..`
//! stops at the root.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use super::index::{Index, Kind, Meta, Op};
use crate::rootfs::EntryFault;
use crate::source::Layer;

/// Symbolic links followed for one path, as in Linux.
const MAX_LINKS: u32 = 40;

/// A node of a [`Tree`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u32);

/// A file of a [`Tree`], which may have several names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(u32);

/// Where a file's data is.
#[derive(Clone, Debug)]
pub enum Data {
    /// It has none.
    None,
    /// In a layer.
    Layer {
        /// The layer.
        layer: Arc<Layer>,
        /// Number of the entry in it.
        entry: u32,
        /// Where it starts in the tar stream.
        offset: Option<u64>,
        /// SHA-256.
        digest: [u8; 32],
    },
    /// In a directory of this machine.
    Host {
        /// The directory.
        root: Arc<OwnedFd>,
        /// Its name, for messages.
        name: Arc<PathBuf>,
        /// Path below it, free of symbolic links.
        path: Vec<u8>,
    },
    /// In memory.
    Bytes(Arc<[u8]>),
}

/// A file.
#[derive(Clone, Debug)]
pub struct File {
    /// All but the data.
    pub meta: Meta,
    /// The data.
    pub data: Data,
}

#[derive(Clone, Debug)]
struct Node {
    parent: NodeId,
    name: Box<[u8]>,
    children: BTreeMap<Box<[u8]>, NodeId>,
    file: FileId,
}

/// A file tree. Removed nodes stay where they are and are found no more.
#[derive(Clone, Debug)]
pub struct Tree {
    nodes: Vec<Node>,
    files: Vec<File>,
}

impl Default for Tree {
    fn default() -> Tree {
        let meta = Meta::directory(0o755, (0, 0));
        let root = Node {
            parent: Tree::ROOT,
            name: Box::default(),
            children: BTreeMap::new(),
            file: FileId(0),
        };
        Tree { nodes: vec![root], files: vec![File { meta, data: Data::None }] }
    }
}

/// How far a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// The last node that is there.
    pub node: NodeId,
    /// The components that are not.
    pub missing: Vec<Vec<u8>>,
}

impl Tree {
    /// The root.
    pub const ROOT: NodeId = NodeId(0);

    /// Which file a node is.
    pub fn file_id(&self, node: NodeId) -> FileId {
        self.nodes[node.0 as usize].file
    }

    /// The file at a node.
    pub fn file(&self, node: NodeId) -> &File {
        &self.files[self.file_id(node).0 as usize]
    }

    /// The metadata at a node.
    pub fn meta(&self, node: NodeId) -> &Meta {
        &self.file(node).meta
    }

    /// Whether a directory is there.
    pub fn is_dir(&self, node: NodeId) -> bool {
        self.meta(node).kind == Kind::Directory
    }

    /// Gives all files the same time.
    pub fn set_times(&mut self, time: (i64, u32)) {
        for file in &mut self.files {
            file.meta.mtime = time;
        }
    }

    /// Replaces the root's metadata.
    pub fn set_root(&mut self, meta: Meta) {
        self.files[0].meta = meta;
    }

    /// A name in a directory.
    pub fn child(&self, node: NodeId, name: &[u8]) -> Option<NodeId> {
        self.nodes[node.0 as usize].children.get(name).copied()
    }

    /// What is in a directory, sorted by name.
    pub fn children(&self, node: NodeId) -> impl Iterator<Item = (&[u8], NodeId)> + '_ {
        self.nodes[node.0 as usize].children.iter().map(|(name, id)| (name.as_ref(), *id))
    }

    /// The directory a node is in; the root's is itself.
    pub fn parent(&self, node: NodeId) -> NodeId {
        self.nodes[node.0 as usize].parent
    }

    /// The node's own name.
    pub fn name(&self, node: NodeId) -> &[u8] {
        &self.nodes[node.0 as usize].name
    }

    /// Path from the root, without a leading slash.
    pub fn path(&self, mut node: NodeId) -> Vec<u8> {
        let mut parts = Vec::new();
        while node != Tree::ROOT {
            parts.push(self.name(node));
            node = self.parent(node);
        }
        parts.reverse();
        parts.join(&b'/')
    }

    /// A node and all below it, directories before what is in them, sorted by name.
    pub fn walk(&self, from: NodeId) -> Vec<NodeId> {
        let mut all = Vec::new();
        let mut stack = vec![from];
        while let Some(node) = stack.pop() {
            all.push(node);
            stack.extend(self.nodes[node.0 as usize].children.values().rev());
        }
        all
    }

    /// Follows a path from the root, through symbolic links; the last component is followed if
    /// `follow` says so. `None` if symbolic links go in circles or a file is in the way.
    pub fn reach(&self, path: &[u8], follow: bool) -> Option<Reach> {
        let mut links = 0;
        let mut at = Tree::ROOT;
        let mut missing: Vec<Vec<u8>> = Vec::new();
        let mut todo: Vec<Vec<u8>> = path.split(|&b| b == b'/').rev().map(<[u8]>::to_vec).collect();
        while let Some(part) = todo.pop() {
            match part.as_slice() {
                b"" | b"." => continue,
                b".." if !missing.is_empty() => {
                    missing.pop();
                    continue;
                }
                b".." => {
                    at = self.parent(at);
                    continue;
                }
                _ => {}
            }
            if !missing.is_empty() {
                missing.push(part);
                continue;
            }
            if !self.is_dir(at) {
                return None;
            }
            let Some(child) = self.child(at, &part) else {
                missing.push(part);
                continue;
            };
            let last = todo.iter().all(|part| part.is_empty() || part == b".");
            let meta = self.meta(child);
            if meta.kind == Kind::Symlink && (follow || !last) {
                links += 1;
                if links > MAX_LINKS {
                    return None;
                }
                if meta.target.starts_with(b"/") {
                    at = Tree::ROOT;
                }
                todo.extend(meta.target.split(|&b| b == b'/').rev().map(<[u8]>::to_vec));
                continue;
            }
            at = child;
        }
        Some(Reach { node: at, missing })
    }

    /// The node that a path leads to.
    pub fn lookup(&self, path: &[u8], follow: bool) -> Option<NodeId> {
        self.reach(path, follow).filter(|reach| reach.missing.is_empty()).map(|reach| reach.node)
    }

    /// Puts a file under a name, in place of what is there; a directory over a directory keeps its
    /// contents.
    pub fn put(&mut self, parent: NodeId, name: &[u8], meta: Meta, data: Data) -> NodeId {
        let directory = meta.kind == Kind::Directory;
        // Entries are bounded far below.
        let id = FileId(self.files.len() as u32);
        self.files.push(File { meta, data });
        self.name_file(parent, name, id, directory)
    }

    /// Gives a file one more name.
    pub fn link(&mut self, parent: NodeId, name: &[u8], file: FileId) -> NodeId {
        self.name_file(parent, name, file, false)
    }

    fn name_file(&mut self, parent: NodeId, name: &[u8], file: FileId, keep: bool) -> NodeId {
        if let Some(old) = self.child(parent, name)
            && keep
            && self.is_dir(old)
        {
            self.nodes[old.0 as usize].file = file;
            return old;
        }
        let id = NodeId(self.nodes.len() as u32);
        self.nodes.push(Node { parent, name: name.into(), children: BTreeMap::new(), file });
        self.nodes[parent.0 as usize].children.insert(name.into(), id);
        id
    }

    /// Removes a name with all that is below it.
    pub fn remove(&mut self, parent: NodeId, name: &[u8]) {
        self.nodes[parent.0 as usize].children.remove(name);
    }

    /// Applies a layer, as the image specification says and `rootfs` does.
    ///
    /// # Errors
    /// The entry's path and what is wrong with it.
    pub fn apply(
        &mut self,
        index: &Index,
        layer: &Arc<Layer>,
    ) -> Result<(), (Vec<u8>, EntryFault)> {
        let entries =
            || index.entries.iter().enumerate().filter_map(|(n, e)| Some((n, e.as_ref()?)));
        for (_, (path, op)) in entries() {
            match op {
                Op::Whiteout => {
                    let (parent, name) = split(path);
                    if let Some(parent) = self.lookup(parent, true) {
                        self.remove(parent, name);
                    }
                }
                Op::Opaque => {
                    if let Some(node) = self.lookup(path, true) {
                        self.nodes[node.0 as usize].children.clear();
                    }
                }
                Op::Add { .. } | Op::Link(_) => {}
            }
        }
        for (number, (path, op)) in entries() {
            let done = match op {
                Op::Add { meta, .. } if path.is_empty() => {
                    self.set_root(meta.clone());
                    continue;
                }
                Op::Add { meta, digest, offset } => {
                    self.place(path, meta.mtime).map(|parent| {
                        let data = match meta.kind {
                            Kind::File => Data::Layer {
                                layer: layer.clone(),
                                // Entries are counted by an index that is bounded.
                                entry: number as u32,
                                offset: *offset,
                                digest: *digest,
                            },
                            _ => Data::None,
                        };
                        self.put(parent, split(path).1, meta.clone(), data);
                    })
                }
                Op::Link(target) => self.apply_link(path, target),
                Op::Whiteout | Op::Opaque => continue,
            };
            done.map_err(|fault| (path.clone(), fault))?;
        }
        Ok(())
    }

    fn apply_link(&mut self, path: &[u8], target: &[u8]) -> Result<(), EntryFault> {
        let missing = || EntryFault::MissingLinkTarget(crate::rootfs::error::show(target));
        let found = self.lookup(target, false).ok_or_else(missing)?;
        if self.is_dir(found) {
            return Err(EntryFault::LinkToDirectory(crate::rootfs::error::show(target)));
        }
        let file = self.file_id(found);
        let parent = self.place(path, self.meta(found).mtime)?;
        self.link(parent, split(path).1, file);
        Ok(())
    }

    /// The directory that an entry belongs in, made if it is missing.
    fn place(&mut self, path: &[u8], mtime: (i64, u32)) -> Result<NodeId, EntryFault> {
        let reach = self.reach(split(path).0, true).ok_or(EntryFault::NotADirectory)?;
        if !self.is_dir(reach.node) {
            return Err(EntryFault::NotADirectory);
        }
        let mut at = reach.node;
        for name in &reach.missing {
            at = self.put(at, name, Meta::directory(0o755, mtime), Data::None);
        }
        Ok(at)
    }
}

/// A path's directory and last component.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&b| b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Compression, Digest};

    fn add(path: &str, kind: Kind, target: &str) -> Option<(Vec<u8>, Op)> {
        let meta =
            Meta { kind, target: target.as_bytes().to_vec(), ..Meta::file(0o644, 1, (7, 0)) };
        Some((path.into(), Op::Add { meta, digest: [0; 32], offset: None }))
    }

    fn layer() -> Arc<Layer> {
        let digest = Digest([0; 32]);
        let compression = Compression::None;
        Arc::new(Layer { digest, size: 0, diff_id: digest, compression, path: "x".into() })
    }

    fn apply(tree: &mut Tree, entries: Vec<Option<(Vec<u8>, Op)>>) {
        tree.apply(&Index { entries }, &layer()).unwrap();
    }

    fn all(tree: &Tree) -> Vec<String> {
        let nodes = tree.walk(Tree::ROOT);
        nodes.into_iter().skip(1).map(|n| String::from_utf8(tree.path(n)).unwrap()).collect()
    }

    #[test]
    fn layers_are_applied_in_the_tree() {
        let mut tree = Tree::default();
        apply(
            &mut tree,
            vec![
                add("etc", Kind::Directory, ""),
                add("etc/a", Kind::File, ""),
                add("lib", Kind::Symlink, "usr/lib"),
                add("usr/lib/x", Kind::File, ""),
                Some((b"etc/b".to_vec(), Op::Link(b"etc/a".to_vec()))),
            ],
        );
        assert_eq!(
            tree.file_id(tree.lookup(b"etc/a", true).unwrap()),
            tree.file_id(tree.lookup(b"etc/b", true).unwrap())
        );
        apply(
            &mut tree,
            vec![
                add("lib/y", Kind::File, ""),
                Some((b"etc/a".to_vec(), Op::Whiteout)),
                add("usr", Kind::Directory, ""),
            ],
        );
        assert_eq!(all(&tree), ["etc", "etc/b", "lib", "usr", "usr/lib", "usr/lib/x", "usr/lib/y"]);
        apply(&mut tree, vec![Some((b"usr".to_vec(), Op::Opaque)), add("usr/z", Kind::File, "")]);
        assert_eq!(all(&tree), ["etc", "etc/b", "lib", "usr", "usr/z"]);
        apply(&mut tree, vec![add("usr", Kind::File, "")]);
        assert_eq!(all(&tree), ["etc", "etc/b", "lib", "usr"]);
    }

    #[test]
    fn paths_stay_inside() {
        let mut tree = Tree::default();
        apply(
            &mut tree,
            vec![
                add("a", Kind::Directory, ""),
                add("a/out", Kind::Symlink, "../../../etc"),
                add("loop", Kind::Symlink, "loop"),
                add("abs", Kind::Symlink, "/a"),
                add("f", Kind::File, ""),
            ],
        );
        let reach = tree.reach(b"a/out/passwd", true).unwrap();
        assert_eq!(
            (reach.node, reach.missing),
            (Tree::ROOT, vec![b"etc".to_vec(), b"passwd".to_vec()])
        );
        assert_eq!(tree.reach(b"loop", true), None);
        assert!(tree.lookup(b"loop", false).is_some());
        assert_eq!(tree.lookup(b"../../abs/./", true), tree.lookup(b"a", true));
        assert_eq!(tree.reach(b"f/x", true), None);
        assert_eq!(tree.lookup(b"new/../a", true), tree.lookup(b"a", true));
    }
}
