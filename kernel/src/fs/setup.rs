//! Filesystems that are being set up or changed (fsopen(2), fsconfig(2), fspick(2)); mount(2) does
//! the same in one call.

use super::inode::{FileSystem, Inode};
use super::memfs::{MemFs, Options};
use super::mount::{self, Flags, Mount};
use super::{File, FileOps, procfs, sysfs};
use crate::errno::{Errno, Result};
use crate::io::IoDst;
use crate::sync::Mutex;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;

/// Types of filesystems that can be mounted.
const KINDS: [&str; 5] = ["tmpfs", "ramfs", "proc", "sysfs", "devpts"];
/// Most messages that wait to be read.
const MESSAGES: usize = 8;

/// What a parameter is set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Nothing.
    None,
    /// Text.
    Text(&'a str),
    /// A file or bytes.
    Other,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Parameters of a new filesystem are set.
    New,
    /// It was made, and wasn't given out yet.
    Made,
    /// Parameters of one that exists are set.
    Change,
    /// It couldn't be made or changed.
    Failed,
}

struct State {
    phase: Phase,
    source: Option<String>,
    /// Flags of the filesystem that were named, and their values.
    named: Flags,
    flags: Flags,
    /// `name=value`, each followed by a comma; all of them are good.
    options: String,
    /// A mount of the filesystem that has no place.
    mount: Option<Arc<Mount>>,
    log: VecDeque<String>,
}

/// A filesystem that is being set up or changed.
pub struct Setup {
    kind: &'static str,
    state: Mutex<State>,
}

impl Setup {
    /// For a new filesystem. ENODEV if there is no such type.
    pub fn new(kind: &[u8]) -> Result<Setup> {
        let kind = KINDS.iter().find(|known| known.as_bytes() == kind).ok_or(Errno::ENODEV)?;
        Ok(Setup::with(kind, Phase::New, None))
    }

    /// For changes of a mount's filesystem.
    pub fn of(mount: &Mount) -> Setup {
        // A reference to the mount itself would keep it busy.
        let other = mount.another(mount.root.clone(), mount.own_flags());
        Setup::with(mount.fs.name(), Phase::Change, Some(other))
    }

    fn with(kind: &'static str, phase: Phase, mount: Option<Arc<Mount>>) -> Setup {
        let state = State {
            phase,
            source: None,
            named: Flags::empty(),
            flags: Flags::empty(),
            options: String::new(),
            mount,
            log: VecDeque::new(),
        };
        Setup { kind, state: Mutex::new(state) }
    }

    /// Sets flags of the filesystem, as mount(2) has them.
    pub fn set_flags(&self, flags: Flags) {
        let mut state = self.state.lock();
        state.named = Flags::WHOLE;
        state.flags = flags & Flags::WHOLE;
    }

    /// Sets one parameter. EINVAL if there is none of that name, or the value is bad; EBUSY if it is
    /// too late.
    pub fn set(&self, name: &str, value: Value<'_>) -> Result<()> {
        let mut state = self.state.lock();
        if !matches!(state.phase, Phase::New | Phase::Change) {
            return Err(Errno::EBUSY);
        }
        if let Some((flag, on)) = flag_of(name) {
            state.named |= flag;
            state.flags.set(flag, on);
            return Ok(());
        }
        let shown = match value {
            Value::Text(text) => format!("{name}={text}"),
            _ => String::from(name),
        };
        let known = self.check(&state, name, value, &shown);
        let (who, trouble) = match known {
            Ok(true) => {
                if state.options.len() + shown.len() + 2 > crate::arch::PAGE_SIZE {
                    return Err(Errno::EINVAL);
                }
                state.options += &shown;
                state.options.push(',');
                return Ok(());
            }
            Ok(false) if name == "source" => match value {
                Value::Text(text) if state.source.is_none() => {
                    state.source = Some(String::from(text));
                    return Ok(());
                }
                _ => ("VFS", "Multiple sources, or no text"),
            },
            Ok(false) => (self.kind, "Unknown parameter"),
            Err(_) => (self.kind, "Bad value for"),
        };
        if state.log.len() >= MESSAGES {
            state.log.pop_front();
        }
        state.log.push_back(format!("e {who}: {trouble} '{name}'\n"));
        Err(Errno::EINVAL)
    }

    /// Whether the type has such a parameter. EINVAL for a bad value.
    fn check(&self, state: &State, name: &str, value: Value<'_>, shown: &str) -> Result<bool> {
        let text = match value {
            Value::Text(text) => text,
            _ => "",
        };
        let known = match self.kind {
            "tmpfs" => Options::default().set(name, text)?,
            // It has never minded.
            "ramfs" => name != "source",
            "proc" if name == "hidepid" && !matches!(text, "0" | "off") => {
                return Err(Errno::EINVAL);
            }
            "proc" => matches!(name, "gid" | "hidepid"),
            "devpts" => {
                matches!(name, "uid" | "gid" | "mode" | "ptmxmode" | "max" | "newinstance")
            }
            _ => false,
        };
        // What is said of it in /proc/mounts is what mount(8) says again.
        let has = |mount: &Arc<Mount>| mount.fs.options().split(',').any(|one| one == shown);
        if !known && !name.is_empty() && state.mount.as_ref().is_some_and(has) {
            return Ok(true);
        }
        if known && value == Value::Other { Err(Errno::EINVAL) } else { Ok(known) }
    }

