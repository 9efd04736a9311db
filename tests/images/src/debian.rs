//! Debian packages: found and fetched by apt, opened by dpkg-deb, laid out here.
//!
//! Nothing is installed: apt works on an empty package database of its own, and maintainer
//! scripts do not run. What they would leave behind is written by [`base`].

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    Result, VERSION, cache_dir,
    layer::{Kind, Layer},
};

/// What debian:bookworm-slim holds: the essential packages, apt and what they need.
pub const BASE: &[&str] = &[
    "apt",
    "base-files",
    "base-passwd",
    "bash",
    "coreutils",
    "dash",
    "debianutils",
    "diffutils",
    "dpkg",
    "findutils",
    "grep",
    "gzip",
    "hostname",
    "init-system-helpers",
    "libc-bin",
    "login",
    "mawk",
    "ncurses-base",
    "ncurses-bin",
    "passwd",
    "perl-base",
    "sed",
    "sysvinit-utils",
    "tar",
    "tzdata",
    "util-linux",
];

/// Fetches packages with all they depend on, but for those in `have`; returns their files.
pub fn fetch(packages: &[&str], have: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let debs = cache_dir()?.join("debs");
    fs::create_dir_all(debs.join("partial"))?;
    // apt's own locks are for root.
    let lock = File::create(debs.join("fetch.lock"))?;
    lock.lock()?;
    let status = debs.join("empty-status");
    fs::write(&status, "")?;
    let lists = debs.join("lists");
    let apt = |words: &[&str]| -> Result<String> {
        let mut command = Command::new("apt-get");
        command
            .arg(format!("-oDir::State::status={}", status.display()))
            .arg(format!("-oDir::Cache::archives={}", debs.display()))
            .args(["-oDebug::NoLocking=1", "-oAPT::Install-Recommends=0"])
            .args(["-oAPT::Sandbox::User=root", "-qq", "-y"]);
        if lists.exists() {
            command.arg(format!("-oDir::State::lists={}", lists.display()));
            command.arg(format!("-oDir::Cache::pkgcache={}", lists.join("cache").display()));
            command.arg(format!("-oDir::Cache::srcpkgcache={}", lists.join("src").display()));
        }
        run(command.args(words))
    };
    let install = |action| [&[action, "install"], packages].concat();
    // The machine's package lists will do unless they are missing or out of date.
    if apt(&install("--download-only")).is_err() {
        fs::create_dir_all(lists.join("partial"))?;
        apt(&["update"])?;
        apt(&install("--download-only"))?;
    }
    // With everything downloaded, `--print-uris` prints nothing: simulate instead.
    let plan = apt(&install("--simulate"))?;
    let mut files = Vec::new();
    for line in plan.lines().filter_map(|line| line.strip_prefix("Inst ")) {
        // Inst NAME (VERSION ORIGIN [ARCH])
        let mut words = line.split_whitespace();
        let name = words.next().unwrap_or_default();
        let version = line.split(['(', ' ']).nth(2).unwrap_or_default().replace(':', "%3a");
        let found = ["amd64", "all"]
            .map(|arch| debs.join(format!("{name}_{version}_{arch}.deb")))
            .into_iter()
            .find(|path| path.exists());
        let found = found.ok_or_else(|| format!("package {name} {version} was not fetched"))?;
        if !have.contains(&found) {
            files.push(found);
        }
    }
    Ok(files)
}

/// Unpacks packages into a layer.
pub fn unpack(debs: &[PathBuf], layer: &mut Layer) -> Result<()> {
    open(debs, layer).map(drop)
}

/// As [`unpack`], and leaves the lists of their files that dpkg keeps.
pub fn install(debs: &[PathBuf], layer: &mut Layer) -> Result<()> {
    for (name, list) in open(debs, layer)? {
        layer.file(&format!("var/lib/dpkg/info/{name}.list"), 0o644, list);
    }
    Ok(())
}

