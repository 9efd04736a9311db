//! Sigstore bundles (protobuf-specs, `sigstore_bundle.proto`, versions 0.1 to 0.3): JSON that holds
//! a signature and all that is needed to check it.

use serde::Deserialize;

use super::certificate::SigningCertificate;
use super::log::Entry;
use super::{Claim, Message, Reason, base64, payload};
use crate::source::Digest;

const IN_TOTO: &str = "application/vnd.in-toto+json";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Json {
    media_type: String,
    verification_material: Material,
    dsse_envelope: Option<Envelope>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Material {
    certificate: Option<Raw>,
    x509_certificate_chain: Option<Chain>,
    #[serde(default)]
    tlog_entries: Vec<super::log::Json>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    raw_bytes: String,
}

#[derive(Deserialize)]
struct Chain {
    certificates: Vec<Raw>,
}

/// Dead Simple Signing Envelope (secure-systems-lab/dsse).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Deserialize)]
struct EnvelopeSignature {
    sig: String,
}

/// A bundle that holds an envelope with a statement.
pub(super) struct Bundle {
    payload: Vec<u8>,
    signature: Vec<u8>,
    certificate: Option<SigningCertificate>,
    entry: Option<Entry>,
}

impl Bundle {
    pub(super) fn parse(bytes: &[u8]) -> Result<Bundle, Reason> {
        const TYPE: &str = "application/vnd.dev.sigstore.bundle";
        let json: Json = serde_json::from_slice(bytes)
            .map_err(|error| format!("its bundle cannot be read: {error}"))?;
        if !json.media_type.starts_with(TYPE) {
            return Err(format!("it is a `{}`", json.media_type));
        }
        let envelope = json.dsse_envelope.ok_or("its bundle has no envelope")?;
        if envelope.payload_type != IN_TOTO {
            return Err(format!("its envelope holds a `{}`", envelope.payload_type));
        }
        // More than one would leave open which of them the log knows.
        let [signature] = &envelope.signatures[..] else {
            return Err("its envelope does not have exactly one signature".into());
        };
        let material = json.verification_material;
        let chain = material.x509_certificate_chain.and_then(|chain| {
            // The trust root has the rest of it.
            chain.certificates.into_iter().next()
        });
        let certificate = material
            .certificate
            .or(chain)
            .map(|raw| SigningCertificate::from_der(&base64(&raw.raw_bytes)?))
            .transpose()?;
        Ok(Bundle {
            payload: base64(&envelope.payload)?,
            signature: base64(&signature.sig)?,
            certificate,
            entry: material.tlog_entries.first().map(Entry::of_bundle).transpose()?,
        })
    }

    pub(super) fn check_subject(&self, digest: &Digest) -> Result<(), Reason> {
        payload::check_statement(&self.payload, digest)
    }

    pub(super) fn claim(&self) -> Claim<'_> {
        let payload = &self.payload[..];
        Claim {
            message: Message::Envelope { encoded: encoded(IN_TOTO, payload), payload },
            signature: self.signature.clone(),
            certificate: self.certificate.clone(),
            entry: self.entry.clone(),
        }
    }
}

/// What the signature of an envelope is over (DSSE, "pre-authentication encoding").
pub(super) fn encoded(kind: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len());
    [head.as_bytes(), payload].concat()
}
