//! What a registry holds: its repositories and their tags (OCI distribution specification, "Content
//! Discovery"; the catalogue is Docker's).

use reqwest::header::{self, HeaderMap};
use reqwest::{Method, Url};
use serde::Deserialize;

use super::retry::Retrier;
use super::{MAX_DOCUMENT, Registry, http, read_all, status_error, transfer};
use crate::source::assemble::Context;
use crate::source::error::Error;
use crate::source::reference::Name;

/// Most repositories, and most tags of one of them.
const MAX_NAMES: usize = 10_000;
/// Most pages of one list: a registry could go on with empty ones for ever.
const MAX_PAGES: usize = 1_000;

#[derive(Deserialize)]
struct Page {
    #[serde(default, alias = "repositories", alias = "tags")]
    names: Option<Vec<String>>,
}

/// `HOST/REPOSITORY:TAG` of all that `host` has below `prefix`.
pub(in crate::source) fn references(
    context: &Context<'_>,
    host: &str,
    prefix: &str,
) -> Result<Vec<String>, Error> {
    let mut repositories = repositories(context, host)?;
    repositories.retain(|repository| below(repository, prefix));
    let mut found = Vec::new();
    for repository in repositories {
        let tags = tags(context, host, &repository)?;
        found.extend(tags.iter().map(|tag| format!("{host}/{repository}:{tag}")));
        if found.len() > MAX_NAMES {
            return Err(too_many(host));
        }
    }
    Ok(found)
}

/// The names of all repositories.
pub(in crate::source) fn repositories(
    context: &Context<'_>,
    host: &str,
) -> Result<Vec<String>, Error> {
    // The list belongs to no repository; a name is needed for the host alone.
    let any = name(host, "catalog")?;
    let registry = Registry::new(context, &any, false);
    registry.need_network(&format!("the catalogue of `{host}`"))?;
    registry.names("_catalog")
}

/// The tags of a repository, sorted.
pub(in crate::source) fn tags(
    context: &Context<'_>,
    host: &str,
    repository: &str,
) -> Result<Vec<String>, Error> {
    let name = name(host, repository)?;
    let registry = Registry::new(context, &name, false);
    let mut tags = match registry.names(&format!("{repository}/tags/list")) {
        // Deleted repositories stay in the catalogue.
        Err(Error::Status { status: 404, .. }) => return Ok(Vec::new()),
        tags => tags?,
    };
    // Registries list them as their storage does.
    tags.sort_unstable();
    Ok(tags)
}

fn below(repository: &str, prefix: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    prefix.is_empty()
        || repository == prefix
        || repository.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))
}

fn name(host: &str, repository: &str) -> Result<Name, Error> {
    let text = format!("{host}/{repository}");
    text.parse().map_err(|reason| Error::Reference { text, reason })
}

fn too_many(host: &str) -> Error {
    Error::TooLarge {
        what: format!("number of images in the catalogue of `{host}`"),
        size: MAX_NAMES as u64 + 1,
        limit: MAX_NAMES as u64,
    }
}

impl Registry<'_> {
    /// All pages of a list.
    fn names(&self, path: &str) -> Result<Vec<String>, Error> {
        let base = self.base()?;
        let malformed = |e| transfer(base, format!("the address is malformed: {e}"));
        let mut next = Some(base.join(&format!("{path}?n=1000")).map_err(malformed)?);
        let mut names = Vec::new();
        for _ in 0..MAX_PAGES {
            let Some(url) = next.take() else { return Ok(names) };
            let (bytes, link) = self.page(&url)?;
            let page: Page = serde_json::from_slice(&bytes)
                .map_err(|e| transfer(&url, format!("its list is malformed: {e}")))?;
            names.extend(page.names.unwrap_or_default());
            if names.len() > MAX_NAMES {
                return Err(too_many(&self.name.host));
            }
            next = link;
        }
        Err(too_many(&self.name.host))
    }

    fn page(&self, url: &Url) -> Result<(Vec<u8>, Option<Url>), Error> {
        let mut retrier = Retrier::new(self.context, &self.name.host);
        loop {
            let answer = self.attempt(&Method::GET, url, &HeaderMap::new()).and_then(|response| {
                if !response.status().is_success() {
                    return Err(status_error(url, &Method::GET, response).into());
                }
                let link = response.headers().get(header::LINK);
                let link = link.and_then(|value| next_page(url, value.to_str().ok()?));
                let what = || format!("list {}", url.path());
                Ok((read_all(url, response, MAX_DOCUMENT, what)?, link))
            });
            match answer {
                Ok(page) => return Ok(page),
                Err(failure) => retrier.pause(failure)?,
            }
        }
    }
}

/// The target of `<...>; rel="next"` (RFC 8288), on the same host only.
fn next_page(url: &Url, link: &str) -> Option<Url> {
    let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    if !parameters.replace([' ', '"'], "").contains("rel=next") {
        return None;
    }
    let next = url.join(target).ok()?;
    (http::authority(&next) == http::authority(url) && next.scheme() == url.scheme())
        .then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_on_one_host() {
        let url = Url::parse("https://r.example/v2/_catalog?n=2").unwrap();
        let next = |link: &str| next_page(&url, link).map(|url| url.to_string());
        assert_eq!(
            next("</v2/_catalog?last=b&n=2>; rel=\"next\"").as_deref(),
            Some("https://r.example/v2/_catalog?last=b&n=2")
        );
        assert_eq!(next("<https://evil.example/x>; rel=next"), None);
        assert_eq!(next("<http://r.example/x>; rel=next"), None);
        assert_eq!(next("</x>; rel=prev"), None);
        assert_eq!(next("garbage"), None);
    }

    #[test]
    fn prefixes_end_at_a_slash() {
        assert!(below("a/b", "") && below("a/b", "a") && below("a/b", "a/b") && below("a/b", "a/"));
        assert!(!below("ab/c", "a") && !below("a", "a/b"));
    }
}
