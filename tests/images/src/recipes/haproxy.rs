use std::path::Path;

use serde_json::json;

use super::{PATH, Recipe, steps::Steps};
use crate::Result;

pub const RECIPE: Recipe = Recipe {
    name: "haproxy",
    about: "shaped like the official haproxy image, with a configuration that balances",
    version: 1,
    make,
};

fn make(dir: &Path) -> Result<()> {
    let mut image = Steps::on_debian()?;
    image.install(&["haproxy"], &[], |step| {
        step.user("haproxy", 99, "/var/lib/haproxy", "/usr/sbin/nologin");
        step.owned_dir("var/lib/haproxy", 99, 0o755);
        step.layer.symlink("usr/local/sbin/haproxy", "/usr/sbin/haproxy");
        Ok(())
    })?;
    image.copy("haproxy/haproxy.cfg", "/usr/local/etc/haproxy/haproxy.cfg", 0o644)?;
    image.copy("haproxy/docker-entrypoint.sh", "/usr/local/bin/docker-entrypoint.sh", 0o755)?;
    let version = image.version("haproxy");
    let config = json!({
        "Env": [PATH, format!("HAPROXY_VERSION={version}")],
        "Entrypoint": ["docker-entrypoint.sh"],
        "Cmd": ["haproxy", "-f", "/usr/local/etc/haproxy/haproxy.cfg"],
        "ExposedPorts": { "8080/tcp": {} },
        "StopSignal": "SIGUSR1",
        "User": "haproxy",
        "WorkingDir": "/var/lib/haproxy",
    });
    image.write(dir, config)
}
