//! The registry's challenges and our answers: Basic (RFC 7617) and the token flow of the
//! distribution project ("Token Authentication Specification").

use std::collections::HashMap;
use std::io::Read as _;
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;

use super::credentials::{self, Credential};
use super::http::{Http, Request, authority, status_error};
use super::retry::Failure;
use crate::source::error::Error;
use crate::source::options::Options;
use crate::source::reference::Name;

/// Largest token answer that is accepted.
const MAX_TOKEN: u64 = 1 << 20;

/// The authorization for one repository, shared by all its requests.
pub(super) struct Authorizer<'a> {
    options: &'a Options,
    name: &'a Name,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    header: Option<HeaderValue>,
    user: Option<String>,
}

/// One challenge of a `WWW-Authenticate` header.
#[derive(Debug, PartialEq, Eq)]
struct Challenge {
    scheme: String,
    params: HashMap<String, String>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

impl<'a> Authorizer<'a> {
    pub(super) fn new(options: &'a Options, name: &'a Name) -> Self {
        Self { options, name, state: Mutex::default() }
    }

    /// What to send now.
    pub(super) fn current(&self) -> Option<HeaderValue> {
        self.lock().header.clone()
    }

    /// Who is asking, for messages.
    pub(super) fn user(&self) -> Option<String> {
        self.lock().user.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // The state is replaced as a whole, so a poisoned lock is as good as any.
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Answers a 401. `used` is what the refused request carried; if another thread has
    /// something newer already, that is tried first.
    pub(super) fn renew(
        &self,
        http: &Http<'_>,
        url: &Url,
        headers: &HeaderMap,
        used: Option<&HeaderValue>,
    ) -> Result<(), Failure> {
        let mut state = self.lock();
        if state.header.as_ref() != used {
            return Ok(());
        }
        let texts = headers.get_all(header::WWW_AUTHENTICATE).iter();
        let challenges: Vec<_> =
            texts.filter_map(|v| v.to_str().ok()).flat_map(parse_challenges).collect();
        let by_scheme = |scheme: &str| challenges.iter().find(|c| c.scheme == scheme);
        let credential = credentials::find(self.options, &self.name.host, &self.name.repository)?;
        let missing = || Error::CredentialsMissing {
            host: self.name.host.clone(),
            image: self.name.to_string(),
        };
        state.user = credential.as_ref().map(Credential::user);
        let value = match (by_scheme("bearer"), by_scheme("basic"), &credential) {
            (Some(_), _, Some(Credential::Registry(token))) => format!("Bearer {token}"),
            (Some(challenge), _, _) => {
                let token = self.token(http, url, challenge, credential.as_ref())?;
                format!("Bearer {token}")
            }
            (None, Some(_), Some(Credential::Password { user, password })) => basic(user, password),
            (None, Some(_), Some(_)) => {
                return Err(self
                    .unusable("only a token is stored, and it wants a password")
                    .into());
            }
            (None, Some(_), None) => return Err(missing().into()),
            (None, None, _) => {
                return Err(self.unusable("it offers neither Bearer nor Basic").into());
            }
        };
        let mut value = HeaderValue::from_str(&value)
            .map_err(|_| self.unusable("the token or password has control characters"))?;
        value.set_sensitive(true);
        state.header = Some(value);
        Ok(())
    }

    fn unusable(&self, reason: &str) -> Error {
        Error::Challenge { host: self.name.host.clone(), reason: reason.into() }
    }

    fn token(
        &self,
        http: &Http<'_>,
        url: &Url,
        challenge: &Challenge,
        credential: Option<&Credential>,
    ) -> Result<String, Failure> {
        let realm = challenge.params.get("realm").and_then(|realm| Url::parse(realm).ok());
        let Some(realm) = realm.filter(|r| r.has_host()) else {
            return Err(self.unusable("its challenge has no usable realm").into());
        };
        if realm.scheme() != "https" && (realm.scheme() != "http" || url.scheme() != "http") {
            return Err(self.unusable("its token server is not on HTTPS").into());
        }
        let scope = format!("repository:{}:pull", self.name.repository);
        let scope = challenge.params.get("scope").map_or(scope.as_str(), String::as_str);
        let service = challenge.params.get("service").map(String::as_str);

        let mut request = Request::get(realm.clone());
        if let Some(Credential::Identity(token)) = credential {
            let mut form = realm.clone();
            form.set_query(None);
            form.query_pairs_mut()
                .append_pair("grant_type", "refresh_token")
                .append_pair("service", service.unwrap_or_default())
                .append_pair("scope", scope)
                .append_pair("client_id", "dock2uni")
                .append_pair("refresh_token", token);
            request.method = Method::POST;
            request.form = Some(form.query().unwrap_or_default().into());
        } else {
            let mut query = request.url.query_pairs_mut();
            if let Some(service) = service {
                query.append_pair("service", service);
            }
            for scope in scope.split(' ').filter(|s| !s.is_empty()) {
                query.append_pair("scope", scope);
            }
            if let Some(Credential::Password { user, .. }) = credential {
                query.append_pair("account", user);
            }
            drop(query);
            if let Some(Credential::Password { user, password }) = credential {
                let value = HeaderValue::from_str(&basic(user, password));
                let mut value =
                    value.map_err(|_| self.unusable("the password has control characters"))?;
                value.set_sensitive(true);
                request.authorization = Some(value);
            }
        }
        let method = request.method.clone();
        let response = http.send(request)?;
        match response.status() {
            status if status.is_success() => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let (host, image) = (self.name.host.clone(), self.name.to_string());
                return Err(match credential {
                    None => Error::CredentialsMissing { host, image },
                    Some(credential) => Error::AccessDenied {
                        host,
                        image,
                        user: credential.user(),
                        message: format!("{} refuses the login", authority(&realm)),
                    },
                }
                .into());
            }
            _ => return Err(status_error(&realm, &method, response).into()),
        }
        let mut bytes = Vec::new();
        response
            .take(MAX_TOKEN)
            .read_to_end(&mut bytes)
            .map_err(|e| super::read_failure(&realm, e))?;
        let answer: TokenAnswer = serde_json::from_slice(&bytes)
            .map_err(|_| self.unusable("its token server's answer is malformed"))?;
        let token = answer.token.filter(|t| !t.is_empty()).or(answer.access_token);
        token.ok_or_else(|| self.unusable("its token server gave no token").into())
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// Splits a `WWW-Authenticate` value into challenges (RFC 9110, 11.6.1). What is malformed ends
/// the list: a challenge that can't be read can't be answered.
fn parse_challenges(text: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() {
            return challenges;
        }
        let after = after.trim_start_matches([' ', '\t']);
        let Some(value) = after.strip_prefix('=') else {
            let (scheme, params) = (word.to_ascii_lowercase(), HashMap::new());
            challenges.push(Challenge { scheme, params });
            rest = after;
            continue;
        };
        let Some((value, after)) = parse_value(value.trim_start_matches([' ', '\t'])) else {
            return challenges;
        };
        let Some(challenge) = challenges.last_mut() else { return challenges };
        challenge.params.insert(word.to_ascii_lowercase(), value);
        rest = after;
    }
}

/// A token or quoted string, and what follows it.
fn parse_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return Some((text[..end].into(), &text[end..]));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(scheme: &str, params: &[(&str, &str)]) -> Challenge {
        let params = params.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        Challenge { scheme: scheme.into(), params }
    }

