//! Records that languages' package managers and compilers leave.

mod gem;
mod go;
mod npm;
mod object;
mod python;
mod rust;

use super::Found;
use crate::erofs::Node;
use crate::plan::root::{Root, base};

/// Longest record that is read, in bytes.
const MAX_RECORD: usize = 4 << 20;

/// Adds what a file says of components.
pub fn look(root: &Root<'_>, path: &[u8], node: &Node, found: &mut Found) {
    let name = base(path);
    let record = || {
        let bytes = root.contents(node, MAX_RECORD)?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    };
    if name == b"package.json" && npm::is_installed(path) {
        npm::read(record().as_deref(), path, found);
    } else if python::is_record(path) {
        python::read(record().as_deref(), path, found);
    } else if name.ends_with(b".gemspec") && gem::is_installed(path) {
        gem::read(record().as_deref(), path, found);
    } else if node.inode.mode & 0o111 != 0 || name.ends_with(b".so") {
        let Some(object) = object::Object::open(root.reader(), node) else { return };
        go::read(&object, path, found);
        rust::read(&object, path, found);
    }
}
