use std::path::Path;

use serde_json::json;

use super::{PATH, Recipe, files, steps::Steps};
use crate::Result;

pub const RECIPE: Recipe = Recipe {
    name: "mariadb",
    about: "shaped like the official mariadb image: system tables on the first start, gosu",
    version: 1,
    make,
};

fn make(dir: &Path) -> Result<()> {
    let mut image = Steps::on_debian()?;
    image.leave_out(&[
        "perl",
        "perl-modules-5.36",
        "libperl5.36",
        "libdbi-perl",
        "libdbd-mariadb-perl",
    ]);
    image.install(&["mariadb-server-core", "mariadb-client", "gosu"], &[], |step| {
        step.user("mysql", 999, "/nonexistent", "/bin/sh");
        step.layer.symlink("etc/mysql/my.cnf", "mariadb.cnf");
        let config = std::fs::read(files().join("mariadb/docker.cnf"))?;
        step.layer.file("etc/mysql/mariadb.conf.d/05-docker.cnf", 0o644, config);
        step.layer.dir("docker-entrypoint-initdb.d", 0o755);
        step.owned_dir("var/lib/mysql", 999, 0o755);
        step.owned_dir("run/mysqld", 999, 0o1777);
        Ok(())
    })?;
    image.copy("mariadb/docker-entrypoint.sh", "/usr/local/bin/docker-entrypoint.sh", 0o755)?;
    let version = image.version("mariadb-server-core");
    let config = json!({
        "Env": [PATH, "LANG=C.UTF-8", format!("MARIADB_VERSION={version}")],
        "Entrypoint": ["docker-entrypoint.sh"],
        "Cmd": ["mariadbd"],
        "ExposedPorts": { "3306/tcp": {} },
        "Volumes": { "/var/lib/mysql": {} },
    });
    image.write(dir, config)
}
