//! Entry points for fuzzing: bytes from strangers to every parser that meets such.
//!
//! Each takes any bytes and returns; what it must not do is panic, hang, or take memory without
//! bound. `tests/fuzz` runs them under cargo-fuzz, `tests/fuzz.rs` for a moment with every test run.

#[cfg(feature = "service")]
mod service;

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;

use rustix::fs::{MemfdFlags, memfd_create};

#[cfg(feature = "service")]
pub use self::service::{proof, webhook};
use crate::config::Overrides;
use crate::erofs::{Node, Reader};
use crate::rootfs::{self, Limits};
use crate::source::image::{Compression, Digest, Image, Layer};
use crate::source::{self, Quiet, Reference, Store};
use crate::{disk, dockerfile, plan};

/// A parser's entry.
pub type Target = fn(&[u8]);

/// All of them, by the names that they have in `tests/fuzz`.
pub const TARGETS: &[(&str, Target)] = &[
    ("reference", reference),
    ("manifest", manifest),
    ("registries", registries),
    ("layer", layer),
    ("archive", archive),
    ("containerd", containerd),
    ("elf", elf),
    ("program", program),
    ("dockerfile", dockerfile),
    ("packages", packages),
    ("erofs", erofs),
    ("disk", disk),
    #[cfg(feature = "service")]
    ("webhook", webhook),
    #[cfg(feature = "service")]
    ("proof", proof),
];

/// Bounds that a fuzzer reaches soon.
const LIMITS: Limits = Limits {
    entries: 10_000,
    layer_bytes: 16 << 20,
    image_bytes: 64 << 20,
    path_bytes: 4096,
    xattr_bytes: 1 << 20,
    sparse_segments: 1 << 12,
};

/// References, and what they look like when they are printed again.
pub fn reference(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(reference) = text.parse::<Reference>() {
        let again = reference.to_string().parse::<Reference>();
        // A path that is there as a whole is read otherwise, but none of these is.
        assert!(again.is_ok_and(|again| again.to_string() == reference.to_string()), "{text:?}");
    }
}

/// Manifests, indexes, configurations and tables of contents; the plan of a configuration.
pub fn manifest(data: &[u8]) {
    source::parse_any(data);
    if let Ok(root) = empty_root() {
        let files = crate::convert::Rootfs(&root);
        let _ = crate::config::plan(data, "fuzz", &Overrides::default(), &files);
    }
}

/// `registries.conf`.
pub fn registries(data: &[u8]) {
    if let Some(file) = file(data) {
        source::registries_any(&path(&file));
    }
}

/// Layers: compressed streams and tar archives; the first byte says which.
pub fn layer(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else { return };
    let compression =
        [Compression::None, Compression::Gzip, Compression::Zstd][usize::from(kind % 3)];
    let (Some(blob), Some(out)) = (file(bytes), file(&[])) else { return };
    let root = (*kind >= 128).then_some(crate::erofs::Compression::Lz4);
    let options =
        rootfs::Options { limits: LIMITS, threads: 1, tail_memory: 64 << 10, compression: root };
    let layers = [layer_of(&blob, bytes, compression)];
    let _ = rootfs::build(&layers, &options, &out, 0, &|_| {});
}

/// Image archives.
pub fn archive(data: &[u8]) {
    let (Some(file), Ok(dir)) = (file(data), tempfile::tempdir()) else { return };
    let Ok(store) = Store::open(dir.path()) else { return };
    let options = source::Options { archive_bytes: 16 << 20, ..source::Options::default() };
    let reference = Reference::Archive { path: path(&file) };
    let _ = source::resolve(&reference, &options, &store, &Quiet);
    let left = std::fs::read_dir(dir.path().join("staging")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "something was left behind");
}

/// containerd's database.
pub fn containerd(data: &[u8]) {
    if let Some(file) = file(data) {
        source::containerd_any(&path(&file));
    }
}

