//! The push side of the OCI distribution specification.
//!
//! Small blobs go in one request, larger ones in pieces, so that a broken connection costs a piece
//! and no request outlasts its time limit. What a registry has already is not sent.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use reqwest::blocking::Response;
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde_json::{Value, json};

use super::http::{Request, status_error, transfer};
use super::retry::{Failure, Retrier, Retry};
use super::{CONTENT_DIGEST, Registry};
use crate::source::digest::Digest;
use crate::source::error::Error;
use crate::source::progress::{Bar, Outcome};

/// Bytes of a piece; some registries want 5 MiB at least.
const PIECE: u64 = 16 << 20;
/// Least piece a registry asks for.
const MIN_PIECE: HeaderName = HeaderName::from_static("oci-chunk-min-length");

/// A blob to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Upload<'f> {
    /// SHA-256 of the bytes.
    pub digest: Digest,
    /// How many there are.
    pub size: u64,
    /// What holds them, from its start on.
    pub file: &'f File,
}

/// An artifact that refers to another one.
#[derive(Clone, Debug)]
pub struct Referrer<'m> {
    /// The manifest it refers to.
    pub subject: Digest,
    /// Its own manifest, JSON.
    pub manifest: &'m [u8],
    /// Media type of that.
    pub media_type: &'static str,
    /// How a list of referrers names it.
    pub descriptor: Value,
}

impl Registry<'_> {
    /// Sends what the registry lacks, and then the manifest under the reference's tag.
    pub(in crate::source) fn push(
        &self,
        blobs: &[Upload<'_>],
        manifest: (&[u8], &'static str),
    ) -> Result<(), Error> {
        for blob in blobs {
            let bar = self.context.progress.start(&blob.digest, blob.size);
            self.push_blob(blob, bar)?;
        }
        let selector = match &self.name.digest {
            Some(digest) => digest.to_string(),
            None => self.name.selector(),
        };
        self.put_manifest(&selector, manifest).map(|_| ())
    }

    /// Sends an artifact that refers to another one, and makes sure that it is found by that: by
    /// the registry's own doing, or else by the tag that stands in for a list of referrers (OCI
    /// distribution specification 1.1, "Referrers Tag Schema").
    pub(in crate::source) fn attach(
        &self,
        blobs: &[Upload<'_>],
        referrer: &Referrer<'_>,
    ) -> Result<(), Error> {
        const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
        const INDEX: &str = "application/vnd.oci.image.index.v1+json";
        for blob in blobs {
            let bar = self.context.progress.start(&blob.digest, blob.size);
            self.push_blob(blob, bar)?;
        }
        let digest = Digest::of(referrer.manifest).to_string();
        let manifest = (referrer.manifest, referrer.media_type);
        if self.put_manifest(&digest, manifest)?.headers().contains_key(SUBJECT) {
            return Ok(());
        }
        let tag = format!("sha256-{}", referrer.subject.hex());
        let mut index = match self.tagged(&tag)? {
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| Error::Malformed {
                what: format!("list of referrers `{tag}` from {}", self.name.host),
                reason: error.to_string(),
            })?,
            None => json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] }),
        };
        if let Some(manifests) = index["manifests"].as_array_mut() {
            manifests.retain(|entry| entry["digest"] != digest.as_str());
            manifests.push(referrer.descriptor.clone());
        }
        self.put_manifest(&tag, (index.to_string().as_bytes(), INDEX)).map(|_| ())
    }

    fn put_manifest(
        &self,
        selector: &str,
        manifest: (&[u8], &'static str),
    ) -> Result<Response, Error> {
        let (bytes, media_type) = manifest;
        let digest = Digest::of(bytes);
        let url = self.url("manifests", selector)?;
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        let body: Arc<[u8]> = bytes.into();
        let response = self.repeat(|| {
            let response = self.exchange(&Method::PUT, &url, &headers, Some(body.clone()))?;
            expect(&url, &Method::PUT, response, StatusCode::CREATED)
        })?;
        let named = response.headers().get(CONTENT_DIGEST).and_then(|v| v.to_str().ok());
        if let Some(found) = named.and_then(|text| text.parse::<Digest>().ok())
            && found != digest
        {
            let origin = self.name.host.clone();
            return Err(Error::DigestMismatch {
                what: "manifest",
                origin,
                expected: digest,
                found,
            });
        }
        Ok(response)
    }

    fn push_blob(&self, blob: &Upload<'_>, mut bar: Box<dyn Bar + '_>) -> Result<(), Error> {
        let url = self.url("blobs", &blob.digest.to_string())?;
        let there = self.repeat(|| {
            let response = self.exchange(&Method::HEAD, &url, &HeaderMap::new(), None)?;
            Ok(response.status().is_success())
        })?;
        if there {
            bar.advance(blob.size);
            bar.finish(Outcome::Cached);
            return Ok(());
        }
        let mut retrier = Retrier::new(self.context, &self.name.host);
        loop {
            match self.upload(blob, &mut *bar) {
                Ok(()) => break,
                // The session may be gone with the connection: begin anew.
                Err(failure) => {
                    retrier.pause(failure)?;
                    bar.restart();
                }
            }
        }
        bar.finish(Outcome::Fetched);
        Ok(())
    }

    fn upload(&self, blob: &Upload<'_>, bar: &mut dyn Bar) -> Result<(), Failure> {
        let start = self.url("blobs", "uploads/")?;
        let response = self.exchange(&Method::POST, &start, &HeaderMap::new(), None)?;
        let response = expect(&start, &Method::POST, response, StatusCode::ACCEPTED)?;
        let least = response.headers().get(MIN_PIECE).and_then(|v| v.to_str().ok());
        let least = least.and_then(|text| text.parse().ok()).unwrap_or(0);
        let piece = PIECE.max(least).min(1 << 30);
        let mut session = location(&start, &response)?;
        let mut done = 0;
        while blob.size - done > piece {
            let (body, end) = (read(blob, done, piece)?, done + piece);
            let mut headers = binary();
            let range = format!("{done}-{}", end - 1);
            // Digits and a dash make a header's value.
            if let Ok(value) = HeaderValue::from_str(&range) {
                headers.insert(header::CONTENT_RANGE, value);
            }
            let response = self.exchange(&Method::PATCH, &session, &headers, Some(body))?;
            let response = expect(&session, &Method::PATCH, response, StatusCode::ACCEPTED)?;
            session = location(&session, &response)?;
            bar.advance(piece);
            done = end;
        }
        let rest = blob.size - done;
        session.query_pairs_mut().append_pair("digest", &blob.digest.to_string());
        let mut headers = binary();
        if done > 0
            && rest > 0
            && let Ok(value) = HeaderValue::from_str(&format!("{done}-{}", blob.size - 1))
        {
            headers.insert(header::CONTENT_RANGE, value);
        }
        let body = read(blob, done, rest)?;
        let response = self.exchange(&Method::PUT, &session, &headers, Some(body))?;
        expect(&session, &Method::PUT, response, StatusCode::CREATED)?;
        bar.advance(rest);
        Ok(())
    }

    fn exchange(
        &self,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
        body: Option<Arc<[u8]>>,
    ) -> Result<Response, Failure> {
        let mut request = Request::get(url.clone());
        request.method = method.clone();
        request.headers = headers.clone();
        request.body = body;
        self.attempt_with(&request)
    }

    fn repeat<T>(&self, mut attempt: impl FnMut() -> Result<T, Failure>) -> Result<T, Error> {
        let mut retrier = Retrier::new(self.context, &self.name.host);
        loop {
            match attempt() {
                Ok(value) => return Ok(value),
                Err(failure) => retrier.pause(failure)?,
            }
        }
    }
}

