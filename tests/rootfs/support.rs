//! Layers made in memory, and images built from them.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use dock2uni::{
    erofs::{Node, Reader},
    rootfs::{self, Error, Options, RootImage},
    source::image::{Compression, Digest, Layer},
};
use serde_json::Value;
use tempfile::TempDir;

use crate::common::layout::compress;

pub const TIME: u64 = 1_700_000_000;

/// Writes one layer's archive with the `tar` crate.
pub struct LayerTar(tar::Builder<Vec<u8>>);

impl LayerTar {
    pub fn new() -> LayerTar {
        LayerTar(tar::Builder::new(Vec::new()))
    }

    /// An entry whose name and link are set as raw bytes of up to 100.
    pub fn raw(
        mut self,
        name: &[u8],
        link: &[u8],
        kind: tar::EntryType,
        mode: u32,
        data: &[u8],
    ) -> LayerTar {
        let header = raw_header(name, link, kind, mode, data.len() as u64);
        self.0.append(&header, data).unwrap();
        self
    }

    pub fn file(self, name: &str, data: impl AsRef<[u8]>) -> LayerTar {
        self.raw(name.as_bytes(), b"", tar::EntryType::Regular, 0o644, data.as_ref())
    }

    pub fn dir(self, name: &str, mode: u32) -> LayerTar {
        self.raw(name.as_bytes(), b"", tar::EntryType::Directory, mode, b"")
    }

    pub fn symlink(self, name: &str, target: &str) -> LayerTar {
        self.raw(name.as_bytes(), target.as_bytes(), tar::EntryType::Symlink, 0o777, b"")
    }

    pub fn link(self, name: &str, target: &str) -> LayerTar {
        self.raw(name.as_bytes(), target.as_bytes(), tar::EntryType::Link, 0o644, b"")
    }

    pub fn whiteout(self, name: &str) -> LayerTar {
        self.file(name, b"")
    }

    /// PAX records for the next entry.
    pub fn pax(mut self, records: &[(&str, &[u8])]) -> LayerTar {
        self.0.append_pax_extensions(records.iter().copied()).unwrap();
        self
    }

    pub fn header(mut self, header: &tar::Header, data: &[u8]) -> LayerTar {
        self.0.append(header, data).unwrap();
        self
    }

    pub fn finish(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

pub fn raw_header(
    name: &[u8],
    link: &[u8],
    kind: tar::EntryType,
    mode: u32,
    size: u64,
) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(TIME);
    header.set_size(size);
    header.set_cksum();
    header
}

/// Layers on disk, and the images built from them.
pub struct Lab {
    pub dir: TempDir,
    pub layers: Vec<Layer>,
}

#[derive(Debug)]
pub struct Built {
    pub path: PathBuf,
    pub file: File,
    pub root: RootImage,
}

impl Lab {
    pub fn new(tars: impl IntoIterator<Item = Vec<u8>>) -> Lab {
        let mut lab = Lab { dir: tempfile::tempdir().unwrap(), layers: Vec::new() };
        for (index, tar) in tars.into_iter().enumerate() {
            // All three compressions get their turn.
            let compression = [Compression::Gzip, Compression::Zstd, Compression::None][index % 3];
            lab.push(&tar, compression);
        }
        lab
    }

    pub fn push(&mut self, tar: &[u8], compression: Compression) {
        let blob = compress(tar, compression);
        self.push_blob(&blob, Digest::of(tar), compression);
    }

    pub fn push_blob(&mut self, blob: &[u8], diff_id: Digest, compression: Compression) {
        let path = self.dir.path().join(format!("layer{}", self.layers.len()));
        fs::write(&path, blob).unwrap();
        let size = blob.len() as u64;
        self.layers.push(Layer { digest: Digest::of(blob), size, diff_id, compression, path });
    }

    /// The layers of the only image of an OCI layout.
    pub fn of_layout(layout: &Path) -> Lab {
        let mut lab = Lab::new([]);
        let read = |digest: &Value| {
            let path = layout.join("blobs").join(digest.as_str().unwrap().replace(':', "/"));
            (fs::read(&path).unwrap(), path)
        };
        let json = |bytes: &[u8]| -> Value { serde_json::from_slice(bytes).unwrap() };
        let index = json(&fs::read(layout.join("index.json")).unwrap());
        let manifest = json(&read(&index["manifests"][0]["digest"]).0);
        let config = json(&read(&manifest["config"]["digest"]).0);
        let diff_ids = config["rootfs"]["diff_ids"].as_array().unwrap();
        for (layer, diff_id) in manifest["layers"].as_array().unwrap().iter().zip(diff_ids) {
            lab.layers.push(Layer {
                digest: layer["digest"].as_str().unwrap().parse().unwrap(),
                size: layer["size"].as_u64().unwrap(),
                diff_id: diff_id.as_str().unwrap().parse().unwrap(),
                compression: Compression::Gzip,
                path: read(&layer["digest"]).1,
            });
        }
        lab
    }

    pub fn build_with(&self, name: &str, options: &Options) -> Result<Built, Error> {
        let path = self.dir.path().join(name);
        let file =
            File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        let root = rootfs::build(&self.layers, options, &file, 0, &|_| {})?;
        Ok(Built { path, file, root })
    }

    pub fn build(&self) -> Built {
        let built = self.build_with("root.erofs", &Options::default()).unwrap();
        built.fsck();
        built
    }

    pub fn error(&self) -> Error {
        self.build_with("root.erofs", &Options::default()).unwrap_err()
    }
}

impl Built {
    pub fn reader(&self) -> Reader<&File> {
        self.root.reader(&self.file).unwrap()
    }

    pub fn node(&self, path: &str) -> Option<Node> {
        self.reader().lookup_link(path.as_bytes()).unwrap()
    }

    pub fn text(&self, path: &str) -> Option<String> {
        let bytes = self.reader().read_file(path.as_bytes(), 1 << 30).unwrap()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// All paths below the root, in order.
    pub fn paths(&self) -> Vec<String> {
        let tree = &self.root.tree;
        let show = |node| String::from_utf8_lossy(&tree.path(node)).into_owned();
        tree.walk().skip(1).map(show).collect()
    }

    /// The image passes `fsck.erofs`.
    pub fn fsck(&self) {
        let output = Command::new("fsck.erofs").arg(&self.path).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
