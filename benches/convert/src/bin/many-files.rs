//! `many-files LAYOUT N`: an OCI layout whose one layer holds N small files, to see what memory
//! conversion takes.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use bench_convert::{Result, end};
use dock2uni::source::digest::Hasher;
use serde_json::{Value, json};

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let layout = args.next().map(PathBuf::from);
    let files = args.next().and_then(|n| n.to_str()?.parse().ok());
    let (Some(layout), Some(files)) = (layout, files) else {
        eprintln!("usage: many-files LAYOUT N");
        return 2.into();
    };
    end(make(&layout, files))
}

/// Hashes what passes through.
struct Tee<W>(W, Hasher);

impl<W: Write> Write for Tee<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write_all(bytes)?;
        self.1.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

fn make(layout: &Path, files: u64) -> Result<()> {
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let part = blobs.join("layer");
    let mut tar = tar::Builder::new(Tee(BufWriter::new(File::create(&part)?), Hasher::new()));
    let data = vec![b'x'; 3000];
    for i in 0..files {
        let mut header = tar::Header::new_gnu();
        let len = i as usize * 7 % data.len();
        header.set_size(len as u64);
        header.set_mode(0o644);
        header.set_uid(i % 3);
        header.set_gid(0);
        header.set_mtime(1_700_000_000 + i % 5000);
        let path = format!("srv/app/node_modules/package-{:05}/lib/module-{i}.js", i / 40);
        tar.append_data(&mut header, path, &data[..len])?;
    }
    let Tee(mut out, hasher) = tar.into_inner()?;
    out.flush()?;
    drop(out);
    let digest = hasher.finish();
    let size = fs::metadata(&part)?.len();
    fs::rename(&part, blobs.join(digest.hex()))?;
    // The archive is not compressed: the blob is its own diff ID.
    let media_type = "application/vnd.oci.image.layer.v1.tar";
    let layer = json!({ "mediaType": media_type, "digest": digest.to_string(), "size": size });
    let rootfs = json!({ "type": "layers", "diff_ids": [digest.to_string()] });
    let config = json!({ "architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs });
    let config = blob(&blobs, "application/vnd.oci.image.config.v1+json", &config)?;
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [layer] });
    let manifest = blob(&blobs, "application/vnd.oci.image.manifest.v1+json", &manifest)?;
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs::write(layout.join("index.json"), index.to_string())?;
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(())
}

fn blob(blobs: &Path, media_type: &str, value: &Value) -> Result<Value> {
    let text = value.to_string();
    let digest = dock2uni::source::Digest::of(text.as_bytes());
    fs::write(blobs.join(digest.hex()), &text)?;
    Ok(json!({ "mediaType": media_type, "digest": digest.to_string(), "size": text.len() }))
}
