//! Signs EFI files for Secure Boot (Microsoft's "Windows Authenticode Portable Executable Signature
//! Format"; UEFI 2.10, 32.2.4), as `sbsign` does.

use std::fs;
use std::path::Path;

use cms::cert::{CertificateChoices, IssuerAndSerialNumber};
use cms::content_info::{CmsVersion, ContentInfo};
use cms::signed_data::{
    CertificateSet, EncapsulatedContentInfo, SignedData, SignerIdentifier, SignerInfo, SignerInfos,
};
use der::asn1::{ObjectIdentifier, OctetString, SetOfVec};
use der::{Any, AnyRef, Decode, DecodePem, Encode};
use ring::signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use x509_cert::Certificate;
use x509_cert::attr::Attribute;
use x509_cert::spki::AlgorithmIdentifierOwned;

use super::Error;

const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const CONTENT_TYPE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.3");
const MESSAGE_DIGEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.4");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const INDIRECT_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.2.1.4");
/// SpcIndirectDataContent without its outer header, up to the digest: "a PE file", without flags
/// and file name, by SHA-256.
const INDIRECT: [u8; 44] = [
    0x30, 0x17, 0x06, 0x0a, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x02, 0x01, 0x0f, 0x30, 0x09,
    0x03, 0x01, 0x00, 0xa0, 0x04, 0xa2, 0x02, 0x80, 0x00, 0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60,
    0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20,
];
/// Largest key or certificate file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// A key and its certificate.
#[derive(Debug)]
pub struct Signer {
    key: RsaKeyPair,
    certificate: Certificate,
}

impl Signer {
    /// Reads an RSA key (PKCS #8 or PKCS #1) and its certificate, both PEM.
    ///
    /// # Errors
    /// If a file cannot be read or used, or the two don't belong together.
    pub fn load(key: &Path, certificate: &Path) -> Result<Signer, Error> {
        let (key_pem, certificate_pem) = (read("key", key)?, read("certificate", certificate)?);
        Signer::from_pem(&key_pem, &certificate_pem)
    }

    /// See [`Signer::load`].
    ///
    /// # Errors
    /// If one cannot be used, or the two don't belong together.
    pub fn from_pem(key: &[u8], certificate: &[u8]) -> Result<Signer, Error> {
        let bad_key = |why: String| Error::Signer { what: "key", why };
        let bad_certificate = |why: String| Error::Signer { what: "certificate", why };
        if key.windows(9).any(|part| part == b"ENCRYPTED") {
            return Err(bad_key("it is protected by a password".into()));
        }
        let key = match PrivateKeyDer::from_pem_slice(key) {
            Ok(PrivateKeyDer::Pkcs8(der)) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
            Ok(PrivateKeyDer::Pkcs1(der)) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
            Ok(_) => return Err(bad_key("it is no RSA key".into())),
            Err(error) => return Err(bad_key(error.to_string())),
        };
        let key = key.map_err(|error| bad_key(error.to_string()))?;
        let certificate = Certificate::from_pem(certificate)
            .map_err(|error| bad_certificate(error.to_string()))?;
        let public = &certificate.tbs_certificate.subject_public_key_info.subject_public_key;
        if public.as_bytes() != Some(key.public_key().as_ref()) {
            return Err(bad_certificate("it is that of another key".into()));
        }
        Ok(Signer { key, certificate })
    }

    /// Appends a signature to a PE32+ file that has none.
    pub(super) fn sign(&self, file: &mut Vec<u8>) -> Result<(), Error> {
        let digest = digest(file).ok_or(Error::Kernel("its EFI loader is malformed"))?;
        let failed = |error: der::Error| Error::Signer { what: "key", why: error.to_string() };
        let signature = self
            .signature(&digest)
            .map_err(failed)?
            .map_err(|()| Error::Signer { what: "key", why: "it refuses to sign".into() })?;
        // WIN_CERTIFICATE: length, revision 2.0, PKCS #7 signed data.
        let at = file.len() as u32;
        let len = (8 + signature.len()).next_multiple_of(8);
        file.extend_from_slice(&(len as u32).to_le_bytes());
        file.extend_from_slice(&0x0200u16.to_le_bytes());
        file.extend_from_slice(&2u16.to_le_bytes());
        file.extend_from_slice(&signature);
        file.resize(at as usize + len, 0);
        // `digest` has found the directory inside the file.
        if let Some((_, directory)) = places(file) {
            file[directory..directory + 4].copy_from_slice(&at.to_le_bytes());
            file[directory + 4..directory + 8].copy_from_slice(&(len as u32).to_le_bytes());
        }
        Ok(())
    }

