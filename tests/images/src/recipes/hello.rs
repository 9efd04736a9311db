use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

use super::{PATH, Recipe, files};
use crate::{
    Result, cache_dir,
    debian::{self, run},
    layer::Layer,
    layout,
};

pub const STATIC: Recipe = Recipe {
    name: "hello-static",
    about: "a static program, /hello, and nothing else",
    version: 1,
    make: |dir| hello(dir, true),
};

pub const DYNAMIC: Recipe = Recipe {
    name: "hello-dynamic",
    about: "a dynamically linked glibc program, /hello, and its libraries",
    version: 1,
    make: |dir| hello(dir, false),
};

fn hello(dir: &Path, is_static: bool) -> Result<()> {
    let program =
        cache_dir()?.join(if is_static { "hello-static.bin" } else { "hello-dynamic.bin" });
    let feature = if is_static { "+crt-static" } else { "-crt-static" };
    run(Command::new("rustc")
        .args(["--edition=2024", "-O", "-Cstrip=symbols", "--target=x86_64-unknown-linux-gnu"])
        .arg(format!("-Ctarget-feature={feature}"))
        .arg("-o")
        .arg(&program)
        .arg(files().join("hello/hello.rs")))?;
    let mut layer = Layer::default();
    layer.file("hello", 0o755, fs::read(&program)?);
    let config: Value = json!({ "Env": [PATH], "Entrypoint": ["/hello"], "Cmd": ["from", "Cmd"] });
    if is_static {
        return layout::write(dir, &[("COPY hello /", layer)], config);
    }
    let mut libraries = Layer::default();
    for merged in ["bin", "lib", "lib64", "sbin"] {
        libraries.symlink(merged, &format!("usr/{merged}"));
        libraries.dir(&format!("usr/{merged}"), 0o755);
    }
    debian::unpack(&debian::fetch(&["libc6", "libgcc-s1"], &[])?, &mut libraries)?;
    debian::ld_cache(&[], &mut libraries)?;
    layout::write(dir, &[("libraries", libraries), ("COPY hello /", layer)], config)
}
