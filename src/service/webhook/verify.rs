//! Proofs of who sends a webhook.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use reqwest::header::{AUTHORIZATION, HeaderMap};

use super::oidc::{self, Keys};
use crate::service::secret::Secret;

/// How far the sender's clock may be off, in seconds.
const TOLERANCE: u64 = 300;

/// How a webhook is proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// A secret in a header, with or without `Bearer` before it.
    Token {
        /// The header, lower case.
        header: String,
        /// The secret.
        secret: Secret,
    },
    /// User name and password (RFC 7617).
    Basic {
        /// The name.
        user: String,
        /// The password.
        password: Secret,
    },
    /// `X-Hub-Signature-256`: HMAC-SHA256 of the body, hexadecimal.
    HubSignature(Secret),
    /// The Standard Webhooks specification: HMAC-SHA256 of name, time and body.
    Standard(Secret),
    /// A secret in the address.
    Url(Secret),
    /// A token that Google signed for a service account (OpenID Connect).
    Oidc {
        /// Whom it must be for.
        audience: String,
        /// Whom it must have been issued to.
        email: String,
        /// Where the keys are.
        keys: String,
    },
}

/// A request, as far as proofs look at it.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// `token` of its query.
    pub url_token: Option<&'a str>,
    /// Its body.
    pub body: &'a [u8],
    /// Seconds since 1970.
    pub now: u64,
}

impl Auth {
    /// A key in the form of the Standard Webhooks specification: `whsec_` and base64.
    ///
    /// # Errors
    /// If it isn't in that form.
    pub fn standard(secret: &Secret) -> Result<Auth, String> {
        let text = secret.expose_text()?;
        let encoded = text.strip_prefix("whsec_").ok_or("`secret` begins with `whsec_`")?;
        let key = STANDARD.decode(encoded).map_err(|_| "`secret` is not base64")?;
        Ok(Auth::Standard(Secret::new(key)))
    }

    /// Whether a message proves who sent it.
    ///
    /// # Errors
    /// Says what is missing or wrong, for the log: the sender is told nothing.
    pub fn verify(&self, message: &Message<'_>, keys: Option<&Keys>) -> Result<(), String> {
        let good = match self {
            Auth::Token { header, secret } => {
                let given = header_text(message.headers, header)?;
                let bare = given
                    .split_once(' ')
                    .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
                    .map_or(given, |(_, token)| token.trim());
                secret.matches(bare.as_bytes()) || secret.matches(given.as_bytes())
            }
            Auth::Basic { user, password } => {
                let given = header_text(message.headers, AUTHORIZATION.as_str())?;
                let (name, word) = basic(given).ok_or("no basic authentication")?;
                // Both are looked at, whatever the first gives.
                Secret::new(user).matches(name.as_bytes()) & password.matches(word.as_bytes())
            }
            Auth::HubSignature(secret) => {
                let given = header_text(message.headers, "x-hub-signature-256")?;
                let hex = given.strip_prefix("sha256=").ok_or("a signature of another kind")?;
                secret.signed(message.body, &unhex(hex).ok_or("a malformed signature")?)
            }
            Auth::Standard(secret) => standard(secret, message)?,
            Auth::Url(secret) => {
                secret.matches(message.url_token.ok_or("no token in the address")?.as_bytes())
            }
            Auth::Oidc { audience, email, .. } => {
                let given = header_text(message.headers, AUTHORIZATION.as_str())?;
                let token = given.strip_prefix("Bearer ").ok_or("no bearer token")?;
                let keys = keys.ok_or("the issuer's keys are not to be had")?;
                oidc::verify(token, keys, audience, email, message.now)?;
                true
            }
        };
        if good { Ok(()) } else { Err("the secret is another one".to_owned()) }
    }
}

fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, String> {
    let value = headers.get(name).ok_or_else(|| format!("no `{name}`"))?;
    value.to_str().map_err(|_| format!("`{name}` is not text"))
}

