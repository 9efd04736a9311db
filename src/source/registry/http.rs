//! HTTP with one client per host, redirects followed by hand, and failures sorted.
//!
//! Redirects are followed here rather than in reqwest, because each host has its own trust (a
//! private authority vouches for its registry alone), because `Authorization` may not leave the
//! origin it is meant for, and because HTTPS may not fall back to HTTP.

use std::collections::HashMap;
use std::error::Error as _;
use std::io::Read as _;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use reqwest::blocking::{Client, Response};
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode, Url};

use super::retry::{Failure, Retry, retry_after};
use super::tls;
use crate::source::error::Error;
use crate::source::options::{ForbiddenHost, Options, Reach};
use crate::source::reference::is_loopback;

const MAX_REDIRECTS: usize = 10;
/// As much of an error answer as is read.
const MAX_MESSAGE: u64 = 64 * 1024;

/// A request.
#[derive(Clone)]
pub(super) struct Request {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub authorization: Option<HeaderValue>,
    pub form: Option<String>,
    /// What is sent, of the type that the headers name.
    pub body: Option<Arc<[u8]>>,
}

impl Request {
    pub(super) fn get(url: Url) -> Self {
        let (headers, authorization, form, body) = (HeaderMap::new(), None, None, None);
        Self { method: Method::GET, url, headers, authorization, form, body }
    }
}

/// Connections to all hosts that a resolution touches.
pub(super) struct Http<'a> {
    options: &'a Options,
    /// A host that nobody need vouch for.
    trusted: Option<String>,
    clients: Mutex<HashMap<String, Client>>,
}

impl<'a> Http<'a> {
    pub(super) fn new(options: &'a Options, trusted: Option<String>) -> Self {
        Self { options, trusted, clients: Mutex::default() }
    }

    /// Sends a request, following redirects. Any status but those worth repeating is an answer.
    pub(super) fn send(&self, request: Request) -> Result<Response, Failure> {
        let Request { mut method, mut url, headers, mut authorization, mut form, body } = request;
        for _ in 0..=MAX_REDIRECTS {
            let mut builder =
                self.client(&url)?.request(method.clone(), url.clone()).headers(headers.clone());
            if let Some(value) = &authorization {
                builder = builder.header(header::AUTHORIZATION, value.clone());
            }
            if let Some(form) = &form {
                builder = builder
                    .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(form.clone());
            }
            if let Some(body) = &body {
                builder = builder.body(body.to_vec());
            }
            let response = builder.send().map_err(|e| failure(&url, e))?;
            let Some(target) = redirect(&url, &response)? else {
                return sort(&url, &method, response);
            };
            if target.origin() != url.origin() {
                authorization = None;
                inward(&url, &target, &addresses)?;
            }
            if body.is_some() && !matches!(response.status().as_u16(), 307 | 308) {
                return Err(transfer(&url, "a redirect that would drop what is sent".into()).into());
            }
            if form.is_some() && response.status() != StatusCode::PERMANENT_REDIRECT {
                // As browsers do; a login is not sent on to elsewhere.
                (method, form) = (Method::GET, None);
            }
            url = target;
        }
        Err(transfer(&url, format!("more than {MAX_REDIRECTS} redirects")).into())
    }

    fn client(&self, url: &Url) -> Result<Client, Error> {
        let host = authority(url);
        let key = format!("{}://{host}", url.scheme());
        // The map is never left half-changed, so a poisoned lock is as good as any.
        let mut clients = self.clients.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let mut builder = Client::builder()
            .user_agent(concat!("dock2uni/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .http1_only()
            .connect_timeout(self.options.connect_timeout)
            .timeout(self.options.read_timeout)
            .pool_idle_timeout(Duration::from_secs(30));
        let reach = self.options.reach.as_ref();
        if is_loopback(&host) || reach.is_some_and(|reach| !reach.proxy()) {
            builder = builder.no_proxy();
        }
        if let Some(reach) = reach {
            check(url, &**reach)?;
            builder = builder.dns_resolver(Arc::new(Resolver(reach.resolver())));
        }
        let config = if url.scheme() == "https" && self.trusted.as_ref() == Some(&host) {
            tls::unverified()?
        } else if url.scheme() == "https" {
            tls::config(self.options, &host)?
        } else {
            tls::unused()?
        };
        builder = builder.tls_backend_preconfigured(config);
        let client = builder
            .build()
            .map_err(|e| Error::Transfer { host, reason: format!("no HTTP client: {e}") })?;
        clients.insert(key, client.clone());
        Ok(client)
    }
}

/// A resolver behind a pointer, as reqwest takes it.
struct Resolver(Arc<dyn reqwest::dns::Resolve>);

impl reqwest::dns::Resolve for Resolver {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        self.0.resolve(name)
    }
}

/// Refuses a URL whose host is an address that may not be connected to: no resolver would see it.
fn check(url: &Url, reach: &dyn Reach) -> Result<(), Error> {
    let host = url.host_str().unwrap_or_default();
    let literal = host.trim_start_matches('[').trim_end_matches(']').parse();
    match literal {
        Ok(address) if !reach.permits(host, address) => Err(Error::Forbidden { host: host.into() }),
        _ => Ok(()),
    }
}

/// `host[:port]` of a URL, the port only if it isn't the scheme's own.
pub(super) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.into(), |port| format!("{host}:{port}"))
}

