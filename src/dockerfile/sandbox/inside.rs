//! The first process of the sandbox: mounts, gives its rights up, and becomes the command.

use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive,
    mount_change, mount_remount, unmount,
};
use rustix::process::{Gid, Signal, Uid, chdir, pivot_root, set_parent_process_death_signal};
use rustix::thread::{
    CapabilitySet, remove_capability_from_bounding_set, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

use super::job::{Job, Mount, Overlay, Run};
use super::keeper::NOT_SET_UP;

/// What a container's root may do by default (moby `oci/caps`).
const CAPABILITIES: [CapabilitySet; 14] = [
    CapabilitySet::CHOWN,
    CapabilitySet::DAC_OVERRIDE,
    CapabilitySet::FSETID,
    CapabilitySet::FOWNER,
    CapabilitySet::MKNOD,
    CapabilitySet::NET_RAW,
    CapabilitySet::SETGID,
    CapabilitySet::SETUID,
    CapabilitySet::SETFCAP,
    CapabilitySet::SETPCAP,
    CapabilitySet::NET_BIND_SERVICE,
    CapabilitySet::SYS_CHROOT,
    CapabilitySet::KILL,
    CapabilitySet::AUDIT_WRITE,
];
/// Parts of /proc that would let root, who keeps its number, change this machine.
const READ_ONLY: [&str; 5] = ["proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"];
/// Parts that would tell too much.
const HIDDEN: [&str; 7] = [
    "proc/acpi",
    "proc/kcore",
    "proc/keys",
    "proc/latency_stats",
    "proc/sched_debug",
    "proc/scsi",
    "proc/timer_list",
];
const DEVICES: [&str; 6] = ["full", "null", "random", "tty", "urandom", "zero"];
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("ptmx", "pts/ptmx"),
    ("stderr", "/proc/self/fd/2"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
];
/// Largest passwd or group file that is read.
const MAX_BYTES: u64 = 4 << 20;

/// A step that failed, in words.
type Step<T = ()> = Result<T, String>;

trait Because<T> {
    fn because(self, what: &str) -> Step<T>;
}

impl<T, E: std::fmt::Display> Because<T> for Result<T, E> {
    fn because(self, what: &str) -> Step<T> {
        self.map_err(|error| format!("{what}: {error}"))
    }
}

/// Becomes the command of the job in the file `path`.
pub fn main(path: &Path) -> u8 {
    // Opened now: the file can't be seen from inside.
    let failure = File::create(path.with_extension("failure"));
    let Err(reason) = become_command(path);
    let told = failure.is_ok_and(|mut file| file.write_all(reason.as_bytes()).is_ok());
    if !told {
        eprintln!("{reason}");
    }
    // An exit status is eight bits.
    NOT_SET_UP as u8
}

fn become_command(path: &Path) -> Step<std::convert::Infallible> {
    let bytes = fs::read(path).because("no job")?;
    let job: Job = serde_json::from_slice(&bytes).because("no job")?;
    let run = job.run.ok_or("the job has no command")?;
    set_parent_process_death_signal(Some(Signal::KILL)).because("no parent-death signal")?;
    unshare(CloneFlags::CLONE_NEWNS).because("no mount namespace")?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).because("mounts can't be made private")?;
    rustix::process::umask(Mode::from_raw_mode(0o022));

    let root = run.root.dir.join("root");
    overlay(&run.root, &root)?;
    // Overlays for mounts are made outside, where their layers are.
    let mut sources = Vec::new();
    for mounted in &run.mounts {
        sources.push(match mounted {
            Mount::Overlay { overlay: layers, part, .. } => {
                let at = layers.dir.join("root");
                overlay(layers, &at)?;
                Some(at.join(Path::new(OsStr::from_bytes(part))))
            }
            _ => None,
        });
    }
    chdir(&root).because("the root can't be entered")?;
    system(&run)?;
    for (mounted, source) in run.mounts.iter().zip(&sources) {
        attach(&root, mounted, source.as_deref())?;
    }
    mask()?;
    chdir(&root).because("the root can't be entered")?;
    pivot_root(".", ".").because("the root can't be changed")?;
    unmount(".", UnmountFlags::DETACH).because("the old root can't be left")?;
    chdir("/").because("the root can't be entered")?;
    rustix::system::sethostname(b"dock2uni-build").because("no host name")?;
    let user = user(&run.user)?;
    enter_directory(&run.cwd)?;
    give_up(&user)?;
    exec(&run, &user)
}

