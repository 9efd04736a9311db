//! Go programs: the modules that they were built of, in the section `.go.buildinfo` (Go's package
//! `debug/buildinfo`, the form since Go 1.18).

use super::super::Found;
use super::super::purl::Purl;
use super::object::Object;

const MAX: u64 = 1 << 20;
const MAGIC: &[u8] = b"\xff Go buildinf:";
/// The module text stands between two marks of 16 bytes.
const MARK: usize = 16;

pub fn read(object: &Object<'_, '_>, path: &[u8], found: &mut Found) {
    let Some(section) = object.section(b".go.buildinfo", MAX) else { return };
    let Some((version, modules)) = parse(&section) else { return };
    let (version, modules) = (String::from_utf8_lossy(version), String::from_utf8_lossy(modules));
    // `go1.22.1`, perhaps followed by what was experimented with.
    if let Some(number) = version.split(' ').next().and_then(|text| text.strip_prefix("go")) {
        found.add(&Purl::plain("golang", "", "stdlib", number), "stdlib", path, None);
    }
    let mut last: Option<(&str, &str)> = None;
    let mut add = |module: Option<(&str, &str)>| {
        let Some((name, version)) = module else { return };
        // What is built in its own directory has no version.
        let version = if version == "(devel)" { "" } else { version };
        let (namespace, short) = name.rsplit_once('/').unwrap_or(("", name));
        found.add(&Purl::plain("golang", namespace, short, version), name, path, None);
    };
    for line in modules.lines() {
        let mut fields = line.split('\t');
        match (fields.next(), fields.next(), fields.next()) {
            (Some("mod" | "dep"), Some(name), version) => {
                add(last.replace((name, version.unwrap_or_default())));
            }
            // In place of the module before.
            (Some("=>"), Some(name), Some(version)) => last = Some((name, version)),
            _ => {}
        }
    }
    add(last);
}

/// The compiler's version, and the text about modules.
fn parse(section: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = section.strip_prefix(MAGIC)?;
    // The size of pointers, and flags: bit 1 says that the texts follow at byte 32.
    if rest.get(1)? & 2 == 0 {
        return None;
    }
    let (version, rest) = text(section.get(32..)?)?;
    let (modules, _) = text(rest)?;
    let inner = modules.get(MARK..modules.len().checked_sub(MARK)?).unwrap_or_default();
    Some((version, inner))
}

/// A text with its length before it, as Go's `binary.Uvarint` reads it.
fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (mut len, mut rest) = (0usize, bytes);
    for shift in (0..28).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        len |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return rest.split_at_checked(len);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{MAGIC, parse};

    #[test]
    fn lengths_that_lie_are_refused() {
        let mut section = [MAGIC, &[8, 2], &[0; 16]].concat();
        section.extend_from_slice(b"\x04go1.");
        assert_eq!(parse(&section), None);
        section.extend_from_slice(&[0x20]);
        section.extend_from_slice(&[b'x'; 32]);
        assert_eq!(parse(&section), Some((&b"go1."[..], &b""[..])));
        for end in 0..section.len() {
            assert_eq!(parse(&section[..end]), None);
        }
    }
}
