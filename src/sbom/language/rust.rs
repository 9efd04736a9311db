//! Rust programs built by `cargo auditable`: their crates, in the section `.dep-v0`, as JSON
//! compressed by zlib (rust-secure-code/cargo-auditable, `PARSING.md`).

use std::io::Read as _;

use serde::Deserialize;

use super::super::Found;
use super::super::purl::Purl;
use super::object::Object;

/// Longest section and longest list that are read, in bytes: those that the format recommends.
const MAX: u64 = 8 << 20;

#[derive(Deserialize)]
struct List {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    /// `build` for what ran at build time alone.
    kind: Option<String>,
}

pub fn read(object: &Object<'_, '_>, path: &[u8], found: &mut Found) {
    let Some(section) = object.section(b".dep-v0", MAX) else { return };
    let mut json = Vec::new();
    let mut inflater = flate2::read::ZlibDecoder::new(&section[..]).take(MAX);
    if inflater.read_to_end(&mut json).is_err() {
        return;
    }
    let Ok(list) = serde_json::from_slice::<List>(&json) else { return };
    for package in list.packages.iter().filter(|package| package.kind.as_deref() != Some("build")) {
        let purl = Purl::plain("cargo", "", &package.name, &package.version);
        found.add(&purl, &package.name, path, None);
    }
}