/// Mounts an overlay at `at`. Its lower directories have short names, since all of them must fit
/// into a page.
fn overlay(layers: &Overlay, at: &Path) -> Step {
    chdir(&layers.dir).because("the layers can't be entered")?;
    let mut lowers = vec!["stubs".to_owned()];
    lowers.extend((0..layers.lowers.len()).rev().map(|number| format!("l/{number}")));
    let escaped = |path: &Path| {
        let mut text = Vec::new();
        for &byte in path.as_os_str().as_bytes() {
            if matches!(byte, b',' | b':' | b'\\') {
                text.push(b'\\');
            }
            text.push(byte);
        }
        text
    };
    let mut options = format!("lowerdir={},upperdir=", lowers.join(":")).into_bytes();
    options.extend(escaped(&layers.upper()));
    options.extend(b",workdir=work,userxattr");
    if options.len() >= 4096 {
        return Err("there are too many layers for one overlay".into());
    }
    let options = CString::new(options).because("a path holds a NUL byte")?;
    match mount("overlay", at, "overlay", MountFlags::NODEV, options.as_c_str()) {
        Err(Errno::NODEV | Errno::PERM) => {
            Err("this kernel mounts no overlay in user namespaces; it takes Linux 5.11".into())
        }
        result => result.because("the overlay can't be mounted"),
    }
}

/// Mounts /proc, /sys and /dev below the working directory.
fn system(run: &Run) -> Step {
    let safe = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    if mount("proc", "proc", "proc", safe, None).is_err() {
        // Where parts of /proc are hidden, a new one that shows them is not allowed.
        mount_bind_recursive("/proc", "proc").because("/proc can't be mounted")?;
    }
    let own = if run.host_network {
        Err(Errno::PERM)
    } else {
        mount("sysfs", "sys", "sysfs", safe | MountFlags::RDONLY, None)
    };
    if own.is_err() {
        // A sysfs goes with a network namespace of one's own.
        mount_bind_recursive("/sys", "sys").because("/sys can't be mounted")?;
        read_only("sys", safe);
    }
    let tmpfs = |options: &str| CString::new(options).because("a mount option");
    let flags = MountFlags::NOSUID | MountFlags::STRICTATIME;
    mount("tmpfs", "dev", "tmpfs", flags, tmpfs("mode=755,size=65536k")?.as_c_str())
        .because("/dev can't be mounted")?;
    for name in DEVICES {
        let at = format!("dev/{name}");
        File::create(&at).because("a device")?;
        mount_bind(format!("/dev/{name}"), &at).because(&at)?;
    }
    for dir in ["dev/pts", "dev/shm"] {
        fs::create_dir(dir).because(dir)?;
    }
    let pts = tmpfs("newinstance,ptmxmode=0666,mode=620")?;
    mount("devpts", "dev/pts", "devpts", MountFlags::NOSUID | MountFlags::NOEXEC, pts.as_c_str())
        .because("/dev/pts can't be mounted")?;
    mount("tmpfs", "dev/shm", "tmpfs", safe, tmpfs("mode=1777,size=65536k")?.as_c_str())
        .because("/dev/shm can't be mounted")?;
    for (name, target) in LINKS {
        std::os::unix::fs::symlink(target, format!("dev/{name}")).because(name)?;
    }
    Ok(())
}

/// Makes a mount read-only, as far as that goes: what other filesystems are below keeps its state.
fn read_only(at: impl rustix::path::Arg, flags: MountFlags) {
    // The host's /sys is not writable from a user namespace anyway.
    let _ = mount_remount(at, MountFlags::BIND | MountFlags::RDONLY | flags, "");
}

fn mask() -> Step {
    let safe = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    for path in READ_ONLY.iter().filter(|path| Path::new(path).exists()) {
        mount_bind_recursive(*path, *path).because(path)?;
        mount_remount(*path, MountFlags::BIND | MountFlags::RDONLY | safe, "").because(path)?;
    }
    for path in HIDDEN.iter().filter(|path| Path::new(path).exists()) {
        if Path::new(path).is_dir() {
            mount("tmpfs", *path, "tmpfs", safe | MountFlags::RDONLY, None).because(path)?;
        } else {
            mount_bind("/dev/null", *path).because(path)?;
        }
    }
    Ok(())
}

