//! Downloads of layers: resumed after breaks, and across runs.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;

use reqwest::blocking::Response;
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode};

use super::http::transfer;
use super::retry::{Failure, Retrier, Retry};
use super::{Registry, read_failure};
use crate::source::assemble::Origin as _;
use crate::source::error::Error;
use crate::source::manifest::Blob;
use crate::source::progress::{Bar, Outcome};
use crate::source::store::{BUFFER, Slot, Verified, Writer};

/// Received bytes that count as progress, after which failures are counted anew.
const PROGRESS: u64 = 64 * 1024;

impl Registry<'_> {
    /// Brings a layer here, and sends it off to be made visible in the store, where it will be at the
    /// path returned. So nobody waits for the disk before the next layer.
    pub(super) fn layer(&self, blob: &Blob, done: &Sender<Verified>) -> Result<PathBuf, Error> {
        let mut bar = self.context.progress.start(&blob.digest, blob.size);
        let mut second_try = false;
        loop {
            let arrival = self.context.arrival(&blob.digest);
            let slot = self.context.store.slot(&blob.digest, blob.size, self.context.progress)?;
            let mut writer = match slot {
                Slot::Present(path) => {
                    if let Some(arrival) = &arrival {
                        let file = File::open(&path).map_err(|e| Error::io("open", &path, e))?;
                        arrival.begin(file, blob.size);
                        arrival.verified();
                    }
                    bar.advance(blob.size);
                    bar.finish(Outcome::Cached);
                    return Ok(path);
                }
                Slot::Vacant(writer) => writer,
            };
            self.need_network(&format!("layer {}", blob.digest))?;
            if let Some(arrival) = &arrival {
                writer.follow(arrival)?;
            }
            let mut joined = writer.is_resumed();
            bar.advance(writer.len());
            self.fill(blob, &mut writer, bar.as_mut(), &mut joined)?;
            match writer.verify("layer", &self.name()) {
                Ok(verified) => {
                    let path = verified.target().to_owned();
                    // If nobody takes it any more, it's the taker's failure that is told.
                    let _ = done.send(verified);
                    bar.finish(Outcome::Fetched);
                    return Ok(path);
                }
                // Kept bytes may have been damaged, say by a power cut: they get one more try
                // without them.
                Err(Error::DigestMismatch { .. }) if joined && !second_try => {
                    second_try = true;
                    bar.restart();
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Downloads until all bytes are there, resuming after each break.
    fn fill(
        &self,
        blob: &Blob,
        writer: &mut Writer,
        bar: &mut dyn Bar,
        joined: &mut bool,
    ) -> Result<(), Error> {
        let mut retrier = Retrier::new(self.context, &self.name.host);
        let mut buffer = vec![0; BUFFER];
        while writer.len() < blob.size {
            let before = writer.len();
            let result = self.transfer(blob, writer, bar, &mut buffer);
            if writer.len() >= before + PROGRESS {
                retrier.progressed();
            }
            if let Err(failure) = result {
                retrier.pause(failure)?;
                *joined |= writer.len() > 0;
            }
        }
        Ok(())
    }

    /// One request for what is still missing.
    fn transfer(
        &self,
        blob: &Blob,
        writer: &mut Writer,
        bar: &mut dyn Bar,
        buffer: &mut [u8],
    ) -> Result<(), Failure> {
        let url = self.url("blobs", &blob.digest.to_string())?;
        let range = (writer.len() > 0).then(|| format!("bytes={}-", writer.len()));
        let headers = blob_headers(range.as_deref());
        let mut response = self.attempt(&Method::GET, &url, &headers)?;
        if writer.len() > 0 {
            let continues = response.status() == StatusCode::PARTIAL_CONTENT
                && range_start(&response) == Some(writer.len());
            if !continues {
                writer.restart()?;
                bar.restart();
                if response.status() != StatusCode::OK {
                    let refused = matches!(response.status().as_u16(), 206 | 416);
                    if refused {
                        let error = transfer(&url, "it can't continue a broken download".into());
                        return Err(Failure { error, retry: Retry::Soon });
                    }
                }
            }
        }
        self.check_blob_status(&url, &blob.digest, &response)?;
        let missing = blob.size - writer.len();
        let too_long = |found| Error::SizeMismatch {
            what: "layer",
            origin: self.name(),
            digest: blob.digest,
            expected: blob.size,
            found,
        };
        if let Some(length) = response.content_length().filter(|length| *length != missing) {
            return Err(too_long(writer.len() + length).into());
        }
        loop {
            if self.context.cancelled.load(Ordering::Relaxed) {
                return Err(Error::Cancelled.into());
            }
            let (filled, result) = fill_buffer(&mut response, buffer);
            if writer.len() + filled as u64 > blob.size {
                return Err(too_long(writer.len() + filled as u64).into());
            }
            writer.write(&buffer[..filled])?;
            bar.advance(filled as u64);
            match result {
                Err(error) => return Err(read_failure(&url, error)),
                Ok(()) if filled < buffer.len() => break,
                Ok(()) => {}
            }
        }
        if writer.len() < blob.size {
            let reason =
                format!("the connection closed after {} of {} bytes", writer.len(), blob.size);
            return Err(Failure { error: transfer(&url, reason), retry: Retry::Soon });
        }
        Ok(())
    }
}

/// Headers that ask for a blob, or a range of it, as it is stored.
pub(super) fn blob_headers(range: Option<&str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    // Formatted numbers have no characters that a header may not have.
    let range = range.and_then(|range| HeaderValue::from_str(range).ok());
    headers.extend(range.map(|range| (header::RANGE, range)));
    headers
}

/// Where a partial answer starts: `Content-Range: bytes START-END/TOTAL`.
pub(super) fn range_start(response: &Response) -> Option<u64> {
    let value = response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    value.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

/// Reads until the buffer is full, the stream ends or fails; says how much was read either way.
fn fill_buffer(response: &mut Response, buffer: &mut [u8]) -> (usize, io::Result<()>) {
    let mut filled = 0;
    while filled < buffer.len() {
        match response.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return (filled, Err(e)),
        }
    }
    (filled, Ok(()))
}
