//! The files, and what they say.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Entry, Mirror, Pull, Registries, ShortNames};
use crate::environment;
use crate::source::error::Error;

/// Largest file that is read.
const MAX_FILE: u64 = 4 << 20;

/// Where the configuration is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// `registries.conf`; the first that is there counts.
    pub main: Vec<PathBuf>,
    /// Directories of `*.conf` files, each of which overrides what came before.
    pub drop_ins: Vec<PathBuf>,
    /// Files of aliases that users chose; they come before all others.
    pub chosen: Vec<PathBuf>,
}

/// The second version of the format, and the first one's lists.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Document {
    unqualified_search_registries: Option<Vec<String>>,
    registry: Vec<RegistryTable>,
    short_name_mode: Option<String>,
    aliases: BTreeMap<String, String>,
    registries: Option<FirstVersion>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct RegistryTable {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror_by_digest_only: bool,
    mirror: Vec<MirrorTable>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct MirrorTable {
    location: String,
    insecure: bool,
    pull_from_mirror: Option<Pull>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct FirstVersion {
    search: List,
    insecure: List,
    block: List,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct List {
    registries: Vec<String>,
}

impl Files {
    /// The files of this user and this machine.
    pub(in crate::source) fn of_user(config: Option<&Path>, cache: Option<&Path>) -> Self {
        let system = PathBuf::from("/etc/containers");
        let user = config.map(|dir| dir.join("containers"));
        let mut chosen: Vec<PathBuf> = vec!["/var/cache/containers/short-name-aliases.conf".into()];
        chosen.extend(cache.map(|dir| dir.join("containers/short-name-aliases.conf")));
        if let Some(file) = environment::path("CONTAINERS_REGISTRIES_CONF") {
            return Self { main: vec![file], drop_ins: Vec::new(), chosen };
        }
        let dirs = || user.iter().chain([&system]);
        Self {
            main: dirs().map(|dir| dir.join("registries.conf")).collect(),
            drop_ins: dirs().rev().map(|dir| dir.join("registries.conf.d")).collect(),
            chosen,
        }
    }

    /// Reads and merges what there is.
    pub(in crate::source) fn load(&self) -> Result<Registries, Error> {
        let mut all = Registries::default();
        for path in &self.main {
            if let Some(text) = read(path)? {
                add(&mut all, path, &text)?;
                break;
            }
        }
        for path in self.drop_ins.iter().flat_map(|dir| conf_files(dir)) {
            if let Some(text) = read(&path)? {
                add(&mut all, &path, &text)?;
            }
        }
        for path in &self.chosen {
            if let Some(text) = read(path)? {
                let mut only = Registries::default();
                add(&mut only, path, &text)?;
                all.aliases.append(&mut only.aliases);
            }
        }
        Ok(all)
    }
}

/// `*.conf` files in the order of their names; none if the directory can't be read.
fn conf_files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
    files.sort();
    files
}

fn read(path: &Path) -> Result<Option<String>, Error> {
    let bad = |reason: String| Error::RegistriesFile { path: path.into(), reason };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(e) => return Err(bad(e.to_string())),
    };
    let mut text = String::new();
    match file.take(MAX_FILE + 1).read_to_string(&mut text) {
        Ok(size) if size as u64 > MAX_FILE => Err(bad("it is too large".into())),
        Ok(_) => Ok(Some(text)),
        Err(e) => Err(bad(e.to_string())),
    }
}

fn add(all: &mut Registries, path: &Path, text: &str) -> Result<(), Error> {
    merge(all, text).map_err(|reason| Error::RegistriesFile { path: path.into(), reason })
}

/// Adds what a file says to what the files before it have said.
pub(super) fn merge(all: &mut Registries, text: &str) -> Result<(), String> {
    let document: Document = toml::from_str(text).map_err(|e| e.message().to_owned())?;
    if let Some(first) = document.registries {
        let second =
            !document.registry.is_empty() || document.unqualified_search_registries.is_some();
        if second {
            return Err("it mixes the two versions of the format".into());
        }
        all.search = first.search.registries;
        for location in first.insecure.registries {
            all.entries.entry(location).or_default().insecure = true;
        }
        for location in first.block.registries {
            all.entries.entry(location).or_default().blocked = true;
        }
        return Ok(());
    }
    if let Some(search) = document.unqualified_search_registries {
        all.search = search;
    }
    match document.short_name_mode.as_deref() {
        None | Some("") => {}
        Some("enforcing") => all.mode = ShortNames::Enforcing,
        Some("permissive") => all.mode = ShortNames::Permissive,
        Some("disabled") => all.mode = ShortNames::Disabled,
        Some(other) => return Err(format!("`short-name-mode` cannot be `{other}`")),
    }
    for table in document.registry {
        let (prefix, entry) = entry(table)?;
        all.entries.insert(prefix, entry);
    }
    for (short, full) in document.aliases {
        // An empty one takes back what an earlier file has said.
        if full.is_empty() {
            all.aliases.remove(&short);
        } else {
            all.aliases.insert(short, full);
        }
    }
    Ok(())
}

fn entry(table: RegistryTable) -> Result<(String, Entry), String> {
    let clean = |location: &str| -> Result<String, String> {
        let location = location.trim_end_matches('/');
        if location.contains("://") {
            return Err(format!("`{location}` has a URL scheme, and must not"));
        }
        Ok(location.to_owned())
    };
    let location = clean(&table.location)?;
    let prefix = if table.prefix.is_empty() { location.clone() } else { clean(&table.prefix)? };
    if prefix.is_empty() {
        return Err("a `[[registry]]` has neither `prefix` nor `location`".into());
    }
    if prefix.contains('*') && !(prefix.starts_with("*.") && prefix.matches('*').count() == 1) {
        return Err(format!("`{prefix}`: a `*` may only stand before the first dot of a host"));
    }
    let mut mirrors = Vec::new();
    for mirror in table.mirror {
        if mirror.location.is_empty() {
            return Err(format!("a mirror of `{prefix}` has no `location`"));
        }
        let pull = match (table.mirror_by_digest_only, mirror.pull_from_mirror) {
            (true, Some(_)) => {
                return Err(format!(
                    "`{prefix}` has both `mirror-by-digest-only` and `pull-from-mirror`"
                ));
            }
            (true, None) => Pull::DigestOnly,
            (false, pull) => pull.unwrap_or_default(),
        };
        let location = clean(&mirror.location)?;
        mirrors.push(Mirror { location, insecure: mirror.insecure, pull });
    }
    let (insecure, blocked) = (table.insecure, table.blocked);
    // Where nothing else stands in the prefix's place, it stays.
    let location = if location == prefix { String::new() } else { location };
    Ok((prefix, Entry { location, insecure, blocked, mirrors }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_files_override_and_take_back() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            path
        };
        let main = write(
            "registries.conf",
            "unqualified-search-registries = [\"a.io\"]\n[[registry]]\nlocation = \"x.io\"\n\
             blocked = true\n[aliases]\none = \"a.io/one\"\ntwo = \"a.io/two\"\n",
        );
        write("d/20.conf", "[aliases]\none = \"c.io/one\"\ntwo = \"\"\n");
        write("d/10.conf", "[aliases]\none = \"b.io/one\"\n[[registry]]\nlocation = \"x.io\"\n");
        write("d/30.txt", "not read");
        let chosen = write("chosen.conf", "[aliases]\nthree = \"d.io/three\"\n");
        let files = Files {
            main: vec![dir.path().join("none"), main.clone(), "/no/such".into()],
            drop_ins: vec![dir.path().join("d"), dir.path().join("none.d")],
            chosen: vec![chosen],
        };
        let all = files.load().unwrap();
        assert_eq!(all.search, ["a.io"]);
        assert!(!all.entries["x.io"].blocked);
        let aliases: Vec<_> = all.aliases.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(aliases, [("one", "c.io/one"), ("three", "d.io/three")]);
        std::fs::write(&main, "[[registry]\n").unwrap();
        let error = files.load().unwrap_err();
        assert!(error.to_string().contains("registries.conf"), "{error}");
        assert_eq!(Files::default().load().unwrap(), Registries::default());
    }

    #[test]
    fn the_first_version_is_read_too() {
        let text = "[registries.search]\nregistries = [\"a.io\"]\n\
                    [registries.insecure]\nregistries = [\"b.io\"]\n\
                    [registries.block]\nregistries = [\"c.io\"]\n";
        let mut all = Registries::default();
        merge(&mut all, text).unwrap();
        assert_eq!(all.search, ["a.io"]);
        assert!(all.entries["b.io"].insecure && all.entries["c.io"].blocked);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, why) in [
            ("[[registry]]\ninsecure = true", "neither `prefix` nor `location`"),
            ("[[registry]]\nlocation = \"https://x.io\"", "URL scheme"),
            ("[[registry]]\nprefix = \"x.*.io\"", "before the first dot"),
            ("[[registry]]\nlocation = \"x.io\"\n[[registry.mirror]]", "no `location`"),
            ("short-name-mode = \"maybe\"", "cannot be `maybe`"),
            (
                "unqualified-search-registries = []\n[registries.search]\nregistries = []",
                "mixes the two versions",
            ),
            (
                "[[registry]]\nlocation = \"x.io\"\nmirror-by-digest-only = true\n\
                 [[registry.mirror]]\nlocation = \"y.io\"\npull-from-mirror = \"all\"",
                "has both",
            ),
        ] {
            let error = merge(&mut Registries::default(), text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