/// ELF headers and tables.
pub fn elf(data: &[u8]) {
    if let Some(object) = plan::elf::Object::parse(data) {
        let _ = object.dlopen_candidates(data);
        let _ = object.memory();
    }
}

/// An image whose program the bytes are: a script, machine code, or neither.
pub fn program(data: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(data.len() as u64);
    header.set_mode(0o755);
    let mut builder = tar::Builder::new(Vec::new());
    let packed = builder.append_data(&mut header, "x", data).and_then(|()| builder.into_inner());
    let Ok(tar) = packed else { return };
    let Some(blob) = file(&tar) else { return };
    let config_json = br#"{"architecture":"amd64","os":"linux","config":{"Cmd":["/x"]},
        "rootfs":{"type":"layers","diff_ids":[]}}"#;
    let Ok(config) = serde_json::from_slice(config_json) else { return };
    let image = Image {
        name: "fuzz".into(),
        manifest: Digest::of(data),
        config_digest: Digest::of(config_json),
        config,
        config_json: config_json.to_vec(),
        layers: vec![layer_of(&blob, &tar, Compression::None)],
        signed: None,
    };
    let _ = plan::report(&image, &Overrides::default());
}

/// Dockerfiles.
pub fn dockerfile(data: &[u8]) {
    dockerfile::parse_any(data);
}

/// Package databases.
pub fn packages(data: &[u8]) {
    plan::packages::parse_any(data);
}

/// EROFS images: everything in them is looked at.
pub fn erofs(data: &[u8]) {
    /// Files that are looked at.
    const MAX: usize = 2000;
    let Ok(reader) = Reader::open(data, 0) else { return };
    let mut left: Vec<Node> = reader.root().into_iter().collect();
    let mut seen = 0;
    while let Some(node) = left.pop().filter(|_| seen < MAX) {
        seen += 1;
        let _ = (reader.xattrs(&node), reader.read_link(&node), reader.mtime(&node));
        let mut buffer = [0; 512];
        for offset in [0, 4095, node.inode.size.saturating_sub(1)] {
            let _ = reader.read_at(&node, offset, &mut buffer);
        }
        if node.is_dir() {
            let entries = reader.read_dir(&node).unwrap_or_default();
            left.extend(entries.iter().take(MAX).filter_map(|entry| reader.node(entry.nid).ok()));
        }
    }
    let _ = reader.lookup(b"/a/b/../c");
}

/// Files that hold disks, of every format.
pub fn disk(data: &[u8]) {
    let Some(file) = file(data) else { return };
    if let Ok(copy) = file.try_clone()
        && let Ok(opened) = disk::format::open(copy)
    {
        let mut buffer = [0; 4096];
        let size = opened.disk.size();
        for at in [0, 512, 1 << 20, size / 2, size.saturating_sub(4096)] {
            let _ = opened.disk.read_exact_at(&mut buffer, at);
        }
    }
    if let Ok(disk) = disk::Disk::open(&path(&file)) {
        let _ = (disk.record(), disk.place(), disk.root().map(drop), disk.kernel());
    }
}

fn layer_of(file: &File, bytes: &[u8], compression: Compression) -> Layer {
    let digest = Digest::of(bytes);
    let (size, path) = (bytes.len() as u64, path(file));
    Layer { digest, size, diff_id: digest, compression, path }
}

/// A file in memory; `None` where there is no room.
fn file(bytes: &[u8]) -> Option<File> {
    let mut file = File::from(memfd_create("fuzz", MemfdFlags::CLOEXEC).ok()?);
    file.write_all(bytes).ok()?;
    Some(file)
}

fn path(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn empty_root() -> Result<Reader<File>, Box<dyn std::error::Error>> {
    let out = file(&[]).ok_or("no memory")?;
    rootfs::build(&[], &rootfs::Options::default(), &out, 0, &|_| {})?;
    Ok(Reader::open(out, 0)?)
}