fn binary() -> HeaderMap {
    let mut headers = HeaderMap::new();
    let value = HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, value);
    headers
}

fn read(blob: &Upload<'_>, at: u64, len: u64) -> Result<Arc<[u8]>, Failure> {
    // At most a piece, which fits into memory.
    let mut bytes = vec![0; len as usize];
    blob.file.read_exact_at(&mut bytes, at).map_err(|error| {
        let what = std::path::Path::new("a temporary file");
        Failure { error: Error::io("read", what, error), retry: Retry::Never }
    })?;
    Ok(bytes.into())
}

fn expect(
    url: &Url,
    method: &Method,
    response: Response,
    status: StatusCode,
) -> Result<Response, Failure> {
    if response.status() == status {
        return Ok(response);
    }
    // A session that is forgotten or out of step can be begun anew.
    let lost =
        matches!(response.status(), StatusCode::NOT_FOUND | StatusCode::RANGE_NOT_SATISFIABLE);
    let retry = if lost && *method != Method::POST { Retry::Soon } else { Retry::Never };
    Err(Failure { error: status_error(url, method, response), retry })
}

/// Where an upload goes on. It stays at the registry: what is sent may not be sent elsewhere.
fn location(url: &Url, response: &Response) -> Result<Url, Failure> {
    let value = response.headers().get(header::LOCATION).and_then(|v| v.to_str().ok());
    let target = value.and_then(|text| url.join(text).ok());
    let target = target.filter(|target| url.scheme() != "https" || target.scheme() == "https");
    target.ok_or_else(|| transfer(url, "it does not say where to send the blob".into()).into())
}
