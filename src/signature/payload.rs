//! What is signed: statements about an image's digest.

use serde::Deserialize;

use super::Reason;
use crate::source::Digest;

/// Red Hat's "simple signing" format, as far as cosign uses it.
#[derive(Deserialize)]
struct Simple {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    image: Image,
    r#type: String,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: Digest,
}

/// An in-toto statement (in-toto attestation framework, `spec/v1/statement.md`).
#[derive(Deserialize)]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    #[serde(rename = "predicateType")]
    predicate: String,
    subject: Vec<Subject>,
}

#[derive(Deserialize)]
struct Subject {
    digest: std::collections::BTreeMap<String, String>,
}

/// A simple-signing payload is about this image.
pub(super) fn check_simple(payload: &[u8], digest: &Digest) -> Result<(), Reason> {
    const KIND: &str = "cosign container image signature";
    let simple: Simple = serde_json::from_slice(payload)
        .map_err(|error| format!("its payload cannot be read: {error}"))?;
    if simple.critical.r#type != KIND {
        return Err(format!("it is a `{}`", simple.critical.r#type));
    }
    about(simple.critical.image.digest, digest)
}

/// A statement says of this image that it is signed. Other statements (provenance, an SBOM) are
/// attached in the same way and say nothing of the kind.
pub(super) fn check_statement(payload: &[u8], digest: &Digest) -> Result<(), Reason> {
    const KINDS: [&str; 2] =
        ["https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"];
    const SIGNED: &str = "https://sigstore.dev/cosign/sign/v1";
    let statement: Statement = serde_json::from_slice(payload)
        .map_err(|error| format!("its statement cannot be read: {error}"))?;
    if !KINDS.contains(&statement.kind.as_str()) || statement.predicate != SIGNED {
        return Err(format!("it is an attestation of `{}`", statement.predicate));
    }
    let named = statement.subject.iter().filter_map(|subject| subject.digest.get("sha256"));
    let mut named = named.filter_map(|hex| Digest::from_hex(hex).ok());
    if named.any(|named| named == *digest) {
        return Ok(());
    }
    Err("it is about another image".into())
}

fn about(named: Digest, digest: &Digest) -> Result<(), Reason> {
    if named == *digest { Ok(()) } else { Err(format!("it is about another image, {named}")) }
}
