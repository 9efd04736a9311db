//! Sessions of people who look at the pages.
//!
//! A session is in its cookie alone, so that any server of several knows it, and a restart ends none:
//! the name of the token that was shown, when the session ends, and a tag (HMAC-SHA256) over both and
//! over the token's hash. The token itself is not in it, and a session ends with its token: once that is
//! taken from the configuration, or changed, the tag is another one.
//!
//! Forms that change something carry a proof that is made of the session, and are taken from our own
//! pages only, by what browsers say of where a request comes from.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, header};

use crate::service::config::{Config, Proof, Token};
use crate::service::secret::{Secret, random_hex, same};
use crate::source::Digest;

/// How long a session lasts, in seconds.
const LIFETIME: u64 = 12 * 3600;
/// The cookie's name, where it is sent over TLS. The prefix is a promise that browsers see kept:
/// no other host or path has set it (RFC 6265bis, section 4.1.3).
const SECURE_NAME: &str = "__Host-dock2uni";
/// Its name elsewhere.
const PLAIN_NAME: &str = "dock2uni";

/// Why there is no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There was none.
    None,
    /// It is over, or its token is.
    Expired,
}

/// Makes sessions and knows them again.
#[derive(Debug)]
pub struct Sessions {
    key: Secret,
}

impl Sessions {
    /// Sessions under this key.
    pub fn new(key: Secret) -> Sessions {
        Sessions { key }
    }

    /// Sessions under the key in a file, which is made if there is none.
    ///
    /// # Errors
    /// If it can be neither read nor made.
    pub fn open(path: &Path) -> io::Result<Sessions> {
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        match made {
            Ok(mut file) => {
                file.write_all(random_hex(32).as_bytes())?;
                file.sync_all()?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        let key = fs::read(path)?;
        if key.len() < 32 {
            // Left behind half written: whoever knows the few bytes could make sessions.
            fs::remove_file(path)?;
            return Sessions::open(path);
        }
        Ok(Sessions::new(Secret::new(key)))
    }

    /// The cookie of a new session.
    pub fn begin(&self, token: &Token, secure: bool) -> String {
        let value = self.value(token, now() + LIFETIME);
        cookie(&value, LIFETIME, secure)
    }

    /// The cookies that end a session, whichever name it has.
    pub fn end() -> [String; 2] {
        [cookie("", 0, true), cookie("", 0, false)]
    }

    fn value(&self, token: &Token, expires: u64) -> String {
        let tag = self.key.sign(&content(token, expires));
        format!("{}.{expires}.{}", hex(token.name.as_bytes()), hex(&tag))
    }

    /// The token that a request's session was begun with, and the proof of its forms.
    ///
    /// # Errors
    /// If there is no session, or it is over.
    pub fn visitor<'a>(
        &self,
        config: &'a Config,
        headers: &HeaderMap,
    ) -> Result<(&'a Token, String), Refused> {
        let mut refused = Refused::None;
        // Another path or an older version may have left more than one.
        for value in cookies(headers) {
            refused = Refused::Expired;
            if let Some(token) = self.token(config, value, now()) {
                let proof = self.key.sign(format!("form {value}").as_bytes());
                return Ok((token, hex(&proof)));
            }
        }
        Err(refused)
    }

    fn token<'a>(&self, config: &'a Config, value: &str, now: u64) -> Option<&'a Token> {
        let (name, rest) = value.split_once('.')?;
        let (expires, tag) = rest.split_once('.')?;
        let expires: u64 = expires.parse().ok()?;
        let tag = unhex(tag)?;
        let token = config.tokens.iter().find(|token| hex(token.name.as_bytes()) == name)?;
        let genuine = self.key.signed(&content(token, expires), &tag);
        (genuine && expires > now).then_some(token)
    }

    /// Whether a form's proof is the session's.
    pub fn proves(&self, expected: &str, given: &str) -> bool {
        same(expected.as_bytes(), given.as_bytes())
    }
}

/// What the tag is over. The name is delimited by its length, the rest has one.
fn content(token: &Token, expires: u64) -> Vec<u8> {
    let hash = match &token.proof {
        Proof::Hash(hash) => *hash,
        Proof::Text(secret) => Digest::of(secret.expose()),
    };
    let mut content = format!("session {} {expires} ", token.name.len()).into_bytes();
    content.extend(token.name.as_bytes());
    content.extend(&hash.0);
    content
}

fn cookie(value: &str, age: u64, secure: bool) -> String {
    // `Lax`, not `Strict`: a link in a chat leads to its page, and forms have proofs of their own.
    let (name, secure) = if secure { (SECURE_NAME, "; Secure") } else { (PLAIN_NAME, "") };
    format!("{name}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax{secure}")
}

fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let all = headers.get_all(header::COOKIE).into_iter();
    let pairs = all.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(';'));
    pairs.filter_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        matches!(name, SECURE_NAME | PLAIN_NAME).then_some(value)
    })
}

