//! The distribution's package database: which package a file belongs to, and what packages need.

mod apk;
mod dpkg;
mod rpm;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use super::root::{Root, show};

/// Files that are attributed, over all packages.
const MAX_FILES: usize = 2_000_000;
/// Packages that are read.
const MAX_PACKAGES: usize = 50_000;

/// The program that manages the packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Manager {
    /// Debian and its children, distroless images.
    Dpkg,
    /// Alpine, Wolfi.
    Apk,
    /// Red Hat, SUSE and their children.
    Rpm,
}

/// An installed package.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Package {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// Architecture, as the database has it.
    pub arch: String,
    /// Licence, as the database has it; dpkg's has none.
    pub license: String,
    /// Name of the source that it was built from; its own name unless another is told.
    pub source: String,
    /// Names that must be there, each with its alternatives.
    pub depends: Vec<Vec<String>>,
    /// Other names that it goes by.
    pub provides: Vec<String>,
    /// Files and links, as the database writes them, with a leading slash.
    pub files: Vec<Vec<u8>>,
}

/// A database that was read.
#[derive(Debug)]
pub struct Database {
    /// Its kind.
    pub manager: Manager,
    /// Packages, sorted by name.
    pub packages: Vec<Package>,
    /// Files of the database itself.
    pub own: Vec<Vec<u8>>,
    owners: HashMap<Vec<u8>, u32>,
    names: BTreeMap<String, Vec<u32>>,
}

impl Database {
    /// Reads the image's database; `None` if it has none that is known.
    pub fn read(root: &Root<'_>) -> Option<Database> {
        let (manager, packages, own) = if let Some((packages, own)) = dpkg::read(root) {
            (Manager::Dpkg, packages, own)
        } else if let Some((packages, own)) = apk::read(root) {
            (Manager::Apk, packages, own)
        } else {
            let (packages, own) = rpm::read(root)?;
            (Manager::Rpm, packages, own)
        };
        Some(Database::new(manager, packages, own, &|path| root.canonical(path)))
    }

    fn new(
        manager: Manager,
        mut packages: Vec<Package>,
        own: Vec<Vec<u8>>,
        canonical: &dyn Fn(&[u8]) -> Vec<u8>,
    ) -> Database {
        packages.sort_by(|a, b| a.name.cmp(&b.name));
        packages.truncate(MAX_PACKAGES);
        let mut owners = HashMap::new();
        let mut names: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for (index, package) in packages.iter_mut().enumerate() {
            // Bounded above.
            let index = index as u32;
            if package.source.is_empty() {
                package.source.clone_from(&package.name);
            }
            for name in [&package.name].into_iter().chain(&package.provides) {
                names.entry(name.clone()).or_default().push(index);
            }
            for path in &mut package.files {
                if owners.len() >= MAX_FILES {
                    break;
                }
                *path = canonical(path);
                owners.insert(path.clone(), index);
            }
        }
        // rpm's packages may need a file, whoever brings it.
        let files = packages.iter().flat_map(|package| &package.depends).flatten();
        let files: BTreeSet<String> = files.filter(|name| name.starts_with('/')).cloned().collect();
        for file in files {
            if let Some(&index) = owners.get(&canonical(file.as_bytes())) {
                names.entry(file).or_default().push(index);
            }
        }
        Database { manager, packages, own, owners, names }
    }

    /// The package that a file belongs to. The path's directory has no symbolic links in it.
    pub fn owner(&self, path: &[u8]) -> Option<usize> {
        self.owners.get(path).map(|&index| index as usize)
    }

    /// These packages and all that they need, by index.
    pub fn closure(&self, from: impl IntoIterator<Item = usize>) -> BTreeSet<usize> {
        let mut found: BTreeSet<usize> = from.into_iter().collect();
        let mut queue: VecDeque<usize> = found.iter().copied().collect();
        while let Some(index) = queue.pop_front() {
            let Some(package) = self.packages.get(index) else { continue };
            for alternatives in &package.depends {
                let indexes = alternatives.iter().filter_map(|name| self.names.get(name));
                // All that are installed count: one of them must be meant.
                for &index in indexes.flatten() {
                    if found.insert(index as usize) {
                        queue.push_back(index as usize);
                    }
                }
            }
        }
        found
    }
}

/// For fuzzing: bytes as a database of any kind.
pub(crate) fn parse_any(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut packages = apk::parse(&text);
    packages.extend(dpkg::packages(&text));
    let _ = Database::new(Manager::Apk, packages, Vec::new(), &|path| path.to_vec());
    rpm::parse_any(bytes);
}

/// Names of a dependency field: `a (>= 1) | b:any, c`.
fn alternatives(field: &str) -> Vec<Vec<String>> {
    let name = |text: &str| {
        let text = text.trim();
        let end = text.find([' ', '(', '[', '<', '>', '=', '~', ':']).unwrap_or(text.len());
        text[..end].to_owned()
    };
    field
        .split(',')
        .map(|group| group.split('|').map(name).filter(|name| !name.is_empty()).collect())
        .filter(|group: &Vec<String>| !group.is_empty())
        .collect()
}

/// A name for messages.
pub fn label(package: &Package) -> String {
    format!("{} {}", package.name, package.version)
}

/// The operating system's name for people, by `/etc/os-release`.
pub fn distribution(root: &Root<'_>) -> Option<String> {
    let text = root
        .text(b"/etc/os-release", 64 << 10)
        .or_else(|| root.text(b"/usr/lib/os-release", 64 << 10))?;
    let line = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(show(line.trim_matches(['"', '\'']).as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_followed_through_alternatives_and_provides() {
        let package = |name: &str, depends: &str, provides: &[&str]| Package {
            name: name.into(),
            depends: alternatives(depends),
            provides: provides.iter().map(|name| (*name).to_owned()).collect(),
            files: vec![format!("/bin/{name}").into_bytes()],
            ..Package::default()
        };
        let packages = vec![
            package("web", "libc6 (>= 2.36), mailer | nullmailer, awk:any", &[]),
            package("libc6", "", &[]),
            package("mawk", "libc6", &["awk"]),
            package("nullmailer", "web", &[]),
            package("other", "web", &[]),
        ];
        let database =
            Database::new(Manager::Dpkg, packages, Vec::new(), &|path| [b"/usr", path].concat());
        let web = database.owner(b"/usr/bin/web").unwrap();
        let names: Vec<&str> = database
            .closure([web])
            .into_iter()
            .map(|index| database.packages[index].name.as_str())
            .collect();
        assert_eq!(names, ["libc6", "mawk", "nullmailer", "web"]);
        assert_eq!(database.owner(b"/bin/web"), None);
    }
}
