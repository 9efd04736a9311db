//! COPY and ADD between trees: what is chosen, where it goes, what it becomes.
//!
//! The rules are BuildKit's: a directory's contents are copied, not the directory; a symbolic link
//! that is named is followed, one found below is copied; a directory that has to be made for the
//! destination is root's (or of `--chown`) and 0755.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::error::Error;
use super::index::{Kind, Meta};
use super::layer::{Item, Make, digest};
use super::mode::Chmod;
use super::pattern::{Pattern, Rules, is_pattern};
use super::tree::{Data, FileId, NodeId, Tree, split};
use crate::source::digest::Hasher;

/// How files change on the way.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// Owner and group; `None` keeps those of the source.
    pub chown: Option<(u32, u32)>,
    /// Permissions.
    pub chmod: Option<Chmod>,
    /// Time of directories that are made for the destination.
    pub time: (i64, u32),
}

impl Change {
    fn apply(&self, meta: &Meta) -> Meta {
        let mut meta = meta.clone();
        if let Some((uid, gid)) = self.chown {
            (meta.uid, meta.gid) = (uid, gid);
        }
        if let Some(chmod) = &self.chmod
            && meta.kind != Kind::Symlink
        {
            meta.mode = chmod.apply(meta.mode, meta.kind == Kind::Directory);
        }
        meta
    }

    fn directory(&self) -> Meta {
        // An octal mode is that of directories made on the way as well, as in BuildKit.
        let mode = match self.chmod {
            Some(Chmod::Octal(mode)) => mode,
            _ => 0o755,
        };
        let mut meta = Meta::directory(mode, self.time);
        (meta.uid, meta.gid) = self.chown.unwrap_or((0, 0));
        meta
    }
}

/// Something chosen to be copied.
#[derive(Clone, Debug)]
pub struct Chosen<'t> {
    /// The tree it is in.
    pub tree: &'t Tree,
    /// The file or directory.
    pub node: NodeId,
    /// The name it has if it is put into a directory.
    pub name: Vec<u8>,
    /// With `--parents`: directories to be kept, from the pivot on, with the metadata they have.
    pub parents: Vec<(Vec<u8>, Meta)>,
    /// Whether the contents replace metadata of the destination and may not be copied to a file:
    /// an unpacked archive.
    pub unpacked: bool,
}

impl<'t> Chosen<'t> {
    /// A file, or a directory with its contents.
    pub fn whole(tree: &'t Tree, node: NodeId) -> Chosen<'t> {
        let name = tree.name(node).to_vec();
        Chosen { tree, node, name, parents: Vec::new(), unpacked: false }
    }
}

/// Finds the files that a source names in a tree.
///
/// # Errors
/// In words: nothing has that name. A pattern may match nothing.
pub fn choose<'t>(tree: &'t Tree, source: &str, parents: bool) -> Result<Vec<Chosen<'t>>, String> {
    // The pivot says where the kept directories start.
    let (pivot, rest) = match source.find("/./") {
        Some(at) if parents => (&source[..at], &source[at + 3..]),
        _ => ("", source),
    };
    let whole: Vec<&str> =
        pivot.split('/').chain(rest.split('/')).filter(|p| !matches!(*p, "" | ".")).collect();
    let before = pivot.split('/').filter(|p| !matches!(*p, "" | ".")).count();
    let mut found = Vec::new();
    if is_pattern(source) && parents {
        deep(tree, &whole[..before], &whole[before..], &mut found)?;
    } else if is_pattern(source) {
        expand(tree, Tree::ROOT, &whole, &mut Vec::new(), &mut found)?;
    } else {
        found.push(whole.iter().map(|part| part.as_bytes().to_vec()).collect());
    }
    let mut chosen = Vec::new();
    for parts in found {
        let path = parts.join(&b'/');
        let node = tree
            .lookup(&path, true)
            .ok_or_else(|| format!("`{source}` is not there, or is excluded by `.dockerignore`"))?;
        let mut kept = Vec::new();
        if parents {
            // A directory is kept itself; of a file, the directories it is in.
            let last = if tree.is_dir(node) { parts.len() } else { parts.len() - 1 };
            for upto in before.min(last)..last {
                let dir = tree.lookup(&parts[..=upto].join(&b'/'), true);
                let meta =
                    dir.map_or_else(|| Meta::directory(0o755, (0, 0)), |d| tree.meta(d).clone());
                kept.push((parts[upto].clone(), meta));
            }
        }
        let name = parts.last().cloned().unwrap_or_default();
        chosen.push(Chosen { tree, node, name, parents: kept, unpacked: false });
    }
    Ok(chosen)
}

