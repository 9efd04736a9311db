//! rpm(8): one database of package headers, in one of three forms: SQLite (Fedora, RHEL 9), rpm's own
//! (SUSE), Berkeley DB (RHEL 8 and before, Amazon Linux 2).

mod bdb;
mod header;
mod ndb;
mod sqlite;

use super::Package;
use crate::plan::root::Root;

const DIRECTORIES: [&str; 3] = ["/var/lib/rpm", "/usr/lib/sysimage/rpm", "/usr/share/rpm"];
/// Longest database that is read, in bytes.
const MAX_FILE: usize = 512 << 20;
/// Most bytes of one package's header.
const MAX_HEADER: usize = 64 << 20;

/// Takes headers out of a database.
type Reader = fn(&Files) -> Option<Vec<Vec<u8>>>;

/// The name of a database, and what reads it.
const FORMS: [(&str, Reader); 3] = [
    ("rpmdb.sqlite", |files| sqlite::headers(&files.database, &files.log)),
    ("Packages.db", |files| ndb::headers(&files.database)),
    ("Packages", |files| bdb::headers(&files.database)),
];

/// A database's contents.
struct Files {
    database: Vec<u8>,
    /// SQLite's write-ahead log; empty as a rule.
    log: Vec<u8>,
}

/// Packages, and the database's own files. A database that can't be understood has no packages.
pub fn read(root: &Root<'_>) -> Option<(Vec<Package>, Vec<Vec<u8>>)> {
    for directory in DIRECTORIES {
        for (name, reader) in FORMS {
            let path = format!("{directory}/{name}");
            let Some(database) = root.read(path.as_bytes(), MAX_FILE) else { continue };
            let log = root.read(format!("{path}-wal").as_bytes(), MAX_FILE).unwrap_or_default();
            let headers = reader(&Files { database, log }).unwrap_or_default();
            let packages = headers.iter().filter_map(|header| header::package(header)).collect();
            let names = root.list(directory.as_bytes());
            let own =
                names.into_iter().map(|(name, _)| [directory.as_bytes(), b"/", &name].concat());
            return Some((packages, own.collect()));
        }
    }
    None
}

/// For fuzzing: no bytes of a database may do harm.
pub fn parse_any(bytes: &[u8]) -> usize {
    let half = bytes.len() / 2;
    let forms = [
        sqlite::headers(bytes, &[]),
        sqlite::headers(&bytes[..half], &bytes[half..]),
        ndb::headers(bytes),
        bdb::headers(bytes),
        Some(vec![bytes.to_vec()]),
    ];
    let headers = forms.iter().flatten().flatten();
    headers.filter_map(|header| header::package(header)).map(|package| package.files.len()).sum()
}

/// `N` bytes at an offset.
fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn u32_le(bytes: &[u8], at: usize) -> Option<u32> {
    bytes_at(bytes, at).map(u32::from_le_bytes)
}

fn u32_be(bytes: &[u8], at: usize) -> Option<u32> {
    bytes_at(bytes, at).map(u32::from_be_bytes)
}

fn u16_be(bytes: &[u8], at: usize) -> Option<u16> {
    bytes_at(bytes, at).map(u16::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    /// What rpm 4.18 made of two packages (`tool` needs `lib`'s library and `/bin/sh`), in each of the
    /// forms; the last by Berkeley DB's `db_load` out of the headers.
    const SQLITE: &[u8] = include_bytes!("../../../../tests/fixtures/rpmdb.sqlite.gz");
    const NDB: &[u8] = include_bytes!("../../../../tests/fixtures/rpm-Packages.db.gz");
    const BDB: &[u8] = include_bytes!("../../../../tests/fixtures/rpm-Packages.gz");

    fn unpacked(gzip: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(gzip).read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn the_three_forms_hold_the_same_packages() {
        let (sqlite, ndb, bdb) = (unpacked(SQLITE), unpacked(NDB), unpacked(BDB));
        for headers in [sqlite::headers(&sqlite, &[]), ndb::headers(&ndb), bdb::headers(&bdb)] {
            let headers = headers.unwrap();
            let mut packages: Vec<Package> =
                headers.iter().filter_map(|header| header::package(header)).collect();
            packages.sort_by(|a, b| a.name.cmp(&b.name));
            let [library, tool] = packages.as_slice() else { panic!("{packages:?}") };
            assert_eq!((library.name.as_str(), library.version.as_str()), ("lib", "2:1.5-3"));
            assert_eq!((library.source.as_str(), tool.source.as_str()), ("both", "both"));
            assert!(library.provides.contains(&"libdemo.so.1()(64bit)".to_owned()));
            assert!(library.files.contains(&b"/usr/lib64/libdemo.so.1".to_vec()));
            assert!(library.files.len() > 100, "{}", library.files.len());
            for needed in ["libdemo.so.1()(64bit)", "/bin/sh"] {
                assert!(tool.depends.contains(&vec![needed.to_owned()]), "{:?}", tool.depends);
            }
            assert!(!tool.depends.iter().flatten().any(|name| name.starts_with("rpmlib(")));
            assert_eq!(tool.files, [b"/usr/bin/tool".to_vec()]);
        }
    }

    #[test]
    fn damage_does_no_harm() {
        let mut state = 1u32;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as usize
        };
        for good in [unpacked(SQLITE), unpacked(NDB), unpacked(BDB)] {
            for round in 0..60 {
                let mut bytes = good.clone();
                for _ in 0..1 + round {
                    let at = random() % bytes.len().min(16 << (round % 14));
                    bytes[at] = random() as u8;
                }
                bytes.truncate(bytes.len() - random() % (1 + round * bytes.len() / 100));
                parse_any(&bytes);
            }
        }
    }
}