/// Unpacks packages; returns the names of all and the lists of their files.
fn open(debs: &[PathBuf], layer: &mut Layer) -> Result<Vec<(String, String)>> {
    let mut lists = Vec::new();
    for deb in debs {
        let output = Command::new("dpkg-deb").arg("--fsys-tarfile").arg(deb).output()?;
        if !output.status.success() {
            return Err(format!("dpkg-deb cannot open {}", deb.display()).into());
        }
        layer.add_archive(&output.stdout)?;
        // NAME_VERSION_ARCHITECTURE.deb
        let file = deb.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let name = file.split('_').next().unwrap_or_default();
        lists.push((name.to_owned(), list(&output.stdout)?));
    }
    layer.slim();
    Ok(lists)
}

/// The paths of a package's archive, a line each.
fn list(tar: &[u8]) -> Result<String> {
    let mut list = String::new();
    for entry in tar::Archive::new(tar).entries()? {
        let path = entry?.path()?.to_string_lossy().into_owned();
        let path = path.trim_start_matches('.').trim_end_matches('/');
        list += if path.is_empty() { "/." } else { path };
        list.push('\n');
    }
    Ok(list)
}

/// Package database entries, as dpkg would have written them; `conffiles` names more files that
/// belong to a package: package, path, MD5.
pub fn status(debs: &[PathBuf], conffiles: &[(&str, &str, String)]) -> Result<String> {
    let mut text = String::new();
    for deb in debs {
        let control = run(Command::new("dpkg-deb").arg("--field").arg(deb))?;
        let mut lines = control.lines();
        let package = lines.next().unwrap_or_default();
        let name = package.strip_prefix("Package: ").unwrap_or_default();
        text += &format!("{package}\nStatus: install ok installed\n");
        for line in lines {
            text += &format!("{line}\n");
        }
        let own: Vec<_> = conffiles.iter().filter(|(owner, ..)| *owner == name).collect();
        if !own.is_empty() {
            text += "Conffiles:\n";
            for (_, path, md5) in own {
                text += &format!(" {path} {md5}\n");
            }
        }
        text += "\n";
    }
    Ok(text)
}

/// The base layer, and the packages in it. It is made once and kept in the cache.
pub fn base() -> Result<(Layer, Vec<PathBuf>)> {
    let cache = cache_dir()?;
    let lock = File::create(cache.join("base.lock"))?;
    lock.lock()?;
    let (tar, list) = (cache.join(format!("base-{VERSION}.tar")), cache.join("base-debs"));
    if let (Ok(tar), Ok(list)) = (fs::read(&tar), fs::read_to_string(&list)) {
        return Ok((Layer::from_tar(&tar)?, list.lines().map(PathBuf::from).collect()));
    }
    let (mut layer, debs) = make_base()?;
    ld_cache(&[], &mut layer)?;
    let names: String = debs.iter().map(|deb| format!("{}\n", deb.display())).collect();
    fs::write(&list, names)?;
    let part = cache.join("base.part");
    fs::write(&part, layer.to_tar()?)?;
    fs::rename(&part, &tar)?;
    Ok((layer, debs))
}