/// Attaches one mount of the user's.
fn attach(root: &Path, mounted: &Mount, source: Option<&Path>) -> Step {
    match mounted {
        Mount::Bind(bind) => {
            let directory = bind.source.is_dir();
            let at = mount_point(root, &bind.target, directory)?;
            mount_bind(&bind.source, at.name()).because(&at.shown)?;
            if bind.read_only {
                at.again(root)?.make_read_only()?;
            }
        }
        Mount::Overlay { target, read_only, .. } => {
            let source = source.ok_or("a mount has no source")?;
            let at = mount_point(root, target, source.is_dir())?;
            mount_bind(source, at.name()).because(&at.shown)?;
            if *read_only {
                at.again(root)?.make_read_only()?;
            }
        }
        Mount::Tmpfs { target, size } => {
            let at = mount_point(root, target, true)?;
            let size = size.map(|size| format!(",size={size}")).unwrap_or_default();
            let options = CString::new(format!("mode=1777{size}")).because("a mount option")?;
            let flags = MountFlags::NOSUID | MountFlags::NODEV;
            mount("tmpfs", at.name(), "tmpfs", flags, options.as_c_str()).because(&at.shown)?;
        }
        Mount::File(file) => {
            // A tmpfs of its own, whose one file is shown at the target.
            let name = "dev/shm";
            let staged = Path::new(name).join(".dock2uni-file");
            let mut out = File::create(&staged).because("a file")?;
            out.write_all(&file.content).because("a file")?;
            let owner = (Some(Uid::from_raw(file.owner.0)), Some(Gid::from_raw(file.owner.1)));
            rustix::fs::fchown(&out, owner.0, owner.1).because("the owner of a file")?;
            rustix::fs::fchmod(&out, Mode::from_raw_mode(file.mode)).because("a file's mode")?;
            drop(out);
            let at = mount_point(root, &file.target, false)?;
            mount_bind(&staged, at.name()).because(&at.shown)?;
            at.again(root)?.make_read_only()?;
            fs::remove_file(&staged).because("a file")?;
        }
    }
    Ok(())
}

/// A place to mount at, which can't be another by the time something is mounted there.
struct Point {
    fd: OwnedFd,
    target: Vec<u8>,
    shown: String,
}

impl Point {
    fn name(&self) -> String {
        format!("/proc/self/fd/{}", self.fd.as_raw_fd())
    }

    /// The same place, on top of what was mounted there.
    fn again(&self, root: &Path) -> Step<Point> {
        let fd = beneath(root, &self.target, OFlags::PATH).because(&self.shown)?;
        Ok(Point { fd, target: self.target.clone(), shown: self.shown.clone() })
    }

    fn make_read_only(&self) -> Step {
        let name = self.name();
        let flags = MountFlags::BIND | MountFlags::RDONLY;
        // Flags that the source's filesystem is mounted with may not be dropped.
        let locked = [
            MountFlags::empty(),
            MountFlags::NOSUID | MountFlags::NODEV,
            MountFlags::NODEV,
            MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
            MountFlags::NOSUID | MountFlags::NODEV | MountFlags::RELATIME,
            MountFlags::NODEV | MountFlags::NOATIME,
            MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME,
        ];
        let mut last = Ok(());
        for more in locked {
            last = mount_remount(name.as_str(), flags | more, "");
            if last.is_ok() {
                return Ok(());
            }
        }
        last.because(&self.shown)
    }
}

