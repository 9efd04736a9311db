use std::{fs, path::Path};

use serde_json::json;

use super::{PATH, Recipe, files, steps::Steps};
use crate::Result;

pub const RECIPE: Recipe = Recipe {
    name: "services",
    about: "a shell script that starts redis and nginx and waits for them",
    version: 1,
    make,
};

fn make(dir: &Path) -> Result<()> {
    let mut image = Steps::on_debian()?;
    image.install(&["redis-server", "nginx"], &[], |step| {
        for (file, to) in [
            ("default.conf", "etc/nginx/conf.d/default.conf"),
            ("nginx.conf", "etc/nginx/nginx.conf"),
            ("index.html", "usr/share/nginx/html/index.html"),
        ] {
            step.layer.file(to, 0o644, fs::read(files().join("nginx").join(file))?);
        }
        for dir in ["etc/nginx/conf.d", "var/log/nginx", "var/cache/nginx"] {
            step.layer.dir(dir, 0o755);
        }
        step.user("nginx", 101, "/nonexistent", "/bin/false");
        Ok(())
    })?;
    image.copy("services/entrypoint.sh", "/entrypoint.sh", 0o755)?;
    let config = json!({
        "Env": [PATH],
        "Entrypoint": ["/entrypoint.sh"],
        "ExposedPorts": { "80/tcp": {}, "6379/tcp": {} },
    });
    image.write(dir, config)
}
