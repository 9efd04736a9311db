//! What the boot record wants mounted over the root: volumes, directories of the host, memory.

use super::ext4::Ext4;
use super::inode::{Change, NewNode, Opened, XattrMode, mode::*};
use super::memfs::{MemFs, Options};
use super::mount::{self, Flags};
use super::ninep::NineFs;
use super::{Dentry, File, FileSystem, FileType, Inode, Mount, Path, iso9660, ops};
use crate::drivers::block::{self, BlockDevice};
use crate::drivers::virtio::ninep;
use crate::errno::{Errno, Result};
use crate::io::{IoDst, IoSrc};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use dock2uni_format::record::{self, MountKind, Record, Variable};
use linux_raw_sys::general::{O_DIRECTORY, O_NOATIME, O_RDONLY, O_WRONLY};

/// Set on a volume's root while the image's files are being copied to it.
const COPYING: &[u8] = b"trusted.dock2uni.copying";
/// Bytes copied at a time.
const PIECE: usize = 64 << 10;

/// Mounts everything. The error is for the user.
pub fn mount(mounts: &[record::Mount]) -> core::result::Result<(), String> {
    for wanted in mounts {
        let name = String::from_utf8_lossy(&wanted.path);
        mount_one(wanted).map_err(|why| format!("`{name}` can't be mounted: {why}"))?;
    }
    Ok(())
}

fn mount_one(wanted: &record::Mount) -> core::result::Result<(), String> {
    let plain = |error: Errno| format!("{error:?}");
    let mut flags = Flags::RELATIME;
    flags.set(Flags::RDONLY, wanted.read_only);
    let at = ops::make_dirs(&wanted.path, 0o755).map_err(plain)?;
    let (fs, source): (Arc<dyn FileSystem>, String) = match &wanted.kind {
        MountKind::Volume { uuid } => {
            let device = volume(uuid)?;
            (Ext4::open(device.clone(), wanted.read_only)?, format!("/dev/{}", device.name()))
        }
        MountKind::Host { tag } => (shared(tag)?, tag.clone()),
        MountKind::Tmpfs { options } => {
            flags |= Flags::NOSUID | Flags::NODEV | Flags::NOEXEC;
            let options = Options::parse(options.as_bytes())
                .map_err(|_| format!("`{options}` aren't options of a tmpfs"))?;
            (MemFs::tmpfs(&options), String::from("tmpfs"))
        }
    };
    let root = Dentry::root(fs.root());
    if matches!(wanted.kind, MountKind::Volume { .. }) && !wanted.read_only {
        let inside = Path { mount: Mount::internal(fs.clone()), dentry: root.clone() };
        fill(&at, &inside)
            .and_then(|()| fs.sync())
            .map_err(|error| format!("the image's files can't be copied to it ({error:?})"))?;
    }
    mount::mount_at(fs, root, at, &source, flags).map_err(plain)?;
    Ok(())
}

/// What the host shows by this tag: a directory, or a disk of files with this label.
fn shared(tag: &str) -> core::result::Result<Arc<dyn FileSystem>, String> {
    let opened = match (ninep::find(tag), iso9660::find(tag)) {
        (Some(channel), _) => NineFs::open(channel).map(|fs| fs as Arc<dyn FileSystem>),
        (None, Some(disk)) => iso9660::load(&*disk),
        (None, None) => {
            return Err(format!(
                "nothing shares `{tag}`; attach it as virtio-9p, or as a disk in ISO 9660 with \
                 this label and Rock Ridge names"
            ));
        }
    };
    opened.map_err(|error| format!("`{tag}` can't be read ({error:?})"))
}

/// Adds variables whose values are files that the host shows, in place of others of their names. The
/// error is for the user, and shows nothing of a value.
pub fn add_variables(record: &mut Record) -> core::result::Result<(), String> {
    let mut known: Option<(&str, Path)> = None;
    for Variable { name, tag, file } in &record.variables {
        let root = match &known {
            Some((last, root)) if last == tag => root,
            _ => {
                let fs = shared(tag)?;
                let dentry = Dentry::root(fs.root());
                &known.insert((tag, Path { mount: Mount::internal(fs), dentry })).1
            }
        };
        let value = value(root, file.as_bytes()).map_err(|error| {
            format!("the variable `{name}` is to be `{file}` of `{tag}`: {error:?}")
        })?;
        let mut entry = format!("{name}=").into_bytes();
        record.env.retain(|other| !other.starts_with(&entry));
        entry.extend(value);
        record.env.push(entry);
    }
    Ok(())
}

/// All of a file that has no byte 0. EINVAL if it has one, EFBIG if it is more than one string of an
/// environment may be.
fn value(dir: &Path, name: &[u8]) -> Result<Vec<u8>> {
    const MAX: usize = 128 << 10;
    let path = Path { mount: dir.mount.clone(), dentry: dir.dentry.child(name)? };
    let file = open(&path, O_RDONLY)?;
    let mut bytes = alloc::vec![0; MAX];
    let mut len = 0;
    loop {
        let mut rest = IoDst::kernel(&mut bytes[len..]);
        match file.ops.read_at(&file, len as u64, &mut rest)? {
            0 => break,
            read => len += read,
        }
    }
    bytes.truncate(len);
    match bytes {
        _ if len == MAX => Err(Errno::EFBIG),
        bytes if bytes.contains(&0) => Err(Errno::EINVAL),
        bytes => Ok(bytes),
    }
}

