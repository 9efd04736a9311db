//! Trees, file by file.

use std::collections::HashSet;

use dock2uni_format::erofs::{FileType, decode_dev};
use serde::Serialize;

use super::{Error, Root, text};
use crate::erofs::Node;

/// Deepest tree that is followed; Linux itself has no way to reach much deeper.
const MAX_DEPTH: usize = 2048;

/// A file as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Name or path, any bytes.
    pub path: Vec<u8>,
    /// The file.
    pub node: Node,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Where a symbolic link leads.
    pub target: Option<Vec<u8>>,
}

/// What programs read.
#[derive(Serialize)]
struct Shown {
    path: String,
    r#type: &'static str,
    mode: String,
    uid: u32,
    gid: u32,
    size: u64,
    mtime: i64,
    links: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<(u32, u32)>,
    /// Where the text is not what the image has: its bytes in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_bytes: Option<String>,
}

impl Entry {
    pub(super) fn new(root: &Root, path: Vec<u8>, node: Node) -> Result<Entry, Error> {
        let link = node.file_type() == FileType::Symlink;
        let target = if link { Some(root.read_link(&node)?) } else { None };
        Ok(Entry { path, node, mtime: root.mtime(&node).secs, target })
    }

    /// Type and permissions as `ls` shows them.
    pub fn permissions(&self) -> String {
        let mode = self.node.inode.mode;
        let kind = match self.node.file_type() {
            FileType::Directory => 'd',
            FileType::Symlink => 'l',
            FileType::CharDevice => 'c',
            FileType::BlockDevice => 'b',
            FileType::Fifo => 'p',
            FileType::Socket => 's',
            _ => '-',
        };
        let mut text = String::from(kind);
        for shift in [6, 3, 0] {
            let bits = mode >> shift & 7;
            text.push(if bits & 4 != 0 { 'r' } else { '-' });
            text.push(if bits & 2 != 0 { 'w' } else { '-' });
            // Set-user-ID, set-group-ID and sticky bits show in the place of the third.
            let special = mode >> (9 + shift / 3) & 1 != 0;
            let letter = if shift == 0 { 't' } else { 's' };
            text.push(match (special, bits & 1 != 0) {
                (true, true) => letter,
                (true, false) => letter.to_ascii_uppercase(),
                (false, true) => 'x',
                (false, false) => '-',
            });
        }
        text
    }

    /// Major and minor number of a device.
    pub fn device(&self) -> Option<(u32, u32)> {
        let device = matches!(self.node.file_type(), FileType::CharDevice | FileType::BlockDevice);
        device.then(|| decode_dev(self.node.inode.u))
    }

    /// The entry for programs.
    pub fn to_json(&self) -> serde_json::Value {
        let utf8 = std::str::from_utf8(&self.path).is_ok();
        let hex = || self.path.iter().map(|byte| format!("{byte:02x}")).collect();
        let inode = &self.node.inode;
        let shown = Shown {
            path: String::from_utf8_lossy(&self.path).into_owned(),
            r#type: kind(self.node.file_type()),
            mode: format!("{:04o}", inode.mode & 0o7777),
            uid: inode.uid,
            gid: inode.gid,
            size: inode.size,
            mtime: self.mtime,
            links: inode.nlink,
            target: self.target.as_ref().map(|path| String::from_utf8_lossy(path).into_owned()),
            device: self.device(),
            path_bytes: (!utf8).then(hex),
        };
        // A structure of texts and numbers always serialises.
        serde_json::to_value(shown).unwrap_or_default()
    }
}

/// A word for a type.
pub(super) fn kind(kind: FileType) -> &'static str {
    match kind {
        FileType::Regular => "file",
        FileType::Directory => "directory",
        FileType::Symlink => "symlink",
        FileType::CharDevice => "character device",
        FileType::BlockDevice => "block device",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
        _ => "unknown",
    }
}

/// Refuses names that lead elsewhere.
pub(super) fn check_name(name: &[u8]) -> Result<(), Error> {
    let bad =
        matches!(name, b"" | b"." | b"..") || name.iter().any(|byte| matches!(byte, b'/' | 0));
    if bad { Err(Error::Name(text(name))) } else { Ok(()) }
}

/// Visits a directory's files, and theirs, each directory before what is in it and names in order.
/// `each` gets the path from `top` on, without a leading slash, and how deep it is.
///
/// # Errors
/// What `each` returns, or damage.
pub fn walk(
    root: &Root,
    top: &Node,
    each: &mut dyn FnMut(&[u8], usize, &Node) -> Result<(), Error>,
) -> Result<(), Error> {
    // Directories have one name, so a second visit is a circle.
    let mut seen = HashSet::from([top.nid]);
    let mut left: Vec<(Vec<u8>, usize, Node)> = Vec::new();
    let push = |left: &mut Vec<_>, path: &[u8], depth, node: &Node| -> Result<(), Error> {
        let entries = root.read_dir(node)?;
        for entry in entries.into_iter().rev() {
            check_name(&entry.name)?;
            let mut path = path.to_vec();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(&entry.name);
            left.push((path, depth, root.node(entry.nid)?));
        }
        Ok(())
    };
    if top.is_dir() {
        push(&mut left, b"", 0, top)?;
    }
    while let Some((path, depth, node)) = left.pop() {
        if node.is_dir() && (depth > MAX_DEPTH || !seen.insert(node.nid)) {
            return Err(Error::Endless(text(&path)));
        }
        each(&path, depth, &node)?;
        if node.is_dir() {
            push(&mut left, &path, depth + 1, &node)?;
        }
    }
    Ok(())
}
