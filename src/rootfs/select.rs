//! A choice of files: what of the merged tree becomes part of the image.

use std::collections::HashSet;

use sha2::{Digest as _, Sha256};

use super::tree::{NodeId, Tree};

/// Paths to keep, each with all directories above it. Paths are those of the merged tree: absolute,
/// without links in their directories.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    paths: HashSet<Vec<u8>>,
}

impl Selection {
    /// Keeps a path, and the directories above it.
    pub fn keep(&mut self, path: &[u8]) {
        let mut end = path.len();
        while end > 0 && self.paths.insert(path[..end].to_vec()) {
            end = path[..end].iter().rposition(|&byte| byte == b'/').unwrap_or(0);
        }
    }

    /// Whether a path is kept; the root always is.
    pub fn has(&self, path: &[u8]) -> bool {
        path == b"/" || self.paths.contains(path)
    }

    /// Number of paths.
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// Whether nothing but the root is kept.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// Takes everything else out of the tree.
    pub(crate) fn apply(&self, tree: &mut Tree) {
        let dropped: Vec<NodeId> =
            tree.walk().filter(|&node| !self.has(&tree.path(node))).collect();
        for node in dropped {
            tree.remove(node);
        }
    }

    /// A number that stands for the choice.
    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        let mut paths: Vec<&Vec<u8>> = self.paths.iter().collect();
        paths.sort();
        let mut hasher = Sha256::new();
        for path in paths {
            hasher.update((path.len() as u64).to_le_bytes());
            hasher.update(path);
        }
        hasher.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::Selection;

    #[test]
    fn a_path_is_kept_with_what_is_above_it() {
        let mut selection = Selection::default();
        selection.keep(b"/usr/bin/x");
        for path in [&b"/"[..], b"/usr", b"/usr/bin", b"/usr/bin/x"] {
            assert!(selection.has(path));
        }
        assert!(!selection.has(b"/usr/bin/y") && !selection.has(b"/etc"));
        assert_eq!(selection.len(), 3);
        let mut other = Selection::default();
        other.keep(b"/usr/bin/x/y");
        assert_ne!(selection.fingerprint(), other.fingerprint());
    }
}
