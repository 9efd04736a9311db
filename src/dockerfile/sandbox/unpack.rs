//! Layers as directories, for an overlay to stand on.
//!
//! Paths are those of the merged tree, where every parent is a directory of its own, so nothing
//! that is written here goes through a symbolic link.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};

use super::super::error::Error;
use super::super::exec::apply_index;
use super::super::index::{Index, Kind, Meta, Op, data};
use super::super::tree::{Data, FileId, NodeId, Tree, split};
use super::job::{Stub, Unpack};
use crate::rootfs::{self, error::Stop};
use crate::source::Layer;

/// Marks a directory whose contents below don't show, in overlays of user namespaces.
pub const OPAQUE: &str = "user.overlay.opaque";

/// Unpacks layers.
///
/// # Errors
/// If they can't be read or their files can't be made.
pub fn unpack(job: &Unpack) -> Result<(), Error> {
    let layers: Vec<Arc<Layer>> = job.layers.iter().map(|blob| Arc::new(blob.into())).collect();
    let mut tree = Tree::default();
    let mut last = Index::default();
    for layer in &layers {
        last = Index::of(layer, &job.indexes)?;
        apply_index(&mut tree, &last, layer)?;
    }
    let mut writer = Writer::new(&job.into, &tree)?;
    if job.last_only {
        writer.layer(&last)?;
    } else {
        writer.all()?;
    }
    writer.finish()
}

/// Makes what mount points need.
///
/// # Errors
/// If it can't be made.
pub fn stubs(dir: &Path, stubs: &[Stub], root: &Meta) -> Result<(), Error> {
    let fail = |error| Error::io("create", dir, error);
    fs::create_dir(dir).map_err(fail)?;
    for stub in stubs {
        let path = dir.join(Path::new(std::ffi::OsStr::from_bytes(&stub.path)));
        match stub.meta.kind {
            Kind::Directory => match fs::create_dir(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(fail(error));
                }
                _ => {}
            },
            _ => drop(File::create(&path).map_err(fail)?),
        }
    }
    for stub in stubs.iter().rev() {
        let path = dir.join(Path::new(std::ffi::OsStr::from_bytes(&stub.path)));
        dress(&path, &stub.meta).map_err(fail)?;
    }
    dress(dir, root).map_err(fail)
}

