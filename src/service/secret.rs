//! Secrets: where the configuration takes them from, and how they are compared and kept from logs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::{hmac, rand};
use serde::Deserialize;

/// Longest secret that is read from a file, in bytes.
const MAX: u64 = 64 * 1024;

/// A secret. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<[u8]>);

/// What the configuration says: the text itself, a file that holds it, or a variable.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
pub enum SecretSource {
    /// `secret = "..."`
    Text(String),
    /// `secret = { file = "..." }`; the last line end isn't part of it.
    File {
        /// Where it is.
        file: PathBuf,
    },
    /// `secret = { env = "NAME" }`
    Env {
        /// The variable.
        env: String,
    },
}

impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretSource::Text(_) => f.write_str("(hidden)"),
            SecretSource::File { file } => write!(f, "file {}", file.display()),
            SecretSource::Env { env } => write!(f, "variable {env}"),
        }
    }
}

impl SecretSource {
    /// Reads it.
    ///
    /// # Errors
    /// In words that do not hold the secret.
    pub fn read(&self) -> Result<Secret, String> {
        let bytes = match self {
            SecretSource::Text(text) => text.clone().into_bytes(),
            SecretSource::Env { env } => std::env::var(env)
                .map_err(|_| format!("the variable `{env}` is not set"))?
                .into_bytes(),
            SecretSource::File { file } => read(file)?,
        };
        if bytes.is_empty() {
            return Err("a secret is empty".to_owned());
        }
        Ok(Secret(bytes.into()))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("cannot read `{}`: {error}", path.display());
    if std::fs::metadata(path).map_err(failed)?.len() > MAX {
        return Err(format!("`{}` is too large for a secret", path.display()));
    }
    let mut bytes = std::fs::read(path).map_err(failed)?;
    while bytes.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        bytes.pop();
    }
    Ok(bytes)
}

impl Secret {
    /// A secret of these bytes.
    pub fn new(bytes: impl AsRef<[u8]>) -> Secret {
        Secret(bytes.as_ref().into())
    }

    /// The bytes, for those who must send them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The bytes as text, where only text can be used.
    ///
    /// # Errors
    /// If they are not UTF-8.
    pub fn expose_text(&self) -> Result<&str, String> {
        std::str::from_utf8(&self.0).map_err(|_| "the secret is not text".to_owned())
    }

    /// Whether `given` is the secret; takes as long whichever byte differs.
    pub fn matches(&self, given: &[u8]) -> bool {
        same(&self.0, given)
    }

    /// Whether `tag` is the HMAC-SHA256 (RFC 2104) of `message` under this secret.
    pub fn signed(&self, message: &[u8], tag: &[u8]) -> bool {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        hmac::verify(&key, message, tag).is_ok()
    }

    /// The HMAC-SHA256 of `message` under this secret.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        hmac::sign(&key, message).as_ref().to_vec()
    }
}

/// Compares two texts in a time that does not tell where they differ: by their tags under a key that
/// nobody knows.
pub fn same(a: &[u8], b: &[u8]) -> bool {
    let Ok(key) = hmac::Key::generate(hmac::HMAC_SHA256, &rand::SystemRandom::new()) else {
        // Without randomness nobody gets in.
        return false;
    };
    let tag = hmac::sign(&key, a);
    hmac::verify(&key, b, tag.as_ref()).is_ok()
}

/// Random bytes as hexadecimal digits.
///
/// # Panics
/// If the system has no randomness, as nothing can be identified then.
pub fn random_hex(bytes: usize) -> String {
    use ring::rand::SecureRandom as _;
    let mut buffer = vec![0; bytes];
    rand::SystemRandom::new().fill(&mut buffer).expect("the system has randomness");
    buffer.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_compare_and_stay_hidden() {
        let secret = Secret::new("s3cret");
        assert!(secret.matches(b"s3cret"));
        assert!(!secret.matches(b"s3creT") && !secret.matches(b"") && !secret.matches(b"s3cret "));
        assert!(secret.signed(b"message", &secret.sign(b"message")));
        assert!(!secret.signed(b"massage", &secret.sign(b"message")));
        assert!(!format!("{secret:?}{:?}", SecretSource::Text("s3cret".into())).contains("s3cret"));
    }

    #[test]
    fn files_lose_their_last_line_end() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        std::fs::write(&file, "abc\n").unwrap();
        assert!(SecretSource::File { file: file.clone() }.read().unwrap().matches(b"abc"));
        std::fs::write(&file, "\n").unwrap();
        assert!(SecretSource::File { file }.read().is_err());
    }
}