/// Paths that match a pattern component by component, sorted.
fn expand(
    tree: &Tree,
    at: NodeId,
    parts: &[&str],
    path: &mut Vec<Vec<u8>>,
    found: &mut Vec<Vec<Vec<u8>>>,
) -> Result<(), String> {
    let Some((first, rest)) = parts.split_first() else {
        found.push(path.clone());
        return Ok(());
    };
    if !is_pattern(first) {
        path.push(first.as_bytes().to_vec());
        if let Some(node) = tree.lookup(&path.join(&b'/'), true) {
            expand(tree, node, rest, path, found)?;
        }
        path.pop();
        return Ok(());
    }
    let pattern = Pattern::new(first, false)?;
    for (name, _) in tree.children(at) {
        if !pattern.matches(&String::from_utf8_lossy(name)) {
            continue;
        }
        path.push(name.to_vec());
        // A link is followed only for what is named, and a dangling one is passed over.
        if let Some(node) = tree.lookup(&path.join(&b'/'), true) {
            expand(tree, node, rest, path, found)?;
        }
        path.pop();
    }
    Ok(())
}

/// Paths below a directory that match a pattern in which `**` is any number of directories. What is
/// in a directory that matches goes with it.
fn deep(
    tree: &Tree,
    pivot: &[&str],
    parts: &[&str],
    found: &mut Vec<Vec<Vec<u8>>>,
) -> Result<(), String> {
    let pattern = Pattern::new(&parts.join("/"), true)?;
    let Some(base) = tree.lookup(pivot.join("/").as_bytes(), true) else { return Ok(()) };
    let skip = tree.path(base).len();
    let mut matched: Option<Vec<u8>> = None;
    for node in tree.walk(base).into_iter().skip(1) {
        let path = tree.path(node);
        let relative = path[skip..].strip_prefix(b"/").unwrap_or(&path[skip..]);
        if matched.as_ref().is_some_and(|prefix| relative.starts_with(prefix)) {
            continue;
        }
        if pattern.matches(&String::from_utf8_lossy(relative)) {
            matched = tree.is_dir(node).then(|| [relative, b"/"].concat());
            let mut parts: Vec<Vec<u8>> = pivot.iter().map(|p| p.as_bytes().to_vec()).collect();
            parts.extend(relative.split(|&b| b == b'/').map(<[u8]>::to_vec));
            found.push(parts);
        }
    }
    Ok(())
}

/// Takes what has been chosen into a digest: names, metadata but times, and data.
///
/// # Errors
/// If data can't be read.
pub fn fingerprint(chosen: &Chosen<'_>, exclude: &Rules, hasher: &mut Hasher) -> Result<(), Error> {
    let mut field = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    field(&chosen.name);
    for (name, meta) in &chosen.parents {
        field(name);
        field(
            &[&meta.mode.to_le_bytes()[..], &meta.uid.to_le_bytes(), &meta.gid.to_le_bytes()]
                .concat(),
        );
    }
    let mut links: HashMap<FileId, usize> = HashMap::new();
    for (number, (path, node)) in below(chosen, exclude).into_iter().enumerate() {
        let file = chosen.tree.file(node);
        let meta = &file.meta;
        field(&path);
        field(&[meta.kind as u8]);
        field(&meta.mode.to_le_bytes());
        field(&[meta.uid.to_le_bytes(), meta.gid.to_le_bytes()].concat());
        field(&[meta.dev.0.to_le_bytes(), meta.dev.1.to_le_bytes()].concat());
        field(&meta.target);
        for (name, value) in &meta.xattrs {
            field(name);
            field(value);
        }
        if meta.kind == Kind::File {
            let first = *links.entry(chosen.tree.file_id(node)).or_insert(number);
            field(&first.to_le_bytes());
            field(&digest(&file.data, meta.size)?);
        }
    }
    Ok(())
}

