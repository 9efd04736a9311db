//! Files of the host that a service mounts one by one.
//!
//! A VM can share directories with its host, not single files. They go into the image as one more
//! layer, with owner and mode: what the service sees is what they were when the fleet was started.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Error;
use crate::causes;
use crate::fleet::{Mount, Origin, kube};
use crate::source::{Compression, Digest, Image, Layer, Store};

/// Largest file that is put into an image.
const MAX_BYTES: u64 = 64 << 20;

/// A file for an image.
#[derive(Clone, Debug)]
pub struct Baked {
    /// Where it goes: an absolute path.
    pub target: String,
    /// What is in it.
    pub bytes: Vec<u8>,
    /// Permissions.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
}

impl Baked {
    /// A file of the host as it is now.
    pub fn of_file(path: &Path, target: &str) -> Result<Baked, Error> {
        let failed = || Error::io("read", path);
        let file = File::open(path).map_err(failed())?;
        let meta = file.metadata().map_err(failed())?;
        if meta.len() > MAX_BYTES {
            return Err(failed()(std::io::ErrorKind::FileTooLarge.into()));
        }
        let mut bytes = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(failed())?;
        let owner = (meta.uid(), meta.gid());
        Ok(Baked { target: target.to_owned(), bytes, mode: meta.mode() & 0o7777, owner })
    }

    /// A text.
    pub fn of_text(text: &str, target: &str) -> Baked {
        let bytes = text.as_bytes().to_vec();
        Baked { target: target.to_owned(), bytes, mode: 0o444, owner: (0, 0) }
    }
}

/// What a config or secret is made of.
///
/// # Errors
/// Says why it is not to be had.
pub(crate) fn content(mount: &Mount) -> Result<Vec<u8>, String> {
    let source = &mount.source;
    match &mount.origin {
        Some(Origin::File(path)) => match Baked::of_file(path, &mount.target) {
            Ok(file) => Ok(file.bytes),
            Err(error) => Err(causes::line(&error)),
        },
        Some(Origin::Text(text)) => Ok(text.clone().into_bytes()),
        Some(Origin::Bytes(text)) => {
            let text: String = text.split_whitespace().collect();
            STANDARD.decode(text).map_err(|_| format!("`{source}` is not in base64"))
        }
        Some(Origin::Secret { key, manifest: Some(manifest), .. }) => {
            kube::secret::read(manifest, source, key)
        }
        Some(Origin::Variable(name)) => {
            std::env::var_os(name).map(OsString::into_encoded_bytes).ok_or_else(|| {
                format!("`{source}` is to be made of the variable `{name}`, which is not set")
            })
        }
        Some(Origin::Volume(_) | Origin::Secret { .. }) | None => {
            Err(format!("what is in `{source}` is known elsewhere only"))
        }
    }
}

/// Adds a layer with these files to an image.
pub fn add(image: &mut Image, files: &[Baked], store: &Store) -> Result<(), Error> {
    if files.is_empty() {
        return Ok(());
    }
    let tar = tar(files).map_err(Error::io("pack files for", Path::new(&image.name)))?;
    let digest = Digest::of(&tar);
    store.put(&digest, &tar).map_err(|error| {
        Error::io("write", store.root())(std::io::Error::other(error.to_string()))
    })?;
    image.layers.push(Layer {
        digest,
        size: tar.len() as u64,
        diff_id: digest,
        compression: Compression::None,
        path: store.blob_path(&digest),
    });
    Ok(())
}

fn tar(files: &[Baked]) -> std::io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for Baked { target, bytes, mode, owner } in files {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_size(bytes.len() as u64);
        header.set_mode(*mode);
        header.set_uid(owner.0.into());
        header.set_gid(owner.1.into());
        // The same files give the same layer.
        header.set_mtime(0);
        tar.append_data(&mut header, target.trim_start_matches('/'), bytes.as_slice())?;
    }
    tar.into_inner()
}

/// Writes files into a directory that a VM is to share, readable for its owner alone.
pub fn lay_out(dir: &Path, files: &[(String, Vec<u8>)]) -> Result<PathBuf, Error> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    let failed = |path: &Path| Error::io("write", path);
    if dir.exists() {
        fs::remove_dir_all(dir).map_err(Error::io("remove", dir))?;
    }
    // The guest's permissions are what counts there, and its programs need not be root.
    let builder = fs::DirBuilder::new().recursive(true).mode(0o755).create(dir);
    builder.map_err(Error::io("create", dir))?;
    for (name, bytes) in files {
        let path = dir.join(name);
        if let Some(parent) = path.parent() {
            let builder = fs::DirBuilder::new().recursive(true).mode(0o755).create(parent);
            builder.map_err(Error::io("create", parent))?;
        }
        let file = File::options().write(true).create_new(true).mode(0o444).open(&path);
        file.and_then(|mut file| std::io::Write::write_all(&mut file, bytes))
            .map_err(failed(&path))?;
    }
    Ok(dir.to_owned())
}