/// The address a response redirects to.
fn redirect(url: &Url, response: &Response) -> Result<Option<Url>, Error> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let location = response.headers().get(header::LOCATION).and_then(|v| v.to_str().ok());
    let Some(location) = location else {
        return Err(transfer(url, "a redirect without an address".into()));
    };
    follow(url, location).map(Some)
}

/// Where a redirect at `url` to `location` leads, if it may be followed.
fn follow(url: &Url, location: &str) -> Result<Url, Error> {
    let target = url
        .join(location)
        .map_err(|e| transfer(url, format!("a redirect to a malformed address: {e}")))?;
    match (url.scheme(), target.scheme()) {
        (_, "https") | ("http", "http") if target.has_host() => Ok(target),
        ("https", "http") => {
            let to = authority(&target);
            Err(transfer(url, format!("a redirect from HTTPS to plain HTTP ({to})")))
        }
        _ => Err(transfer(url, format!("a redirect to `{}:`", target.scheme()))),
    }
}

/// Refuses a redirect by which a stranger's registry would have us ask a host of this machine's own
/// networks. Registries within them may send us to others there.
fn inward(from: &Url, to: &Url, addresses: &dyn Fn(&str) -> Vec<IpAddr>) -> Result<(), Error> {
    let internal = |url: &Url| {
        let host = url.host_str().unwrap_or_default();
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        literal.map_or_else(|_| addresses(host), |address| vec![address]).iter().any(is_internal)
    };
    if internal(to) && !internal(from) {
        let to = authority(to);
        return Err(transfer(from, format!("a redirect to an internal address ({to})")));
    }
    Ok(())
}

/// What a name stands for; nothing if that can't be told here, as behind a proxy.
fn addresses(host: &str) -> Vec<IpAddr> {
    use std::net::ToSocketAddrs as _;
    (host, 0).to_socket_addrs().map(|found| found.map(|a| a.ip()).collect()).unwrap_or_default()
}

/// Addresses of this machine and of networks that are not the internet's (RFC 1918, 3927, 4193, 4291,
/// 6598, 6890).
fn is_internal(address: &IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_loopback()
                || v4.is_private()
                || v4.is_link_local()
                || a == 0
                || (a == 100 && b & 0xc0 == 64)
        }
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_unique_local()
                || v6.is_unicast_link_local()
        }
    }
}

/// Turns statuses that pass with time into failures.
fn sort(url: &Url, method: &Method, response: Response) -> Result<Response, Failure> {
    let status = response.status();
    if !matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502 | 503 | 504) {
        return Ok(response);
    }
    let wait = response
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| retry_after(v, SystemTime::now()));
    let retry = wait.map_or(Retry::Soon, Retry::After);
    Err(Failure { error: status_error(url, method, response), retry })
}

/// An error that quotes the answer.
pub(super) fn status_error(url: &Url, method: &Method, response: Response) -> Error {
    Error::Status {
        host: authority(url),
        status: response.status().as_u16(),
        request: format!("{method} {}", url.path()),
        message: ErrorBody::read(response).message(),
    }
}

/// The body of an error answer (OCI distribution specification, "Error Codes").
#[derive(Default, serde::Deserialize)]
pub(super) struct ErrorBody {
    #[serde(default)]
    errors: Vec<ErrorItem>,
}

