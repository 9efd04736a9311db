use std::{fs, path::Path};

use serde_json::json;

use super::{Recipe, files, steps::Steps};
use crate::Result;

pub const RECIPE: Recipe = Recipe {
    name: "httpd",
    about: "shaped like the official httpd image: /usr/local/apache2, event or `-D prefork`",
    version: 1,
    make,
};

const PREFIX: &str = "/usr/local/apache2";

fn make(dir: &Path) -> Result<()> {
    let mut image = Steps::on_debian()?;
    // Only its scripts are in Perl.
    image.leave_out(&["perl", "perl-modules-5.36", "libperl5.36"]);
    image.install(&["apache2-bin", "media-types"], &[], |step| {
        for (file, to) in [("httpd.conf", "conf/httpd.conf"), ("index.html", "htdocs/index.html")] {
            let data = fs::read(files().join("httpd").join(file))?;
            step.layer.file(&format!("usr/local/apache2/{to}"), 0o644, data);
        }
        step.layer.dir("usr/local/apache2/logs", 0o755);
        step.layer.symlink("usr/local/apache2/modules", "/usr/lib/apache2/modules");
        // Debian's program looks elsewhere for its configuration: it is told.
        let run =
            format!("#!/bin/sh\nexec /usr/sbin/apache2 -d {PREFIX} -f conf/httpd.conf \"$@\"\n");
        step.layer.file("usr/local/apache2/bin/httpd", 0o755, run);
        Ok(())
    })?;
    image.copy("httpd/httpd-foreground", "/usr/local/bin/httpd-foreground", 0o755)?;
    let version = image.version("apache2-bin");
    let config = json!({
        "Env": [
            format!("PATH={PREFIX}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            format!("HTTPD_PREFIX={PREFIX}"),
            format!("HTTPD_VERSION={version}"),
        ],
        "Cmd": ["httpd-foreground"],
        "ExposedPorts": { "80/tcp": {} },
        "StopSignal": "SIGWINCH",
        "WorkingDir": PREFIX,
    });
    image.write(dir, config)
}
