use std::path::Path;

use serde_json::json;

use super::{Recipe, steps::Steps};
use crate::Result;

pub const RECIPE: Recipe = Recipe {
    name: "rabbitmq",
    about: "shaped like the official rabbitmq image: entrypoint script, gosu, logs to stdout",
    version: 1,
    make,
};

const HOME: &str = "/var/lib/rabbitmq";

fn make(dir: &Path) -> Result<()> {
    let mut image = Steps::on_debian()?;
    image.install(&["rabbitmq-server", "gosu"], &[], |step| {
        step.user("rabbitmq", 999, HOME, "/bin/false");
        for (path, mode) in [
            ("var/lib/rabbitmq", 0o777),
            ("var/log/rabbitmq", 0o777),
            ("etc/rabbitmq", 0o777),
            ("etc/rabbitmq/conf.d", 0o777),
        ] {
            step.owned_dir(path, 999, mode);
        }
        // Debian's wrapper is for the system's own service; the image's PATH leads past it.
        let defaults = "loopback_users.guest = false\nlog.console = true\n";
        step.layer.file("etc/rabbitmq/conf.d/10-defaults.conf", 0o644, defaults).uid = 999;
        Ok(())
    })?;
    image.copy("rabbitmq/docker-entrypoint.sh", "/usr/local/bin/docker-entrypoint.sh", 0o755)?;
    let version = image.version("rabbitmq-server");
    let config = json!({
        "Env": [
            "PATH=/usr/lib/rabbitmq/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            format!("RABBITMQ_VERSION={version}"),
            format!("RABBITMQ_DATA_DIR={HOME}"),
            "RABBITMQ_LOGS=-",
            format!("HOME={HOME}"),
            "LANG=C.UTF-8",
            "LANGUAGE=C.UTF-8",
            "LC_ALL=C.UTF-8",
        ],
        "Entrypoint": ["docker-entrypoint.sh"],
        "Cmd": ["rabbitmq-server"],
        "ExposedPorts": { "4369/tcp": {}, "5671/tcp": {}, "5672/tcp": {}, "25672/tcp": {} },
        "Volumes": { HOME: {} },
    });
    image.write(dir, config)
}
