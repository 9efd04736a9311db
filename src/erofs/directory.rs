//! Directories: which names go into which block.

use dock2uni_format::erofs::{BLOCK, DIRENT_LEN, Dirent, FileType, emit_dir_block};

use crate::rootfs::tree::{NodeId, Tree};

/// The entries of a directory in on-disk order, `.` and `..` among them.
pub(crate) fn entries(tree: &Tree, directory: NodeId) -> impl Iterator<Item = (&[u8], NodeId)> {
    let parent = tree.parent(directory);
    let mut dots = [(&b"."[..], directory), (b"..", parent)].into_iter().peekable();
    let mut children = tree.children(directory).map(|node| (tree.name(node), node)).peekable();
    std::iter::from_fn(move || match (dots.peek(), children.peek()) {
        (Some((dot, _)), Some((name, _))) if name < dot => children.next(),
        (Some(_), _) => dots.next(),
        (None, _) => children.next(),
    })
}

/// Size of a directory in bytes: whole blocks, and what the last one uses.
pub(crate) fn size(tree: &Tree, directory: NodeId) -> u64 {
    let (mut blocks, mut used) = (0, 0);
    for (name, _) in entries(tree, directory) {
        let len = DIRENT_LEN + name.len();
        if used + len > BLOCK {
            blocks += 1;
            used = 0;
        }
        used += len;
    }
    blocks * BLOCK as u64 + used as u64
}

/// Emits the blocks of a directory one after the other, the last one cut to what it uses.
/// `resolve` tells the inode number and type of a node.
pub(crate) fn emit<E>(
    tree: &Tree,
    directory: NodeId,
    resolve: impl Fn(NodeId) -> (u64, FileType),
    mut block: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut pending: Vec<(&[u8], NodeId)> = Vec::new();
    let mut used = 0;
    let flush = |pending: &mut Vec<(&[u8], NodeId)>| {
        let mut bytes = [0; BLOCK];
        let dirents = pending.iter().map(|&(name, node)| {
            let (nid, file_type) = resolve(node);
            Dirent { nid, file_type, name }
        });
        let used = emit_dir_block(dirents, &mut bytes);
        pending.clear();
        (bytes, used)
    };
    for (name, node) in entries(tree, directory) {
        let len = DIRENT_LEN + name.len();
        if used + len > BLOCK {
            block(&flush(&mut pending).0)?;
            used = 0;
        }
        used += len;
        pending.push((name, node));
    }
    let (bytes, used) = flush(&mut pending);
    block(&bytes[..used])
}
