use std::path::Path;

use serde_json::json;

use super::{PATH, Recipe, steps::Steps};
use crate::Result;

pub const RECIPE: Recipe = Recipe {
    name: "redis",
    about: "shaped like the official redis image: entrypoint script, gosu, data in /data",
    version: 1,
    make,
};

fn make(dir: &Path) -> Result<()> {
    let mut image = Steps::on_debian()?;
    image.install(&["redis-server", "redis-tools", "gosu"], &[], |step| {
        step.user("redis", 999, "/nonexistent", "/usr/sbin/nologin");
        Ok(())
    })?;
    image.run("mkdir /data && chown redis:redis /data", |step| {
        step.owned_dir("data", 999, 0o755);
        Ok(())
    })?;
    image.copy("redis/docker-entrypoint.sh", "/usr/local/bin/docker-entrypoint.sh", 0o755)?;
    let version = image.version("redis-server");
    let config = json!({
        "Env": [PATH, format!("REDIS_VERSION={version}")],
        "Entrypoint": ["docker-entrypoint.sh"],
        // The official image has protected mode off by a change to the source.
        "Cmd": ["redis-server", "--protected-mode", "no"],
        "ExposedPorts": { "6379/tcp": {} },
        "Volumes": { "/data": {} },
        "WorkingDir": "/data",
    });
    image.write(dir, config)
}
