//! Tokens that Google signs for Pub/Sub's push requests: RS256 (RFC 7518), checked by ring, which TLS
//! brings along. A crate for tokens would bring a second library of cryptography.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use serde::Deserialize;

use crate::service::outgoing::Guard;

/// Where Google's keys are.
pub const GOOGLE_KEYS: &str = "https://www.googleapis.com/oauth2/v3/certs";
const ISSUERS: [&str; 2] = ["https://accounts.google.com", "accounts.google.com"];
/// How far clocks may differ, in seconds.
const LEEWAY: u64 = 60;
/// Longest token, in bytes.
const MAX_TOKEN: usize = 16 * 1024;
/// How long keys are believed, and how soon they may be asked for again.
const FRESH: Duration = Duration::from_secs(3600);
const AGAIN: Duration = Duration::from_secs(60);

/// An issuer's keys (RFC 7517).
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Keys {
    keys: Vec<Key>,
}

#[derive(Clone, Debug, Deserialize)]
struct Key {
    kid: String,
    kty: String,
    #[serde(default)]
    n: String,
    #[serde(default)]
    e: String,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: String,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    exp: u64,
    iat: u64,
    #[serde(default)]
    email: String,
    #[serde(default)]
    email_verified: bool,
}

/// Checks signature, issuer, audience, account and time of a token.
///
/// # Errors
/// Says what is wrong with it.
pub fn verify(
    token: &str,
    keys: &Keys,
    audience: &str,
    email: &str,
    now: u64,
) -> Result<(), String> {
    if token.len() > MAX_TOKEN {
        return Err("the token is too long".to_owned());
    }
    let bad = || "the token is malformed".to_owned();
    let (signed, signature) = token.rsplit_once('.').ok_or_else(bad)?;
    let (header, claims) = signed.split_once('.').ok_or_else(bad)?;
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| bad());
    let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| bad())?;
    // The token doesn't choose how it is checked.
    if header.alg != "RS256" {
        return Err(format!("the token is signed by {:.20}", header.alg));
    }
    let key = keys.keys.iter().find(|key| key.kid == header.kid && key.kty == "RSA");
    let key = key.ok_or("the token is signed with an unknown key")?;
    let key = RsaPublicKeyComponents { n: decode(&key.n)?, e: decode(&key.e)? };
    key.verify(&RSA_PKCS1_2048_8192_SHA256, signed.as_bytes(), &decode(signature)?)
        .map_err(|_| "the token's signature is wrong")?;
    let claims: Claims = serde_json::from_slice(&decode(claims)?).map_err(|_| bad())?;
    let wrong = [
        (!ISSUERS.contains(&claims.iss.as_str()), "the token is by another issuer"),
        (claims.aud != audience, "the token is for another audience"),
        (claims.email != email || !claims.email_verified, "the token is of another account"),
        (claims.exp.saturating_add(LEEWAY) <= now, "the token has expired"),
        (claims.iat > now.saturating_add(LEEWAY), "the token is of the future"),
    ];
    match wrong.iter().find(|(wrong, _)| *wrong) {
        Some((_, why)) => Err((*why).to_owned()),
        None => Ok(()),
    }
}

/// Keys that were fetched.
#[derive(Debug, Default)]
pub struct Cache(Mutex<HashMap<String, (Instant, Keys)>>);

impl Cache {
    /// The keys at an address: those at hand if they are fresh and have the key of `token`.
    ///
    /// # Errors
    /// If they cannot be fetched.
    pub async fn get(&self, address: &str, token: &str, guard: &Guard) -> Result<Keys, String> {
        let kid = token.split('.').next().and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        let kid = kid.and_then(|json| serde_json::from_slice::<Header>(&json).ok());
        let kid = kid.map(|header| header.kid).unwrap_or_default();
        {
            let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((at, keys)) = known.get(address) {
                let has = keys.keys.iter().any(|key| key.kid == kid);
                // A forged token must not make us ask each time.
                if (has && at.elapsed() < FRESH) || at.elapsed() < AGAIN {
                    return Ok(keys.clone());
                }
            }
        }
        let keys = fetch(address, guard).await?;
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(address.to_owned(), (Instant::now(), keys.clone()));
        Ok(keys)
    }
}

