//! Second half of layer application: the recorded entries take effect, lowest layer first.
//!
//! Follows the OCI image specification ("Applying Changesets") and, where it is silent, what
//! containerd and umoci do:
//! - a layer's whiteouts act on the layers below it only, wherever in the archive they stand;
//! - the parent of an entry is resolved inside the root: symbolic links are followed, `..` stops
//!   at the root, missing directories are made (0755, root's, with the entry's time);
//! - a directory over a directory replaces its metadata and keeps its contents; anything else
//!   over anything replaces it, with all that is below;
//! - the last component is never followed.

use super::{
    collect::{LayerOps, Op},
    error::{EntryFault, Stop, show},
    tree::{Content, Inode, InodeId, NONE, NodeId, Tree, mode},
    xattr::XattrSet,
};

/// Symbolic links followed for one path, as in Linux.
const MAX_LINKS: u32 = 40;

/// Applies one layer; on failure, tells at which entry's path.
pub(crate) fn apply(tree: &mut Tree, layer: &LayerOps) -> Result<(), (NodeId, Stop)> {
    for &op in &layer.ops {
        match op {
            Op::Whiteout(node) => whiteout(tree, node, false).map_err(|stop| (node, stop))?,
            Op::Opaque(node) => whiteout(tree, node, true).map_err(|stop| (node, stop))?,
            Op::Add(..) | Op::Link(..) => {}
        }
    }
    for &op in &layer.ops {
        match op {
            Op::Add(node, inode) => add(tree, node, inode).map_err(|stop| (node, stop))?,
            Op::Link(node, target) => link(tree, node, target).map_err(|stop| (node, stop))?,
            Op::Whiteout(_) | Op::Opaque(_) => {}
        }
    }
    Ok(())
}

/// Gives the tree a root directory if no layer has done so: root's, 0755, from the epoch, as umoci
/// has it.
pub(crate) fn ensure_root(tree: &mut Tree) -> Result<(), Stop> {
    if tree.inode_id(NodeId::ROOT).is_none() {
        let inode = implied_directory(0, 0, 0);
        let id = tree.push_inode(inode)?;
        tree.set(NodeId::ROOT, id);
    }
    Ok(())
}

fn add(tree: &mut Tree, node: NodeId, inode: InodeId) -> Result<(), Stop> {
    let place = place(tree, node, inode)?;
    let both_directories =
        tree.inodes[inode.index()].is_dir() && tree.inode(place).is_some_and(Inode::is_dir);
    if !both_directories {
        tree.remove(place);
    }
    tree.set(place, inode);
    Ok(())
}

fn link(tree: &mut Tree, node: NodeId, target: NodeId) -> Result<(), Stop> {
    let directory = Resolver::new(None).directory(tree, tree.parent(target))?;
    let found = directory.and_then(|directory| match target {
        NodeId::ROOT => Some(directory),
        _ => tree.find_child(directory, target),
    });
    let named = || show(tree.path(target).strip_prefix(b"/").unwrap_or_default());
    let inode = found.and_then(|found| tree.inode_id(found));
    let inode = inode.ok_or_else(|| EntryFault::MissingLinkTarget(named()))?;
    if tree.inodes[inode.index()].is_dir() {
        return Err(EntryFault::LinkToDirectory(named()).into());
    }
    let place = place(tree, node, inode)?;
    if tree.inode_id(place) != Some(inode) {
        tree.remove(place);
        tree.set(place, inode);
    }
    Ok(())
}

fn whiteout(tree: &mut Tree, node: NodeId, opaque: bool) -> Result<(), Stop> {
    let mut resolver = Resolver::new(None);
    if opaque {
        if let Some(directory) = resolver.directory(tree, node)? {
            tree.remove_children(directory);
        }
    } else if let Some(parent) = resolver.directory(tree, tree.parent(node))?
        && let Some(found) = tree.find_child(parent, node)
    {
        tree.remove(found);
    }
    Ok(())
}

