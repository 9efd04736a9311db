use std::path::Path;

use serde_json::json;

use super::{Recipe, steps::Steps};
use crate::Result;

pub const RECIPE: Recipe = Recipe {
    name: "postgres",
    about: "shaped like the official postgres image: initdb on the first start, gosu, SIGINT",
    version: 1,
    make,
};

/// Where Debian has the server's programs.
const BIN: &str = "/usr/lib/postgresql/15/bin";

fn make(dir: &Path) -> Result<()> {
    let mut image = Steps::on_debian()?;
    // A compiler of queries that the server does without if it isn't there; and Debian's scripts
    // for several clusters.
    image.leave_out(&["libllvm14", "perl", "perl-modules-5.36", "libperl5.36", "locales"]);
    image.install(&["postgresql-15", "gosu"], &[], |step| {
        step.layer.entries.retain(|path, _| {
            !path.starts_with("usr/lib/postgresql/15/lib/bitcode")
                && !path.starts_with("usr/lib/postgresql/15/lib/llvmjit")
        });
        step.user("postgres", 999, "/var/lib/postgresql", "/bin/bash");
        // Clients on other machines may come in: what the official image changes as well.
        let sample = "usr/share/postgresql/15/postgresql.conf.sample";
        let old = "#listen_addresses = 'localhost'";
        let text = step.text(sample);
        if !text.contains(old) {
            return Err(format!("{sample} has no line `{old}`").into());
        }
        step.rewrite(sample, text.replace(old, "listen_addresses = '*'"));
        step.layer.dir("docker-entrypoint-initdb.d", 0o755);
        step.owned_dir("var/lib/postgresql", 999, 0o755);
        step.owned_dir("var/lib/postgresql/data", 999, 0o1777);
        step.owned_dir("run/postgresql", 999, 0o3777);
        Ok(())
    })?;
    image.copy("postgres/docker-entrypoint.sh", "/usr/local/bin/docker-entrypoint.sh", 0o755)?;
    let version = image.version("postgresql-15");
    let config = json!({
        "Env": [
            format!("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:{BIN}"),
            "LANG=C.UTF-8",
            "PG_MAJOR=15",
            format!("PG_VERSION={version}"),
            "PGDATA=/var/lib/postgresql/data",
        ],
        "Entrypoint": ["docker-entrypoint.sh"],
        "Cmd": ["postgres"],
        "ExposedPorts": { "5432/tcp": {} },
        "Volumes": { "/var/lib/postgresql/data": {} },
        "StopSignal": "SIGINT",
    });
    image.write(dir, config)
}
