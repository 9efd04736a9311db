//! Small OCI layouts written from scratch.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use dock2uni::source::image::{Compression, Digest};
use serde_json::{Value, json};
use tempfile::TempDir;

/// An OCI layout directory under construction; removed when dropped.
pub struct Layout {
    dir: TempDir,
    entries: Vec<Value>,
}

/// What an image shall consist of.
#[derive(Clone)]
pub struct ImageSpec {
    /// Uncompressed tar streams, lowest first, and how to compress each.
    pub layers: Vec<(Vec<u8>, Compression)>,
    /// The `config` member of the image configuration.
    pub config: Value,
    /// The `architecture` member of the image configuration.
    pub architecture: String,
}

impl Default for ImageSpec {
    fn default() -> Self {
        Self {
            layers: Vec::new(),
            config: json!({"Cmd": ["/hello"]}),
            architecture: "amd64".into(),
        }
    }
}

impl Layout {
    /// An empty layout.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
        fs::write(dir.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let layout = Self { dir, entries: Vec::new() };
        layout.write_index();
        layout
    }

    /// The layout directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Where the blob with this digest lies.
    pub fn blob_path(&self, digest: &str) -> PathBuf {
        self.path().join("blobs").join(digest.replace(':', "/"))
    }

    /// Stores a blob and returns its descriptor.
    pub fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = Digest::of(bytes).to_string();
        fs::write(self.blob_path(&digest), bytes).unwrap();
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }

    /// Stores an image's blobs and returns the descriptor of its manifest, with its platform.
    pub fn image(&self, spec: &ImageSpec) -> Value {
        let mut layers = Vec::new();
        let mut diff_ids = Vec::new();
        for (tar, compression) in &spec.layers {
            diff_ids.push(Digest::of(tar).to_string());
            layers.push(self.blob(layer_media_type(*compression), &compress(tar, *compression)));
        }
        let config = json!({
            "architecture": spec.architecture,
            "os": "linux",
            "config": spec.config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = self.blob(
            "application/vnd.oci.image.config.v1+json",
            &serde_json::to_vec(&config).unwrap(),
        );
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config,
            "layers": layers,
        });
        let mut descriptor = self.blob(
            "application/vnd.oci.image.manifest.v1+json",
            &serde_json::to_vec(&manifest).unwrap(),
        );
        descriptor["platform"] = json!({"os": "linux", "architecture": spec.architecture});
        descriptor
    }

    /// Stores an image index over `manifests` and returns its descriptor.
    pub fn index(&self, manifests: &[Value]) -> Value {
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": manifests,
        });
        self.blob("application/vnd.oci.image.index.v1+json", &serde_json::to_vec(&index).unwrap())
    }

    /// Enters a manifest or index into the layout's `index.json` under a name.
    pub fn name(&mut self, mut descriptor: Value, name: &str) {
        descriptor["annotations"]["org.opencontainers.image.ref.name"] = json!(name);
        self.entries.push(descriptor);
        self.write_index();
    }

    fn write_index(&self) {
        let index = json!({"schemaVersion": 2, "manifests": self.entries});
        fs::write(self.path().join("index.json"), index.to_string()).unwrap();
    }
}

/// The OCI media type of a layer.
pub fn layer_media_type(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "application/vnd.oci.image.layer.v1.tar",
        Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
        Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
    }
}

/// Compresses a whole buffer.
pub fn compress(bytes: &[u8], compression: Compression) -> Vec<u8> {
    match compression {
        Compression::None => bytes.to_vec(),
        Compression::Gzip => {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Zstd => zstd::encode_all(bytes, 1).unwrap(),
    }
}

/// A tar stream of regular files.
/// A name with a slash at its end is a directory's.
pub fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        header.set_mtime(1_700_000_000);
        if name.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
        }
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Programs of this machine and the libraries they need, at the same places; busybox, if it is among
/// them, in /bin.
pub fn programs(paths: &[&str]) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    let mut add = |from: &str, at: &str| {
        let at = at.trim_start_matches('/').to_owned();
        if !files.iter().any(|(known, _)| *known == at) {
            files.push((at, fs::read(from).unwrap()));
        }
    };
    for path in paths {
        if *path == "busybox" {
            let places = ["/bin/busybox", "/usr/bin/busybox"];
            let found = places.iter().find(|path| Path::new(path).exists());
            add(found.expect("busybox-static is installed"), "bin/busybox");
            continue;
        }
        add(path, path);
        let output = super::run(std::process::Command::new("ldd").arg(path));
        let text = String::from_utf8(output.stdout).unwrap();
        for library in text.split_whitespace().filter(|word| word.starts_with('/')) {
            add(library, library);
        }
    }
    files
}

/// An image of such files, by reference.
pub fn borrowed(files: &[(String, Vec<u8>)]) -> Vec<(&str, &[u8])> {
    files.iter().map(|(at, bytes)| (at.as_str(), bytes.as_slice())).collect()
}

/// Bytes that don't compress, the same for the same seed.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out
}

/// An image of busybox, other programs of this machine, and one made of C source.
pub fn busybox(config: Value, more: &[&str], source: Option<&str>) -> Layout {
    let mut files = programs(&[&["busybox"], more].concat());
    files.push(("bin/sh".into(), files[0].1.clone()));
    if let Some(source) = source {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("app.c"), source).unwrap();
        let compile = ["-static", "-O1", "-fno-omit-frame-pointer", "-o", "app", "app.c"];
        super::run(Command::new("musl-gcc").args(compile).current_dir(dir.path()));
        files.push(("app".into(), fs::read(dir.path().join("app")).unwrap()));
    }
    let mut layout = Layout::new();
    let image = layout.image(&ImageSpec {
        layers: vec![(tar(&borrowed(&files)), Compression::None)],
        config,
        ..ImageSpec::default()
    });
    layout.name(image, "latest");
    layout
}
