//! Everything observable of a file tree, from an image or from a directory, to compare.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{ffi::OsStrExt, ffi::OsStringExt, fs::MetadataExt},
    path::Path,
};

use dock2uni::{
    erofs::{Node, ReadAt, Reader},
    source::image::Digest,
};
use dock2uni_format::erofs::{FileType, decode_dev};

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    pub mode: u32,
    pub owner: (u32, u32),
    /// Names; 0 for directories, whose count depends on the filesystem.
    pub nlink: u64,
    pub mtime: (i64, i64),
    pub dev: (u32, u32),
    /// Digest of a file's contents, or a link's target.
    pub content: Vec<u8>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

pub type Snapshot = BTreeMap<Vec<u8>, Meta>;

pub fn of_image<R: ReadAt>(reader: &Reader<R>) -> Snapshot {
    let mut all = Snapshot::new();
    let mut stack = vec![(Vec::new(), reader.root().unwrap())];
    while let Some((path, node)) = stack.pop() {
        if node.is_dir() {
            let entries = reader.read_dir(&node).unwrap();
            assert!(entries.is_sorted_by(|a, b| a.name < b.name));
            for entry in entries {
                let child = reader.node(entry.nid).unwrap();
                assert_eq!(entry.file_type, child.file_type());
                stack.push(([&path[..], b"/", &entry.name].concat(), child));
            }
        }
        all.insert(path, node_meta(reader, &node));
    }
    all
}

fn node_meta<R: ReadAt>(reader: &Reader<R>, node: &Node) -> Meta {
    let mtime = reader.mtime(node);
    let inode = &node.inode;
    let content = match node.file_type() {
        FileType::Regular => {
            let mut data = vec![0; inode.size as usize];
            reader.read_at(node, 0, &mut data).unwrap();
            Digest::of(&data).0.to_vec()
        }
        FileType::Symlink => reader.read_link(node).unwrap(),
        _ => Vec::new(),
    };
    Meta {
        mode: u32::from(inode.mode),
        owner: (inode.uid, inode.gid),
        nlink: if node.is_dir() { 0 } else { u64::from(inode.nlink) },
        mtime: (mtime.secs, i64::from(mtime.nanos)),
        dev: match node.file_type() {
            FileType::CharDevice | FileType::BlockDevice => decode_dev(inode.u),
            _ => (0, 0),
        },
        content,
        xattrs: reader.xattrs(node).unwrap(),
    }
}

pub fn of_directory(root: &Path) -> Snapshot {
    let mut all = Snapshot::new();
    let mut stack = vec![(Vec::new(), root.to_owned())];
    while let Some((path, at)) = stack.pop() {
        let meta = at.symlink_metadata().unwrap();
        if meta.is_dir() {
            for entry in fs::read_dir(&at).unwrap() {
                let entry = entry.unwrap();
                let name = entry.file_name();
                stack.push(([&path[..], b"/", name.as_bytes()].concat(), entry.path()));
            }
        }
        let content = if meta.is_file() {
            Digest::of(&fs::read(&at).unwrap()).0.to_vec()
        } else if meta.is_symlink() {
            fs::read_link(&at).unwrap().into_os_string().into_vec()
        } else {
            Vec::new()
        };
        let mut xattrs: Vec<_> = xattr::list(&at)
            .unwrap()
            .map(|name| {
                let value = xattr::get(&at, &name).unwrap().unwrap_or_default();
                (name.into_vec(), value)
            })
            .collect();
        xattrs.sort_unstable();
        let is_device = matches!(meta.mode() & 0o170_000, 0o020_000 | 0o060_000);
        // The kernel's 64-bit form has the low 32 bits of EROFS's in the same places.
        let dev = if is_device { decode_dev(meta.rdev() as u32) } else { (0, 0) };
        all.insert(
            path,
            Meta {
                mode: meta.mode(),
                owner: (meta.uid(), meta.gid()),
                nlink: if meta.is_dir() { 0 } else { meta.nlink() },
                mtime: (meta.mtime(), meta.mtime_nsec()),
                dev,
                content,
                xattrs,
            },
        );
    }
    all
}

/// Fails with the differences, a few of them.
pub fn assert_same(left: &Snapshot, right: &Snapshot, about: &str) {
    let keys: std::collections::BTreeSet<_> = left.keys().chain(right.keys()).collect();
    let differences: Vec<String> = keys
        .into_iter()
        .filter(|&key| left.get(key) != right.get(key))
        .map(|key| {
            let path = String::from_utf8_lossy(key);
            format!("{path}:\n  {:?}\n  {:?}", left.get(key), right.get(key))
        })
        .collect();
    assert!(
        differences.is_empty(),
        "{about}: {} differences\n{}",
        differences.len(),
        differences[..differences.len().min(10)].join("\n")
    );
}
