use std::path::Path;

use serde_json::{Value, json};

use super::{
    PATH, Recipe,
    steps::{Step, Steps},
};
use crate::Result;

pub const NGINX_FPM: Recipe = Recipe {
    name: "php-nginx",
    about: "php-fpm behind nginx in one image, started by a script that waits for both",
    version: 1,
    make: nginx_fpm,
};

pub const APACHE: Recipe = Recipe {
    name: "php-apache",
    about: "shaped like the official php image with Apache: prefork, mod_php, apache2-foreground",
    version: 1,
    make: apache,
};

/// What runs options given in place of a command.
const DEFAULT: &str = "PHP_DEFAULT";
/// Extensions that Debian's packages switch on when they are installed.
const EXTENSIONS: [(&str, &str); 8] = [
    ("10", "opcache"),
    ("20", "ctype"),
    ("20", "fileinfo"),
    ("20", "iconv"),
    ("20", "posix"),
    ("20", "sockets"),
    ("20", "sysvshm"),
    ("20", "tokenizer"),
];

fn nginx_fpm(dir: &Path) -> Result<()> {
    let mut image = Steps::on_debian()?;
    image.leave_out(&["perl", "perl-modules-5.36", "libperl5.36"]);
    let packages = ["php8.2-fpm", "systemd-standalone-tmpfiles", "nginx"];
    image.install(&packages, &[], |step| {
        configure(step, "fpm");
        step.layer.symlink("usr/local/sbin/php-fpm", "/usr/sbin/php-fpm8.2");
        step.layer.dir("var/log/nginx", 0o755);
        step.owned_dir("var/www/html", 33, 0o755);
        Ok(())
    })?;
    image.copy("php/www.conf", "/etc/php/8.2/fpm/php-fpm.conf", 0o644)?;
    image.copy("php/nginx.conf", "/etc/nginx/nginx.conf", 0o644)?;
    image.copy("php/start-nginx-fpm", "/usr/local/bin/start-nginx-fpm", 0o755)?;
    finish(
        image,
        dir,
        json!({
            "Env": [PATH, format!("{DEFAULT}=php-fpm")],
            "Entrypoint": ["docker-php-entrypoint"],
            "Cmd": ["start-nginx-fpm"],
            "ExposedPorts": { "80/tcp": {} },
            "StopSignal": "SIGQUIT",
            "WorkingDir": "/var/www/html",
        }),
    )
}

fn apache(dir: &Path) -> Result<()> {
    let mut image = Steps::on_debian()?;
    image.leave_out(&["perl", "perl-modules-5.36", "libperl5.36"]);
    image.install(&["apache2", "libapache2-mod-php8.2"], &[], |step| {
        configure(step, "apache2");
        for module in [
            "access_compat",
            "alias",
            "auth_basic",
            "authn_core",
            "authn_file",
            "authz_core",
            "authz_host",
            "authz_user",
            "autoindex",
            "deflate",
            "dir",
            "env",
            "filter",
            "mime",
            "mpm_prefork",
            "negotiation",
            "php8.2",
            "reqtimeout",
            "setenvif",
            "status",
        ] {
            enable(step, "mods", module, &["load", "conf"]);
        }
        for conf in ["charset", "other-vhosts-access-log", "security"] {
            enable(step, "conf", conf, &["conf"]);
        }
        enable(step, "sites", "000-default", &["conf"]);
        step.layer.dir("var/log/apache2", 0o1777);
        for (log, stream) in
            [("error", "stderr"), ("access", "stdout"), ("other_vhosts_access", "stdout")]
        {
            step.layer.symlink(&format!("var/log/apache2/{log}.log"), &format!("/dev/{stream}"));
        }
        step.owned_dir("var/www/html", 33, 0o1777);
        Ok(())
    })?;
    image.copy("php/apache2-foreground", "/usr/local/bin/apache2-foreground", 0o755)?;
    finish(
        image,
        dir,
        json!({
            "Env": [
                PATH,
                format!("{DEFAULT}=apache2-foreground"),
                "APACHE_CONFDIR=/etc/apache2",
                "APACHE_ENVVARS=/etc/apache2/envvars",
            ],
            "Entrypoint": ["docker-php-entrypoint"],
            "Cmd": ["apache2-foreground"],
            "ExposedPorts": { "80/tcp": {} },
            "StopSignal": "SIGWINCH",
            "WorkingDir": "/var/www/html",
        }),
    )
}

/// The page and the entrypoint that both have.
fn finish(mut image: Steps, dir: &Path, config: Value) -> Result<()> {
    image.copy("php/index.php", "/var/www/html/index.php", 0o644)?;
    image.copy("php/docker-php-entrypoint", "/usr/local/bin/docker-php-entrypoint", 0o755)?;
    image.write(dir, config)
}

/// PHP's configuration for one of its interfaces to servers.
fn configure(step: &mut Step, sapi: &str) {
    for (order, name) in EXTENSIONS {
        let link = format!("etc/php/8.2/{sapi}/conf.d/{order}-{name}.ini");
        step.layer.symlink(&link, &format!("/etc/php/8.2/mods-available/{name}.ini"));
        // Their packages make these files when they are installed.
        let load = if name == "opcache" { "zend_extension" } else { "extension" };
        let text = format!("{load}={name}.so\n");
        step.layer.file(&format!("etc/php/8.2/mods-available/{name}.ini"), 0o644, text);
    }
    step.layer
        .symlink(&format!("etc/php/8.2/{sapi}/php.ini"), "/usr/lib/php/8.2/php.ini-production");
}

/// `a2enmod`, `a2enconf`, `a2ensite`.
fn enable(step: &mut Step, kind: &str, name: &str, suffixes: &[&str]) {
    for suffix in suffixes {
        if step.find(&format!("etc/apache2/{kind}-available/{name}.{suffix}")).is_some() {
            let link = format!("etc/apache2/{kind}-enabled/{name}.{suffix}");
            step.layer.symlink(&link, &format!("../{kind}-available/{name}.{suffix}"));
        }
    }
}
