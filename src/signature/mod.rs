//! Signatures of container images, as `cosign` makes and stores them (sigstore, "Cosign Signature
//! Specifications"; protobuf-specs, "Sigstore Bundle").
//!
//! [`pin`] is called before anything of an image is used: it finds out which digest a reference
//! stands for, fetches the signatures that the registry has for it, and returns the reference with
//! that digest once one of them satisfies the [`Policy`]. Whatever the tag says later, the image
//! that was vouched for is the one that is converted.
//!
//! Two forms are understood: signatures over a "simple signing" payload, stored under the tag
//! `sha256-DIGEST.sig` or as a referrer (OCI 1.1), and Sigstore bundles, stored as referrers. Nothing
//! is asked of Fulcio or Rekor: what they have to say travels with the signature, and is checked
//! against a trust root that the user gives.

mod bundle;
mod certificate;
mod error;
mod key;
mod log;
mod payload;
mod trust_root;

use std::path::Path;

use crate::source::{Attached, Digest, Name, Options, Reference, Store, attached};

pub use error::Error;
pub use key::PublicKey;
pub use trust_root::TrustRoot;

use bundle::Bundle;
use certificate::SigningCertificate;
use log::Entry;

/// Longest key or trust root that is read, in bytes.
const MAX_FILE: u64 = 4 << 20;

/// Whose signature is asked for.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Who signed.
    pub signer: Signer,
    /// Who vouches for certificates and for the time of signing. With [`Signer::Key`] it is not
    /// needed; if it is there, the signature must be in a transparency log that it names.
    pub trust_root: Option<TrustRoot>,
}

/// Who is to have signed.
#[derive(Clone, Debug)]
pub enum Signer {
    /// The owner of this key.
    Key(PublicKey),
    /// Whoever an identity provider knows by this name, at the time of signing ("keyless").
    Identity {
        /// E-mail address or URI in the certificate.
        identity: String,
        /// Address of the identity provider.
        issuer: String,
    },
}

impl Policy {
    /// A policy out of options: a key's file, or identity and issuer; and a trust root's file.
    ///
    /// # Errors
    /// If a file cannot be read or understood, or the options don't make a policy.
    pub fn load(
        key: Option<&Path>,
        identity: Option<(&str, &str)>,
        trust_root: Option<&Path>,
    ) -> Result<Policy, Error> {
        let trust_root = trust_root.map(TrustRoot::load).transpose()?;
        let signer = match (key, identity) {
            (Some(key), None) => Signer::Key(PublicKey::load(key)?),
            (None, Some((identity, issuer))) if trust_root.is_some() => {
                Signer::Identity { identity: identity.to_owned(), issuer: issuer.to_owned() }
            }
            (None, Some(_)) => return Err(Error::NoTrustRoot),
            (Some(_), Some(_)) | (None, None) => return Err(Error::NoSigner),
        };
        Ok(Policy { signer, trust_root })
    }
}

/// A signature that was accepted.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Verified {
    /// What was signed: a manifest, or an index of several.
    pub digest: Digest,
    /// Who signed, in words.
    pub signer: String,
    /// Index in the transparency log, if the signature was looked up there.
    pub log_index: Option<u64>,
    /// When it was entered there, in seconds since 1970.
    pub logged_at: Option<u64>,
}

/// Checks that the image which a reference stands for is signed as the policy asks, and returns the
/// reference with its digest.
///
/// # Errors
/// If the image is in no registry, has no signature, or none that the policy accepts.
pub fn pin(
    reference: &Reference,
    policy: &Policy,
    options: &Options,
    store: &Store,
) -> Result<(Reference, Verified), Error> {
    let Reference::Registry(name) = reference else {
        return Err(Error::NotInRegistry(reference.to_string()));
    };
    let attached = attached(name, options, store)?;
    let verified = verify(&name.to_string(), &attached, policy)?;
    let pinned = Name { digest: Some(verified.digest), ..name.clone() };
    Ok((Reference::Registry(pinned), verified))
}

