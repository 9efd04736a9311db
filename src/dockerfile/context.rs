//! Build contexts: directories of this machine as file trees.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::Error;
use super::index::{Kind, Meta};
use super::pattern::{Matched, Rules};
use super::tree::{Data, NodeId, Tree};

/// Most files of a context.
const MAX_FILES: usize = 4_000_000;
/// Largest ignore file.
const MAX_IGNORE: u64 = 1 << 20;

/// Reads the ignore file of a Dockerfile: `NAME.dockerignore` beside it, else `.dockerignore` in
/// the context.
///
/// # Errors
/// If it can't be read or has malformed patterns.
pub fn ignore_rules(context: &Path, dockerfile: Option<&Path>) -> Result<Rules, Error> {
    let own = dockerfile.map(|path| {
        let mut name = path.as_os_str().to_owned();
        name.push(".dockerignore");
        PathBuf::from(name)
    });
    for path in own.into_iter().chain([context.join(".dockerignore")]) {
        let bytes = match File::open(&path).and_then(|file| read_limited(file, MAX_IGNORE)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::io("read", &path, error)),
        };
        let text = String::from_utf8_lossy(&bytes);
        return Rules::parse(&text)
            .map_err(|why| Error::usage(format!("`{}`: {why}", path.display()), None));
    }
    Ok(Rules::default())
}

/// Reads a file that may not be larger than `limit`.
pub fn read_limited(file: File, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, limit + 1), &mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::other(format!("it is larger than {limit} bytes")));
    }
    Ok(bytes)
}

struct Dir {
    parent: usize,
    path: Vec<u8>,
    meta: Meta,
    /// Its node; excluded directories get one when something in them is included.
    node: Option<NodeId>,
    matched: Matched,
}

struct Scan<'a> {
    root: Arc<OwnedFd>,
    name: Arc<PathBuf>,
    rules: &'a Rules,
    tree: Tree,
    dirs: Vec<Dir>,
    links: HashMap<(u64, u64), NodeId>,
    files: usize,
}

/// Reads the names and metadata of all files below `dir` that the rules don't exclude. Owners
/// count for nothing: everything in a build context is root's.
///
/// # Errors
/// If a directory can't be read.
pub fn scan(dir: &Path, rules: &Rules) -> Result<Tree, Error> {
    let fail = |error| Error::io("read", dir, error);
    let root = File::open(dir).map_err(fail)?;
    let meta = root.metadata().map_err(fail)?;
    let mut scan = Scan {
        root: Arc::new(root.into()),
        name: Arc::new(dir.to_owned()),
        rules,
        tree: Tree::default(),
        dirs: Vec::new(),
        links: HashMap::new(),
        files: 0,
    };
    let meta = convert(dir, &meta).unwrap_or_else(|| Meta::directory(0o755, (0, 0)));
    scan.tree.set_root(meta.clone());
    let matched = rules.check("", None).1;
    scan.dirs.push(Dir { parent: 0, path: Vec::new(), meta, node: Some(Tree::ROOT), matched });
    // A directory that is found is appended, and read in its turn.
    let mut next = 0;
    while next < scan.dirs.len() {
        scan.directory(next)?;
        next += 1;
    }
    Ok(scan.tree)
}

