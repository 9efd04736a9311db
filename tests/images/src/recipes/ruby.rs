use std::path::Path;

use serde_json::json;

use super::{PATH, Recipe, steps::Steps};
use crate::Result;

pub const RECIPE: Recipe = Recipe {
    name: "ruby-puma",
    about: "a Rack application on Puma with two workers of several threads",
    version: 1,
    make,
};

fn make(dir: &Path) -> Result<()> {
    let mut image = Steps::on_debian()?;
    image.install(&["ruby", "puma", "ruby-rack"], &[], |step| {
        step.user("app", 1000, "/home/app", "/bin/sh");
        step.owned_dir("home/app", 1000, 0o755);
        step.owned_dir("app", 1000, 0o755);
        Ok(())
    })?;
    image.copy("ruby/config.ru", "/app/config.ru", 0o644)?;
    image.copy("ruby/puma.rb", "/app/puma.rb", 0o644)?;
    let version = image.version("ruby3.1");
    let config = json!({
        "Env": [PATH, "LANG=C.UTF-8", "RACK_ENV=production", format!("RUBY_VERSION={version}")],
        "Cmd": ["puma", "-C", "puma.rb"],
        "ExposedPorts": { "9292/tcp": {} },
        "User": "app",
        "WorkingDir": "/app",
    });
    image.write(dir, config)
}