fn beneath(root: &Path, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let dir = openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let path = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    openat2(dir, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// The place that a target leads to below the root. What is missing is made, which happens only
/// below other mounts: the root has what it needs.
fn mount_point(root: &Path, target: &[u8], directory: bool) -> Step<Point> {
    let shown = format!("mount at /{}", String::from_utf8_lossy(target));
    let (parent, name) = super::super::tree::split(target);
    match beneath(root, target, OFlags::PATH) {
        Ok(fd) => return Ok(Point { fd, target: target.to_owned(), shown }),
        Err(Errno::NOENT) if !name.is_empty() => {}
        Err(error) => return Err(format!("{shown}: {error}")),
    }
    if beneath(root, parent, OFlags::PATH).is_err() {
        mount_point(root, parent, true)?;
    }
    let dir = beneath(root, parent, OFlags::PATH | OFlags::DIRECTORY).because(&shown)?;
    if directory {
        mkdirat(&dir, name, Mode::from_raw_mode(0o755)).because(&shown)?;
    } else {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        openat(&dir, name, flags, Mode::from_raw_mode(0o644)).because(&shown)?;
    }
    let fd = beneath(root, target, OFlags::PATH).because(&shown)?;
    Ok(Point { fd, target: target.to_owned(), shown })
}

/// Who the command runs as.
struct User {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    home: String,
}

fn lines(file: &str) -> Vec<Vec<String>> {
    let text =
        File::open(file).and_then(|file| super::super::context::read_limited(file, MAX_BYTES));
    let text = String::from_utf8_lossy(&text.unwrap_or_default()).into_owned();
    text.lines().map(|line| line.split(':').map(str::to_owned).collect()).collect()
}

/// Finds a user in the image's own files, which are the root's now.
fn user(text: &str) -> Step<User> {
    let (name, group) = text.split_once(':').map_or((text, None), |(u, g)| (u, Some(g)));
    let name = if name.is_empty() { "0" } else { name };
    let field = |fields: &[String], index: usize| fields.get(index).and_then(|f| f.parse().ok());
    let passwd = lines("/etc/passwd");
    let entry = passwd
        .iter()
        .find(|fields| fields[0] == name)
        .or_else(|| passwd.iter().find(|fields| fields.get(2).is_some_and(|id| id == name)));
    let (uid, gid) = match (entry, name.parse::<u32>()) {
        (Some(fields), _) => match (field(fields, 2), field(fields, 3)) {
            (Some(uid), Some(gid)) => (uid, gid),
            _ => return Err(format!("the entry of `{name}` in /etc/passwd is malformed")),
        },
        (None, Ok(uid)) => (uid, 0),
        (None, Err(_)) => return Err(format!("there is no user `{name}` in the image")),
    };
    let all = lines("/etc/group");
    let gid = match group.filter(|group| !group.is_empty()) {
        None => gid,
        Some(group) => match group.parse() {
            Ok(gid) => gid,
            Err(_) => all
                .iter()
                .find(|fields| fields[0] == group)
                .and_then(|fields| field(fields, 2))
                .ok_or_else(|| format!("there is no group `{group}` in the image"))?,
        },
    };
    let mut groups = vec![gid];
    if let Some(fields) = entry.filter(|_| group.is_none()) {
        let member = |group: &&Vec<String>| {
            group.get(3).is_some_and(|list| list.split(',').any(|one| one == fields[0]))
        };
        groups.extend(all.iter().filter(member).filter_map(|group| field(group, 2)));
        groups.sort_unstable();
        groups.dedup();
    }
    let home = entry.and_then(|fields| fields.get(5)).filter(|home| !home.is_empty());
    Ok(User { uid, gid, groups, home: home.map_or("/", String::as_str).to_owned() })
}

fn enter_directory(path: &str) -> Step {
    match chdir(path) {
        // The base image names one that it doesn't have.
        Err(Errno::NOENT) => {
            fs::create_dir_all(path).because("the working directory")?;
            chdir(path).because("the working directory")
        }
        result => result.because(&format!("the working directory {path}")),
    }
}

/// Gives up what a container's processes may not do, and becomes the user.
fn give_up(user: &User) -> Step {
    for bit in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        if CAPABILITIES.contains(&capability) {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            // Beyond the last one that this kernel knows.
            Err(Errno::INVAL) => break,
            result => result.because("capabilities can't be given up")?,
        }
    }
    let groups: Vec<Gid> = user.groups.iter().map(|&gid| Gid::from_raw(gid)).collect();
    match set_thread_groups(&groups) {
        // With a single ID there are no groups to be in.
        Err(Errno::PERM) => {}
        result => result.because("the groups can't be set")?,
    }
    let single = "only one user can be had here: install `newuidmap` and `newgidmap` (Debian: \
                  uidmap) and give yourself subordinate IDs";
    let gid = Gid::from_raw(user.gid);
    set_thread_res_gid(gid, gid, gid)
        .map_err(|error| format!("the group {} can't be set ({error}); {single}", user.gid))?;
    let uid = Uid::from_raw(user.uid);
    set_thread_res_uid(uid, uid, uid)
        .map_err(|error| format!("the user {} can't be set ({error}); {single}", user.uid))?;
    // Changing users has reset it.
    set_parent_process_death_signal(Some(Signal::KILL)).because("no parent-death signal")
}

fn exec(run: &Run, user: &User) -> Step<std::convert::Infallible> {
    let (program, args) = run.argv.split_first().ok_or("the command is empty")?;
    let mut command = Command::new(resolve(program, &run.env)?);
    command.arg0(program).args(args).env_clear();
    command.envs(run.env.iter().map(|(name, value)| (name, value)));
    if !run.env.iter().any(|(name, _)| name == "HOME") {
        command.env("HOME", &user.home);
    }
    let error = command.exec();
    // As a shell says it, and with its exit statuses: this is the command's failure.
    eprintln!("{program}: {error}");
    std::process::exit(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 })
}

/// Looks a program up in the command's own PATH.
fn resolve(program: &str, env: &[(String, String)]) -> Step<PathBuf> {
    if program.contains('/') {
        return Ok(program.into());
    }
    let path = env.iter().rev().find(|(name, _)| name == "PATH").map(|(_, value)| value.as_str());
    let found =
        path.unwrap_or_default().split(':').map(|dir| Path::new(dir).join(program)).find(|file| {
            use std::os::unix::fs::PermissionsExt;
            fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
        });
    // Not found: executing the bare name says so.
    Ok(found.unwrap_or_else(|| Path::new("/nonexistent").join(program)))
}
