//! The namespace at boot: what `docker run` would have set up around an image's files.

use super::memfs::{MemFs, Options};
use super::mount::{self, Flags, Path};
use super::walk::Resolver;
use super::{Dentry, FileSystem, FsContext, devfs, erofs, ops, procfs, sysfs};
use crate::errno::{Errno, Result};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use dock2uni_format::record::Record;

/// Mounts the image as the root, and everything around it.
///
/// `source` is the image. EUCLEAN, EINVAL or EIO if the image is no good, or has a file where a
/// directory must be.
pub fn mount_namespace(source: erofs::Source, record: &Record) -> Result<()> {
    let image = erofs::Image::open(source)?;
    mount_over(MemFs::over(image)?, record)
}

/// As [`mount_namespace`], over any root filesystem.
pub fn mount_over(root: Arc<dyn FileSystem>, record: &Record) -> Result<()> {
    let mut seed = [0; 8];
    crate::random::fill(&mut seed);
    super::dcache::seed(u64::from_ne_bytes(seed));
    mount::mount_root(root, "overlay", Flags::RELATIME)?;
    let strict = Flags::NOSUID | Flags::NODEV | Flags::NOEXEC | Flags::RELATIME;
    let shm = Options { size: super::hooks::total_memory() / 2, ..Options::default() };
    on("/proc", procfs::filesystem(), "proc", strict)?;
    on("/dev", devfs::filesystem()?, "tmpfs", Flags::NOSUID | Flags::RELATIME)?;
    let pts = Flags::NOSUID | Flags::NOEXEC | Flags::RELATIME;
    on("/dev/pts", MemFs::devpts(), "devpts", pts)?;
    on("/dev/shm", MemFs::tmpfs(&shm), "shm", strict)?;
    on("/sys", sysfs::filesystem(), "sysfs", strict | Flags::RDONLY)?;
    on("/sys/fs/cgroup", sysfs::cgroup(), "cgroup", strict | Flags::RDONLY)?;
    write_configuration(record)?;
    for volume in &record.volumes {
        ops::make_dirs(volume, 0o755)?;
    }
    Ok(())
}

fn on(at: &str, fs: Arc<dyn FileSystem>, source: &str, flags: Flags) -> Result<()> {
    let at = ops::make_dirs(at.as_bytes(), 0o755)?;
    let root = Dentry::root(fs.root());
    mount::mount_at(fs, root, at, source, flags)?;
    Ok(())
}

/// /etc/hostname, /etc/hosts and /etc/resolv.conf, which containers get from outside of their
/// image.
fn write_configuration(record: &Record) -> Result<()> {
    ops::make_dirs(b"/etc", 0o755)?;
    let name = if record.hostname.is_empty() { "localhost" } else { &record.hostname };
    write_replacing("/etc/hostname", &format!("{name}\n"))?;
    write_hosts(record, None)?;
    // Written again when DHCP has answered.
    let text = crate::net::resolv_conf_of(&record.net.dns, &record.net.search);
    write_replacing(RESOLV_CONF, &text)?;
    // Programs look for mounts there; images sometimes bring a file of their own.
    let resolver = Resolver::kernel()?;
    match ops::symlink(&resolver, b"/proc/mounts", b"/etc/mtab") {
        Ok(_) | Err(Errno::EEXIST) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Writes /etc/hosts; `address` is the machine's own, once it is known.
pub fn write_hosts(record: &Record, address: Option<&str>) -> Result<()> {
    let mut hosts = String::from(
        "127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::\tip6-localnet\n\
         ff00::\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\n\
         ff02::2\tip6-allrouters\n",
    );
    for (name, address) in &record.net.hosts {
        hosts += &format!("{address}\t{name}\n");
    }
    if !record.hostname.is_empty() {
        hosts += &format!("{}\t{}\n", address.unwrap_or("127.0.1.1"), record.hostname);
    }
    write_replacing("/etc/hosts", &hosts)
}

/// Where programs find their resolvers (resolv.conf(5)).
pub const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Writes a file whole, even where the image has a link of that name (to a file of a resolver
/// daemon, for instance).
pub fn write_replacing(name: &str, text: &str) -> Result<()> {
    let resolver = Resolver::kernel()?;
    if let Ok(found) = resolver.find(name.as_bytes(), false)
        && found.path.dentry.kind() == Some(super::FileType::Symlink)
    {
        ops::unlink(&resolver, name.as_bytes())?;
    }
    ops::write_file(name.as_bytes(), 0o644, text.as_bytes())
}

/// The context of the main process: working directory made if the image lacks it (owned by root, as
/// Docker does).
pub fn first_context(record: &Record) -> Result<FsContext> {
    let root = mount::root().ok_or(Errno::ENOENT)?.clone();
    let cwd = if record.cwd.is_empty() { root.clone() } else { working_directory(&record.cwd)? };
    let namespace = mount::present().ok_or(Errno::ENOENT)?;
    Ok(FsContext::new(namespace, root, cwd, 0o022))
}

fn working_directory(name: &[u8]) -> Result<Path> {
    ops::make_dirs(name, 0o755)
}