async fn fetch(address: &str, guard: &Guard) -> Result<Keys, String> {
    let url: reqwest::Url = address.parse().map_err(|_| "`keys` is no address".to_owned())?;
    guard.check_url(&url)?;
    let text = |error: reqwest::Error| format!("the issuer's keys: {}", error.without_url());
    let request = guard.client()?.get(url).timeout(Duration::from_secs(10));
    let mut response = request.send().await.and_then(|r| r.error_for_status()).map_err(text)?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(text)? {
        body.extend_from_slice(&chunk);
        if body.len() > 1 << 20 {
            return Err("the issuer's keys are too large".to_owned());
        }
    }
    serde_json::from_slice(&body).map_err(|_| "the issuer's keys are malformed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::rand::SystemRandom;
    use ring::signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
    use rustls::pki_types::PrivatePkcs8KeyDer;
    use rustls::pki_types::pem::PemObject as _;
    use serde_json::json;

    const NOW: u64 = 1_700_000_000;

    struct Issuer(RsaKeyPair);

    impl Issuer {
        fn new() -> Issuer {
            // ring makes no RSA keys; openssl is among what tests need.
            let key = std::process::Command::new("openssl")
                .args(["genpkey", "-quiet", "-algorithm", "RSA"])
                .output()
                .unwrap();
            assert!(key.status.success(), "{key:?}");
            let key = PrivatePkcs8KeyDer::from_pem_slice(&key.stdout).unwrap();
            Issuer(RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).unwrap())
        }

        fn keys(&self) -> Keys {
            let public: RsaPublicKeyComponents<Vec<u8>> = self.0.public_key().into();
            let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
            let value = json!({"keys": [
                {"kid": "other", "kty": "EC", "crv": "P-256"},
                {"kid": "k1", "kty": "RSA", "n": encode(&public.n), "e": encode(&public.e)},
            ]});
            serde_json::from_value(value).unwrap()
        }

        fn token(&self, alg: &str, claims: &serde_json::Value) -> String {
            let header = json!({"alg": alg, "kid": "k1", "typ": "JWT"}).to_string();
            let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
            let signed = format!("{}.{}", encode(&header), encode(&claims.to_string()));
            let mut signature = vec![0; self.0.public().modulus_len()];
            let random = SystemRandom::new();
            self.0.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature).unwrap();
            format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
        }
    }

    #[test]
    fn tokens_are_checked_in_all_they_say() {
        let issuer = Issuer::new();
        let keys = issuer.keys();
        let claims = json!({
            "iss": "https://accounts.google.com", "aud": "https://d/hooks/gar", "exp": NOW + 3600,
            "iat": NOW, "email": "push@p.iam.gserviceaccount.com", "email_verified": true,
        });
        let check = |token: &str, now: u64| {
            verify(token, &keys, "https://d/hooks/gar", "push@p.iam.gserviceaccount.com", now)
        };
        let good = issuer.token("RS256", &claims);
        assert_eq!(check(&good, NOW), Ok(()));
        assert_eq!(check(&good, NOW + 3630), Ok(()));
        assert!(check(&good, NOW + 3700).unwrap_err().contains("expired"));
        assert!(check(&good, NOW - 100).unwrap_err().contains("future"));
        for (field, value) in [
            ("iss", json!("https://evil.example")),
            ("aud", json!("https://d/hooks/other")),
            ("email", json!("other@p.iam.gserviceaccount.com")),
            ("email_verified", json!(false)),
        ] {
            let mut changed = claims.clone();
            changed[field] = value;
            assert!(check(&issuer.token("RS256", &changed), NOW).is_err(), "{field}");
        }
        assert!(check(&issuer.token("none", &claims), NOW).is_err());
        assert!(check(&issuer.token("HS256", &claims), NOW).is_err());
        let other = Issuer::new().token("RS256", &claims);
        assert!(check(&other, NOW).unwrap_err().contains("signature"));
        let (head, tail) = good.rsplit_once('.').unwrap();
        for token in ["", ".", "..", "a.b.c", head, &format!("{head}.{}", &tail[1..])] {
            assert!(check(token, NOW).is_err(), "{token}");
        }
    }
}
