//! Finds UEFI firmware for QEMU by the descriptions that come with it (QEMU's
//! `docs/interop/firmware.json`).

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Error;

/// Firmware in flash memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Firmware {
    /// The code.
    pub code: PathBuf,
    /// Variables that it starts with. A machine changes a copy.
    pub vars: Option<PathBuf>,
    /// It relies on system management mode to keep its variables safe.
    pub smm: bool,
}

#[derive(Deserialize)]
struct Description {
    #[serde(rename = "interface-types", default)]
    interfaces: Vec<String>,
    mapping: Mapping,
    #[serde(default)]
    targets: Vec<Target>,
    #[serde(default)]
    features: Vec<String>,
}

#[derive(Deserialize)]
struct Mapping {
    device: String,
    executable: Option<FlashFile>,
    #[serde(rename = "nvram-template")]
    vars: Option<FlashFile>,
}

#[derive(Deserialize)]
struct FlashFile {
    filename: PathBuf,
    format: String,
}

#[derive(Deserialize)]
struct Target {
    architecture: String,
    #[serde(default)]
    machines: Vec<String>,
}

impl Description {
    /// The firmware, if a q35 machine can use it.
    fn firmware(&self) -> Option<Firmware> {
        let executable = self.mapping.executable.as_ref()?;
        let raw = executable.format == "raw";
        let q35 = self.targets.iter().any(|target| {
            let fits = |machine: &String| machine.starts_with("pc-q35") || machine == "*";
            target.architecture == "x86_64" && target.machines.iter().any(fits)
        });
        let uefi = self.interfaces.iter().any(|interface| interface == "uefi");
        (uefi && raw && q35 && self.mapping.device == "flash").then(|| Firmware {
            code: executable.filename.clone(),
            vars: self.mapping.vars.as_ref().map(|file| file.filename.clone()),
            smm: self.features.iter().any(|feature| feature == "requires-smm"),
        })
    }
}

/// Finds firmware: the one given, or the first that its description calls usable here. Ones that
/// need no system management mode come first, since it takes time.
///
/// # Errors
/// If there is none.
pub fn find(given: Option<&Path>, vars: Option<&Path>) -> Result<Firmware, Error> {
    let known = described(&directories());
    if let Some(code) = given {
        let same = |firmware: &&Firmware| same_file(&firmware.code, code);
        let smm = known.iter().find(same).is_some_and(|firmware| firmware.smm);
        let vars = vars
            .map(Path::to_owned)
            .or_else(|| known.iter().find(same).and_then(|firmware| firmware.vars.clone()));
        return Ok(Firmware { code: code.to_owned(), vars, smm });
    }
    let usable = |firmware: &Firmware| {
        firmware.code.is_file() && firmware.vars.as_ref().is_none_or(|vars| vars.is_file())
    };
    let mut usable: Vec<_> = known.into_iter().filter(usable).collect();
    usable.sort_by_key(|firmware| firmware.smm);
    usable.into_iter().next().ok_or(Error::NoFirmware)
}

fn same_file(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}

/// Where descriptions are; the first has the last word on a name.
fn directories() -> Vec<PathBuf> {
    let user = env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".config")));
    let system = ["/etc/qemu/firmware", "/usr/share/qemu/firmware"].map(PathBuf::from);
    user.map(|dir| dir.join("qemu/firmware")).into_iter().chain(system).collect()
}

/// What the descriptions describe, in the order of their names.
fn described(directories: &[PathBuf]) -> Vec<Firmware> {
    let mut files = BTreeMap::new();
    for dir in directories.iter().rev() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                files.insert(entry.file_name(), path);
            }
        }
    }
    let read = |path: &PathBuf| {
        let text = fs::read(path).ok()?;
        serde_json::from_slice::<Description>(&text).ok()?.firmware()
    };
    files.values().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description(code: &str, features: &str) -> String {
        format!(
            r#"{{"interface-types": ["uefi"], "features": [{features}],
                 "mapping": {{"device": "flash",
                     "executable": {{"filename": "{code}", "format": "raw"}},
                     "nvram-template": {{"filename": "{code}.vars", "format": "raw"}}}},
                 "targets": [{{"architecture": "x86_64", "machines": ["pc-q35-*"]}}]}}"#
        )
    }

    #[test]
    fn descriptions_are_read_in_order_and_users_win() {
        let dir = tempfile::tempdir().unwrap();
        let (user, system) = (dir.path().join("user"), dir.path().join("system"));
        for dir in [&user, &system] {
            fs::create_dir(dir).unwrap();
        }
        fs::write(system.join("40-a.json"), description("/a", r#""requires-smm""#)).unwrap();
        fs::write(system.join("60-b.json"), description("/b", "")).unwrap();
        fs::write(user.join("60-b.json"), description("/c", "")).unwrap();
        fs::write(system.join("50-arm.json"), description("/x", "").replace("x86_64", "aarch64"))
            .unwrap();
        fs::write(system.join("70-bad.json"), "{").unwrap();
        let found = described(&[user, system]);
        let codes: Vec<_> =
            found.iter().map(|found| (found.code.to_str().unwrap(), found.smm)).collect();
        assert_eq!(codes, [("/a", true), ("/c", false)]);
        assert_eq!(found[1].vars.as_deref(), Some(Path::new("/c.vars")));
    }
}
