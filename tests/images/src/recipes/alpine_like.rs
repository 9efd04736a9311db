use std::{fs, path::Path, process::Command};

use serde_json::json;

use super::{
    PATH, Recipe,
    busybox::{busybox_binary, busybox_root},
    files,
};
use crate::{
    Result, cache_dir,
    debian::{self, run},
    layer::Layer,
    layout,
};

pub const RECIPE: Recipe = Recipe {
    name: "alpine-like",
    about: "musl libc, busybox and a dynamically linked musl program, /hello",
    version: 1,
    make,
};

fn make(dir: &Path) -> Result<()> {
    let mut layer = Layer::default();
    let binary = busybox_binary()?;
    busybox_root(&mut layer, &binary)?;
    let mut libc = Layer::default();
    debian::unpack(&debian::fetch(&["musl"], &[])?, &mut libc)?;
    let data = libc.read("usr/lib/x86_64-linux-musl/libc.so").ok_or("no libc.so in musl")?;
    layer.dir("lib", 0o755);
    layer.file("lib/ld-musl-x86_64.so.1", 0o755, data);
    layer.symlink("lib/libc.musl-x86_64.so.1", "ld-musl-x86_64.so.1");
    let program = cache_dir()?.join("hello-musl");
    run(Command::new("musl-gcc").args(["-O2", "-o"]).arg(&program).arg(files().join("c/hello.c")))?;
    layer.file("hello", 0o755, fs::read(&program)?);
    layout::write(dir, &[("musl", layer)], json!({ "Env": [PATH], "Cmd": ["/hello"] }))
}
