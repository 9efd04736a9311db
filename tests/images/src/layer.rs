//! One layer under construction: a sorted set of entries.

use std::collections::BTreeMap;

use crate::Result;

/// Modification time of what recipes write themselves: 2024-01-01.
pub const TIME: u64 = 1_704_067_200;
/// Directories that Debian has merged into /usr.
const MERGED: [&str; 4] = ["bin", "lib", "lib64", "sbin"];

/// What an entry is.
#[derive(Clone, Debug)]
pub enum Kind {
    Directory,
    File(Vec<u8>),
    Symlink(String),
    /// Another name of a file of the same layer.
    Link(String),
}

/// One entry.
#[derive(Clone, Debug)]
pub struct Entry {
    pub kind: Kind,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub mtime: u64,
}

/// Entries by path, without leading or trailing slashes.
#[derive(Clone, Debug, Default)]
pub struct Layer {
    pub entries: BTreeMap<String, Entry>,
}

impl Layer {
    pub fn put(&mut self, path: &str, mode: u32, kind: Kind) -> &mut Entry {
        let entry = Entry { kind, mode, uid: 0, gid: 0, mtime: TIME };
        self.entries.insert(path.to_owned(), entry);
        // Just inserted.
        self.entries.get_mut(path).unwrap()
    }

    pub fn file(&mut self, path: &str, mode: u32, data: impl Into<Vec<u8>>) -> &mut Entry {
        self.put(path, mode, Kind::File(data.into()))
    }

    pub fn dir(&mut self, path: &str, mode: u32) -> &mut Entry {
        self.put(path, mode, Kind::Directory)
    }

    pub fn symlink(&mut self, path: &str, target: &str) -> &mut Entry {
        self.put(path, 0o777, Kind::Symlink(target.to_owned()))
    }

    /// Contents of a file in this layer.
    pub fn read(&self, path: &str) -> Option<&[u8]> {
        match &self.entries.get(path)?.kind {
            Kind::File(data) => Some(data),
            _ => None,
        }
    }

    /// Adds all entries of a package's archive, directories that are there already excepted,
    /// under their merged-/usr names.
    pub fn add_archive(&mut self, tar: &[u8]) -> Result<()> {
        self.add(tar, merged)
    }

    /// What [`Layer::to_tar`] wrote.
    pub fn from_tar(tar: &[u8]) -> Result<Layer> {
        let mut layer = Layer::default();
        layer.add(tar, |path| path.trim_matches('/').to_owned())?;
        Ok(layer)
    }

    /// Adds an archive's entries under the names that `rename` gives them.
    fn add(&mut self, tar: &[u8], rename: fn(&str) -> String) -> Result<()> {
        let mut archive = tar::Archive::new(tar);
        for entry in archive.entries()? {
            let mut entry = entry?;
            let path = rename(&entry.path()?.to_string_lossy());
            let header = entry.header();
            let (mode, mtime) = (header.mode()? & 0o7777, header.mtime()?);
            let (uid, gid) = (header.uid()?, header.gid()?);
            let link = entry.link_name()?.map(|link| link.to_string_lossy().into_owned());
            let kind = match header.entry_type() {
                tar::EntryType::Directory => Kind::Directory,
                tar::EntryType::Symlink => Kind::Symlink(link.unwrap_or_default()),
                tar::EntryType::Link => Kind::Link(rename(&link.unwrap_or_default())),
                tar::EntryType::Regular => {
                    let mut data = Vec::new();
                    std::io::Read::read_to_end(&mut entry, &mut data)?;
                    Kind::File(data)
                }
                other => return Err(format!("{path}: {other:?} in a package").into()),
            };
            let is_new = !self.entries.contains_key(&path);
            if !path.is_empty() && (is_new || !matches!(kind, Kind::Directory)) {
                self.entries.insert(path, Entry { kind, mode, uid, gid, mtime });
            }
        }
        Ok(())
    }

    /// Drops files that slim images do without.
    pub fn slim(&mut self) {
        const DROPPED: [&str; 6] = [
            "usr/share/doc/",
            "usr/share/info/",
            "usr/share/lintian/",
            "usr/share/locale/",
            "usr/share/man/",
            "usr/share/groff/",
        ];
        self.entries.retain(|path, entry| {
            let dropped = DROPPED.iter().any(|prefix| path.starts_with(prefix));
            !dropped || matches!(entry.kind, Kind::Directory) || path.ends_with("/copyright")
        });
    }

    /// The layer as an archive: sorted, hard links last.
    pub fn to_tar(&self) -> Result<Vec<u8>> {
        let mut builder = tar::Builder::new(Vec::new());
        let is_link = |entry: &Entry| matches!(entry.kind, Kind::Link(_));
        let (links, others): (Vec<_>, Vec<_>) =
            self.entries.iter().partition(|(_, entry)| is_link(entry));
        for (path, entry) in others.into_iter().chain(links) {
            let mut header = tar::Header::new_gnu();
            header.set_mode(entry.mode);
            header.set_uid(entry.uid);
            header.set_gid(entry.gid);
            header.set_mtime(entry.mtime);
            header.set_size(0);
            match &entry.kind {
                Kind::Directory => {
                    header.set_entry_type(tar::EntryType::Directory);
                    builder.append_data(&mut header, format!("{path}/"), &[][..])?;
                }
                Kind::File(data) => {
                    header.set_entry_type(tar::EntryType::Regular);
                    header.set_size(data.len() as u64);
                    builder.append_data(&mut header, path, data.as_slice())?;
                }
                Kind::Symlink(target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    builder.append_link(&mut header, path, target)?;
                }
                Kind::Link(target) => {
                    header.set_entry_type(tar::EntryType::Link);
                    builder.append_link(&mut header, path, target)?;
                }
            }
        }
        Ok(builder.into_inner()?)
    }
}

/// A package's path as the merged /usr has it.
fn merged(path: &str) -> String {
    let path = path.trim_start_matches("./").trim_matches('/');
    let top = path.split('/').next().unwrap_or_default();
    if MERGED.contains(&top) { format!("usr/{path}") } else { path.to_owned() }
}
