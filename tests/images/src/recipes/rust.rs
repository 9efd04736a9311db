use std::{env, fs, path::Path, process::Command};

use serde_json::json;

use super::{PATH, Recipe};
use crate::{Result, cache_dir, debian::run, layer::Layer, layout};

pub const RECIPE: Recipe = Recipe {
    name: "rust",
    about: "a static Rust HTTP server, of tokio and hyper, on port 8080 and nothing else",
    version: 1,
    make,
};

fn make(dir: &Path) -> Result<()> {
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    let target = cache_dir()?.join("rust-server");
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("rust-server/Cargo.toml");
    run(Command::new(env::var_os("CARGO").unwrap_or("cargo".into()))
        .args(["build", "--quiet", "--locked", "--target", TARGET, "--manifest-path"])
        .arg(&manifest)
        .arg("--target-dir")
        .arg(&target)
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static\x1f-Cstrip=symbols")
        .envs([("CARGO_PROFILE_DEV_OPT_LEVEL", "1"), ("CARGO_PROFILE_DEV_DEBUG", "0")]))?;
    let mut layer = Layer::default();
    let program = target.join(TARGET).join("debug/test-rust-server");
    layer.file("server", 0o755, fs::read(program)?);
    let config = json!({
        "Env": [PATH],
        "Entrypoint": ["/server"],
        "ExposedPorts": { "8080/tcp": {} },
        "User": "65534:65534",
        "WorkingDir": "/",
    });
    layout::write(dir, &[("COPY server /", layer)], config)
}
