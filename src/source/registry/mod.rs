//! Registries: the pull side of the OCI distribution specification.
//!
//! Our own client on reqwest: oci-client has neither `Retry-After` nor resumption into a file
//! nor per-host authorities, and leaves redirects to reqwest.

mod attached;
mod auth;
pub(super) mod catalog;
mod credentials;
mod download;
mod http;
mod push;
mod range;
mod retry;
mod tls;

use std::io::{self, Read as _};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;

use reqwest::blocking::Response;
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode, Url};

pub use self::attached::{Attached, Signature};
use self::auth::Authorizer;
pub(super) use self::http::innermost;
use self::http::{ErrorBody, Http, Request, status_error, transfer};
pub use self::push::{Referrer, Upload};
use self::retry::{Failure, Retrier, Retry};
pub(crate) use self::tls::unused as tls_for_engines;
use super::assemble::{Context, Document, Origin, Root, in_parallel, verify};
use super::digest::Digest;
use super::error::Error;
use super::manifest::{ACCEPT, Blob, MAX_DOCUMENT};
use super::options::Options;
use super::reference::Name;
use super::store;

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// A GET beside any registry, see [`source::get`](super::get).
pub(super) fn get(options: &Options, address: &str) -> Result<Response, Error> {
    if options.offline {
        return Err(Error::NotCached { what: format!("`{address}`") });
    }
    let malformed = |error: <Url as std::str::FromStr>::Err| Error::Malformed {
        what: format!("`{address}`"),
        reason: format!("it is no address: {error}"),
    };
    let url = Url::parse(address).map_err(malformed)?;
    let http = Http::new(options, None);
    let mut failed = 0;
    loop {
        match http.send(Request::get(url.clone())) {
            Ok(response) if response.status() == StatusCode::OK => return Ok(response),
            Ok(response) => return Err(status_error(&url, &Method::GET, response)),
            Err(failure) if failure.retry == Retry::Never || failed >= options.retries.min(2) => {
                return Err(failure.error);
            }
            Err(_) => {
                failed += 1;
                std::thread::sleep(options.retry_delay * failed);
            }
        }
    }
}

/// One repository of a registry.
pub(super) struct Registry<'a> {
    context: &'a Context<'a>,
    name: &'a Name,
    http: Http<'a>,
    auth: Authorizer<'a>,
    insecure: bool,
    /// Unknown until something must be fetched.
    base: std::sync::OnceLock<Url>,
}

impl<'a> Registry<'a> {
    /// `insecure` means that nobody need vouch for the registry, and that plain HTTP will do.
    pub(super) fn new(context: &'a Context<'a>, name: &'a Name, insecure: bool) -> Self {
        let trusted = insecure.then(|| name.endpoint().to_owned());
        let http = Http::new(context.options, trusted);
        let auth = Authorizer::new(context.options, name);
        Self { context, name, http, auth, insecure, base: std::sync::OnceLock::new() }
    }

    /// The manifest or index that the reference names. One by digest that the store has needs no
    /// request; one by tag that has not moved needs a HEAD.
    pub(super) fn root(&self) -> Result<Root, Error> {
        let store = self.context.store;
        if let Some(digest) = self.name.digest {
            if let Some(bytes) = store.read(&digest, MAX_DOCUMENT)? {
                return Ok(Root { digest, bytes, media_type: None });
            }
            self.need_network(&format!("`{}`", self.name))?;
            let root = self.fetch_manifest(&digest.to_string(), Some(digest))?;
            self.context.keep(Document::Blob(digest, root.bytes.clone()))?;
            return Ok(root);
        }
        let reference = self.name.to_string();
        let mut known = None;
        if let Some(digest) = store.reference(&reference)
            && let Some(bytes) = store.read(&digest, MAX_DOCUMENT)?
        {
            known = Some(Root { digest, bytes, media_type: None });
        }
        if self.context.options.offline {
            let what = format!("`{reference}`");
            return known.ok_or(Error::NotCached { what });
        }
        let selector = self.name.selector();
        if let Some(root) = known
            && self.current_digest(&selector)? == Some(root.digest)
        {
            return Ok(root);
        }
        let root = self.fetch_manifest(&selector, None)?;
        self.context.keep(Document::Blob(root.digest, root.bytes.clone()))?;
        self.context.keep(Document::Reference(reference, root.digest))?;
        Ok(root)
    }

    fn need_network(&self, what: &str) -> Result<(), Error> {
        if self.context.options.offline {
            return Err(Error::NotCached { what: what.into() });
        }
        Ok(())
    }

    /// The address of the API, found out once.
    fn base(&self) -> Result<&Url, Error> {
        if let Some(base) = self.base.get() {
            return Ok(base);
        }
        let endpoint = self.name.endpoint();
        let options = self.context.options;
        let listed = options.insecure_registries.contains(&self.name.host);
        let http = if options.plain_http || listed {
            true
        } else if self.name.is_loopback() {
            self.speaks_plain_http(endpoint)?
        } else if self.insecure {
            !self.speaks_tls(endpoint)?
        } else {
            false
        };
        let scheme = if http { "http" } else { "https" };
        let base = parse_url(&format!("{scheme}://{endpoint}/v2/"), endpoint)?;
        Ok(self.base.get_or_init(|| base))
    }

