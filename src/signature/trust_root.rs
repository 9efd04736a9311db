//! The trust root: who vouches for identities, and which logs there are (protobuf-specs,
//! `sigstore_trustroot.proto`, as JSON: `trusted_root.json`).

use std::path::Path;
use std::time::Duration;

use der::DateTime;
use rustls::pki_types::CertificateDer;
use serde::Deserialize;

use super::{Error, PublicKey, Reason, base64, read};

/// Certificate authorities and logs, each for the time that it was in use.
#[derive(Clone, Debug)]
pub struct TrustRoot {
    pub(super) authorities: Vec<Authority>,
    logs: Vec<Log>,
    certificate_logs: Vec<Log>,
}

/// A certificate authority.
#[derive(Clone, Debug)]
pub(super) struct Authority {
    /// From the one that signs certificates up to the root, DER.
    pub chain: Vec<CertificateDer<'static>>,
    valid: Validity,
}

/// A transparency log.
#[derive(Clone, Debug)]
struct Log {
    key: PublicKey,
    valid: Validity,
}

/// A span of time, in seconds since 1970, both ends included.
#[derive(Clone, Copy, Debug)]
struct Validity {
    start: u64,
    end: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Json {
    media_type: String,
    #[serde(default)]
    tlogs: Vec<JsonLog>,
    #[serde(default)]
    certificate_authorities: Vec<JsonAuthority>,
    #[serde(default)]
    ctlogs: Vec<JsonLog>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonLog {
    public_key: JsonKey,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonKey {
    raw_bytes: String,
    #[serde(default)]
    valid_for: JsonValidity,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonAuthority {
    cert_chain: JsonChain,
    #[serde(default)]
    valid_for: JsonValidity,
}

#[derive(Deserialize)]
struct JsonChain {
    certificates: Vec<JsonCertificate>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonCertificate {
    raw_bytes: String,
}

#[derive(Default, Deserialize)]
struct JsonValidity {
    start: Option<String>,
    end: Option<String>,
}

impl TrustRoot {
    /// Reads a `trusted_root.json`.
    ///
    /// # Errors
    /// If it cannot be read or understood, or names no authority and no log.
    pub fn load(path: &Path) -> Result<TrustRoot, Error> {
        read(path)
            .and_then(|bytes| TrustRoot::parse(&bytes))
            .map_err(|why| Error::TrustRoot { path: path.to_owned(), why })
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<TrustRoot, Reason> {
        const TYPE: &str = "application/vnd.dev.sigstore.trustedroot";
        let json: Json = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if !json.media_type.starts_with(TYPE) {
            return Err(format!("it is a `{}`", json.media_type));
        }
        let logs = |logs: Vec<JsonLog>| logs.iter().filter_map(log).collect::<Result<Vec<_>, _>>();
        let root = TrustRoot {
            authorities: json
                .certificate_authorities
                .iter()
                .map(authority)
                .collect::<Result<_, _>>()?,
            logs: logs(json.tlogs)?,
            certificate_logs: logs(json.ctlogs)?,
        };
        if root.authorities.is_empty() && root.logs.is_empty() {
            return Err("it names no authority and no transparency log".into());
        }
        Ok(root)
    }

    /// The authorities that were in use at a time.
    pub(super) fn authorities_at(&self, time: Duration) -> impl Iterator<Item = &Authority> {
        self.authorities.iter().filter(move |authority| authority.valid.has(time))
    }

    /// The key of a transparency log that was in use at a time.
    pub(super) fn log(&self, id: &[u8; 32], time: Duration) -> Option<&PublicKey> {
        find(&self.logs, id, time)
    }

    /// The same of a log of certificates.
    pub(super) fn certificate_log(&self, id: &[u8; 32], time: Duration) -> Option<&PublicKey> {
        find(&self.certificate_logs, id, time)
    }

    /// Whether certificates are logged.
    pub(super) fn has_certificate_logs(&self) -> bool {
        !self.certificate_logs.is_empty()
    }
}

fn find<'a>(logs: &'a [Log], id: &[u8; 32], time: Duration) -> Option<&'a PublicKey> {
    logs.iter().find(|log| log.key.id() == *id && log.valid.has(time)).map(|log| &log.key)
}

/// A log; one whose key is of a kind that we can't use is as good as not named.
fn log(json: &JsonLog) -> Option<Result<Log, Reason>> {
    let bytes = match base64(&json.public_key.raw_bytes) {
        Ok(bytes) => bytes,
        Err(error) => return Some(Err(error)),
    };
    let key = PublicKey::from_der(&bytes).ok()?;
    Some(validity(&json.public_key.valid_for).map(|valid| Log { key, valid }))
}

fn authority(json: &JsonAuthority) -> Result<Authority, Reason> {
    let chain = json.cert_chain.certificates.iter();
    let chain: Vec<_> = chain
        .map(|certificate| base64(&certificate.raw_bytes).map(CertificateDer::from))
        .collect::<Result<_, _>>()?;
    if chain.is_empty() {
        return Err("an authority in it has no certificate".into());
    }
    Ok(Authority { chain, valid: validity(&json.valid_for)? })
}

fn validity(json: &JsonValidity) -> Result<Validity, Reason> {
    let seconds = |text: &Option<String>, default| match text {
        None => Ok(default),
        Some(text) => {
            // RFC 3339 in UTC; fractions of a second don't matter here.
            let whole =
                text.split_once('.').map_or_else(|| text.clone(), |(whole, _)| format!("{whole}Z"));
            let time = whole.parse::<DateTime>();
            time.map(|time| time.unix_duration().as_secs())
                .map_err(|_| format!("`{text}` is no time in UTC"))
        }
    };
    Ok(Validity { start: seconds(&json.start, 0)?, end: seconds(&json.end, u64::MAX)? })
}

impl Validity {
    fn has(&self, time: Duration) -> bool {
        (self.start..=self.end).contains(&time.as_secs())
    }
}
