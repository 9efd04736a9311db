//! OCI layouts in a tar file.

use std::collections::HashMap;
use std::path::PathBuf;

use super::Archive;
use crate::source::assemble::{Origin, assemble, verify};
use crate::source::digest::Digest;
use crate::source::error::Error;
use crate::source::image::Image;
use crate::source::layout::select;
use crate::source::manifest::Blob;
use crate::source::progress::Outcome;

pub(super) fn resolve(
    archive: &Archive<'_>,
    wanted: Option<&str>,
    name: String,
) -> Result<Image, Error> {
    let origin = OciArchive(archive);
    let what = format!("index.json of {}", archive.name());
    let missing = || archive.malformed("`index.json` can't be read");
    let index = archive.document("index.json")?.ok_or_else(missing)?;
    let root = select(&origin, &what, &index, wanted)?;
    assemble(archive.context, &origin, name, root)
}

struct OciArchive<'a>(&'a Archive<'a>);

impl OciArchive<'_> {
    fn document(&self, what: &'static str, blob: &Blob) -> Result<Vec<u8>, Error> {
        let bytes = self.0.document(&blob_name(&blob.digest))?;
        let bytes = bytes.ok_or_else(|| self.missing(blob))?;
        verify(what, &self.0.name(), blob, &bytes)?;
        Ok(bytes)
    }

    fn missing(&self, blob: &Blob) -> Error {
        Error::BlobUnknown { origin: self.0.name(), digest: blob.digest }
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

impl Origin for OciArchive<'_> {
    fn name(&self) -> String {
        self.0.name()
    }

    fn manifest(&self, blob: &Blob) -> Result<Vec<u8>, Error> {
        self.document("manifest", blob)
    }

    fn config(&self, blob: &Blob) -> Result<Vec<u8>, Error> {
        self.document("configuration", blob)
    }

    fn layers(&self, blobs: &[Blob]) -> Result<Vec<PathBuf>, Error> {
        let (archive, store) = (self.0, self.0.context.store);
        let mut wanted = HashMap::new();
        for blob in blobs {
            if store.get(&blob.digest, blob.size).is_some() {
                let mut bar = archive.context.progress.start(&blob.digest, blob.size);
                bar.advance(blob.size);
                bar.finish(Outcome::Cached);
                continue;
            }
            let name = blob_name(&blob.digest);
            let (name, noted) = archive.file(&name).ok_or_else(|| self.missing(blob))?;
            let found = noted.size;
            if found != blob.size {
                let (origin, digest, expected) = (archive.name(), blob.digest, blob.size);
                let what = "layer";
                return Err(Error::SizeMismatch { what, origin, digest, expected, found });
            }
            wanted.insert(name.to_string(), *blob);
        }
        let wanted = archive.bring(wanted, &mut |_, blob, data| {
            let mut bar = archive.context.progress.start(&blob.digest, blob.size);
            let (digest, size) = (Some(blob.digest), blob.size);
            let (_, _, outcome) = archive.keep(data, digest, size, bar.as_mut())?;
            bar.finish(outcome);
            Ok(())
        })?;
        if let Some(blob) = wanted.values().next() {
            return Err(self.missing(blob));
        }
        Ok(blobs.iter().map(|blob| store.blob_path(&blob.digest)).collect())
    }
}
