//! The image's files, as planning looks at them: whole files, directories, and which links a path
//! runs through.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use dock2uni_format::erofs::FileType;

use crate::erofs::{Node, ReadAt, ReadError, Reader};

/// Symbolic links followed for one path, as in Linux.
const MAX_LINKS: usize = 40;
/// Directories that are remembered.
const MAX_DIRECTORIES: usize = 16 << 10;

/// A file and how its path led there.
#[derive(Clone, Debug)]
pub struct Found {
    /// The path with every symbolic link resolved.
    pub path: Vec<u8>,
    /// Symbolic links that were followed, each under its own resolved directory.
    pub links: Vec<Vec<u8>>,
    /// The file.
    pub node: Node,
}

/// Resolved path and node of a directory.
type Directory = Option<(Rc<[u8]>, Node)>;

/// The root filesystem of an image.
pub struct Root<'a> {
    reader: Reader<&'a dyn ReadAt>,
    directories: RefCell<HashMap<Vec<u8>, Directory>>,
}

impl<'a> Root<'a> {
    /// Looks into the EROFS image that starts at byte `start` of `source`.
    ///
    /// # Errors
    /// If it is no EROFS image.
    pub fn open(source: &'a dyn ReadAt, start: u64) -> Result<Root<'a>, ReadError> {
        let reader = Reader::open(source, start)?;
        Ok(Root { reader, directories: RefCell::default() })
    }

    /// The reader underneath.
    pub fn reader(&self) -> &Reader<&'a dyn ReadAt> {
        &self.reader
    }

    /// The file at a path, symbolic links followed. A path through damaged metadata, a loop or a
    /// missing name leads nowhere.
    pub fn find(&self, path: &[u8]) -> Option<Found> {
        let mut links = Vec::new();
        let (mut at, mut node) = (Vec::new(), self.reader.root().ok()?);
        let mut left: Vec<Vec<u8>> = parts(path);
        while let Some(part) = left.pop() {
            if part == b".." {
                at.truncate(at.iter().rposition(|&byte| byte == b'/').unwrap_or(0));
                node = self.reader.lookup_link(&at).ok()??;
                continue;
            }
            if !node.is_dir() {
                return None;
            }
            at.push(b'/');
            at.extend_from_slice(&part);
            node = self.child(&at)?;
            if node.file_type() != FileType::Symlink {
                continue;
            }
            links.push(at.clone());
            if links.len() > MAX_LINKS {
                return None;
            }
            let target = self.reader.read_link(&node).ok()?;
            if target.starts_with(b"/") {
                at.clear();
            } else {
                at.truncate(at.iter().rposition(|&byte| byte == b'/').unwrap_or(0));
            }
            node = self.reader.lookup_link(&at).ok()??;
            left.extend(parts(&target));
        }
        if at.is_empty() {
            at.push(b'/');
        }
        Some(Found { path: at, links, node })
    }

    /// A name whose directory is resolved already.
    fn child(&self, path: &[u8]) -> Option<Node> {
        self.reader.lookup_link(path).ok()?
    }

    /// The path with its directory resolved, but not its last component: how the file is called in
    /// the image, whatever links lead to its directory.
    pub fn canonical(&self, path: &[u8]) -> Vec<u8> {
        let end = path.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
        let (dir, name) = (&path[..end], &path[(end + 1).min(path.len())..]);
        let resolved = self.directory(dir);
        let mut out = resolved.map_or_else(|| dir.to_vec(), |(path, _)| path.to_vec());
        if out.last() != Some(&b'/') {
            out.push(b'/');
        }
        out.extend_from_slice(name);
        out
    }

    fn directory(&self, dir: &[u8]) -> Directory {
        if let Some(known) = self.directories.borrow().get(dir) {
            return known.clone();
        }
        let found = self.find(dir).map(|found| (Rc::from(found.path), found.node));
        let mut known = self.directories.borrow_mut();
        if known.len() < MAX_DIRECTORIES {
            known.insert(dir.to_vec(), found.clone());
        }
        found
    }

    /// The regular file at a path, links followed.
    pub fn file(&self, path: &[u8]) -> Option<Found> {
        self.find(path).filter(|found| found.node.is_file())
    }

    /// Whether there is anything at a path, links followed.
    pub fn exists(&self, path: &[u8]) -> bool {
        self.find(path).is_some()
    }

    /// A regular file's contents, up to `max` bytes; what is beyond is not read.
    pub fn read(&self, path: &[u8], max: usize) -> Option<Vec<u8>> {
        self.contents(&self.file(path)?.node, max)
    }

    /// As [`Root::read`], as text; what is not UTF-8 is replaced.
    pub fn text(&self, path: &[u8], max: usize) -> Option<String> {
        self.read(path, max).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Contents of a file that was found, up to `max` bytes.
    pub fn contents(&self, node: &Node, max: usize) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let len = node.inode.size.min(max as u64);
        // A lying size must not become an allocation.
        while (bytes.len() as u64) < len {
            let start = bytes.len();
            let step = (len - start as u64).min(1 << 20) as usize;
            bytes.resize(start + step, 0);
            self.reader.read_at(node, start as u64, &mut bytes[start..]).ok()?;
        }
        Some(bytes)
    }

    /// Names in a directory and their types, sorted; empty if there is none.
    pub fn list(&self, path: &[u8]) -> Vec<(Vec<u8>, FileType)> {
        let Some(found) = self.find(path).filter(|found| found.node.is_dir()) else {
            return Vec::new();
        };
        let entries = self.reader.read_dir(&found.node).unwrap_or_default();
        entries.into_iter().map(|entry| (entry.name, entry.file_type)).collect()
    }

    /// All files below a resolved directory, links not followed: path, node. Directories come
    /// before what is in them. At most `max` are given.
    pub fn walk(&self, top: &[u8], max: usize) -> Vec<(Vec<u8>, Node)> {
        let Some(found) = self.find(top).filter(|found| found.node.is_dir()) else {
            return Vec::new();
        };
        let path = if found.path == b"/" { Vec::new() } else { found.path };
        let mut stack = vec![(path, found.node)];
        let mut out: Vec<(Vec<u8>, Node)> = Vec::new();
        while let Some((path, node)) = stack.pop() {
            for entry in self.reader.read_dir(&node).unwrap_or_default() {
                let Ok(child) = self.reader.node(entry.nid) else { continue };
                let name = join(&path, &entry.name);
                if out.len() >= max {
                    return out;
                }
                out.push((name.clone(), child));
                // A directory that contains itself would go on for ever: paths are bounded.
                if child.is_dir() && name.len() < 4096 {
                    stack.push((name, child));
                }
            }
        }
        out
    }
}

/// Components of a path, last one first.
fn parts(path: &[u8]) -> Vec<Vec<u8>> {
    let parts = path.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
    let mut parts: Vec<Vec<u8>> = parts.map(<[u8]>::to_vec).collect();
    parts.reverse();
    parts
}

/// A name in a directory; an absolute name stays what it is.
pub fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if name.starts_with(b"/") {
        return name.to_vec();
    }
    let mut path = dir.to_vec();
    if path.last() != Some(&b'/') {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

/// The last component of a path.
pub fn base(path: &[u8]) -> &[u8] {
    path.rsplit(|&byte| byte == b'/').next().unwrap_or(path)
}

/// The directory of a path.
pub fn parent(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|&byte| byte == b'/') {
        None => b".",
        Some(0) => b"/",
        Some(end) => &path[..end],
    }
}

/// Bytes as text for people.
pub fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
