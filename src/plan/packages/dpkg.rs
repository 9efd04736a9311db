//! dpkg(1): `/var/lib/dpkg/status` and `info/*.list`; distroless images have a file for each
//! package in `status.d` instead.

use std::collections::HashMap;

use super::{Package, alternatives};
use crate::plan::root::{Root, show};

const STATUS: &str = "/var/lib/dpkg/status";
const INFO: &str = "/var/lib/dpkg/info";
const PARTS: &str = "/var/lib/dpkg/status.d";
const MAX_STATUS: usize = 64 << 20;
const MAX_LIST: usize = 32 << 20;

/// Packages, and the database's own files.
pub fn read(root: &Root<'_>) -> Option<(Vec<Package>, Vec<Vec<u8>>)> {
    let mut own = Vec::new();
    let mut packages = Vec::new();
    if let Some(text) = root.text(STATUS.as_bytes(), MAX_STATUS) {
        own.push(STATUS.as_bytes().to_vec());
        packages.extend(self::packages(&text));
        let names: HashMap<String, usize> =
            packages.iter().enumerate().map(|(at, package)| (package.name.clone(), at)).collect();
        for (file, _) in root.list(INFO.as_bytes()) {
            let file = show(&file);
            own.push(format!("{INFO}/{file}").into_bytes());
            let Some(name) = file.strip_suffix(".list") else { continue };
            let name = name.split(':').next().unwrap_or(name);
            let Some(&index) = names.get(name) else { continue };
            let path = format!("{INFO}/{file}");
            let list = root.read(path.as_bytes(), MAX_LIST).unwrap_or_default();
            let lines = list.split(|&byte| byte == b'\n').filter(|line| line.len() > 2);
            packages[index].files = lines.map(<[u8]>::to_vec).collect();
        }
    }
    for (file, _) in root.list(PARTS.as_bytes()) {
        let name = show(&file);
        own.push(format!("{PARTS}/{name}").into_bytes());
        if name.ends_with(".md5sums") {
            continue;
        }
        let text = root.text(format!("{PARTS}/{name}").as_bytes(), MAX_LIST).unwrap_or_default();
        let Some(mut package) = paragraphs(&text).find_map(package) else { continue };
        let sums = format!("{PARTS}/{name}.md5sums");
        let sums = root.text(sums.as_bytes(), MAX_LIST).unwrap_or_default();
        let paths = sums.lines().filter_map(|line| line.split_once("  "));
        package.files = paths.map(|(_, path)| [b"/", path.as_bytes()].concat()).collect();
        packages.push(package);
    }
    (!packages.is_empty()).then_some((packages, own))
}

/// The installed packages of a status file, without their files.
pub fn packages(text: &str) -> impl Iterator<Item = Package> {
    paragraphs(text).filter_map(package)
}

fn paragraphs(text: &str) -> impl Iterator<Item = &str> {
    text.split("\n\n").filter(|paragraph| !paragraph.trim().is_empty())
}

fn package(paragraph: &str) -> Option<Package> {
    let mut package = Package::default();
    let mut installed = true;
    for line in paragraph.lines().filter(|line| !line.starts_with([' ', '\t'])) {
        let Some((key, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        match key {
            "Package" => package.name = value.to_owned(),
            "Version" => package.version = value.to_owned(),
            "Architecture" => package.arch = value.to_owned(),
            "Status" => installed = value.ends_with(" installed"),
            "Depends" | "Pre-Depends" => package.depends.extend(alternatives(value)),
            // `Source: nginx (1.22)`
            "Source" => {
                package.source = value.split(' ').next().unwrap_or(value).to_owned();
            }
            "Provides" => package.provides = alternatives(value).into_iter().flatten().collect(),
            _ => {}
        }
    }
    (installed && !package.name.is_empty()).then_some(package)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_become_packages() {
        let text = "Package: a\nStatus: install ok installed\nVersion: 1:2-3\n\
                    Pre-Depends: x\nDepends: b (>= 1), c | d\nDescription: y\n Depends: no\n\n\
                    Package: gone\nStatus: deinstall ok config-files\n";
        let found: Vec<Package> = packages(text).collect();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].name.as_str(), found[0].version.as_str()), ("a", "1:2-3"));
        assert_eq!(found[0].depends.len(), 3);
    }
}