/// User name and password of an `Authorization` header.
pub fn basic(header: &str) -> Option<(String, String)> {
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let encoded = encoded.trim().trim_end_matches('=');
    let text = String::from_utf8(STANDARD_NO_PAD.decode(encoded).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// <https://www.standardwebhooks.com>: `webhook-signature` lists `v1,BASE64` with spaces between.
fn standard(secret: &Secret, message: &Message<'_>) -> Result<bool, String> {
    let id = header_text(message.headers, "webhook-id")?;
    let time = header_text(message.headers, "webhook-timestamp")?;
    let seconds: u64 = time.parse().map_err(|_| "a malformed time")?;
    if seconds.abs_diff(message.now) > TOLERANCE {
        return Err("it was sent at another time: an old message, or a wrong clock".to_owned());
    }
    let signed = signed_content(id, time, message.body);
    let signatures = header_text(message.headers, "webhook-signature")?;
    Ok(signatures
        .split(' ')
        .filter_map(|one| one.strip_prefix("v1,"))
        .any(|encoded| STANDARD.decode(encoded).is_ok_and(|tag| secret.signed(&signed, &tag))))
}

/// What a signature of the Standard Webhooks specification is of.
pub fn signed_content(id: &str, time: &str, body: &[u8]) -> Vec<u8> {
    [id.as_bytes(), b".", time.as_bytes(), b".", body].concat()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let bytes = text.as_bytes();
    if !bytes.len().is_multiple_of(2) || bytes.len() > 128 {
        return None;
    }
    let digit = |b: u8| char::from(b).to_digit(16).map(|digit| digit as u8);
    bytes.chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn verify(auth: &Auth, headers: &[(&str, &str)], token: Option<&str>, body: &[u8]) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: reqwest::header::HeaderName = name.parse().unwrap();
            map.insert(name, value.parse().unwrap());
        }
        auth.verify(&Message { headers: &map, url_token: token, body, now: NOW }, None).is_ok()
    }

    #[test]
    fn tokens_come_bare_or_as_bearer() {
        let secret = Secret::new("s3cret");
        let auth = Auth::Token { header: "authorization".into(), secret };
        for (value, good) in [
            ("Bearer s3cret", true),
            ("bearer s3cret", true),
            ("s3cret", true),
            ("Bearer s3cre", false),
            ("Bearer", false),
            ("", false),
            ("Basic s3cret", false),
        ] {
            assert_eq!(verify(&auth, &[("authorization", value)], None, b""), good, "{value}");
        }
        assert!(!verify(&auth, &[], None, b""));
        // Harbor sends whatever it was told to.
        let auth = Auth::Token { header: "authorization".into(), secret: Secret::new("Bearer x") };
        assert!(verify(&auth, &[("authorization", "Bearer x")], None, b""));
    }

    #[test]
    fn basic_authentication_needs_both() {
        let auth = Auth::Basic { user: "zot".into(), password: Secret::new("p:w") };
        let header = |text: &str| format!("Basic {}", STANDARD.encode(text));
        for (text, good) in
            [("zot:p:w", true), ("zot:p", false), ("tox:p:w", false), ("zot", false)]
        {
            assert_eq!(
                verify(&auth, &[("authorization", &header(text))], None, b""),
                good,
                "{text}"
            );
        }
        assert!(!verify(&auth, &[("authorization", "Basic !!!")], None, b""));
    }

    #[test]
    fn githubs_signature_is_of_the_body() {
        // The example of GitHub's documentation.
        let auth = Auth::HubSignature(Secret::new("It's a Secret to Everybody"));
        let tag = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        assert!(verify(&auth, &[("x-hub-signature-256", tag)], None, b"Hello, World!"));
        assert!(!verify(&auth, &[("x-hub-signature-256", tag)], None, b"Hello, World?"));
        assert!(!verify(&auth, &[("x-hub-signature-256", &tag[7..])], None, b"Hello, World!"));
        assert!(!verify(&auth, &[("x-hub-signature-256", "sha256=zz")], None, b"Hello, World!"));
    }

    #[test]
    fn standard_webhooks_are_signed_with_their_time() {
        let key = Secret::new(format!("whsec_{}", STANDARD.encode("0123456789abcdef")));
        let auth = Auth::standard(&key).unwrap();
        let sign = |time: u64, body: &[u8]| {
            let content = signed_content("msg_1", &time.to_string(), body);
            format!("v1,{}", STANDARD.encode(Secret::new("0123456789abcdef").sign(&content)))
        };
        let check = |time: u64, signature: &str, body: &[u8]| {
            let time = time.to_string();
            let headers = [
                ("webhook-id", "msg_1"),
                ("webhook-timestamp", &time),
                ("webhook-signature", signature),
            ];
            verify(&auth, &headers, None, body)
        };
        assert!(check(NOW, &sign(NOW, b"x"), b"x"));
        assert!(check(NOW - 200, &format!("v1,AAAA {}", sign(NOW - 200, b"x")), b"x"));
        assert!(!check(NOW, &sign(NOW, b"x"), b"y"));
        assert!(!check(NOW, &sign(NOW - 1, b"x"), b"x"));
        assert!(!check(NOW - 400, &sign(NOW - 400, b"x"), b"x"), "a replay");
        assert!(Auth::standard(&Secret::new("plain")).is_err());
    }

    #[test]
    fn a_secret_in_the_address() {
        let auth = Auth::Url(Secret::new("s3cret"));
        assert!(verify(&auth, &[], Some("s3cret"), b""));
        assert!(!verify(&auth, &[], Some("S3cret"), b"") && !verify(&auth, &[], None, b""));
    }
}