/// What is copied, with paths relative to the source; the source itself has the path ``.
fn below(chosen: &Chosen<'_>, exclude: &Rules) -> Vec<(Vec<u8>, NodeId)> {
    let tree = chosen.tree;
    let base = tree.path(chosen.node);
    let skip = if base.is_empty() { 0 } else { base.len() + 1 };
    let mut dropped: Option<Vec<u8>> = None;
    let mut included = HashSet::new();
    let mut all = Vec::new();
    for node in tree.walk(chosen.node) {
        let path = tree.path(node);
        if let Some(prefix) = &dropped {
            if path.starts_with(prefix) {
                continue;
            }
            dropped = None;
        }
        let relative = path.get(skip..).unwrap_or_default().to_vec();
        // A directory that is named is not excluded itself; a file is, by its name.
        let own = if relative.is_empty() { &chosen.name } else { &relative };
        let named = relative.is_empty() && tree.is_dir(node);
        if !named && !exclude.is_empty() && exclude.excludes(&String::from_utf8_lossy(own)) {
            if tree.is_dir(node) && !exclude.has_exceptions() {
                dropped = Some([path.as_slice(), b"/"].concat());
            }
            continue;
        }
        // What is in an excluded directory all the same needs it.
        let mut above = Vec::new();
        let mut at = node;
        while at != chosen.node && included.insert(at) {
            above.push(at);
            at = tree.parent(at);
        }
        for at in above.into_iter().skip(1).rev() {
            all.push((tree.path(at).get(skip..).unwrap_or_default().to_vec(), at));
        }
        all.push((relative, node));
    }
    all
}

/// The layer that a copy makes.
pub struct Placing<'d> {
    /// The tree copied to; `None` if the copy doesn't depend on it (`--link`).
    dest: Option<&'d Tree>,
    change: Change,
    items: BTreeMap<Vec<u8>, Make>,
    /// Regular files that were copied, for hard links among them.
    done: HashMap<(usize, FileId), Vec<u8>>,
}