/// The disk with the volume of this UUID.
fn volume(uuid: &[u8; 16]) -> core::result::Result<Arc<dyn BlockDevice>, String> {
    block::disks().into_iter().find(|disk| Ext4::probe(&**disk) == Some(*uuid)).ok_or_else(|| {
        let hex: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("no disk holds the volume {hex}; attach it as virtio-blk")
    })
}

/// Gives a new volume what the image has at its place, as Docker does: owner and permissions of
/// the directory, and all files in it. If it is cut short it is done again at the next boot.
fn fill(from: &Path, to: &Path) -> Result<()> {
    let inode = to.inode()?;
    let names = names(to)?;
    let started = inode.xattr(COPYING)?.is_some();
    if !started && names.iter().any(|name| name.as_slice() != b"lost+found") {
        return Ok(());
    }
    let image = names_or_none(from)?;
    let access = from.inode()?.access();
    let change = Change {
        mode: Some(access.mode),
        uid: Some(access.uid),
        gid: Some(access.gid),
        ..Change::default()
    };
    inode.change(&change)?;
    if image.is_empty() {
        return Ok(());
    }
    if !started {
        inode.set_xattr(COPYING, b"", XattrMode::Any)?;
        to.mount.fs.sync()?;
    }
    copy_tree(from, to)?;
    to.mount.fs.sync()?;
    inode.remove_xattr(COPYING)
}

fn names_or_none(dir: &Path) -> Result<Vec<Vec<u8>>> {
    if dir.dentry.is_dir() { names(dir) } else { Ok(Vec::new()) }
}

/// Names in a directory.
fn names(dir: &Path) -> Result<Vec<Vec<u8>>> {
    // A look at what is there changes nothing on a volume.
    let file = open(dir, O_RDONLY | O_DIRECTORY | O_NOATIME)?;
    let mut names = Vec::new();
    let mut offset = 0;
    loop {
        let before = offset;
        file.ops.read_dir(&file, before, &mut |_, next, _, name| {
            offset = next;
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
            true
        })?;
        if offset == before {
            return Ok(names);
        }
    }
}

fn open(path: &Path, flags: u32) -> Result<Arc<File>> {
    match path.inode()?.clone().open(flags, path)? {
        Opened::Ops(ops) => Ok(File::named(ops, flags, path.clone())),
        Opened::File(file) => Ok(file),
    }
}

/// Copies what is in one directory to another.
fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    // Files with several names in the image have them in the copy as well.
    let mut linked: Vec<(u64, Arc<dyn Inode>)> = Vec::new();
    let mut work = alloc::vec![(from.clone(), to.clone())];
    while let Some((from, to)) = work.pop() {
        for name in names(&from)? {
            let source = Path { mount: from.mount.clone(), dentry: from.dentry.child(&name)? };
            let old = source.inode()?;
            let meta = old.metadata();
            let dir = to.inode()?;
            let target = Path { mount: to.mount.clone(), dentry: to.dentry.child(&name)? };
            if target.dentry.is_dir() && source.dentry.is_dir() {
                // Of an earlier attempt.
                work.push((source, target));
                continue;
            }
            if let Ok(stale) = target.inode() {
                dir.unlink(&name, stale)?;
                to.dentry.forget(&name);
            }
            if let Some((_, first)) = linked.iter().find(|(ino, _)| *ino == meta.ino) {
                dir.link(&name, first)?;
                continue;
            }
            let node = NewNode { mode: meta.mode, uid: meta.uid, gid: meta.gid, rdev: meta.rdev };
            let new = match FileType::of_mode(meta.mode) {
                FileType::Symlink => dir.symlink(&name, &old.read_link()?, &node)?,
                _ => dir.create(&name, &node)?,
            };
            let target = Path {
                mount: to.mount.clone(),
                dentry: to.dentry.remember(&name, Some(new.clone())),
            };
            if meta.mode & S_IFMT == S_IFREG {
                copy_contents(&source, &target)?;
            }
            copy_xattrs(old, &new)?;
            let (atime, mtime) = (Some(meta.atime), Some(meta.mtime));
            new.change(&Change { mode: Some(meta.mode), atime, mtime, ..Change::default() })?;
            if meta.mode & S_IFMT == S_IFDIR {
                work.push((source, target));
            } else if meta.nlink > 1 {
                linked.push((meta.ino, new));
            }
        }
    }
    Ok(())
}

fn copy_contents(from: &Path, to: &Path) -> Result<()> {
    let (from, to) = (open(from, O_RDONLY)?, open(to, O_WRONLY)?);
    let mut piece = alloc::vec![0; PIECE];
    let mut at = 0;
    loop {
        let n = from.ops.read_at(&from, at, &mut IoDst::kernel(&mut piece))?;
        if n == 0 {
            return Ok(());
        }
        let mut src = IoSrc::kernel(&piece[..n]);
        while src.remaining() > 0 {
            (_, at) = to.ops.write_at(&to, at, &mut src)?;
        }
    }
}

fn copy_xattrs(from: &Arc<dyn Inode>, to: &Arc<dyn Inode>) -> Result<()> {
    for name in from.list_xattrs()?.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        let Some(value) = from.xattr(name)? else { continue };
        match to.set_xattr(name, &value, XattrMode::Any) {
            // Of a kind that volumes don't have.
            Err(Errno::EOPNOTSUPP) | Ok(()) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
