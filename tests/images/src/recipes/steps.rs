//! An image on the Debian base, made step by step as a Dockerfile would.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{files, inside::run_inside};
use crate::{
    Result, debian,
    layer::{Kind, Layer},
    layout,
};

const STATUS: &str = "var/lib/dpkg/status";

/// An image under construction; later layers lie above earlier ones.
pub struct Steps {
    layers: Vec<(String, Layer)>,
    debs: Vec<PathBuf>,
    left_out: &'static [&'static str],
}

impl Steps {
    /// `FROM debian:bookworm-slim`.
    pub fn on_debian() -> Result<Steps> {
        let (base, debs) = debian::base()?;
        Ok(Steps { layers: vec![("debian".to_owned(), base)], debs, left_out: &[] })
    }

    /// Packages that are not installed though others depend on them: large ones that the tests
    /// have no use for.
    pub fn leave_out(&mut self, packages: &'static [&'static str]) {
        self.left_out = packages;
    }

    /// `RUN apt-get install`: a layer with packages and all they need. Their maintainer scripts
    /// don't run; what those would have set up, `after` does. `conffiles` names files of the
    /// recipe that shall belong to packages: package, path, MD5.
    pub fn install(
        &mut self,
        packages: &[&str],
        conffiles: &[(&str, &str, String)],
        after: impl FnOnce(&mut Step) -> Result<()>,
    ) -> Result<()> {
        let wanted: Vec<&str> = debian::BASE.iter().chain(packages).copied().collect();
        let mut debs = debian::fetch(&wanted, &self.debs)?;
        debs.retain(|deb| {
            let file = deb.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            !self.left_out.contains(&file.split('_').next().unwrap_or_default())
        });
        let mut layer = Layer::default();
        debian::install(&debs, &mut layer)?;
        // Directories of layers below are not new; what was only dropped from them is.
        layer.entries.retain(|path, entry| {
            let is_below = || self.layers.iter().any(|(_, below)| below.entries.contains_key(path));
            !matches!(entry.kind, Kind::Directory) || !is_below()
        });
        let mut step = Step { below: &self.layers, layer };
        let mut status = step.text(STATUS);
        status += &debian::status(&debs, conffiles)?;
        step.layer.file(STATUS, 0o644, status);
        after(&mut step)?;
        let mut layer = step.layer;
        let below: Vec<&Layer> = self.layers.iter().map(|(_, layer)| layer).collect();
        debian::ld_cache(&below, &mut layer)?;
        self.layers.push((format!("RUN apt-get install {}", packages.join(" ")), layer));
        self.debs.extend(debs);
        Ok(())
    }

    /// `COPY` of a file in `files/` to an absolute path.
    pub fn copy(&mut self, file: &str, to: &str, mode: u32) -> Result<()> {
        let data = fs::read(files().join(file))?;
        let mut layer = Layer::default();
        let path = to.trim_start_matches('/');
        if let Some((parent, _)) = path.rsplit_once('/') {
            let step = Step { below: &self.layers, layer: Layer::default() };
            // An entry for a directory replaces that below: keep its owner and mode.
            match step.find(parent) {
                Some(entry) => drop(layer.entries.insert(parent.to_owned(), entry.clone())),
                None => drop(layer.dir(parent, 0o755)),
            }
        }
        layer.file(path, mode, data);
        self.layers.push((format!("COPY {file} {to}"), layer));
        Ok(())
    }

    /// `RUN` of anything: a layer that `change` fills.
    pub fn run(
        &mut self,
        command: &str,
        change: impl FnOnce(&mut Step) -> Result<()>,
    ) -> Result<()> {
        let mut step = Step { below: &self.layers, layer: Layer::default() };
        change(&mut step)?;
        let layer = step.layer;
        self.layers.push((format!("RUN {command}"), layer));
        Ok(())
    }

    /// `RUN COMMAND`, with the image's own programs: a layer of what it changes below the paths in
    /// `keep`. The files of `tools` are there for that command only.
    pub fn run_inside(
        &mut self,
        command: &[&str],
        keep: &[&str],
        tools: Option<&Layer>,
    ) -> Result<()> {
        let layers: Vec<&Layer> = self.layers.iter().map(|(_, layer)| layer).chain(tools).collect();
        let layer = run_inside(&layers, command, keep)?;
        self.layers.push((format!("RUN {}", command.join(" ")), layer));
        Ok(())
    }

    /// Upstream version of an installed package.
    pub fn version(&self, package: &str) -> String {
        let names = self.debs.iter().filter_map(|deb| deb.file_name()?.to_str());
        let rest = names.filter_map(|name| name.strip_prefix(package)?.strip_prefix('_')).next();
        let version = rest.unwrap_or("0").split("%3a").last().unwrap_or("0");
        version.split(['-', '_', '+']).next().unwrap_or("0").to_owned()
    }

    /// Writes the image as an OCI layout in `dir`; `config` is the `config` object of the image
    /// configuration.
    pub fn write(self, dir: &Path, config: Value) -> Result<()> {
        layout::write(dir, &self.layers, config)
    }
}

/// One layer under construction on those below it.
pub struct Step<'a> {
    below: &'a [(String, Layer)],
    pub layer: Layer,
}

impl Step<'_> {
    /// The uppermost entry of that path.
    pub fn find(&self, path: &str) -> Option<&crate::layer::Entry> {
        let below = self.below.iter().rev().map(|(_, layer)| layer);
        std::iter::once(&self.layer).chain(below).find_map(|layer| layer.entries.get(path))
    }

    /// The text of a file as it is now; empty if there is none.
    pub fn text(&self, path: &str) -> String {
        match self.find(path).map(|entry| &entry.kind) {
            Some(Kind::File(data)) => String::from_utf8_lossy(data).into_owned(),
            _ => String::new(),
        }
    }

    /// Writes a file whose owner and mode stay what they were.
    pub fn rewrite(&mut self, path: &str, text: String) {
        let old = self.find(path).cloned();
        let new = self.layer.file(path, old.as_ref().map_or(0o644, |entry| entry.mode), text);
        new.uid = old.as_ref().map_or(0, |entry| entry.uid);
        new.gid = old.map_or(0, |entry| entry.gid);
    }

    fn append(&mut self, path: &str, line: &str) {
        let text = self.text(path) + line;
        self.rewrite(path, text);
    }

    /// `groupadd`, `useradd`: a system user with a group of the same name and number.
    pub fn user(&mut self, name: &str, id: u32, home: &str, shell: &str) {
        self.append("etc/passwd", &format!("{name}:x:{id}:{id}:{name}:{home}:{shell}\n"));
        self.append("etc/group", &format!("{name}:x:{id}:\n"));
        self.append("etc/shadow", &format!("{name}:!:19723::::::\n"));
    }

    /// `install -d -o ID -g ID -m MODE PATH`.
    pub fn owned_dir(&mut self, path: &str, id: u64, mode: u32) {
        let entry = self.layer.dir(path, mode);
        (entry.uid, entry.gid) = (id, id);
    }
}
