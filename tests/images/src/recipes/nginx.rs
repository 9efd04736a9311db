use std::{fs, path::Path, process::Command};

use serde_json::json;

use super::{PATH, Recipe, files, steps::Steps};
use crate::{Result, debian::run};

pub const RECIPE: Recipe = Recipe {
    name: "nginx",
    about: "shaped like the official nginx image: Debian, nginx, entrypoint scripts",
    version: 2,
    make,
};

fn make(dir: &Path) -> Result<()> {
    let mut image = Steps::on_debian()?;
    let wanted = [
        "nginx",
        "libnginx-mod-http-geoip",
        "libnginx-mod-http-image-filter",
        "libnginx-mod-http-xslt-filter",
        "gettext-base",
        "curl",
        "ca-certificates",
    ];
    let md5 = md5(&files().join("nginx/default.conf"))?;
    let conffiles = [("nginx", "/etc/nginx/conf.d/default.conf", md5)];
    image.install(&wanted, &conffiles, |step| {
        for (file, to) in [
            ("default.conf", "etc/nginx/conf.d/default.conf"),
            ("nginx.conf", "etc/nginx/nginx.conf"),
            ("index.html", "usr/share/nginx/html/index.html"),
        ] {
            step.layer.file(to, 0o644, fs::read(files().join("nginx").join(file))?);
        }
        for dir in ["etc/nginx/conf.d", "docker-entrypoint.d", "var/log/nginx", "var/cache/nginx"] {
            step.layer.dir(dir, 0o755);
        }
        step.layer.symlink("var/log/nginx/access.log", "/dev/stdout");
        step.layer.symlink("var/log/nginx/error.log", "/dev/stderr");
        step.user("nginx", 101, "/nonexistent", "/bin/false");
        Ok(())
    })?;
    image.copy("nginx/docker-entrypoint.sh", "/docker-entrypoint.sh", 0o755)?;
    for script in [
        "10-listen-on-ipv6-by-default.sh",
        "15-local-resolvers.envsh",
        "20-envsubst-on-templates.sh",
        "30-tune-worker-processes.sh",
    ] {
        image.copy(&format!("nginx/{script}"), &format!("/docker-entrypoint.d/{script}"), 0o755)?;
    }
    let version = image.version("nginx");
    let config = json!({
        "Env": [PATH, format!("NGINX_VERSION={version}"), "PKG_RELEASE=1~bookworm"],
        "Entrypoint": ["/docker-entrypoint.sh"],
        "Cmd": ["nginx", "-g", "daemon off;"],
        "ExposedPorts": { "80/tcp": {} },
        "StopSignal": "SIGQUIT",
        "Labels": { "maintainer": "dock2uni tests" },
    });
    image.write(dir, config)
}

fn md5(path: &Path) -> Result<String> {
    let output = run(Command::new("md5sum").arg(path))?;
    Ok(output.split_whitespace().next().unwrap_or_default().to_owned())
}
