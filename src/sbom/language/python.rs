//! Python: `*.dist-info/METADATA` (PyPA specifications, "Core metadata"), and `PKG-INFO` of older
//! tools.

use super::super::Found;
use super::super::purl::Purl;
use crate::plan::root::{base, parent};

pub fn is_record(path: &[u8]) -> bool {
    let (name, above) = (base(path), base(parent(path)));
    (name == b"METADATA" && above.ends_with(b".dist-info"))
        || (name == b"PKG-INFO" && above.ends_with(b".egg-info"))
        // distutils leaves a file instead of a directory.
        || name.ends_with(b".egg-info")
}

pub fn read(text: Option<&str>, path: &[u8], found: &mut Found) {
    let Some(text) = text else { return };
    // The header ends with an empty line; the description follows.
    let header = text.lines().take_while(|line| !line.trim().is_empty());
    let (mut name, mut version, mut license, mut expression) = ("", "", None, None);
    for line in header.filter(|line| !line.starts_with([' ', '\t'])) {
        let Some((key, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        match key {
            "Name" => name = value,
            "Version" => version = value,
            "License-Expression" => expression = Some(value.to_owned()),
            // Some have the whole text there, whose first line says little.
            "License" if value.len() < 100 && value != "UNKNOWN" => {
                license = Some(value.to_owned())
            }
            _ => {}
        }
    }
    let normal = normalized(name);
    found.add(&Purl::plain("pypi", "", &normal, version), name, path, expression.or(license));
}

/// The name as the index has it (PyPA specifications, "Names and normalization").
fn normalized(name: &str) -> String {
    let mut out = String::new();
    for char in name.to_lowercase().chars() {
        match char {
            '-' | '_' | '.' if out.ends_with('-') => {}
            '-' | '_' | '.' => out.push('-'),
            other => out.push(other),
        }
    }
    out
}