#[derive(serde::Deserialize)]
struct ErrorItem {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl ErrorBody {
    /// Reads what there is; an answer without such a body gives an empty one.
    pub(super) fn read(response: Response) -> Self {
        let mut bytes = Vec::new();
        // What can't be read can't be quoted; the status says enough.
        let _ = response.take(MAX_MESSAGE).read_to_end(&mut bytes);
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    pub(super) fn has(&self, code: &str) -> bool {
        self.errors.iter().any(|e| e.code == code)
    }

    /// The first message on one line, cut short, without control characters.
    pub(super) fn message(&self) -> String {
        let Some(first) = self.errors.first() else { return String::new() };
        let text = if first.message.is_empty() { &first.code } else { &first.message };
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
    }
}

pub(super) fn transfer(url: &Url, reason: String) -> Error {
    Error::Transfer { host: authority(url), reason }
}

/// Sorts a failed exchange: untrusted, unreachable, or broken off.
pub(super) fn failure(url: &Url, error: reqwest::Error) -> Failure {
    let host = authority(url);
    let error = error.without_url();
    if let Some(reason) = distrust(&error) {
        return Failure { error: Error::Tls { host, reason }, retry: Retry::Never };
    }
    if let Some(host) = forbidden(&error) {
        return Failure { error: Error::Forbidden { host }, retry: Retry::Never };
    }
    let reason = if error.is_timeout() { "timed out".into() } else { innermost(&error) };
    let error = if error.is_connect() {
        Error::Unreachable { host, reason }
    } else {
        Error::Transfer { host, reason }
    };
    Failure { error, retry: Retry::Soon }
}

/// The cause furthest down, which is the one that tells people something.
pub(in crate::source) fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// The host that may not be connected to, if that is what failed.
fn forbidden(error: &reqwest::Error) -> Option<String> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(ForbiddenHost(host)) = error.downcast_ref() {
            return Some(host.clone());
        }
        cause = error.source();
    }
    None
}

/// Why the peer isn't trusted, if that is what failed.
fn distrust(error: &reqwest::Error) -> Option<String> {
    let mut cause = error.source();
    while let Some(error) = cause {
        match error.downcast_ref::<rustls::Error>() {
            Some(
                e @ (rustls::Error::InvalidCertificate(_)
                | rustls::Error::NoCertificatesPresented
                | rustls::Error::AlertReceived(_)),
            ) => return Some(e.to_string()),
            Some(e @ rustls::Error::InvalidMessage(_)) => {
                return Some(format!("it doesn't speak TLS ({e})"));
            }
            _ => {}
        }
        // An I/O error's source is that of the error it wraps, not the wrapped error.
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(|e| e.get_ref());
        cause = wrapped.map(|e| e as &dyn std::error::Error).or_else(|| error.source());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_never_lead_from_https_to_http() {
        let url = |text: &str| Url::parse(text).unwrap();
        let from = url("https://r.io:5000/v2/a");
        let to = |location: &str| follow(&from, location).map(String::from);
        assert_eq!(to("/b?c").unwrap(), "https://r.io:5000/b?c");
        assert_eq!(to("https://s3.io/x").unwrap(), "https://s3.io/x");
        assert_eq!(to("//s3.io/x").unwrap(), "https://s3.io/x");
        for location in ["http://s3.io/x", "http://r.io:5000/", "ftp://s3.io/", "data:,x"] {
            assert!(to(location).is_err(), "{location}");
        }
        assert!(follow(&url("http://127.0.0.1/"), "http://127.0.0.1:1/").is_ok());
    }

    #[test]
    fn strangers_redirect_nobody_inward() {
        let names = |host: &str| -> Vec<IpAddr> {
            match host {
                "public.io" | "cdn.io" => vec!["203.0.113.7".parse().unwrap()],
                "rebound.io" => vec!["203.0.113.7".parse().unwrap(), "10.0.0.1".parse().unwrap()],
                "registry.lan" => vec!["192.168.1.5".parse().unwrap()],
                "localhost" => vec!["::1".parse().unwrap()],
                _ => Vec::new(),
            }
        };
        let url = |text: &str| Url::parse(text).unwrap();
        let may = |from: &str, to: &str| inward(&url(from), &url(to), &names).is_ok();
        assert!(may("https://public.io/", "https://cdn.io/x"));
        assert!(may("https://public.io/", "https://unknown.io/x"));
        assert!(may("https://registry.lan/", "https://10.1.2.3/x"));
        for to in [
            "https://rebound.io/",
            "https://registry.lan/",
            "https://localhost:8443/",
            "http://169.254.169.254/latest/",
            "https://127.0.0.1/",
            "https://[::1]/",
            "https://[::ffff:10.0.0.1]/",
            "https://[fd00::1]/",
            "https://100.100.0.1/",
            "https://0.0.0.0/",
        ] {
            assert!(!may("https://public.io/", to), "{to}");
        }
    }

    #[test]
    fn messages_of_registries_are_made_fit_to_print() {
        let body = |json: &str| serde_json::from_str::<ErrorBody>(json).unwrap_or_default();
        let text = format!(r#"{{"errors":[{{"message":"a\u001b[31m{}"}}]}}"#, "x".repeat(500));
        assert_eq!(body(&text).message(), format!("a [31m{}", "x".repeat(194)));
        assert_eq!(body(r#"{"errors":[{"code":"DENIED"}]}"#).message(), "DENIED");
        assert_eq!(body("<html>").message(), "");
    }
}