    /// Sets all parameters of mount(2)'s data.
    pub fn set_all(&self, data: &[u8]) -> Result<()> {
        let text = core::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
        for option in text.split(',').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some((name, value)) => self.set(name, Value::Text(value))?,
                None => self.set(option, Value::None)?,
            }
        }
        Ok(())
    }

    /// Makes the filesystem. EBUSY if there is one.
    pub fn make(&self) -> Result<()> {
        let mut state = self.state.lock();
        if state.phase != Phase::New {
            return Err(Errno::EBUSY);
        }
        state.phase = Phase::Failed;
        let fs: Arc<dyn FileSystem> = match self.kind {
            "tmpfs" => MemFs::tmpfs(&Options::parse(state.options.as_bytes())?),
            "ramfs" => MemFs::tmpfs(&Options::default()),
            "proc" => procfs::filesystem(),
            "sysfs" => sysfs::filesystem(),
            _ => MemFs::devpts(),
        };
        let root = super::Dentry::root(fs.root());
        let source = state.source.as_deref().unwrap_or("none");
        state.mount = Some(Mount::detached(fs, root, source, Flags::empty(), state.flags));
        state.phase = Phase::Made;
        Ok(())
    }

    /// A mount of the filesystem that was made, with flags of its own. EINVAL if there is none, EBUSY
    /// if it was given out before.
    pub fn mount(&self, flags: Flags) -> Result<Arc<Mount>> {
        let mut state = self.state.lock();
        let mount = state.mount.as_ref().ok_or(Errno::EINVAL)?;
        if state.phase != Phase::Made {
            return Err(Errno::EBUSY);
        }
        let mount = mount.another(mount.root.clone(), flags);
        state.phase = Phase::Change;
        state.clear();
        Ok(mount)
    }

    /// Changes the filesystem as was set. EBUSY if it isn't there yet, or would become read-only while
    /// files are written.
    pub fn change(&self) -> Result<()> {
        let mut state = self.state.lock();
        let mount = state.mount.clone().filter(|_| state.phase == Phase::Change);
        let mount = mount.ok_or(Errno::EBUSY)?;
        state.phase = Phase::Failed;
        mount.fs.reconfigure(if self.kind == "tmpfs" { &state.options } else { "" })?;
        mount.set_whole_flags((mount.whole_flags() - state.named) | state.flags & state.named)?;
        state.phase = Phase::Change;
        state.clear();
        Ok(())
    }
}

impl State {
    fn clear(&mut self) {
        self.named = Flags::empty();
        self.flags = Flags::empty();
        self.options.clear();
    }
}

/// Parameters that every filesystem has.
fn flag_of(name: &str) -> Option<(Flags, bool)> {
    Some(match name {
        "ro" => (Flags::RDONLY, true),
        "rw" => (Flags::RDONLY, false),
        "sync" => (Flags::SYNCHRONOUS, true),
        "async" => (Flags::SYNCHRONOUS, false),
        "dirsync" => (Flags::DIRSYNC, true),
        "lazytime" => (Flags::LAZYTIME, true),
        "nolazytime" => (Flags::LAZYTIME, false),
        "mand" => (Flags::MANDLOCK, true),
        "nomand" => (Flags::MANDLOCK, false),
        _ => return None,
    })
}

impl FileOps for Setup {
    /// One message of what went wrong; ENODATA if there is none, EMSGSIZE if it doesn't fit.
    fn read(&self, _file: &File, dst: &mut IoDst<'_>) -> Result<usize> {
        let text = {
            let log = &mut self.state.lock().log;
            if log.front().ok_or(Errno::ENODATA)?.len() > dst.remaining() {
                return Err(Errno::EMSGSIZE);
            }
            log.pop_front().ok_or(Errno::ENODATA)?
        };
        dst.write(text.as_bytes())
    }

    fn pollable(&self) -> bool {
        false
    }

    fn inode(&self) -> Arc<dyn Inode> {
        super::anon::inode()
    }

    fn describe(&self) -> String {
        String::from("anon_inode:[fscontext]")
    }
}

/// The top of a tree of mounts that has no place yet (fsmount(2), open_tree(2)).
pub struct Tree(Arc<Mount>);

impl Tree {
    /// A description that holds a mount until it gets a place, and by which it is named.
    pub fn open(mount: Arc<Mount>) -> Arc<File> {
        mount::hold(&mount);
        let path = super::Path::root_of(&mount);
        File::named(Arc::new(Tree(mount)), linux_raw_sys::general::O_PATH, path)
    }
}

impl FileOps for Tree {
    fn inode(&self) -> Arc<dyn Inode> {
        self.0.fs.root()
    }
    fn pollable(&self) -> bool {
        false
    }
    fn release(&self, _file: &File) {
        mount::dissolve(&self.0);
    }
}
