//! A package's header: tags with typed values, big-endian (rpm's `docs/manual/format.md`).

use super::{MAX_HEADER, u32_be};
use crate::plan::packages::Package;

const NAME: u32 = 1000;
const VERSION: u32 = 1001;
const RELEASE: u32 = 1002;
const EPOCH: u32 = 1003;
const LICENSE: u32 = 1014;
const ARCH: u32 = 1022;
const FILE_STATES: u32 = 1029;
const SOURCE_RPM: u32 = 1044;
const PROVIDE_NAME: u32 = 1047;
const REQUIRE_NAME: u32 = 1049;
const DIR_INDEXES: u32 = 1116;
const BASE_NAMES: u32 = 1117;
const DIR_NAMES: u32 = 1118;
/// States of files that are not there: not installed, of another architecture.
const ABSENT: [u8; 2] = [2, 4];
/// Most strings of one tag.
const MAX_STRINGS: usize = 1 << 20;

struct Header<'a> {
    index: &'a [u8],
    data: &'a [u8],
}

/// The package that a header describes; `None` if it is damaged or no package (a key).
pub fn package(bytes: &[u8]) -> Option<Package> {
    if bytes.len() > MAX_HEADER {
        return None;
    }
    let count = u32_be(bytes, 0)? as usize;
    let data_len = u32_be(bytes, 4)? as usize;
    let index_end = count.checked_mul(16)?.checked_add(8)?;
    let header = Header {
        index: bytes.get(8..index_end)?,
        data: bytes.get(index_end..index_end.checked_add(data_len)?)?,
    };
    let text = |tag| header.strings(tag).into_iter().next().map(lossy);
    let name = text(NAME)?;
    if name == "gpg-pubkey" {
        return None;
    }
    let (version, release) = (text(VERSION).unwrap_or_default(), text(RELEASE).unwrap_or_default());
    let epoch = header.number(EPOCH).map(|epoch| format!("{epoch}:")).unwrap_or_default();
    let depends = header.strings(REQUIRE_NAME).into_iter().map(lossy);
    let depends = depends.filter(|name| !name.starts_with("rpmlib(")).map(|name| rich(&name));
    Some(Package {
        name,
        version: format!("{epoch}{version}-{release}"),
        arch: text(ARCH).unwrap_or_default(),
        license: text(LICENSE).unwrap_or_default(),
        source: text(SOURCE_RPM).map(|file| source(&file)).unwrap_or_default(),
        depends: depends.filter(|names| !names.is_empty()).collect(),
        provides: header.strings(PROVIDE_NAME).into_iter().map(lossy).collect(),
        files: header.files(),
    })
}

impl<'a> Header<'a> {
    /// Where a tag's values start, and how many there are.
    fn find(&self, tag: u32) -> Option<(usize, usize)> {
        let entry = self.index.chunks_exact(16).find(|entry| u32_be(entry, 0) == Some(tag))?;
        Some((u32_be(entry, 8)? as usize, u32_be(entry, 12)? as usize))
    }

    fn strings(&self, tag: u32) -> Vec<&'a [u8]> {
        let Some((start, count)) = self.find(tag) else { return Vec::new() };
        let data = self.data.get(start..).unwrap_or_default();
        // What follows the last one belongs to other tags.
        data.split(|&byte| byte == 0).take(count.min(MAX_STRINGS)).collect()
    }

    fn number(&self, tag: u32) -> Option<u32> {
        u32_be(self.data, self.find(tag)?.0)
    }

    fn files(&self) -> Vec<Vec<u8>> {
        let directories = self.strings(DIR_NAMES);
        let indexes = self.find(DIR_INDEXES).map_or(usize::MAX, |(start, _)| start);
        let states = self.find(FILE_STATES).map(|(start, _)| start);
        let mut files = Vec::new();
        for (number, name) in self.strings(BASE_NAMES).into_iter().enumerate() {
            let state = states.and_then(|start| self.data.get(start.checked_add(number)?));
            if state.is_some_and(|state| ABSENT.contains(state)) {
                continue;
            }
            let at = indexes.checked_add(4 * number);
            let directory = at.and_then(|at| u32_be(self.data, at));
            let directory = directory.and_then(|index| directories.get(index as usize));
            files.extend(directory.map(|directory| [directory, name].concat()));
        }
        files
    }
}

fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

/// `nginx-1.20.1-14.el9.src.rpm` is of `nginx`.
fn source(file: &str) -> String {
    let parts: Vec<&str> = file.rsplitn(3, '-').collect();
    parts.get(2).map_or_else(|| file.to_owned(), |name| (*name).to_owned())
}

/// The names of a dependency; in a boolean one (`(a or b >= 2)`) each counts as an alternative.
fn rich(text: &str) -> Vec<String> {
    let Some(inner) = text.strip_prefix('(') else { return vec![text.to_owned()] };
    const WORDS: [&str; 12] =
        ["and", "or", "if", "else", "unless", "with", "without", "=", "<", ">", "<=", ">="];
    let mut names = Vec::new();
    let mut version = false;
    for word in inner.trim_end_matches(')').split_whitespace() {
        let word = word.trim_start_matches('(');
        if WORDS.contains(&word) {
            version = matches!(word, "=" | "<" | ">" | "<=" | ">=");
        } else if !std::mem::take(&mut version) && !word.is_empty() {
            names.push(word.to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boolean_dependencies_are_alternatives() {
        assert_eq!(rich("glibc"), ["glibc"]);
        assert_eq!(rich("(a >= 1.2 or b)"), ["a", "b"]);
        assert_eq!(rich("((x with y) if z)"), ["x", "y)", "z"]);
        assert_eq!(source("nginx-core-1.20-1.el9.src.rpm"), "nginx-core");
        assert_eq!(source("odd"), "odd");
    }
}
