//! Parts of blobs, and the tables of contents that say which are wanted.

use reqwest::{Method, StatusCode};

use super::download::{blob_headers, range_start};
use super::retry::Retrier;
use super::{Registry, read_all};
use crate::source::error::Error;
use crate::source::image::Image;
use crate::source::manifest::{Blob, Document, MAX_DOCUMENT};
use crate::source::table::{self, FOOTER, Hint, Table};

/// Layers below this are brought in whole: that is one request.
const LEAST: u64 = 256 << 10;
/// Files and chunks in all tables of an image together, which bounds the memory they take. Layers
/// beyond are brought in whole.
const MAX_LISTED: usize = 1 << 20;

impl Registry<'_> {
    /// The tables of contents of an image's layers: of those that have one, are worth it, and are not
    /// in the store.
    pub(in crate::source) fn tables(&self, image: &Image) -> Result<Vec<Option<Table>>, Error> {
        let none = || vec![None; image.layers.len()];
        let store = self.context.store;
        let Some(bytes) = store.read(&image.manifest, MAX_DOCUMENT)? else { return Ok(none()) };
        let what = format!("manifest {}", image.manifest);
        let Document::Manifest(manifest) = Document::parse(&what, &bytes, None)? else {
            return Ok(none());
        };
        let (mut tables, mut listed) = (none(), 0);
        for ((layer, descriptor), table) in
            image.layers.iter().zip(manifest.layers()).zip(&mut tables)
        {
            let blob = Blob { digest: layer.digest, size: layer.size };
            let is_here = store.get(&blob.digest, blob.size).is_some();
            let hint = descriptor.annotations().as_ref().and_then(|a| Hint::of(a, blob.size));
            if let Some(hint) = hint.filter(|_| !is_here && blob.size >= LEAST) {
                let found = self.table(&blob, &hint)?;
                let len = found.as_ref().map_or(0, Table::len);
                *table = found.filter(|_| listed + len <= MAX_LISTED);
                listed += table.as_ref().map_or(0, Table::len);
            }
        }
        Ok(tables)
    }

    fn table(&self, blob: &Blob, hint: &Hint) -> Result<Option<Table>, Error> {
        let (from, to) = match *hint {
            Hint::Zstd(_, from, to) => (from, to),
            Hint::Stargz(_) => {
                let end = blob.size - FOOTER;
                let Some(footer) = self.range(blob, end, blob.size)? else { return Ok(None) };
                match table::stargz_place(&footer, blob.size) {
                    Some(from) => (from, end),
                    None => return Ok(None),
                }
            }
        };
        let bytes = self.range(blob, from, to)?;
        Ok(bytes.and_then(|bytes| table::read(hint, &bytes, blob.size)))
    }

    /// Bytes `from` to `to` of a blob, as they come: whoever asks must have something to check them
    /// by. `None` if the registry does not give parts of blobs.
    pub(in crate::source) fn range(
        &self,
        blob: &Blob,
        from: u64,
        to: u64,
    ) -> Result<Option<Vec<u8>>, Error> {
        self.need_network(&format!("layer {}", blob.digest))?;
        let url = self.url("blobs", &blob.digest.to_string())?;
        let range = format!("bytes={from}-{}", to.saturating_sub(1));
        let headers = blob_headers(Some(&range));
        let mut retrier = Retrier::new(self.context, &self.name.host);
        loop {
            let result = self.attempt(&Method::GET, &url, &headers).and_then(|response| {
                self.check_blob_status(&url, &blob.digest, &response)?;
                let partial = response.status() == StatusCode::PARTIAL_CONTENT
                    && range_start(&response) == Some(from);
                if !partial {
                    return Ok(None);
                }
                let what = || format!("a part of layer {}", blob.digest);
                read_all(&url, response, to - from, what).map(Some)
            });
            match result {
                Ok(Some(bytes)) if bytes.len() as u64 != to - from => {
                    let reason = format!("{} bytes came of {}", bytes.len(), to - from);
                    retrier.pause(super::http::transfer(&url, reason).into())?;
                }
                Ok(bytes) => return Ok(bytes),
                Err(failure) => retrier.pause(failure)?,
            }
        }
    }
}