impl Scan<'_> {
    fn directory(&mut self, index: usize) -> Result<(), Error> {
        let path = self.name.join(Path::new(std::ffi::OsStr::from_bytes(&self.dirs[index].path)));
        let entries = fs::read_dir(&path).map_err(|error| Error::io("read", &path, error))?;
        let mut names = Vec::new();
        for entry in entries {
            names.push(entry.map_err(|error| Error::io("read", &path, error))?.file_name());
        }
        // The order of a directory differs from machine to machine.
        names.sort();
        for name in names {
            let host = path.join(&name);
            let found = match fs::symlink_metadata(&host) {
                Ok(found) => found,
                // Deleted since the directory was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(Error::io("read", &host, error)),
            };
            self.entry(index, name.as_bytes(), &host, &found)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        dir: usize,
        name: &[u8],
        host: &Path,
        found: &Metadata,
    ) -> Result<(), Error> {
        let mut path = self.dirs[dir].path.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        let text = String::from_utf8_lossy(&path);
        let (excluded, matched) = self.rules.check(&text, Some(&self.dirs[dir].matched));
        let Some(meta) = convert(host, found) else { return Ok(()) };
        if excluded && (meta.kind != Kind::Directory || !self.rules.has_exceptions()) {
            return Ok(());
        }
        self.files += 1;
        if self.files > MAX_FILES {
            return Err(Error::usage(
                format!("the build context has more than {MAX_FILES} files"),
                "name those that aren't needed in `.dockerignore`",
            ));
        }
        if meta.kind == Kind::Directory {
            let node = if excluded { None } else { Some(self.put(dir, name, &meta, Data::None)) };
            self.dirs.push(Dir { parent: dir, path, meta, node, matched });
            return Ok(());
        }
        let inode = (found.dev(), found.ino());
        if found.nlink() > 1
            && let Some(&first) = self.links.get(&inode)
        {
            let parent = self.node(dir);
            let file = self.tree.file_id(first);
            self.tree.link(parent, name, file);
            return Ok(());
        }
        let data = match meta.kind {
            Kind::File => Data::Host { root: self.root.clone(), name: self.name.clone(), path },
            _ => Data::None,
        };
        let node = self.put(dir, name, &meta, data);
        if found.nlink() > 1 {
            self.links.insert(inode, node);
        }
        Ok(())
    }

    fn put(&mut self, dir: usize, name: &[u8], meta: &Meta, data: Data) -> NodeId {
        let parent = self.node(dir);
        self.tree.put(parent, name, meta.clone(), data)
    }

    /// The node of a directory, made with those above it if they were excluded.
    fn node(&mut self, dir: usize) -> NodeId {
        let mut chain = Vec::new();
        let mut at = dir;
        let mut node = loop {
            match self.dirs[at].node {
                Some(node) => break node,
                None => chain.push(at),
            }
            at = self.dirs[at].parent;
        };
        for at in chain.into_iter().rev() {
            let name = super::tree::split(&self.dirs[at].path).1.to_vec();
            let meta = self.dirs[at].meta.clone();
            node = self.tree.put(node, &name, meta, Data::None);
            self.dirs[at].node = Some(node);
        }
        node
    }
}

/// Metadata as a build has it, root's; `None` for sockets, which no image can hold.
fn convert(path: &Path, found: &Metadata) -> Option<Meta> {
    let meta = Meta::of_host(found)?;
    let target = match meta.kind {
        Kind::Symlink => fs::read_link(path).ok()?.into_os_string().into_encoded_bytes(),
        _ => Vec::new(),
    };
    let xattrs = if meta.kind == Kind::File { xattrs(path) } else { Vec::new() };
    Some(Meta { uid: 0, gid: 0, xattrs, target, ..meta })
}

/// Capabilities and the user's own attributes; others mean something on this machine only.
fn xattrs(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut names = vec![0; 4096];
    // Filesystems without attributes, and files with more names than that, have none here.
    let Ok(len) = rustix::fs::llistxattr(path, &mut names[..]) else { return Vec::new() };
    let wanted = |name: &&[u8]| *name == b"security.capability" || name.starts_with(b"user.");
    let mut found = Vec::new();
    for name in names[..len].split(|&b| b == 0).filter(wanted) {
        let mut value = vec![0; 65536];
        if let Ok(len) = rustix::fs::lgetxattr(path, name, &mut value[..]) {
            value.truncate(len);
            found.push((name.to_vec(), value));
        }
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_context_is_what_the_rules_leave() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        fs::create_dir_all(at("src/deep")).unwrap();
        fs::create_dir_all(at("target/debug")).unwrap();
        for path in ["src/a.rs", "src/deep/b.rs", "target/debug/x", "target/keep", "README", "z"] {
            fs::write(at(path), path).unwrap();
        }
        fs::hard_link(at("z"), at("zz")).unwrap();
        symlink("/etc/passwd", at("link")).unwrap();
        fs::write(at(".dockerignore"), "target\n!target/keep\n*.md\nREADME\n.dockerignore\n")
            .unwrap();
        let rules = ignore_rules(dir.path(), None).unwrap();
        let tree = scan(dir.path(), &rules).unwrap();
        let all: Vec<_> = tree
            .walk(Tree::ROOT)
            .into_iter()
            .skip(1)
            .map(|node| String::from_utf8(tree.path(node)).unwrap())
            .collect();
        assert_eq!(
            all,
            [
                "link",
                "src",
                "src/a.rs",
                "src/deep",
                "src/deep/b.rs",
                "target",
                "target/keep",
                "z",
                "zz"
            ]
        );
        let id = |path: &[u8]| tree.file_id(tree.lookup(path, false).unwrap());
        assert_eq!(id(b"z"), id(b"zz"));
        assert_eq!(tree.lookup(b"link", true), None);
        fs::write(at("Own.dockerignore"), "src\n").unwrap();
        let rules = ignore_rules(dir.path(), Some(&at("Own"))).unwrap();
        assert!(rules.excludes("src/a.rs") && !rules.excludes("target"));
    }
}