/// The packages of [`BASE`] and what their scripts would have set up.
fn make_base() -> Result<(Layer, Vec<PathBuf>)> {
    let debs = fetch(BASE, &[])?;
    let mut layer = Layer::default();
    for merged in ["bin", "lib", "lib64", "sbin"] {
        layer.symlink(merged, &format!("usr/{merged}"));
        layer.dir(&format!("usr/{merged}"), 0o755);
    }
    install(&debs, &mut layer)?;
    for (from, to) in [
        ("usr/share/base-passwd/passwd.master", "etc/passwd"),
        ("usr/share/base-passwd/group.master", "etc/group"),
        ("usr/share/libc-bin/nsswitch.conf", "etc/nsswitch.conf"),
        ("usr/share/base-files/profile", "etc/profile"),
        ("usr/share/base-files/dot.bashrc", "root/.bashrc"),
        ("usr/share/base-files/dot.profile", "root/.profile"),
    ] {
        let data = layer.read(from).ok_or_else(|| format!("{from} is missing"))?.to_vec();
        layer.file(to, 0o644, data);
    }
    let users = String::from_utf8_lossy(layer.read("etc/passwd").unwrap_or_default()).into_owned();
    let names = users.lines().filter_map(|line| line.split(':').next());
    let shadow: String = names.map(|name| format!("{name}:*:19723:0:99999:7:::\n")).collect();
    layer.file("etc/shadow", 0o640, shadow).gid = 42;
    layer.file("etc/hostname", 0o644, "debian\n");
    layer.file("etc/resolv.conf", 0o644, "");
    for (name, target) in [("awk", "/usr/bin/mawk"), ("nawk", "/usr/bin/mawk")] {
        layer.symlink(&format!("etc/alternatives/{name}"), target);
        layer.symlink(&format!("usr/bin/{name}"), &format!("/etc/alternatives/{name}"));
    }
    for (path, mode) in
        [("tmp", 0o1777), ("var/tmp", 0o1777), ("run/lock", 0o1777), ("root", 0o700)]
    {
        layer.dir(path, mode);
    }
    if !layer.entries.contains_key("usr/bin/sh") {
        layer.symlink("usr/bin/sh", "dash");
    }
    for (path, target) in [("var/run", "/run"), ("var/lock", "/run/lock")] {
        let below = format!("{path}/");
        layer.entries.retain(|path, _| !path.starts_with(&below));
        layer.symlink(path, target);
    }
    layer.symlink("usr/bin/which", "which.debianutils");
    layer.symlink("etc/localtime", "/usr/share/zoneinfo/Etc/UTC");
    layer.file("etc/timezone", 0o644, "Etc/UTC\n");
    layer.file("var/lib/dpkg/status", 0o644, status(&debs, &[])?);
    Ok((layer, debs))
}

/// Adds `/etc/ld.so.cache` for everything in these layers, lowest first, to the last one.
pub fn ld_cache(below: &[&Layer], layer: &mut Layer) -> Result<()> {
    // A directory of its own: images are made side by side.
    let root = tempfile::tempdir_in(cache_dir()?)?;
    copy_libraries(root.path(), below.iter().copied().chain([&*layer]))?;
    ldconfig(root.path())?;
    let copied = fs::read(root.path().join("etc/ld.so.cache"))?;
    layer.file("etc/ld.so.cache", 0o644, copied);
    Ok(())
}

fn copy_libraries<'a>(root: &Path, layers: impl Iterator<Item = &'a Layer>) -> Result<()> {
    fs::create_dir_all(root.join("etc"))?;
    for (path, entry) in layers.flat_map(|layer| &layer.entries) {
        let wanted = path.starts_with("usr/lib") || path.starts_with("etc/ld.so.conf");
        let to = root.join(path);
        match &entry.kind {
            Kind::File(data) if wanted && (path.contains(".so")) => {
                fs::create_dir_all(to.parent().unwrap_or(root))?;
                fs::write(to, data)?;
            }
            Kind::Symlink(target) if path.contains(".so") || !path.contains('/') => {
                fs::create_dir_all(to.parent().unwrap_or(root))?;
                let _ = fs::remove_file(&to);
                std::os::unix::fs::symlink(target, to)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn ldconfig(root: &Path) -> Result<()> {
    // ldconfig changes its root: allowed to root, and to anyone in a user namespace.
    let plain = run(Command::new("/sbin/ldconfig").arg("-X").arg("-r").arg(root));
    if plain.is_err() {
        run(Command::new("unshare").args(["-r", "/sbin/ldconfig", "-X", "-r"]).arg(root))?;
    }
    Ok(())
}

/// Runs a command and returns its output; its error output is the error.
pub fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("cannot run {program}: {error}"))?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{program} failed: {}", error.trim()).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