/// The first signature that the policy accepts.
///
/// # Errors
/// If there is none; the error says what is wrong with each.
pub fn verify(image: &str, attached: &Attached, policy: &Policy) -> Result<Verified, Error> {
    let digest = attached.digest;
    let plain = attached.signatures.iter().map(|signature| {
        payload::check_simple(&signature.payload, &digest)?;
        let claim = Claim::of_annotations(signature)?;
        claim.check(policy, &digest)
    });
    let bundles = attached.bundles.iter().map(|bytes| {
        let bundle = Bundle::parse(bytes)?;
        bundle.check_subject(&digest)?;
        bundle.claim().check(policy, &digest)
    });
    let mut reasons = Vec::new();
    for result in plain.chain(bundles) {
        match result {
            Ok(verified) => return Ok(verified),
            Err(reason) => reasons.push(reason),
        }
    }
    let image = image.to_owned();
    if reasons.is_empty() {
        return Err(Error::Unsigned { image, digest });
    }
    reasons.dedup();
    Err(Error::Rejected { image, digest, reasons })
}

/// Why one signature is not accepted, in words.
type Reason = String;

/// A signature with all that was stored beside it.
struct Claim<'a> {
    /// What was signed.
    message: Message<'a>,
    /// The signature, DER for ECDSA.
    signature: Vec<u8>,
    /// Certificate of the signing key, without which the policy must know the key.
    certificate: Option<SigningCertificate>,
    /// Entry in a transparency log.
    entry: Option<Entry>,
}

/// Bytes that are signed.
enum Message<'a> {
    /// These.
    Bytes(&'a [u8]),
    /// The pre-authentication encoding of a DSSE envelope, and the envelope's payload.
    Envelope { encoded: Vec<u8>, payload: &'a [u8] },
}

impl Message<'_> {
    fn signed(&self) -> &[u8] {
        match self {
            Message::Bytes(bytes) => bytes,
            Message::Envelope { encoded, .. } => encoded,
        }
    }
}

impl<'a> Claim<'a> {
    /// A signature as cosign's annotations have it.
    fn of_annotations(signature: &'a crate::source::Signature) -> Result<Claim<'a>, Reason> {
        const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
        const CERTIFICATE: &str = "dev.sigstore.cosign/certificate";
        const CHAIN: &str = "dev.sigstore.cosign/chain";
        const BUNDLE: &str = "dev.sigstore.cosign/bundle";
        let annotation = |name: &str| {
            signature.annotations.get(name).map(String::as_str).filter(|text| !text.is_empty())
        };
        let text = annotation(SIGNATURE).ok_or("it has no signature")?;
        let certificate = annotation(CERTIFICATE)
            .map(|pem| SigningCertificate::from_pem(pem, annotation(CHAIN)))
            .transpose()?;
        Ok(Claim {
            message: Message::Bytes(&signature.payload),
            signature: base64(text)?,
            certificate,
            entry: annotation(BUNDLE).map(Entry::of_cosign).transpose()?,
        })
    }

    fn check(&self, policy: &Policy, digest: &Digest) -> Result<Verified, Reason> {
        // The log first: certificates live for minutes, and it says when that was.
        let (key, signer) = match (&policy.signer, &self.certificate) {
            (Signer::Key(key), _) => (key.clone(), format!("key {}", key.fingerprint())),
            (Signer::Identity { identity, issuer }, Some(certificate)) => {
                certificate.check_identity(identity, issuer)?;
                (certificate.key()?, format!("{identity} ({issuer})"))
            }
            (Signer::Identity { .. }, None) => {
                return Err("it was made with a key, not by an identity".into());
            }
        };
        key.verify(self.message.signed(), &self.signature)?;
        let mut verified = Verified { digest: *digest, signer, log_index: None, logged_at: None };
        if let Some(root) = &policy.trust_root {
            let entry = self.entry.as_ref().ok_or("it is in no transparency log")?;
            entry.check(root)?;
            entry.check_content(&self.message, &self.signature, &key)?;
            if let (Signer::Identity { .. }, Some(certificate)) =
                (&policy.signer, &self.certificate)
            {
                certificate.check_chain(root, entry.time)?;
            }
            verified.log_index = Some(entry.index);
            verified.logged_at = Some(entry.time);
        }
        Ok(verified)
    }
}

/// Standard base64, as it stands in annotations: with line ends, at times.
fn base64(text: &str) -> Result<Vec<u8>, Reason> {
    use base64::Engine as _;
    let text: String = text.split_ascii_whitespace().collect();
    base64::engine::general_purpose::STANDARD
        .decode(text)
        .map_err(|error| format!("it is no base64: {error}"))
}

/// Reads a small file.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let len = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if len > MAX_FILE {
        return Err(format!("it has more than {MAX_FILE} bytes"));
    }
    std::fs::read(path).map_err(|error| error.to_string())
}