/// Whether a request that changes something comes from a page of ours, as far as the browser says:
/// by `Sec-Fetch-Site` (Fetch Metadata), and where that isn't sent by `Origin` (RFC 6454).
pub fn is_same_origin(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    if let Some(site) = text("sec-fetch-site") {
        return matches!(site, "same-origin" | "none");
    }
    match (text("origin"), text("host")) {
        (Some(origin), Some(host)) => {
            origin.split_once("://").is_some_and(|(_, from)| from.eq_ignore_ascii_case(host))
        }
        // No browser: there is no cookie that could be abused.
        (None, _) => true,
        (Some(_), None) => false,
    }
}

/// Whether the browser's side of the connection is TLS, by ours or by a proxy's word. Whoever lies
/// about it keeps a cookie from themselves.
pub fn is_secure(config: &Config, headers: &HeaderMap) -> bool {
    let forwarded = headers.get("x-forwarded-proto").and_then(|value| value.to_str().ok());
    config.server.tls.is_some()
        || forwarded.is_some_and(|proto| proto.eq_ignore_ascii_case("https"))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pairs = digits.chunks_exact(2);
    pairs.map(|pair| Some((digit(pair[0])? << 4 | digit(pair[1])?) as u8)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(secret: &str) -> Config {
        let text = format!(
            "[server]\nstate = \"s\"\n[[token]]\nname = \"a.b é\"\nscopes = [\"jobs:read\"]\n\
             secret = \"{secret}\"\n[[token]]\nname = \"other\"\nscopes = []\nsecret = \"o\"\n"
        );
        Config::parse(&text, Path::new("c.toml")).unwrap()
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_session_is_known_until_it_or_its_token_ends() {
        let sessions = Sessions::new(Secret::new("a key"));
        let known = config("tok");
        let set = sessions.begin(&known.tokens[0], true);
        assert!(
            set.starts_with("__Host-dock2uni=") && set.contains("; HttpOnly; SameSite=Lax; Secure")
        );
        assert!(
            !set.contains("tok;") && !sessions.begin(&known.tokens[0], false).contains("Secure")
        );
        let pair = set.split(';').next().unwrap();
        let with = headers(&[("cookie", &format!("x=y; dock2uni=; {pair}"))]);
        let (token, proof) = sessions.visitor(&known, &with).unwrap();
        assert_eq!(token.name, "a.b é");
        assert!(sessions.proves(&proof, &proof) && !sessions.proves(&proof, ""));
        assert!(!pair.contains(&proof));

        let refused =
            |sessions: &Sessions, config: &Config| sessions.visitor(config, &with).unwrap_err();
        assert_eq!(refused(&sessions, &config("changed")), Refused::Expired);
        assert_eq!(refused(&Sessions::new(Secret::new("b key")), &known), Refused::Expired);
        assert_eq!(sessions.visitor(&known, &HeaderMap::new()).unwrap_err(), Refused::None);
        let late = sessions.value(&known.tokens[0], 1000);
        assert!(sessions.token(&known, &late, 999).is_some());
        assert!(sessions.token(&known, &late, 1000).is_none());
    }

    #[test]
    fn nothing_in_a_session_can_be_changed() {
        let sessions = Sessions::new(Secret::new("a key"));
        let config = config("tok");
        let value = sessions.value(&config.tokens[0], 1000);
        let other = hex(b"other");
        let (name, rest) = value.split_once('.').unwrap();
        let (_, tag) = rest.split_once('.').unwrap();
        for changed in [
            format!("{other}.1000.{tag}"),
            format!("{name}.2000.{tag}"),
            format!("{name}.1000.{}0", &tag[..tag.len() - 1]),
            format!("{name}.1000."),
            format!("{name}.1000.é"),
            format!("{name}.1000.{tag}0"),
            String::new(),
            "..".to_owned(),
        ] {
            // One in sixteen tags ends with the digit that is put there.
            assert!(
                changed == value || sessions.token(&config, &changed, 1).is_none(),
                "{changed}"
            );
        }
    }

    #[test]
    fn forms_come_from_our_own_pages() {
        for (pairs, expected) in [
            (&[("sec-fetch-site", "same-origin"), ("origin", "null")][..], true),
            (&[("sec-fetch-site", "cross-site"), ("origin", "http://a"), ("host", "a")], false),
            (&[("sec-fetch-site", "same-site")], false),
            (&[("origin", "http://a:1"), ("host", "A:1")], true),
            (&[("origin", "http://b"), ("host", "a")], false),
            (&[("origin", "null"), ("host", "a")], false),
            (&[("origin", "http://a")], false),
            (&[("host", "a")], true),
        ] {
            assert_eq!(is_same_origin(&headers(pairs)), expected, "{pairs:?}");
        }
    }

    #[test]
    fn the_key_is_made_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("session.key");
        let first = Sessions::open(&path).unwrap();
        assert_eq!(Sessions::open(&path).unwrap().key, first.key);
        fs::write(&path, "short").unwrap();
        assert_ne!(Sessions::open(&path).unwrap().key, first.key);
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