impl<'d> Placing<'d> {
    /// A layer without entries.
    pub fn new(dest: Option<&'d Tree>, change: Change) -> Placing<'d> {
        Placing { dest, change, items: BTreeMap::new(), done: HashMap::new() }
    }

    /// Copies what was chosen to `dest`, an absolute path; one with a slash at its end is a
    /// directory.
    ///
    /// # Errors
    /// In words, if a file and a directory are in each other's way.
    pub fn copy(&mut self, chosen: &Chosen<'_>, dest: &str, exclude: &Rules) -> Result<(), String> {
        let is_dir = chosen.tree.is_dir(chosen.node);
        let mut at = self.resolve(dest.as_bytes())?;
        let exists = self.kind(&at);
        let into = dest.ends_with('/') || exists == Some(Kind::Directory);
        if !chosen.parents.is_empty() {
            self.directories(&at)?;
            for (name, meta) in &chosen.parents {
                at = join(&at, name);
                let meta = self.change.apply(meta);
                self.directory(&at, Some(meta))?;
            }
            if !is_dir {
                at = join(&at, &chosen.name);
            }
        } else if is_dir || chosen.unpacked {
            self.directories(&at)?;
        } else {
            if into {
                self.directories(&at)?;
                at = self.resolve(&join(&at, &chosen.name))?;
            }
            self.directories(split(&at).0)?;
        }
        for (relative, node) in below(chosen, exclude) {
            let path = if relative.is_empty() { at.clone() } else { join(&at, &relative) };
            let file = chosen.tree.file(node);
            if file.meta.kind == Kind::Directory {
                // The destination itself was made above, or was there.
                if !relative.is_empty() {
                    let meta = self.change.apply(&file.meta);
                    self.directory(&path, Some(meta))?;
                }
                continue;
            }
            self.file(&path, chosen, node, &file.data)?;
        }
        Ok(())
    }

    /// Makes a directory and those above it where they are missing, as WORKDIR does.
    ///
    /// # Errors
    /// In words, if a file is in the way.
    pub fn make_directory(&mut self, path: &str) -> Result<(), String> {
        let path = self.resolve(path.as_bytes())?;
        self.directories(&path)
    }

    /// The entries, sorted by path.
    pub fn into_items(self) -> Vec<Item> {
        self.items.into_iter().map(|(path, make)| Item { path, make }).collect()
    }

    /// A destination with the symbolic links of the tree resolved.
    fn resolve(&self, path: &[u8]) -> Result<Vec<u8>, String> {
        let scratch = Tree::default();
        let tree = self.dest.unwrap_or(&scratch);
        let reach = tree.reach(path, true).ok_or_else(|| {
            format!("`{}`: a file is in the way, or symbolic links go in circles", show(path))
        })?;
        let mut parts = vec![tree.path(reach.node)];
        parts.retain(|part| !part.is_empty());
        parts.extend(reach.missing);
        if parts.iter().any(|part| part.len() > 4096) || parts.join(&b'/').len() > 4096 {
            return Err(format!("`{}` is too long a path", show(path)));
        }
        Ok(parts.join(&b'/'))
    }

    /// What is at a resolved path: of this layer, or below it.
    fn kind(&self, path: &[u8]) -> Option<Kind> {
        if path.is_empty() {
            return Some(Kind::Directory);
        }
        match self.items.get(path) {
            Some(Make::File(meta, ..)) => Some(meta.kind),
            Some(Make::Link(_)) => Some(Kind::File),
            None => {
                let tree = self.dest?;
                tree.lookup(path, false).map(|node| tree.meta(node).kind)
            }
        }
    }

    /// Makes the directories of a resolved path that are missing.
    fn directories(&mut self, path: &[u8]) -> Result<(), String> {
        if path.is_empty() {
            return Ok(());
        }
        let ends = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at);
        for end in ends.chain([path.len()]) {
            self.directory(&path[..end], None)?;
        }
        Ok(())
    }

    /// Makes a directory, or gives one that is there other metadata.
    fn directory(&mut self, path: &[u8], meta: Option<Meta>) -> Result<(), String> {
        match (self.kind(path), meta) {
            (Some(Kind::Directory), None) => {}
            (Some(Kind::Directory) | None, Some(meta)) => {
                self.items.insert(path.to_vec(), Make::File(meta, Data::None, None));
            }
            (None, None) => {
                let meta = self.change.directory();
                self.items.insert(path.to_vec(), Make::File(meta, Data::None, None));
            }
            (Some(_), _) => {
                return Err(format!("cannot copy to `/{}`: it is not a directory", show(path)));
            }
        }
        Ok(())
    }

    fn file(
        &mut self,
        path: &[u8],
        chosen: &Chosen<'_>,
        node: NodeId,
        data: &Data,
    ) -> Result<(), String> {
        if self.kind(path) == Some(Kind::Directory) {
            return Err(format!("cannot put a file over the directory `/{}`", show(path)));
        }
        let meta = self.change.apply(chosen.tree.meta(node));
        let key = (std::ptr::from_ref(chosen.tree).addr(), chosen.tree.file_id(node));
        if meta.kind == Kind::File
            && let Some(first) = self.done.get(&key)
            && first != path
            && matches!(self.items.get(first), Some(Make::File(..)))
        {
            self.items.insert(path.to_vec(), Make::Link(first.clone()));
            return Ok(());
        }
        if meta.kind == Kind::File {
            self.done.insert(key, path.to_vec());
        }
        if self.items.contains_key(path) {
            self.pass_on(path);
        }
        self.items.insert(path.to_vec(), Make::File(meta, data.clone(), None));
        Ok(())
    }
}

