//! Filesystems whose files are answers to questions: proc and sysfs are tables of functions over
//! this.

use super::inode::{
    Access, Change, FileSystem, FileType, Inode, Metadata, Opened, StatFs, Time, anonymous_dev,
    mode::*,
};
use super::{File, FileOps, Path, mount};
use crate::errno::{Errno, Result};
use crate::event::{Events, PollTable};
use crate::io::{IoDst, IoSrc};
use crate::setting::{Setting, set_all};
use crate::sync::Mutex;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// What an entry is about: a process, a thread, a CPU, a descriptor, ... Zero where it doesn't
/// apply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Key {
    /// Process.
    pub pid: i32,
    /// Thread.
    pub tid: i32,
    /// Anything else that is counted.
    pub index: u64,
}

/// Output of a generated file.
#[derive(Default)]
pub struct Text(pub Vec<u8>);

impl Text {
    /// Appends bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.bytes(text.as_bytes());
        Ok(())
    }
}

/// Appends formatted text; memory is all that could fail, and that isn't reported by formatting.
#[macro_export]
macro_rules! say {
    ($out:expr, $($arg:tt)*) => {{
        let _ = core::fmt::Write::write_fmt($out, format_args!($($arg)*));
    }};
}

/// Writes a file's text.
pub type Read = fn(&Key, &mut Text) -> Result<()>;
/// Takes what was written to a file.
pub type Write = fn(&Key, &[u8]) -> Result<()>;

/// What an entry is.
pub enum Kind {
    /// A directory.
    Dir(&'static Dir),
    /// A text that is made when it is read.
    Text(Read),
    /// A text that can be written, too.
    Setting(Read, Write),
    /// Numbers in a line that can be written, too.
    Numbers(&'static [&'static Setting]),
    /// A constant text.
    Const(&'static str),
    /// A symbolic link.
    Link(fn(&Key) -> Result<Vec<u8>>),
    /// A link that leads to a place whatever its text says.
    Magic(fn(&Key) -> Result<Vec<u8>>, fn(&Key) -> Result<Path>),
    /// A file with operations of its own.
    Open(fn(&Key, u32) -> Result<Opened>),
}

impl Kind {
    pub fn file_type(&self) -> FileType {
        match self {
            Kind::Dir(_) => FileType::Directory,
            Kind::Link(_) | Kind::Magic(..) => FileType::Symlink,
            _ => FileType::Regular,
        }
    }
}

/// A name in a directory.
pub struct Entry {
    /// Name.
    pub name: &'static str,
    /// Permissions.
    pub mode: u32,
    /// What it is.
    pub kind: Kind,
}

impl Entry {
    /// Whether it can be written to.
    pub fn can_be_set(&self) -> bool {
        matches!(self.kind, Kind::Setting(..) | Kind::Numbers(_))
    }

