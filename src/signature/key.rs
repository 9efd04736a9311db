//! Public keys.

use std::path::Path;

use der::asn1::ObjectIdentifier;
use der::{Decode, Document, Encode};
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1,
    ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use x509_cert::spki::SubjectPublicKeyInfoOwned;

use super::{Error, Reason, read};
use crate::source::Digest;

const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EDWARDS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// Ways to verify a signature; clients differ in the hash that they use with a curve.
type Algorithms = &'static [&'static dyn VerificationAlgorithm];
const ECDSA_P256: Algorithms = &[&ECDSA_P256_SHA256_ASN1, &ECDSA_P256_SHA384_ASN1];
const ECDSA_P384: Algorithms = &[&ECDSA_P384_SHA256_ASN1, &ECDSA_P384_SHA384_ASN1];
const RSA_PKCS1: Algorithms = &[&RSA_PKCS1_2048_8192_SHA256];
const EDDSA: Algorithms = &[&ED25519];

/// A public key that verifies signatures: ECDSA on P-256 or P-384, RSA (PKCS #1 v1.5) of 2,048 bits
/// or more, or Ed25519.
#[derive(Clone)]
pub struct PublicKey {
    algorithms: Algorithms,
    /// As ring takes it.
    bytes: Vec<u8>,
    /// SubjectPublicKeyInfo, DER.
    spki: Vec<u8>,
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PublicKey").field(&self.fingerprint()).finish()
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &PublicKey) -> bool {
        self.spki == other.spki
    }
}

impl PublicKey {
    /// Reads a PEM file.
    ///
    /// # Errors
    /// If it cannot be read or is no public key of a kind that is supported.
    pub fn load(path: &Path) -> Result<PublicKey, Error> {
        let key = read(path).and_then(|bytes| {
            PublicKey::from_pem(std::str::from_utf8(&bytes).map_err(|error| error.to_string())?)
        });
        key.map_err(|why| Error::Key { path: path.to_owned(), why })
    }

    /// Reads a key in PEM.
    pub(super) fn from_pem(pem: &str) -> Result<PublicKey, Reason> {
        let (label, document) = Document::from_pem(pem).map_err(|error| error.to_string())?;
        match label {
            "PUBLIC KEY" => PublicKey::from_der(document.as_bytes()),
            other => Err(format!("it is a `{other}`, not a `PUBLIC KEY`")),
        }
    }

    /// Reads a SubjectPublicKeyInfo (RFC 5280, 4.1).
    pub(super) fn from_der(spki: &[u8]) -> Result<PublicKey, Reason> {
        let info = SubjectPublicKeyInfoOwned::from_der(spki).map_err(|error| error.to_string())?;
        PublicKey::of(&info)
    }

    pub(super) fn of(info: &SubjectPublicKeyInfoOwned) -> Result<PublicKey, Reason> {
        let curve = || {
            let parameters = info.algorithm.parameters.as_ref()?;
            parameters.decode_as::<ObjectIdentifier>().ok()
        };
        let algorithms = match info.algorithm.oid {
            EC if curve() == Some(P256) => ECDSA_P256,
            EC if curve() == Some(P384) => ECDSA_P384,
            RSA => RSA_PKCS1,
            EDWARDS => EDDSA,
            _ => return Err("it is no ECDSA (P-256, P-384), RSA or Ed25519 key".into()),
        };
        let bytes = info.subject_public_key.as_bytes().ok_or("it is no whole number of bytes")?;
        let spki = info.to_der().map_err(|error| error.to_string())?;
        Ok(PublicKey { algorithms, bytes: bytes.to_vec(), spki })
    }

    /// SHA-256 of the key's SubjectPublicKeyInfo: what Rekor and CT logs are known by.
    pub(super) fn id(&self) -> [u8; 32] {
        Digest::of(&self.spki).0
    }

    /// The same for people.
    pub fn fingerprint(&self) -> String {
        Digest(self.id()).to_string()
    }

    /// Checks a signature.
    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), Reason> {
        let good = self.algorithms.iter().any(|algorithm| {
            UnparsedPublicKey::new(*algorithm, &self.bytes).verify(message, signature).is_ok()
        });
        if good { Ok(()) } else { Err("it was not made with the key that is asked for".into()) }
    }
}
