use std::{fs, path::Path, process::Command};

use serde_json::json;

use super::{PATH, Recipe};
use crate::{Result, cache_dir, debian::run, layer::Layer, layout};

pub const RECIPE: Recipe = Recipe {
    name: "go",
    about: "a static Go HTTP server on port 8080 and nothing else",
    version: 1,
    make,
};

fn make(dir: &Path) -> Result<()> {
    let program = cache_dir()?.join("go-server");
    run(Command::new("go")
        .args(["build", "-trimpath", "-ldflags=-s -w -buildid=", "-o"])
        .arg(&program)
        .arg("main.go")
        // The example for users, so that it is known to work.
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/go-server"))
        .envs([("CGO_ENABLED", "0"), ("GOFLAGS", "-mod=mod"), ("GO111MODULE", "off")]))?;
    let mut layer = Layer::default();
    layer.file("server", 0o755, fs::read(&program)?);
    let config = json!({
        "Env": [PATH],
        "Entrypoint": ["/server"],
        "ExposedPorts": { "8080/tcp": {} },
        "User": "65534:65534",
        "WorkingDir": "/",
    });
    layout::write(dir, &[("COPY server /", layer)], config)
}
