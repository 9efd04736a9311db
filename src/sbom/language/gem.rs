//! Ruby gems: `specifications/NAME-VERSION.gemspec`, which RubyGems writes in one fixed form when it
//! installs a gem.

use super::super::Found;
use super::super::purl::Purl;
use crate::plan::root::{base, parent};

/// Gems that come with Ruby are in a directory further below.
pub fn is_installed(path: &[u8]) -> bool {
    let above = parent(path);
    base(above) == b"specifications"
        || (base(above) == b"default" && base(parent(above)) == b"specifications")
}

pub fn read(text: Option<&str>, path: &[u8], found: &mut Found) {
    let Some(text) = text else { return };
    let field = |name: &str| text.lines().find_map(|line| assigned(line.trim(), name));
    let first = |value: &str| value.split('"').nth(1).map(str::to_owned);
    let (Some(name), Some(version)) =
        (field("name").and_then(first), field("version").and_then(first))
    else {
        return;
    };
    let license = field("licenses").or_else(|| field("license")).map(|list| {
        let names = list.split('"').skip(1).step_by(2);
        names.collect::<Vec<_>>().join(" OR ")
    });
    found.add(&Purl::plain("gem", "", &name, &version), &name, path, license);
}

/// The value of `s.NAME = VALUE`.
fn assigned<'l>(line: &'l str, name: &str) -> Option<&'l str> {
    let rest = line.strip_prefix("s.")?.strip_prefix(name)?;
    rest.trim_start().strip_prefix('=').map(str::trim)
}
