//! apk(8): `/lib/apk/db/installed`, whose records are lines of a letter, a colon and a value.

use super::Package;
use crate::plan::root::Root;

const PLACES: [&str; 2] = ["/lib/apk/db/installed", "/usr/lib/apk/db/installed"];
const MAX_FILE: usize = 64 << 20;

/// Packages, and the database's own files.
pub fn read(root: &Root<'_>) -> Option<(Vec<Package>, Vec<Vec<u8>>)> {
    let place = PLACES.into_iter().find(|place| root.file(place.as_bytes()).is_some())?;
    let text = root.text(place.as_bytes(), MAX_FILE)?;
    Some((parse(&text), vec![place.as_bytes().to_vec()]))
}

/// The packages of a database's text.
pub fn parse(text: &str) -> Vec<Package> {
    let mut packages = Vec::new();
    for record in text.split("\n\n") {
        let mut package = Package::default();
        let mut directory = "";
        for line in record.lines() {
            let Some((key, value)) = line.split_once(':') else { continue };
            match key {
                "P" => package.name = value.to_owned(),
                "V" => package.version = value.to_owned(),
                "A" => package.arch = value.to_owned(),
                "L" => package.license = value.to_owned(),
                "D" => {
                    let names = value.split(' ').filter(|name| !name.starts_with('!')).map(bare);
                    package.depends = names.map(|name| vec![name]).collect();
                }
                "p" => package.provides = value.split(' ').map(bare).collect(),
                "o" => package.source = value.to_owned(),
                "F" => directory = value,
                "R" if directory.is_empty() => package.files.push(format!("/{value}").into()),
                "R" => package.files.push(format!("/{directory}/{value}").into()),
                _ => {}
            }
        }
        if !package.name.is_empty() {
            packages.push(package);
        }
    }
    packages
}

/// A name without its version: `so:libc.musl-x86_64.so.1=1`.
fn bare(text: &str) -> String {
    text[..text.find(['=', '<', '>', '~']).unwrap_or(text.len())].to_owned()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn records_become_packages() {
        let text = "C:Q1x\nP:musl\nV:1.2.5-r0\np:so:libc.musl-x86_64.so.1=1\nF:lib\n\
                    R:ld-musl-x86_64.so.1\na:0:0:755\n\nP:zlib\nV:1\nD:so:libc.musl-x86_64.so.1 !x\n\
                    F:usr\nF:usr/lib\nR:libz.so.1\n";
        let packages = parse(text);
        assert_eq!(packages[0].files, [b"/lib/ld-musl-x86_64.so.1".to_vec()]);
        assert_eq!(packages[0].provides, ["so:libc.musl-x86_64.so.1"]);
        assert_eq!(packages[1].depends, [["so:libc.musl-x86_64.so.1"]]);
        assert_eq!(packages[1].files, [b"/usr/lib/libz.so.1".to_vec()]);
    }
}