impl Placing<'_> {
    /// Before a name gets another file: links to it keep the old one.
    fn pass_on(&mut self, path: &[u8]) {
        let links = self.items.iter();
        let links = links.filter(|(_, make)| matches!(make, Make::Link(target) if target == path));
        let links: Vec<Vec<u8>> = links.map(|(path, _)| path.clone()).collect();
        let Some((heir, others)) = links.split_first() else { return };
        if let Some(old) = self.items.remove(path) {
            self.items.insert(heir.clone(), old);
        }
        for other in others {
            self.items.insert(other.clone(), Make::Link(heir.clone()));
        }
    }
}

fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() }
}

fn show(path: &[u8]) -> String {
    crate::rootfs::error::show(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(size: u64) -> Meta {
        Meta { uid: 5, gid: 6, ..Meta::file(0o640, size, (9, 0)) }
    }

    /// `d/` with a file, a link to it and a directory; `l -> d/f`; two names of one file.
    fn source() -> Tree {
        let mut tree = Tree::default();
        let bytes = |text: &str| Data::Bytes(text.as_bytes().into());
        let d = tree.put(
            Tree::ROOT,
            b"d",
            Meta { mode: 0o700, ..Meta::directory(0, (9, 0)) },
            Data::None,
        );
        let f = tree.put(d, b"f", file(1), bytes("f"));
        let link =
            Meta { kind: Kind::Symlink, target: b"f".to_vec(), ..Meta::file(0o777, 0, (9, 0)) };
        tree.put(d, b"s", link.clone(), Data::None);
        let e = tree.put(d, b"e", Meta { mode: 0o711, ..Meta::directory(0, (9, 0)) }, Data::None);
        tree.put(e, b"g.txt", file(1), bytes("g"));
        tree.link(e, b"h", tree.file_id(f));
        tree.put(Tree::ROOT, b"l", Meta { target: b"d/f".to_vec(), ..link }, Data::None);
        tree
    }

    fn base() -> Tree {
        let mut tree = Tree::default();
        let usr = tree.put(Tree::ROOT, b"usr", Meta::directory(0o755, (1, 0)), Data::None);
        tree.put(usr, b"lib", Meta::directory(0o755, (1, 0)), Data::None);
        let link = Meta {
            kind: Kind::Symlink,
            target: b"usr/lib".to_vec(),
            ..Meta::file(0o777, 0, (1, 0))
        };
        tree.put(Tree::ROOT, b"lib", link, Data::None);
        tree.put(Tree::ROOT, b"plain", Meta::file(0o644, 0, (1, 0)), Data::None);
        tree
    }

    fn copied(
        sources: &[&str],
        dest: &str,
        parents: bool,
        exclude: &[&str],
    ) -> Result<Vec<String>, String> {
        let (source, base) = (source(), base());
        let mut placing = Placing::new(Some(&base), Change::default());
        let rules = Rules::new(exclude.iter().copied()).unwrap();
        for text in sources {
            for chosen in choose(&source, text, parents)? {
                placing.copy(&chosen, dest, &rules)?;
            }
        }
        Ok(placing
            .into_items()
            .into_iter()
            .map(|item| {
                let path = String::from_utf8(item.path).unwrap();
                match item.make {
                    Make::Link(target) => {
                        format!("{path} = {}", String::from_utf8(target).unwrap())
                    }
                    Make::File(meta, ..) if meta.kind == Kind::Directory => {
                        format!("{path}/ {:o}", meta.mode)
                    }
                    Make::File(meta, ..) => format!("{path} {:o}", meta.mode),
                }
            })
            .collect())
    }

    #[test]
    fn destinations() {
        for (sources, dest, expected) in [
            (vec!["d/f"], "/x", vec!["x 640"]),
            (vec!["d/f"], "/new/x", vec!["new/ 755", "new/x 640"]),
            (vec!["d/f"], "/new/", vec!["new/ 755", "new/f 640"]),
            (vec!["d/f"], "/lib", vec!["usr/lib/f 640"]),
            (vec!["/d/f"], "/lib/y/z", vec!["usr/lib/y/ 755", "usr/lib/y/z 640"]),
            (vec!["l"], "/", vec!["l 640"]),
            (vec!["../../d/f"], "/../../x", vec!["x 640"]),
            (
                vec!["d"],
                "/t",
                vec!["t/ 755", "t/e/ 711", "t/e/g.txt 640", "t/e/h 640", "t/f = t/e/h", "t/s 777"],
            ),
            (vec!["d/e/"], "/lib", vec!["usr/lib/g.txt 640", "usr/lib/h 640"]),
            (
                vec!["d/*"],
                "/o/",
                vec!["o/ 755", "o/f = o/h", "o/g.txt 640", "o/h 640", "o/s = o/h"],
            ),
            (
                vec!["d/?", "nothing*"],
                "/o/",
                vec!["o/ 755", "o/f = o/h", "o/g.txt 640", "o/h 640", "o/s = o/h"],
            ),
            (vec!["nothing*"], "/o/", vec![]),
        ] {
            assert_eq!(copied(&sources, dest, false, &[]).unwrap(), expected, "{sources:?} {dest}");
        }
    }

    #[test]
    fn parents_and_exclusions() {
        assert_eq!(
            copied(&["d/e/g.txt"], "/o/", true, &[]).unwrap(),
            ["o/ 755", "o/d/ 700", "o/d/e/ 711", "o/d/e/g.txt 640"]
        );
        assert_eq!(
            copied(&["./d/./e/*.txt"], "/o/", true, &[]).unwrap(),
            ["o/ 755", "o/e/ 711", "o/e/g.txt 640"]
        );
        assert_eq!(
            copied(&["d"], "/o", false, &["*", "!e/g.txt"]).unwrap(),
            ["o/ 755", "o/e/ 711", "o/e/g.txt 640"]
        );
        assert_eq!(
            copied(&["d"], "/o", false, &["**/*.txt", "s"]).unwrap(),
            ["o/ 755", "o/e/ 711", "o/e/h 640", "o/f = o/e/h"]
        );
    }

    #[test]
    fn what_is_in_the_way_is_an_error() {
        assert!(copied(&["d"], "/plain", false, &[]).unwrap_err().contains("not a directory"));
        assert!(copied(&["d/f"], "/plain/x", false, &[]).unwrap_err().contains("in the way"));
        assert!(copied(&["nothing"], "/", false, &[]).unwrap_err().contains("not there"));
    }

    #[test]
    fn times_dont_count_in_fingerprints_but_all_else_does() {
        let print = |tree: &Tree| {
            let mut hasher = Hasher::new();
            let chosen = choose(tree, "d", false).unwrap().remove(0);
            fingerprint(&chosen, &Rules::default(), &mut hasher).unwrap();
            hasher.finish()
        };
        let one = print(&source());
        let mut tree = source();
        let d = tree.lookup(b"d", true).unwrap();
        tree.put(d, b"f", Meta { mtime: (77, 0), ..file(1) }, Data::Bytes(b"f"[..].into()));
        let e = tree.lookup(b"d/e", true).unwrap();
        let f = tree.file_id(tree.lookup(b"d/f", true).unwrap());
        tree.link(e, b"h", f);
        assert_eq!(print(&tree), one);
        tree.put(d, b"f", Meta { mode: 0o641, ..file(1) }, Data::Bytes(b"f"[..].into()));
        assert_ne!(print(&tree), one);
    }
}