    /// The signed data as DER; the inner error is the signer's.
    fn signature(&self, digest: &[u8; 32]) -> der::Result<Result<Vec<u8>, ()>> {
        let null = || Some(Any::from(AnyRef::NULL));
        let sha256 = AlgorithmIdentifierOwned { oid: SHA256, parameters: null() };
        let content = [&INDIRECT[..], digest].concat();
        // The header of the structure is not part of what is hashed.
        let hash = Sha256::digest(&content);
        let content = Any::new(der::Tag::Sequence, content)?;
        let attribute = |oid: ObjectIdentifier, value: Any| -> der::Result<Attribute> {
            Ok(Attribute { oid, values: SetOfVec::try_from(vec![value])? })
        };
        let attributes = SetOfVec::try_from(vec![
            attribute(CONTENT_TYPE, Any::encode_from(&INDIRECT_DATA)?)?,
            attribute(MESSAGE_DIGEST, Any::encode_from(&OctetString::new(hash.as_slice())?)?)?,
        ])?;
        let mut signature = vec![0; self.key.public().modulus_len()];
        let random = ring::rand::SystemRandom::new();
        let text = attributes.to_der()?;
        if self.key.sign(&RSA_PKCS1_SHA256, &random, &text, &mut signature).is_err() {
            return Ok(Err(()));
        }
        let names = &self.certificate.tbs_certificate;
        let signer = SignerInfo {
            version: CmsVersion::V1,
            sid: SignerIdentifier::IssuerAndSerialNumber(IssuerAndSerialNumber {
                issuer: names.issuer.clone(),
                serial_number: names.serial_number.clone(),
            }),
            digest_alg: sha256.clone(),
            signed_attrs: Some(attributes),
            signature_algorithm: AlgorithmIdentifierOwned { oid: RSA, parameters: null() },
            signature: OctetString::new(signature)?,
            unsigned_attrs: None,
        };
        let certificate = CertificateChoices::Certificate(self.certificate.clone());
        let data = SignedData {
            version: CmsVersion::V1,
            digest_algorithms: SetOfVec::try_from(vec![sha256])?,
            encap_content_info: EncapsulatedContentInfo {
                econtent_type: INDIRECT_DATA,
                econtent: Some(content),
            },
            certificates: Some(CertificateSet(SetOfVec::try_from(vec![certificate])?)),
            crls: None,
            signer_infos: SignerInfos(SetOfVec::try_from(vec![signer])?),
        };
        let info =
            ContentInfo { content_type: SIGNED_DATA, content: Any::from_der(&data.to_der()?)? };
        info.to_der().map(Ok)
    }
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |error: std::io::Error| Error::Signer {
        what,
        why: format!("`{}`: {error}", path.display()),
    };
    if fs::metadata(path).map_err(failed)?.len() > MAX_FILE {
        return Err(Error::Signer { what, why: format!("`{}` is too large", path.display()) });
    }
    fs::read(path).map_err(failed)
}

/// Where checksum and the directory entry of signatures are in a PE32+ file.
fn places(file: &[u8]) -> Option<(usize, usize)> {
    let start = u32::from_le_bytes(file.get(60..64)?.try_into().ok()?) as usize;
    let optional = start.checked_add(24)?;
    let (checksum, directory) = (optional + 64, optional + 112 + 4 * 8);
    file.get(directory..directory + 8)?;
    Some((checksum, directory))
}

/// The hash of a file whose sections follow each other without gaps: all of it but the checksum
/// and the place of the signature.
fn digest(file: &[u8]) -> Option<[u8; 32]> {
    let (checksum, directory) = places(file)?;
    let mut hash = Sha256::new();
    hash.update(&file[..checksum]);
    hash.update(&file[checksum + 4..directory]);
    hash.update(&file[directory + 8..]);
    Some(hash.finalize().into())
}