    #[test]
    fn challenges_are_split_and_unquoted() {
        assert_eq!(
            parse_challenges(
                r#"Bearer realm="https://a.io/token?x=1,2",service=a.io, scope="r:a/b:pull,push""#
            ),
            [challenge(
                "bearer",
                &[
                    ("realm", "https://a.io/token?x=1,2"),
                    ("service", "a.io"),
                    ("scope", "r:a/b:pull,push"),
                ]
            )]
        );
        assert_eq!(
            parse_challenges(r#"Basic realm="a \"b\"", Negotiate, BEARER Realm = x"#),
            [
                challenge("basic", &[("realm", "a \"b\"")]),
                challenge("negotiate", &[]),
                challenge("bearer", &[("realm", "x")]),
            ]
        );
    }

    #[test]
    fn malformed_challenges_end_the_list() {
        assert_eq!(parse_challenges(""), []);
        assert_eq!(parse_challenges("=x"), []);
        assert_eq!(parse_challenges("realm=x"), []);
        assert_eq!(parse_challenges(r#"Basic realm="open"#), [challenge("basic", &[])]);
        assert_eq!(parse_challenges(r#"Basic realm="x\"#), [challenge("basic", &[])]);
    }

    #[test]
    fn no_header_makes_the_parser_panic_or_loop() {
        let alphabet: Vec<char> = "aB=\", \\\t~é".chars().collect();
        let mut state = 1u64;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..12 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                text.push(alphabet[(state >> 33) as usize % alphabet.len()]);
            }
            parse_challenges(&text);
        }
    }
}