/// The node at which an entry written as `node` belongs.
fn place(tree: &mut Tree, node: NodeId, inode: InodeId) -> Result<NodeId, Stop> {
    if node == NodeId::ROOT {
        return Ok(node);
    }
    let parent = Resolver::new(Some(inode)).directory(tree, tree.parent(node))?;
    // With directories made on the way, resolving always ends at one.
    let parent = parent.ok_or(EntryFault::NotADirectory)?;
    if parent == tree.parent(node) {
        return Ok(node);
    }
    Ok(tree.intern_same(parent, node)?)
}

/// Resolves directories inside the root.
struct Resolver {
    /// The entry on whose behalf missing directories are made; without it they are not.
    create_for: Option<InodeId>,
    links: u32,
}

impl Resolver {
    fn new(create_for: Option<InodeId>) -> Resolver {
        Resolver { create_for, links: 0 }
    }

    /// The live directory that the path written as `node` leads to; `None` if it is not there.
    fn directory(&mut self, tree: &mut Tree, node: NodeId) -> Result<Option<NodeId>, Stop> {
        // A live node has live directories above it, so it is its own resolution.
        if tree.inode(node).is_some_and(Inode::is_dir) {
            return Ok(Some(node));
        }
        let mut chain = Vec::new();
        let mut at = node;
        while !tree.inode(at).is_some_and(Inode::is_dir) && at != NodeId::ROOT {
            chain.push(at);
            at = tree.parent(at);
        }
        if at == NodeId::ROOT && !tree.inode(at).is_some_and(Inode::is_dir) {
            if self.create_for.is_none() {
                return Ok(None);
            }
            ensure_root(tree)?;
        }
        for &written in chain.iter().rev() {
            let name = tree.name(written).to_vec();
            match self.step(tree, at, &name)? {
                Some(next) => at = next,
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    /// One component further from the live directory `at`.
    fn step(&mut self, tree: &mut Tree, at: NodeId, name: &[u8]) -> Result<Option<NodeId>, Stop> {
        let Some(child) = tree.child(at, name) else {
            let Some(id) = self.create_for else { return Ok(None) };
            let child = tree.intern(at, name)?;
            self.make(tree, child, id)?;
            return Ok(Some(child));
        };
        let target = match tree.inode(child).map(|inode| tree.content(inode)) {
            Some(Content::Directory) => return Ok(Some(child)),
            Some(Content::Symlink(target)) => target.to_vec(),
            _ if self.create_for.is_some() => return Err(EntryFault::NotADirectory.into()),
            _ => return Ok(None),
        };
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(EntryFault::SymlinkLoop.into());
        }
        let mut at = if target.starts_with(b"/") { NodeId::ROOT } else { at };
        for part in target.split(|&b| b == b'/') {
            at = match part {
                b"" | b"." => at,
                b".." => tree.parent(at),
                name if name.len() > 255 => return Err(EntryFault::NameTooLong.into()),
                name => match self.step(tree, at, name)? {
                    Some(next) => next,
                    None => return Ok(None),
                },
            };
        }
        Ok(Some(at))
    }

    fn make(&self, tree: &mut Tree, node: NodeId, entry: InodeId) -> Result<(), Stop> {
        let Inode { mtime_secs, mtime_nanos, layer, .. } = tree.inodes[entry.index()];
        let id = tree.push_inode(implied_directory(mtime_secs, mtime_nanos, layer))?;
        tree.set(node, id);
        Ok(())
    }
}

fn implied_directory(mtime_secs: i64, mtime_nanos: u32, layer: u16) -> Inode {
    Inode {
        mtime_secs,
        a: 0,
        mtime_nanos,
        mode: mode::DIRECTORY | 0o755,
        layer,
        nlink: 2,
        uid: 0,
        gid: 0,
        xattrs: XattrSet::EMPTY,
        b: NONE,
        tail: NONE,
    }
}
