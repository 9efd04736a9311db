//! Entries of the transparency log Rekor, checked offline.
//!
//! When an entry is made, Rekor signs a promise that it is in the log and since when: the signed
//! entry timestamp (SET). It travels with the signature.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::certificate::SigningCertificate;
use super::{Message, PublicKey, Reason, TrustRoot, base64};
use crate::source::Digest;

/// An entry and Rekor's promise.
#[derive(Clone)]
pub(super) struct Entry {
    /// The entry, base64, as it was signed.
    body: String,
    /// When it was made, in seconds since 1970.
    pub time: u64,
    /// Its number in the log.
    pub index: u64,
    /// SHA-256 of the log's key.
    log: [u8; 32],
    promise: Vec<u8>,
}

/// An entry in a Sigstore bundle. Numbers of 64 bits are texts there, as protobuf's JSON has them.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Json {
    log_index: String,
    log_id: LogId,
    integrated_time: Option<String>,
    inclusion_promise: Option<Promise>,
    canonicalized_body: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LogId {
    key_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Promise {
    signed_entry_timestamp: String,
}

/// The annotation that cosign puts beside a signature.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CosignBundle {
    signed_entry_timestamp: String,
    payload: CosignPayload,
}

/// What the SET is over: this, as canonical JSON (RFC 8785). The fields are in their order.
#[derive(Deserialize, Serialize)]
struct CosignPayload {
    body: String,
    #[serde(rename = "integratedTime")]
    time: u64,
    #[serde(rename = "logID")]
    log: String,
    #[serde(rename = "logIndex")]
    index: u64,
}

impl Entry {
    pub(super) fn of_cosign(text: &str) -> Result<Entry, Reason> {
        let bundle: CosignBundle = serde_json::from_str(text)
            .map_err(|error| format!("its log entry cannot be read: {error}"))?;
        let CosignPayload { body, time, log, index } = bundle.payload;
        let log = Digest::from_hex(&log).map_err(|error| format!("its log is unknown: {error}"))?.0;
        let promise = base64(&bundle.signed_entry_timestamp)?;
        Ok(Entry { body, time, index, log, promise })
    }

    pub(super) fn of_bundle(json: &Json) -> Result<Entry, Reason> {
        let number = |text: &str| {
            text.parse::<u64>().map_err(|_| format!("its log entry has `{text}` for a number"))
        };
        let promise = json.inclusion_promise.as_ref().ok_or(
            "its log entry has no signed entry timestamp, which is what dock2uni checks; sign with \
             a Rekor of version 1",
        )?;
        let log = base64(&json.log_id.key_id)?;
        Ok(Entry {
            body: json.canonicalized_body.clone(),
            time: number(json.integrated_time.as_deref().unwrap_or("0"))?,
            index: number(&json.log_index)?,
            log: log.try_into().map_err(|_| "its log is unknown")?,
            promise: base64(&promise.signed_entry_timestamp)?,
        })
    }

    /// A log that the trust root names has promised the entry.
    pub(super) fn check(&self, root: &TrustRoot) -> Result<(), Reason> {
        let (body, time, index) = (self.body.clone(), self.time, self.index);
        let payload = CosignPayload { body, time, log: Digest(self.log).hex(), index };
        // Texts and numbers make JSON without fail.
        let message = serde_json::to_vec(&payload).unwrap_or_default();
        let log = root
            .log(&self.log, Duration::from_secs(time))
            .ok_or("it is in a transparency log that the trust root does not name")?;
        log.verify(&message, &self.promise)
            .map_err(|_| "the transparency log's promise is not the log's".into())
    }

    /// The entry is about this signature.
    pub(super) fn check_content(
        &self,
        message: &Message<'_>,
        signature: &[u8],
        key: &PublicKey,
    ) -> Result<(), Reason> {
        let other = || Reason::from("its log entry is about another signature");
        let body: Body = serde_json::from_slice(&base64(&self.body)?)
            .map_err(|error| format!("its log entry cannot be read: {error}"))?;
        let (named, content, verifier) = match (body, message) {
            (Body::Hashedrekord { spec }, Message::Bytes(bytes)) => {
                let named = spec.data.hash.digest()? == Digest::of(bytes);
                (named, spec.signature.content, spec.signature.public_key.content)
            }
            (Body::Dsse { spec }, Message::Envelope { payload, .. }) => {
                let named = spec.payload_hash.digest()? == Digest::of(payload);
                let found = spec.signatures.into_iter().next().ok_or_else(other)?;
                (named, found.signature, found.verifier)
            }
            _ => return Err(other()),
        };
        if !named || base64(&content)? != signature {
            return Err(other());
        }
        let pem = base64(&verifier)?;
        let pem = std::str::from_utf8(&pem).map_err(|_| other())?;
        let logged = match SigningCertificate::from_pem(pem, None) {
            Ok(certificate) => certificate.key()?,
            Err(_) => PublicKey::from_pem(pem)?,
        };
        if logged == *key { Ok(()) } else { Err(other()) }
    }
}

/// An entry's body (rekor, `pkg/types`).
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Body {
    Hashedrekord { spec: HashedRekord },
    Dsse { spec: Dsse },
}

#[derive(Deserialize)]
struct HashedRekord {
    data: Data,
    signature: LoggedSignature,
}

#[derive(Deserialize)]
struct Data {
    hash: Hash,
}

#[derive(Deserialize)]
struct Hash {
    algorithm: String,
    value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LoggedSignature {
    content: String,
    public_key: LoggedKey,
}

#[derive(Deserialize)]
struct LoggedKey {
    content: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Dsse {
    payload_hash: Hash,
    signatures: Vec<DsseSignature>,
}

#[derive(Deserialize)]
struct DsseSignature {
    signature: String,
    verifier: String,
}

impl Hash {
    fn digest(&self) -> Result<Digest, Reason> {
        if self.algorithm != "sha256" {
            return Err(format!("its log entry uses `{}`", self.algorithm));
        }
        Digest::from_hex(&self.value).map_err(|error| error.to_string())
    }
}