    /// Asks a registry on this machine without credentials. A TLS server answers plain HTTP with
    /// status 400 or not in HTTP.
    fn speaks_plain_http(&self, endpoint: &str) -> Result<bool, Error> {
        let url = parse_url(&format!("http://{endpoint}/v2/"), endpoint)?;
        let mut retrier = Retrier::new(self.context, endpoint);
        loop {
            match self.http.send(Request::get(url.clone())) {
                Ok(response) => return Ok(response.status() != StatusCode::BAD_REQUEST),
                Err(Failure { error: Error::Transfer { .. }, .. }) => return Ok(false),
                // It speaks HTTP, if only to complain.
                Err(Failure { error: Error::Status { .. }, .. }) => return Ok(true),
                Err(failure) => retrier.pause(failure)?,
            }
        }
    }

    /// Whether a registry that needs no trust answers over HTTPS, with whatever certificate.
    fn speaks_tls(&self, endpoint: &str) -> Result<bool, Error> {
        let url = parse_url(&format!("https://{endpoint}/v2/"), endpoint)?;
        match self.http.send(Request::get(url)) {
            Ok(_) | Err(Failure { error: Error::Status { .. }, .. }) => Ok(true),
            Err(_) => Ok(false),
        }
    }

    fn url(&self, kind: &str, selector: &str) -> Result<Url, Error> {
        let base = self.base()?;
        base.join(&format!("{}/{kind}/{selector}", self.name.repository))
            .map_err(|e| transfer(base, format!("the address is malformed: {e}")))
    }

    /// Sends one request without a body, answering challenges.
    fn attempt(
        &self,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
    ) -> Result<Response, Failure> {
        let mut request = Request::get(url.clone());
        request.method = method.clone();
        request.headers = headers.clone();
        self.attempt_with(&request)
    }

    /// Sends one request, answering challenges.
    fn attempt_with(&self, request: &Request) -> Result<Response, Failure> {
        let url = &request.url;
        let mut renewals = 0;
        loop {
            let authorization = self.auth.current();
            let mut request = request.clone();
            request.authorization = authorization.clone();
            let response = self.http.send(request)?;
            match response.status() {
                // A token may have expired between two requests, so one renewal isn't enough to
                // say that access is denied; two are.
                StatusCode::UNAUTHORIZED
                    if renewals < 2 && response.url().origin() == url.origin() =>
                {
                    renewals += 1;
                    let (http, used) = (&self.http, authorization.as_ref());
                    self.auth.renew(http, url, response.headers(), used)?;
                    if renewals == 2 && self.auth.current() == authorization {
                        // The same password again would be refused again.
                        return Err(self.denied(response).into());
                    }
                }
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    return Err(self.denied(response).into());
                }
                _ => return Ok(response),
            }
        }
    }

    fn denied(&self, response: Response) -> Error {
        let (host, image) = (self.name.host.clone(), self.name.to_string());
        let status = response.status();
        let mut message = ErrorBody::read(response).message();
        if message.is_empty() {
            message = status.to_string();
        }
        match self.auth.user() {
            None if status == StatusCode::UNAUTHORIZED => Error::CredentialsMissing { host, image },
            user => {
                let user = user.unwrap_or_else(|| "anonymous users".into());
                Error::AccessDenied { host, image, user, message }
            }
        }
    }

    /// The digest that a tag has now, if the registry tells.
    pub(super) fn current_digest(&self, selector: &str) -> Result<Option<Digest>, Error> {
        let url = self.url("manifests", selector)?;
        let mut retrier = Retrier::new(self.context, &self.name.host);
        loop {
            match self.attempt(&Method::HEAD, &url, &accept()) {
                // Any error is told better by the GET that follows.
                Ok(response) => return Ok(content_digest(&response)),
                Err(failure) => retrier.pause(failure)?,
            }
        }
    }

    fn fetch_manifest(&self, selector: &str, expected: Option<Digest>) -> Result<Root, Error> {
        let url = self.url("manifests", selector)?;
        let mut retrier = Retrier::new(self.context, &self.name.host);
        loop {
            match self.attempt(&Method::GET, &url, &accept()).and_then(|response| {
                if !response.status().is_success() {
                    return Err(self.not_found(&url, response).into());
                }
                let named = expected.or_else(|| content_digest(&response));
                let media_type = response.headers().get(header::CONTENT_TYPE);
                let media_type = media_type.and_then(|v| v.to_str().ok()).map(|v| {
                    // Parameters such as `charset` aren't part of the type.
                    v.split(';').next().unwrap_or(v).trim().to_string()
                });
                let what = || format!("manifest of `{}`", self.name);
                let bytes = read_all(&url, response, MAX_DOCUMENT, what)?;
                Ok((named, media_type, bytes))
            }) {
                Ok((named, media_type, bytes)) => {
                    let digest = Digest::of(&bytes);
                    if let Some(expected) = named.filter(|named| *named != digest) {
                        return Err(Error::DigestMismatch {
                            what: "manifest",
                            origin: self.name(),
                            expected,
                            found: digest,
                        });
                    }
                    return Ok(Root { digest, bytes, media_type });
                }
                Err(failure) => retrier.pause(failure)?,
            }
        }
    }

    fn not_found(&self, url: &Url, response: Response) -> Error {
        if response.status() != StatusCode::NOT_FOUND {
            return status_error(url, &Method::GET, response);
        }
        let image = self.name.to_string();
        if ErrorBody::read(response).has("NAME_UNKNOWN") {
            return Error::RepositoryUnknown { image };
        }
        Error::TagUnknown { image }
    }

    /// A small blob: from the store, or fetched into it.
    fn document(&self, what: &'static str, kind: &str, blob: &Blob) -> Result<Vec<u8>, Error> {
        let store = self.context.store;
        if let Some(bytes) = store.read(&blob.digest, MAX_DOCUMENT)? {
            verify(what, &self.name(), blob, &bytes)?;
            return Ok(bytes);
        }
        self.need_network(&format!("{what} {}", blob.digest))?;
        let url = self.url(kind, &blob.digest.to_string())?;
        let mut retrier = Retrier::new(self.context, &self.name.host);
        let bytes = loop {
            match self.attempt(&Method::GET, &url, &accept()).and_then(|response| {
                self.check_blob_status(&url, &blob.digest, &response)?;
                let name = || format!("{what} {} from {}", blob.digest, self.name());
                read_all(&url, response, MAX_DOCUMENT, name)
            }) {
                Ok(bytes) => break bytes,
                Err(failure) => retrier.pause(failure)?,
            }
        };
        verify(what, &self.name(), blob, &bytes)?;
        self.context.keep(Document::Blob(blob.digest, bytes.clone()))?;
        Ok(bytes)
    }

    fn check_blob_status(
        &self,
        url: &Url,
        digest: &Digest,
        response: &Response,
    ) -> Result<(), Error> {
        match response.status() {
            status if status.is_success() => Ok(()),
            StatusCode::NOT_FOUND => {
                Err(Error::BlobUnknown { origin: self.name(), digest: *digest })
            }
            status => Err(Error::Status {
                host: http::authority(url),
                status: status.as_u16(),
                request: format!("GET {}", url.path()),
                message: String::new(),
            }),
        }
    }
}

