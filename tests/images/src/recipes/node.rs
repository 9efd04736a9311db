use std::path::Path;

use serde_json::json;

use super::{PATH, Recipe, steps::Steps};
use crate::Result;

pub const RECIPE: Recipe = Recipe {
    name: "node",
    about: "shaped like the official node image, with an Express application and a cluster",
    version: 1,
    make,
};

fn make(dir: &Path) -> Result<()> {
    let mut image = Steps::on_debian()?;
    image.install(&["nodejs", "node-express"], &[], |step| {
        step.user("node", 1000, "/home/node", "/bin/bash");
        step.owned_dir("home/node", 1000, 0o755);
        step.layer.dir("app", 0o755);
        Ok(())
    })?;
    image.copy("node/docker-entrypoint.sh", "/usr/local/bin/docker-entrypoint.sh", 0o755)?;
    image.copy("node/server.js", "/app/server.js", 0o644)?;
    image.copy("node/cluster.js", "/app/cluster.js", 0o644)?;
    let version = image.version("nodejs");
    let config = json!({
        "Env": [PATH, format!("NODE_VERSION={version}"), "NODE_ENV=production"],
        "Entrypoint": ["docker-entrypoint.sh"],
        "Cmd": ["server.js"],
        "ExposedPorts": { "3000/tcp": {} },
        "User": "node",
        "WorkingDir": "/app",
    });
    image.write(dir, config)
}