/// Gives a file owner, permissions, attributes and time.
pub fn dress(path: &Path, meta: &Meta) -> io::Result<()> {
    let owner = (Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)));
    match rustix::fs::chownat(CWD, path, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW) {
        // With a single ID everything is root's; and nothing else is left to be told apart.
        Err(rustix::io::Errno::INVAL) => {}
        result => result?,
    }
    for (name, value) in &meta.xattrs {
        match rustix::fs::lsetxattr(path, name.as_slice(), value, XattrFlags::empty()) {
            // Attributes that only the machine's root may set mean nothing to a command here.
            Ok(()) | Err(rustix::io::Errno::PERM | rustix::io::Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if meta.kind != Kind::Symlink {
        fs::set_permissions(path, fs::Permissions::from_mode(u32::from(meta.mode)))?;
    }
    let time = Timespec { tv_sec: meta.mtime.0, tv_nsec: i64::from(meta.mtime.1) };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

struct Writer<'a> {
    root: &'a Path,
    tree: &'a Tree,
    /// Directories that were made, to be dressed last: files in them change their times.
    dirs: Vec<NodeId>,
    made: HashSet<NodeId>,
    first: HashMap<FileId, NodeId>,
    /// Files whose data is still to come, by their layer and the entry in it.
    wanted: BTreeMap<[u8; 32], (Arc<Layer>, HashMap<u32, NodeId>)>,
    links: Vec<(NodeId, NodeId)>,
}

impl<'a> Writer<'a> {
    fn new(root: &'a Path, tree: &'a Tree) -> Result<Writer<'a>, Error> {
        fs::create_dir(root).map_err(|error| Error::io("create", root, error))?;
        Ok(Writer {
            root,
            tree,
            dirs: vec![Tree::ROOT],
            made: HashSet::from([Tree::ROOT]),
            first: HashMap::new(),
            wanted: BTreeMap::new(),
            links: Vec::new(),
        })
    }

    fn host(&self, path: &[u8]) -> PathBuf {
        self.root.join(Path::new(std::ffi::OsStr::from_bytes(path)))
    }

    fn all(&mut self) -> Result<(), Error> {
        for node in self.tree.walk(Tree::ROOT) {
            self.node(node)?;
        }
        Ok(())
    }

    /// What one layer does, as an overlay has it.
    fn layer(&mut self, index: &Index) -> Result<(), Error> {
        for (path, op) in index.entries.iter().flatten() {
            match op {
                Op::Add { .. } | Op::Link(_) => {
                    if let Some(node) = self.tree.lookup(path, false) {
                        self.parents(node)?;
                        self.node(node)?;
                    }
                }
                Op::Whiteout => {
                    let (parent, name) = split(path);
                    // One that the same layer has put something in place of hides nothing more.
                    if let Some(parent) = self.tree.lookup(parent, true)
                        && self.tree.child(parent, name).is_none()
                    {
                        self.parents(parent)?;
                        self.node(parent)?;
                        let mut path = self.tree.path(parent);
                        if !path.is_empty() {
                            path.push(b'/');
                        }
                        path.extend_from_slice(name);
                        self.whiteout(&self.host(&path))?;
                    }
                }
                Op::Opaque => {
                    if let Some(node) = self.tree.lookup(path, true) {
                        self.parents(node)?;
                        self.node(node)?;
                        let host = self.host(&self.tree.path(node));
                        rustix::fs::lsetxattr(&host, OPAQUE, b"y", XattrFlags::empty())
                            .map_err(|error| Error::io("mark", &host, error.into()))?;
                    }
                }
            }
        }
        Ok(())
    }

    fn whiteout(&self, host: &Path) -> Result<(), Error> {
        match rustix::fs::mknodat(CWD, host, FileType::CharacterDevice, Mode::empty(), 0) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
            Err(error) => Err(Error::io("create", host, error.into())),
        }
    }

    fn parents(&mut self, node: NodeId) -> Result<(), Error> {
        let mut above = Vec::new();
        let mut at = self.tree.parent(node);
        while !self.made.contains(&at) {
            above.push(at);
            at = self.tree.parent(at);
        }
        above.into_iter().rev().try_for_each(|node| self.node(node))
    }

    fn node(&mut self, node: NodeId) -> Result<(), Error> {
        if !self.made.insert(node) {
            return Ok(());
        }
        let file = self.tree.file(node);
        let host = self.host(&self.tree.path(node));
        let fail = |error: io::Error| Error::io("create", &host, error);
        let id = self.tree.file_id(node);
        if file.meta.kind != Kind::Directory
            && let Some(&first) = self.first.get(&id)
        {
            self.links.push((node, first));
            return Ok(());
        }
        self.first.insert(id, node);
        match file.meta.kind {
            Kind::Directory => {
                fs::create_dir(&host).map_err(fail)?;
                self.dirs.push(node);
                return Ok(());
            }
            Kind::File => {
                if let Data::Layer { layer, entry, .. } = &file.data {
                    let group = self.wanted.entry(layer.diff_id.0);
                    let (_, wanted) = group.or_insert_with(|| (layer.clone(), HashMap::new()));
                    wanted.insert(*entry, node);
                }
                return Ok(());
            }
            Kind::Symlink => {
                symlink(std::ffi::OsStr::from_bytes(&file.meta.target), &host).map_err(fail)?;
            }
            Kind::Fifo => {
                rustix::fs::mknodat(CWD, &host, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
                    .map_err(|error| fail(error.into()))?;
            }
            Kind::Char | Kind::Block => {
                let (major, minor) = file.meta.dev;
                let kind = match file.meta.kind {
                    Kind::Char => FileType::CharacterDevice,
                    _ => FileType::BlockDevice,
                };
                let dev = rustix::fs::makedev(major, minor);
                match rustix::fs::mknodat(CWD, &host, kind, Mode::from_raw_mode(0o600), dev) {
                    Ok(()) => {}
                    // No user namespace may make devices; commands have those of /dev.
                    Err(rustix::io::Errno::PERM) => return Ok(()),
                    Err(error) => return Err(fail(error.into())),
                }
            }
        }
        dress(&host, &file.meta).map_err(fail)
    }

    fn finish(self) -> Result<(), Error> {
        for (layer, wanted) in self.wanted.values() {
            self.data(layer, wanted)?;
        }
        for &(node, first) in &self.links {
            let (from, to) = (self.host(&self.tree.path(first)), self.host(&self.tree.path(node)));
            match fs::hard_link(&from, &to) {
                // A device that could not be made has no other name either.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => result.map_err(|error| Error::io("create", &to, error))?,
            }
        }
        for &dir in self.dirs.iter().rev() {
            let host = self.host(&self.tree.path(dir));
            dress(&host, self.tree.meta(dir)).map_err(|error| Error::io("change", &host, error))?;
        }
        Ok(())
    }

    /// Writes the files of one layer, in its order.
    fn data(&self, layer: &Layer, wanted: &HashMap<u32, NodeId>) -> Result<(), Error> {
        let mut number = 0;
        let mut failed = None;
        let read = rootfs::read_layer(layer, |reader, entry| {
            while reader.next(entry)? {
                let node = wanted.get(&number).copied();
                number += 1;
                let Some(node) = node else { continue };
                let host = self.host(&self.tree.path(node));
                let mut stop = |error| {
                    failed = Some(Error::io("write", &host, error));
                    Stop::Write(io::Error::other("a file could not be written"))
                };
                let mut options = OpenOptions::new();
                options.write(true).create_new(true).mode(0o600);
                let mut file = options.open(&host).map_err(&mut stop)?;
                data(reader, entry, &mut |bytes| file.write_all(bytes).map_err(&mut stop))?;
                dress(&host, self.tree.meta(node)).map_err(&mut stop)?;
            }
            Ok(())
        });
        match failed {
            Some(error) => Err(error),
            None => Ok(read?),
        }
    }
}
