use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;

use super::{PATH, Recipe};
use crate::{
    Result, cache_dir,
    debian::{self, run},
    layer::{Kind, Layer},
    layout,
};

pub const RECIPE: Recipe = Recipe {
    name: "busybox",
    about: "static busybox with an applet for every name, as the official image",
    version: 1,
    make,
};

fn make(dir: &Path) -> Result<()> {
    let mut layer = Layer::default();
    let binary = busybox_binary()?;
    busybox_root(&mut layer, &binary)?;
    layout::write(dir, &[("busybox", layer)], json!({ "Env": [PATH], "Cmd": ["sh"] }))
}

/// Busybox under all its names: hard links, as the official image has them.
pub fn busybox_root(layer: &mut Layer, binary: &Path) -> Result<()> {
    layer.dir("bin", 0o755);
    layer.file("bin/busybox", 0o755, fs::read(binary)?);
    for applet in run(Command::new(binary).arg("--list"))?.lines().filter(|name| *name != "busybox")
    {
        layer.put(&format!("bin/{applet}"), 0o755, Kind::Link("bin/busybox".to_owned()));
    }
    for (path, mode) in [
        ("dev", 0o755),
        ("etc", 0o755),
        ("home", 0o755),
        ("proc", 0o755),
        ("root", 0o700),
        ("sys", 0o755),
        ("tmp", 0o1777),
        ("usr", 0o755),
        ("usr/bin", 0o755),
        ("usr/sbin", 0o755),
        ("var", 0o755),
        ("var/spool", 0o755),
    ] {
        layer.dir(path, mode);
    }
    layer.symlink("usr/bin/env", "../../bin/env");
    layer.file(
        "etc/passwd",
        0o644,
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n",
    );
    layer.file("etc/group", 0o644, "root:x:0:\nnogroup:x:65534:\n");
    layer.file("etc/hosts", 0o644, "127.0.0.1 localhost\n::1 localhost\n");
    Ok(())
}

/// The static busybox of Debian, on disk so that it can be asked for its applets.
pub fn busybox_binary() -> Result<PathBuf> {
    let mut package = Layer::default();
    debian::unpack(&debian::fetch(&["busybox-static"], &[])?, &mut package)?;
    let data = package.read("usr/bin/busybox").ok_or("no busybox in busybox-static")?;
    let path = cache_dir()?.join("busybox.bin");
    fs::write(&path, data)?;
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    Ok(path)
}
