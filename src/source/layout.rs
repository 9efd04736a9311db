//! OCI image layouts in a directory. Layers stay where they are.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use oci_spec::image::{Descriptor, ImageIndex};

use super::assemble::{Context, Origin, Root, in_parallel, verify};
use super::digest::{Digest, Hasher};
use super::error::Error;
use super::manifest::{self, Blob, MAX_DOCUMENT};
use super::progress::Outcome;
use super::store::BUFFER;

/// An OCI layout directory.
pub(super) struct Layout<'a> {
    context: &'a Context<'a>,
    path: &'a Path,
    /// Its name in messages.
    place: String,
}

impl<'a> Layout<'a> {
    /// Opens the layout and finds the image called `name` in it.
    pub(super) fn open(
        context: &'a Context<'a>,
        path: &'a Path,
        name: Option<&str>,
    ) -> Result<(Self, Root), Error> {
        if !path.exists() {
            return Err(Error::PathNotFound { path: path.into() });
        }
        let layout = Self::at(context, path, format!("`{}`", path.display()));
        let what = format!("index.json of {}", layout.name());
        let file = path.join("index.json");
        let bytes = match read_document(&file, &what) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Err(Error::Unsupported {
                    what: format!("directory `{}`", path.display()),
                    reason: "it is not an OCI layout: it has no `index.json`".into(),
                });
            }
            other => other?,
        };
        let root = select(&layout, &what, &bytes, name)?;
        Ok((layout, root))
    }

    /// A directory whose blobs lie as in a layout.
    pub(super) fn at(context: &'a Context<'a>, path: &'a Path, place: String) -> Self {
        Self { context, path, place }
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.path.join("blobs/sha256").join(digest.hex())
    }

    fn document(&self, what: &'static str, blob: &Blob) -> Result<Vec<u8>, Error> {
        let path = self.blob_path(&blob.digest);
        let name = format!("{what} {} from {}", blob.digest, self.name());
        let bytes =
            read_document(&path, &name).map_err(|e| missing(e, &self.name(), &blob.digest))?;
        verify(what, &self.name(), blob, &bytes)?;
        Ok(bytes)
    }

    fn check(&self, blob: &Blob) -> Result<PathBuf, Error> {
        let path = self.blob_path(&blob.digest);
        let mut bar = self.context.progress.start(&blob.digest, blob.size);
        let open = |e| missing(Error::io("open", &path, e), &self.name(), &blob.digest);
        let meta = std::fs::metadata(&path).map_err(open)?;
        let (what, origin, digest) = ("layer", self.name(), blob.digest);
        if !meta.is_file() {
            return Err(Error::BlobUnknown { origin, digest });
        }
        if meta.len() != blob.size {
            let (expected, found) = (blob.size, meta.len());
            return Err(Error::SizeMismatch { what, origin, digest, expected, found });
        }
        let mut file = File::open(&path).map_err(open)?;
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; BUFFER];
        loop {
            if self.context.cancelled.load(std::sync::atomic::Ordering::Relaxed) {
                return Err(Error::Cancelled);
            }
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => {
                    hasher.update(&buffer[..n]);
                    bar.advance(n as u64);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::io("read", &path, e)),
            }
        }
        let found = hasher.finish();
        if found != digest {
            return Err(Error::DigestMismatch { what, origin, expected: digest, found });
        }
        bar.finish(Outcome::InPlace);
        Ok(path)
    }
}

impl Origin for Layout<'_> {
    fn name(&self) -> String {
        self.place.clone()
    }

    fn manifest(&self, blob: &Blob) -> Result<Vec<u8>, Error> {
        self.document("manifest", blob)
    }

    fn config(&self, blob: &Blob) -> Result<Vec<u8>, Error> {
        self.document("configuration", blob)
    }

    fn layers(&self, blobs: &[Blob]) -> Result<Vec<PathBuf>, Error> {
        in_parallel(self.context, blobs, |blob| self.check(blob))
    }
}

fn missing(error: Error, origin: &str, digest: &Digest) -> Error {
    match error {
        Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            Error::BlobUnknown { origin: origin.into(), digest: *digest }
        }
        other => other,
    }
}

fn read_document(path: &Path, what: &str) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let meta = std::fs::metadata(path).map_err(|e| Error::io("open", path, e))?;
    if !meta.is_file() {
        return Err(Error::Malformed { what: what.into(), reason: "it is not a file".into() });
    }
    let file = File::open(path).map_err(|e| Error::io("open", path, e))?;
    let read = file.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes);
    let size = read.map_err(|e| Error::io("read", path, e))? as u64;
    if size > MAX_DOCUMENT {
        return Err(Error::TooLarge { what: what.into(), size, limit: MAX_DOCUMENT });
    }
    Ok(bytes)
}

/// Picks an image out of a layout's `index.json`: by name or digest, or the only one, or, where
/// the entries have no names, all of them as the platforms of one image.
pub(super) fn select(
    origin: &dyn Origin,
    what: &str,
    index_json: &[u8],
    name: Option<&str>,
) -> Result<Root, Error> {
    let malformed = |reason: String| Error::Malformed { what: what.into(), reason };
    let index: ImageIndex =
        serde_json::from_slice(index_json).map_err(|e| malformed(e.to_string()))?;
    let entries: Vec<_> = index.manifests().iter().filter(|d| manifest::is_image(d)).collect();
    let named = |wanted: &str| {
        match wanted.strip_prefix('@').and_then(|number| number.parse::<usize>().ok()) {
            // As skopeo counts: all entries, images or not.
            Some(number) => index.manifests().get(number).filter(|d| manifest::is_image(d)),
            None => entries.iter().copied().find(|d| goes_by(d, wanted)),
        }
    };
    let entry = match (name, entries.as_slice()) {
        (Some(name), _) => named(name).ok_or_else(|| Error::NameUnknown {
            place: origin.name().trim_matches('`').into(),
            wanted: name.into(),
            available: names(&entries),
        })?,
        (None, [only]) => only,
        (None, []) => return Err(malformed("it lists no image".into())),
        (None, several) => {
            if several.iter().all(|d| names(&[d]).is_empty() && d.platform().is_some()) {
                let (digest, bytes) = (Digest::of(index_json), index_json.to_vec());
                return Ok(Root { digest, bytes, media_type: None });
            }
            return Err(Error::Ambiguous {
                place: origin.name().trim_matches('`').into(),
                available: names(several),
            });
        }
    };
    let blob = manifest::blob(entry)?;
    let bytes = origin.manifest(&blob)?;
    Ok(Root { digest: blob.digest, bytes, media_type: Some(entry.media_type().to_string()) })
}

fn goes_by(descriptor: &Descriptor, wanted: &str) -> bool {
    names(&[descriptor]).iter().any(|name| name == wanted)
        || descriptor.digest().to_string() == wanted.trim_start_matches('@')
}

/// The names that layout writers give: skopeo and umoci the first, containerd and Docker both.
fn names(descriptors: &[&Descriptor]) -> Vec<String> {
    const KEYS: [&str; 2] = ["org.opencontainers.image.ref.name", "io.containerd.image.name"];
    let annotations = descriptors.iter().filter_map(|d| d.annotations().as_ref());
    annotations.flat_map(|a| KEYS.iter().filter_map(|key| a.get(*key).cloned())).collect()
}
