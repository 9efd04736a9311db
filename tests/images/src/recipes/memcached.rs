use std::path::Path;

use serde_json::json;

use super::{PATH, Recipe, steps::Steps};
use crate::Result;

pub const RECIPE: Recipe = Recipe {
    name: "memcached",
    about: "shaped like the official memcached image: a user of its own, entrypoint script",
    version: 1,
    make,
};

fn make(dir: &Path) -> Result<()> {
    let mut image = Steps::on_debian()?;
    // Only its scripts are in Perl.
    image.leave_out(&["perl", "perl-modules-5.36", "libperl5.36"]);
    image.install(&["memcached"], &[], |step| {
        step.user("memcache", 11211, "/nonexistent", "/bin/false");
        Ok(())
    })?;
    image.copy("memcached/docker-entrypoint.sh", "/usr/local/bin/docker-entrypoint.sh", 0o755)?;
    let version = image.version("memcached");
    let config = json!({
        "Env": [PATH, format!("MEMCACHED_VERSION={version}")],
        "Entrypoint": ["docker-entrypoint.sh"],
        "Cmd": ["memcached"],
        "ExposedPorts": { "11211/tcp": {} },
        "User": "memcache",
    });
    image.write(dir, config)
}