    /// Takes what was written to it. EIO if it can't be written to.
    pub fn set(&self, key: &Key, bytes: &[u8]) -> Result<()> {
        match &self.kind {
            Kind::Setting(_, write) => write(key, bytes),
            Kind::Numbers(settings) => set_all(settings, &parse_numbers(bytes)?),
            _ => Err(Errno::EIO),
        }
    }
}

/// Numbers in a line that can be written.
pub const fn numbers(name: &'static str, settings: &'static [&'static Setting]) -> Entry {
    entry(name, Kind::Numbers(settings))
}

/// An entry with the usual permissions of its kind.
pub const fn entry(name: &'static str, kind: Kind) -> Entry {
    let mode = match kind {
        Kind::Dir(_) => 0o555,
        Kind::Link(_) | Kind::Magic(..) => 0o777,
        Kind::Setting(..) | Kind::Numbers(_) => 0o644,
        _ => 0o444,
    };
    Entry { name, mode, kind }
}

/// Calls with the position of the next name, the name and its type, until it returns false.
pub type Emit<'a> = &'a mut dyn FnMut(u64, &[u8], FileType) -> bool;

/// A directory: fixed names, then those that come and go.
pub struct Dir {
    /// Fixed names.
    pub entries: &'static [Entry],
    /// Names that depend on the moment.
    pub changing: Option<Changing>,
}

/// Names that depend on the moment.
pub struct Changing {
    /// Finds one.
    pub find: fn(&Key, &[u8]) -> Option<(Key, &'static Entry)>,
    /// Lists them from a position on, 0 first.
    pub list: fn(&Key, u64, Emit<'_>),
}

impl Dir {
    /// A directory of fixed names.
    pub const fn fixed(entries: &'static [Entry]) -> Dir {
        Dir { entries, changing: None }
    }
}

/// A filesystem of generated files.
pub struct PseudoFs {
    /// Type name.
    pub kind: &'static str,
    /// Magic number for statfs(2).
    pub magic: u64,
    /// The root directory.
    pub root: &'static Entry,
    /// Length that stat(2) shows for files (0 in proc, a page in sysfs).
    pub shown_size: u64,
    /// Who owns an entry: user and group.
    pub owner: fn(&Key, &Entry) -> (u32, u32),
    /// Whether the caller may enter a directory whatever its mode says.
    pub opens: fn(&Key, &Entry) -> bool,
    /// Whether an entry still stands for something.
    pub alive: fn(&Key) -> bool,
    dev: u64,
    mounted: Time,
}

impl PseudoFs {
    /// A filesystem owned by root.
    pub fn new(kind: &'static str, magic: u64, root: &'static Entry, shown_size: u64) -> PseudoFs {
        PseudoFs {
            kind,
            magic,
            root,
            shown_size,
            owner: |_, _| (0, 0),
            opens: |_, _| false,
            alive: |_| true,
            dev: anonymous_dev(),
            mounted: Time::now(),
        }
    }

    /// As a mountable filesystem.
    pub fn share(self) -> Arc<dyn FileSystem> {
        Arc::new(Shared(Arc::new(self)))
    }
}

struct Shared(Arc<PseudoFs>);

impl FileSystem for Shared {
    fn name(&self) -> &'static str {
        self.0.kind
    }
    fn root(&self) -> Arc<dyn Inode> {
        PseudoInode::of(&self.0, Key::default(), self.0.root)
    }
    fn statfs(&self) -> StatFs {
        StatFs { kind: self.0.magic, bsize: 4096, ..StatFs::default() }
    }
    fn dev(&self) -> u64 {
        self.0.dev
    }
}

struct PseudoInode {
    fs: Arc<PseudoFs>,
    key: Key,
    entry: &'static Entry,
}

impl PseudoInode {
    fn of(fs: &Arc<PseudoFs>, key: Key, entry: &'static Entry) -> Arc<dyn Inode> {
        Arc::new(PseudoInode { fs: fs.clone(), key, entry })
    }

    fn ino(&self) -> u64 {
        ino_of(&self.key, self.entry)
    }
}

/// The key of an entry of such a filesystem, and the entry.
pub fn entry_of(inode: &Arc<dyn Inode>) -> Option<(Key, &'static Entry)> {
    inode.downcast::<PseudoInode>().map(|inode| (inode.key, inode.entry))
}

/// A number that is the same whenever the same entry is looked up.
fn ino_of(key: &Key, entry: &'static Entry) -> u64 {
    let place = core::ptr::from_ref(entry) as u64 & 0xff_ffff;
    let about = (key.pid as u64) << 20 ^ (key.tid as u64) << 8 ^ key.index << 40;
    (place << 4 ^ about ^ 1 << 36) & 0x7fff_ffff_ffff
}

impl Inode for PseudoInode {
    fn metadata(&self) -> Metadata {
        let Access { mode, uid, gid } = self.access();
        let dir = mode & S_IFMT == S_IFDIR;
        // Processes come and go; what they show is always of this moment.
        let time = if self.key.pid == 0 { self.fs.mounted } else { Time::now() };
        Metadata {
            dev: self.fs.dev,
            ino: self.ino(),
            mode,
            nlink: if dir { 2 } else { 1 },
            uid,
            gid,
            size: if mode & S_IFMT == S_IFREG { self.fs.shown_size } else { 0 },
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            ..Metadata::default()
        }
    }

    fn access(&self) -> Access {
        let (uid, gid) = (self.fs.owner)(&self.key, self.entry);
        let mut mode = self.entry.kind.file_type().mode() | self.entry.mode;
        if (self.fs.opens)(&self.key, self.entry) {
            mode |= 0o555;
        }
        Access { mode, uid, gid }
    }

    fn change(&self, change: &Change) -> Result<()> {
        // Times may be set without effect (touch); the rest is not ours to give away.
        match change {
            Change { mode: None, uid: None, gid: None, .. } => Ok(()),
            _ => Err(Errno::EPERM),
        }
    }

    fn remember_names(&self) -> bool {
        self.key == Key::default()
            && matches!(&self.entry.kind, Kind::Dir(Dir { changing: None, .. }))
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        let Kind::Dir(dir) = &self.entry.kind else { return Err(Errno::ENOTDIR) };
        if let Some(entry) = dir.entries.iter().find(|entry| entry.name.as_bytes() == name) {
            if !(self.fs.alive)(&self.key) {
                return Err(Errno::ENOENT);
            }
            return Ok(PseudoInode::of(&self.fs, self.key, entry));
        }
        let found = dir.changing.as_ref().and_then(|changing| (changing.find)(&self.key, name));
        let (key, entry) = found.ok_or(Errno::ENOENT)?;
        Ok(PseudoInode::of(&self.fs, key, entry))
    }

    fn read_link(&self) -> Result<Vec<u8>> {
        match &self.entry.kind {
            Kind::Link(text) | Kind::Magic(text, _) => text(&self.key),
            _ => Err(Errno::EINVAL),
        }
    }

    fn magic_link(&self) -> Option<Result<Path>> {
        match &self.entry.kind {
            Kind::Magic(_, place) => Some(place(&self.key)),
            _ => None,
        }
    }

    fn open(self: Arc<Self>, flags: u32, _path: &Path) -> Result<Opened> {
        match &self.entry.kind {
            Kind::Open(open) => open(&self.key, flags),
            _ => {
                let seen = AtomicU32::new(mount::changes());
                let file = PseudoFile { inode: self, text: Mutex::new(None), seen };
                Ok(Opened::Ops(Arc::new(file)))
            }
        }
    }

    fn truncate(&self, _len: u64) -> Result<()> {
        match &self.entry.kind {
            Kind::Setting(..) | Kind::Numbers(_) => Ok(()),
            _ => Err(Errno::EPERM),
        }
    }
}

/// An open generated file or directory. The text is made by the first read and whenever a read
/// starts over.
struct PseudoFile {
    inode: Arc<PseudoInode>,
    text: Mutex<Option<Text>>,
    /// Changes of mounts that it has told of.
    seen: AtomicU32,
}

impl PseudoFile {
    fn lists_mounts(&self) -> bool {
        matches!(self.inode.entry.name, "mounts" | "mountinfo")
    }
}

impl FileOps for PseudoFile {
    fn seekable(&self) -> bool {
        true
    }

    fn end(&self, file: &File) -> Result<u64> {
        // What is made when it is read has no end before.
        let made = matches!(self.inode.entry.kind, Kind::Text(_)) && self.inode.fs.kind == "proc";
        if made { Err(Errno::EINVAL) } else { Ok(file.with_inode(|inode| inode.metadata().size)) }
    }

    fn pollable(&self) -> bool {
        // Of a process's files only those that announce changes.
        self.inode.key.pid == 0 || self.lists_mounts()
    }

    fn poll(&self, _file: &File, table: &mut PollTable<'_>) -> Events {
        let ready = Events::IN | Events::RDNORM;
        if !self.lists_mounts() {
            return ready | Events::OUT | Events::WRNORM;
        }
        table.register(mount::changed());
        let now = mount::changes();
        if self.seen.swap(now, Relaxed) == now {
            return ready;
        }
        ready | Events::ERR | Events::PRI
    }

    fn read_at(&self, _file: &File, offset: u64, dst: &mut IoDst<'_>) -> Result<usize> {
        let mut slot = self.text.lock();
        if offset == 0 || slot.is_none() {
            let mut text = Text::default();
            match &self.inode.entry.kind {
                Kind::Text(read) | Kind::Setting(read, _) => read(&self.inode.key, &mut text)?,
                Kind::Const(constant) => text.bytes(constant.as_bytes()),
                Kind::Numbers(settings) => {
                    let values: Vec<i64> = settings.iter().map(|setting| setting.get()).collect();
                    show_numbers(&mut text, &values);
                }
                Kind::Dir(_) => return Err(Errno::EISDIR),
                _ => return Err(Errno::EINVAL),
            }
            *slot = Some(text);
        }
        let Some(text) = slot.as_ref() else { return Ok(0) };
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(text.0.len());
        dst.write(&text.0[start..])
    }

    fn write_at(&self, _file: &File, offset: u64, src: &mut IoSrc<'_>) -> Result<(usize, u64)> {
        if !self.inode.entry.can_be_set() {
            return Err(Errno::EIO);
        }
        let mut bytes = [0; 512];
        if src.remaining() > bytes.len() {
            return Err(Errno::EINVAL);
        }
        let n = src.read(&mut bytes)?;
        self.inode.entry.set(&self.inode.key, &bytes[..n])?;
        Ok((n, offset + n as u64))
    }

    fn inode(&self) -> Arc<dyn Inode> {
        self.inode.clone()
    }

    fn read_dir(
        &self,
        file: &File,
        offset: u64,
        emit: &mut dyn FnMut(u64, u64, u8, &[u8]) -> bool,
    ) -> Result<()> {
        let Kind::Dir(dir) = &self.inode.entry.kind else { return Err(Errno::ENOTDIR) };
        let key = &self.inode.key;
        let parent = file.path.as_ref().map_or(0, |path| path.parent_ino());
        let directory = FileType::Directory as u8;
        for (at, (ino, name)) in [(self.inode.ino(), "."), (parent, "..")].iter().enumerate() {
            if offset <= at as u64 && !emit(*ino, at as u64 + 1, directory, name.as_bytes()) {
                return Ok(());
            }
        }
        for (at, entry) in dir.entries.iter().enumerate() {
            let at = at as u64 + 2;
            if offset > at {
                continue;
            }
            let kind = entry.kind.file_type() as u8;
            if !emit(ino_of(key, entry), at + 1, kind, entry.name.as_bytes()) {
                return Ok(());
            }
        }
        if let Some(changing) = &dir.changing {
            let base = dir.entries.len() as u64 + 2;
            let from = offset.saturating_sub(base);
            (changing.list)(key, from, &mut |next, name, kind| {
                let found = (changing.find)(key, name);
                let ino = found.map_or(1, |(key, entry)| ino_of(&key, entry));
                emit(ino, base + next, kind as u8, name)
            });
        }
        Ok(())
    }

    fn sync(&self, _file: &File, _data_only: bool) -> Result<()> {
        Ok(())
    }
}

/// A line of numbers.
pub fn show_numbers(out: &mut Text, values: &[i64]) {
    for (at, value) in values.iter().enumerate() {
        say!(out, "{}{value}", if at == 0 { "" } else { "\t" });
    }
    say!(out, "\n");
}

/// The numbers of a line. EINVAL if something else is there.
pub fn parse_numbers(bytes: &[u8]) -> Result<Vec<i64>> {
    bytes.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).map(parse_number).collect()
}

/// A number written to a setting, as C has them: `0x10` and `020` are 16. EINVAL if it isn't one.
pub fn parse_number(bytes: &[u8]) -> Result<i64> {
    let text = core::str::from_utf8(bytes).map_err(|_| Errno::EINVAL)?.trim();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let (digits, radix) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&digits[2..], 16),
        [b'0', _, ..] => (&digits[1..], 8),
        _ => (digits, 10),
    };
    // One sign is enough.
    if digits.starts_with(['+', '-']) {
        return Err(Errno::EINVAL);
    }
    let text = alloc::format!("{sign}{digits}");
    i64::from_str_radix(&text, radix).map_err(|_| Errno::EINVAL)
}

/// The number in a name like `cpu3`; names with leading zeros aren't such.
pub fn numbered(prefix: &str, name: &[u8]) -> Option<u32> {
    let digits = name.strip_prefix(prefix.as_bytes())?;
    if digits.is_empty() || digits.len() > 1 && digits[0] == b'0' {
        return None;
    }
    core::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_in_c() {
        for (text, value) in [
            ("0", 0),
            ("17\n", 17),
            (" -17 ", -17),
            ("+5", 5),
            ("0x33", 0x33),
            ("-0X1f", -0x1f),
            ("020", 16),
            ("-9223372036854775808", i64::MIN),
        ] {
            assert_eq!(parse_number(text.as_bytes()), Ok(value), "{text}");
        }
        for text in ["", "-", "0x", "08", "1 2", "--1", "+-1", "0x+1", "9223372036854775808"] {
            assert_eq!(parse_number(text.as_bytes()), Err(Errno::EINVAL), "{text}");
        }
    }
}