impl Origin for Registry<'_> {
    fn name(&self) -> String {
        self.name.host.clone()
    }

    fn manifest(&self, blob: &Blob) -> Result<Vec<u8>, Error> {
        self.document("manifest", "manifests", blob)
    }

    fn config(&self, blob: &Blob) -> Result<Vec<u8>, Error> {
        self.document("configuration", "blobs", blob)
    }

    fn layers(&self, blobs: &[Blob]) -> Result<Vec<PathBuf>, Error> {
        let (done, queue) = mpsc::channel();
        thread::scope(|scope| {
            let publisher = scope.spawn(move || {
                let published = store::publish(&queue);
                if published.is_err() {
                    self.context.cancelled.store(true, Ordering::Relaxed);
                }
                published
            });
            let paths = in_parallel(self.context, blobs, |blob| self.layer(blob, &done));
            drop(done);
            // What failed first made the others stop.
            match publisher.join().unwrap_or(Err(Error::Cancelled)) {
                Ok(()) => paths,
                Err(error) => match paths {
                    Ok(_) | Err(Error::Cancelled) => Err(error),
                    Err(first) => Err(first),
                },
            }
        })
    }
}

fn parse_url(text: &str, host: &str) -> Result<Url, Error> {
    Url::parse(text).map_err(|e| Error::Transfer {
        host: host.into(),
        reason: format!("the address is malformed: {e}"),
    })
}

fn accept() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static(ACCEPT));
    headers
}

fn content_digest(response: &Response) -> Option<Digest> {
    if !response.status().is_success() {
        return None;
    }
    response.headers().get(CONTENT_DIGEST)?.to_str().ok()?.parse().ok()
}

/// Reads a whole answer of at most `limit` bytes.
fn read_all(
    url: &Url,
    response: Response,
    limit: u64,
    what: impl Fn() -> String,
) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = response.take(limit + 1).read_to_end(&mut bytes);
    let size = read.map_err(|e| read_failure(url, e))? as u64;
    if size > limit {
        return Err(Error::TooLarge { what: what(), size, limit }.into());
    }
    Ok(bytes)
}

/// A body that broke off.
fn read_failure(url: &Url, error: io::Error) -> Failure {
    match error.downcast::<reqwest::Error>() {
        Ok(error) => http::failure(url, error),
        Err(error) => Failure { error: transfer(url, error.to_string()), retry: Retry::Soon },
    }
}
