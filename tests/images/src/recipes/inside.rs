//! Programs of an image under construction, run to make more of it.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::Command,
};

use crate::{
    Result, cache_dir,
    debian::run,
    layer::{Kind, Layer},
};

/// Mounts what programs expect and changes the root: allowed to anyone in a user namespace.
const ENTER: &str = r#"mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" \
    && exec chroot "$0" "$@""#;

/// `RUN COMMAND`: runs a command in the tree of `layers`, lowest first, and returns the files that
/// it made or changed below the paths in `keep`.
pub fn run_inside(layers: &[&Layer], command: &[&str], keep: &[&str]) -> Result<Layer> {
    let root = tempfile::tempdir_in(cache_dir()?)?;
    for layer in layers {
        lay_out(root.path(), layer)?;
    }
    for dir in ["proc", "dev", "tmp"] {
        fs::create_dir_all(root.path().join(dir))?;
    }
    let unshare = ["-r", "-m", "-p", "-f", "sh", "-c", ENTER];
    run(Command::new("unshare")
        .args(unshare)
        .arg(root.path())
        .args(command)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"))?;
    let mut new = Layer::default();
    for path in keep {
        collect(root.path(), path, layers, &mut new)?;
    }
    Ok(new)
}

fn lay_out(root: &Path, layer: &Layer) -> Result<()> {
    for (path, entry) in &layer.entries {
        let to = root.join(path);
        fs::create_dir_all(to.parent().unwrap_or(root))?;
        match &entry.kind {
            Kind::Directory => fs::create_dir_all(&to)?,
            Kind::File(data) => {
                let _ = fs::remove_file(&to);
                fs::write(&to, data)?;
                fs::set_permissions(&to, PermissionsExt::from_mode(entry.mode | 0o600))?;
            }
            Kind::Symlink(target) => {
                let _ = fs::remove_file(&to);
                symlink(target, &to)?;
            }
            Kind::Link(_) => {}
        }
    }
    for (path, entry) in &layer.entries {
        if let Kind::Link(target) = &entry.kind {
            let _ = fs::remove_file(root.join(path));
            fs::hard_link(root.join(target), root.join(path))?;
        }
    }
    Ok(())
}

/// Adds the directories and regular files at and below `path` that no layer has like that.
fn collect(root: &Path, path: &str, layers: &[&Layer], new: &mut Layer) -> Result<()> {
    let at = root.join(path);
    let kind = fs::symlink_metadata(&at)?;
    let below = layers.iter().rev().find_map(|layer| layer.entries.get(path));
    if kind.is_dir() {
        if below.is_none() {
            new.dir(path, 0o755);
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(&at)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        for name in names {
            collect(root, &format!("{path}/{name}"), layers, new)?;
        }
    } else if kind.is_file() {
        let data = fs::read(&at)?;
        let same = match below.map(|entry| &entry.kind) {
            Some(Kind::File(old)) => *old == data,
            Some(_) => true,
            None => false,
        };
        if !same {
            new.file(path, kind.permissions().mode() & 0o777, data);
        }
    }
    Ok(())
}
