//! Compares two images.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Error, Image, PIECE, Root, walk};
use crate::erofs::Node;

/// What happened to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// Only the second image has it.
    Added,
    /// Only the first image has it.
    Removed,
    /// Both have it, but not alike.
    Changed,
}

/// A path, or a field of the boot record, in which two images differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Path, or `record`.
    pub path: String,
    /// What happened.
    pub change: Change,
    /// In what the two differ, if both have it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub what: Vec<&'static str>,
}

/// All differences between two images, by path. Times count only if `times` says so.
///
/// # Errors
/// If one is damaged.
pub fn diff(a: &Image, b: &Image, times: bool) -> Result<Vec<Difference>, Error> {
    let mut found = record(a, b)?;
    let (ours, theirs) = (nodes(&a.root)?, nodes(&b.root)?);
    let shown = |path: &[u8]| format!("/{}", String::from_utf8_lossy(path));
    let mut all: Vec<&Vec<u8>> = ours.keys().chain(theirs.keys()).collect();
    all.sort();
    all.dedup();
    for path in all {
        let (change, what) = match (ours.get(path), theirs.get(path)) {
            (Some(_), None) => (Change::Removed, Vec::new()),
            (None, Some(_)) => (Change::Added, Vec::new()),
            (Some(x), Some(y)) => (Change::Changed, differences(&a.root, x, &b.root, y, times)?),
            (None, None) => continue,
        };
        if change != Change::Changed || !what.is_empty() {
            found.push(Difference { path: shown(path), change, what });
        }
    }
    Ok(found)
}

fn nodes(root: &Root) -> Result<BTreeMap<Vec<u8>, Node>, Error> {
    let top = root.root()?;
    let mut nodes = BTreeMap::from([(Vec::new(), top)]);
    walk::walk(root, &top, &mut |path, _, node| {
        nodes.insert(path.to_vec(), *node);
        Ok(())
    })?;
    Ok(nodes)
}

/// What the boot records have in common is left out.
fn record(a: &Image, b: &Image) -> Result<Vec<Difference>, Error> {
    let change = |change, what| Difference { path: "record".into(), change, what };
    Ok(match (a.record()?, b.record()?) {
        (None, None) => Vec::new(),
        (Some(_), None) => vec![change(Change::Removed, Vec::new())],
        (None, Some(_)) => vec![change(Change::Added, Vec::new())],
        (Some(x), Some(y)) => {
            // Where the root is says nothing about what runs.
            let fields = [
                ("argv", x.argv != y.argv),
                ("env", x.env != y.env),
                ("cwd", x.cwd != y.cwd),
                ("user", x.user != y.user),
                ("hostname", x.hostname != y.hostname),
                ("stop signal", x.stop_signal != y.stop_signal),
                ("stop timeout", x.stop_grace_secs != y.stop_grace_secs),
                ("ports", x.ports != y.ports),
                ("volumes", x.volumes != y.volumes),
                ("health check", x.healthcheck != y.healthcheck),
                ("labels", x.labels != y.labels),
                ("network", x.net != y.net),
                ("terminal", x.tty != y.tty),
            ];
            let what: Vec<_> =
                fields.into_iter().filter(|(_, differ)| *differ).map(|(name, _)| name).collect();
            if what.is_empty() { Vec::new() } else { vec![change(Change::Changed, what)] }
        }
    })
}

fn differences(
    a: &Root,
    x: &Node,
    b: &Root,
    y: &Node,
    times: bool,
) -> Result<Vec<&'static str>, Error> {
    let (p, q) = (&x.inode, &y.inode);
    if x.file_type() != y.file_type() {
        return Ok(vec!["type"]);
    }
    let contents = if x.is_dir() {
        false
    } else if x.is_file() {
        p.size != q.size || !same(a, x, b, y)?
    } else if x.file_type() == dock2uni_format::erofs::FileType::Symlink {
        a.read_link(x)? != b.read_link(y)?
    } else {
        p.u != q.u
    };
    let parts = [
        ("contents", contents),
        ("mode", p.mode != q.mode),
        ("owner", p.uid != q.uid || p.gid != q.gid),
        ("attributes", a.xattrs(x)? != b.xattrs(y)?),
        ("time", times && a.mtime(x) != b.mtime(y)),
    ];
    Ok(parts.into_iter().filter(|(_, differ)| *differ).map(|(name, _)| name).collect())
}

/// Whether two files of one size hold the same.
fn same(a: &Root, x: &Node, b: &Root, y: &Node) -> Result<bool, Error> {
    let (mut ours, mut theirs) = (vec![0; PIECE], vec![0; PIECE]);
    let mut at = 0;
    while at < x.inode.size {
        let len = a.read_at(x, at, &mut ours)?;
        b.read_at(y, at, &mut theirs)?;
        if ours[..len] != theirs[..len] {
            return Ok(false);
        }
        at += len as u64;
    }
    Ok(true)
}
