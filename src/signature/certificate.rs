//! Certificates of signing keys, as Fulcio issues them (sigstore/fulcio, `docs/certificate-
//! specification.md` and `docs/oid-info.md`).

use std::time::Duration;

use der::asn1::{ObjectIdentifier, OctetString, Utf8StringRef};
use der::{Decode, Document, Encode};
use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_cert::Certificate;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::{PublicKey, Reason, TrustRoot};
use crate::source::Digest;

/// Extended key usage "code signing" (1.3.6.1.5.5.7.3.3), the value of its DER.
const CODE_SIGNING: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 3];
/// The identity provider: as DER, and as it was before.
const ISSUER: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.57264.1.8");
const ISSUER_V1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.57264.1.1");
const ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");
/// A name that is neither an address nor a URI, in `otherName`.
const OTHER_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.57264.1.7");
/// Signed certificate timestamps (RFC 6962, 3.3).
const TIMESTAMPS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.11129.2.4.2");

/// The certificate of a key that signed.
#[derive(Clone)]
pub(super) struct SigningCertificate {
    der: Vec<u8>,
    parsed: Certificate,
    /// Those between it and the root, as they came with it; nothing is believed of them.
    chain: Vec<CertificateDer<'static>>,
}

impl SigningCertificate {
    /// Reads a certificate, and perhaps those above it, in PEM.
    pub(super) fn from_pem(pem: &str, chain: Option<&str>) -> Result<SigningCertificate, Reason> {
        let certificates = |pem: &str| -> Result<Vec<Vec<u8>>, Reason> {
            let mut all = Vec::new();
            // `from_pem` takes a single one.
            for part in pem.split_inclusive("-----END CERTIFICATE-----") {
                let part = part.trim();
                if part.is_empty() {
                    continue;
                }
                let part = format!("{part}\n");
                let (label, document) = Document::from_pem(&part)
                    .map_err(|error| format!("its certificate cannot be read: {error}"))?;
                if label != "CERTIFICATE" {
                    return Err(format!("its certificate is a `{label}`"));
                }
                all.push(document.as_bytes().to_vec());
            }
            Ok(all)
        };
        let mut all = certificates(pem)?.into_iter();
        let mut certificate = SigningCertificate::from_der(&all.next().ok_or("no certificate")?)?;
        let above = chain.map(certificates).transpose()?.unwrap_or_default();
        certificate.chain = all.chain(above).map(CertificateDer::from).collect();
        Ok(certificate)
    }

    pub(super) fn from_der(der: &[u8]) -> Result<SigningCertificate, Reason> {
        let parsed = Certificate::from_der(der)
            .map_err(|error| format!("its certificate cannot be read: {error}"))?;
        Ok(SigningCertificate { der: der.to_vec(), parsed, chain: Vec::new() })
    }

    /// The key that it vouches for.
    pub(super) fn key(&self) -> Result<PublicKey, Reason> {
        PublicKey::of(&self.parsed.tbs_certificate.subject_public_key_info)
    }

    fn extension(&self, id: ObjectIdentifier) -> Option<&[u8]> {
        let extensions = self.parsed.tbs_certificate.extensions.as_ref()?;
        let found = extensions.iter().find(|extension| extension.extn_id == id)?;
        Some(found.extn_value.as_bytes())
    }

    /// It is this identity's, by this provider's word.
    pub(super) fn check_identity(&self, identity: &str, issuer: &str) -> Result<(), Reason> {
        let names = self.identities()?;
        if !names.iter().any(|name| name == identity) {
            return Err(format!("it was made by `{}`", names.join("`, `")));
        }
        let found = match self.extension(ISSUER) {
            Some(der) => Utf8StringRef::from_der(der).ok().map(|text| text.as_str()),
            None => self.extension(ISSUER_V1).and_then(|raw| std::str::from_utf8(raw).ok()),
        };
        match found {
            Some(found) if found == issuer => Ok(()),
            Some(found) => Err(format!("`{found}` vouches for `{identity}`")),
            None => Err("its certificate does not say who vouches for the identity".into()),
        }
    }

    /// The names in it.
    fn identities(&self) -> Result<Vec<String>, Reason> {
        let none = || Reason::from("its certificate names no identity");
        let der = self.extension(ALT_NAME).ok_or_else(none)?;
        let names = SubjectAltName::from_der(der).map_err(|_| none())?.0;
        let names = names.into_iter().filter_map(|name| match name {
            GeneralName::Rfc822Name(text) => Some(text.as_str().to_owned()),
            GeneralName::UniformResourceIdentifier(text) => Some(text.as_str().to_owned()),
            GeneralName::OtherName(other) if other.type_id == OTHER_NAME => {
                other.value.decode_as::<Utf8StringRef<'_>>().ok().map(|text| text.as_str().into())
            }
            _ => None,
        });
        let names: Vec<String> = names.collect();
        if names.is_empty() { Err(none()) } else { Ok(names) }
    }

    /// An authority of the trust root vouched for it at the time of signing (in seconds since
    /// 1970), and a log of certificates has it, if the trust root names any.
    pub(super) fn check_chain(&self, root: &TrustRoot, time: u64) -> Result<(), Reason> {
        let at = Duration::from_secs(time);
        let der = CertificateDer::from(&self.der[..]);
        let leaf = EndEntityCert::try_from(&der)
            .map_err(|error| format!("its certificate cannot be used: {error}"))?;
        let mut why = "the trust root names no authority for that time".to_owned();
        for authority in root.authorities_at(at) {
            // `load` refuses authorities without certificates.
            let Some((top, below)) = authority.chain.split_last() else { continue };
            let anchors = match anchor_from_trusted_cert(top) {
                Ok(anchor) => [anchor],
                Err(error) => {
                    why = format!("an authority of the trust root cannot be used: {error}");
                    continue;
                }
            };
            let between: Vec<CertificateDer<'_>> =
                below.iter().chain(&self.chain).cloned().collect();
            let verified = leaf.verify_for_usage(
                ALL_VERIFICATION_ALGS,
                &anchors,
                &between,
                UnixTime::since_unix_epoch(at),
                KeyUsage::required(CODE_SIGNING),
                None,
                None,
            );
            match verified {
                Ok(_) => return self.check_logged(root, authority.chain.iter().chain(&self.chain)),
                Err(error) => why = format!("its certificate is not trusted: {error}"),
            }
        }
        Err(why)
    }

    /// A log of certificates has promised to have it. `above` has its issuer.
    fn check_logged<'c>(
        &self,
        root: &TrustRoot,
        above: impl Iterator<Item = &'c CertificateDer<'static>>,
    ) -> Result<(), Reason> {
        if !root.has_certificate_logs() {
            return Ok(());
        }
        let none = || Reason::from("no certificate log of the trust root has its certificate");
        let list = self.extension(TIMESTAMPS).ok_or_else(none)?;
        let list = OctetString::from_der(list).map_err(|_| none())?;
        let issuer = &self.parsed.tbs_certificate.issuer;
        let issuer = above
            .filter_map(|der| Certificate::from_der(der).ok())
            .find(|certificate| certificate.tbs_certificate.subject == *issuer)
            .ok_or_else(none)?;
        let spki = issuer.tbs_certificate.subject_public_key_info.to_der();
        let issuer_hash = Digest::of(&spki.map_err(|_| none())?).0;
        // What the log saw: the certificate before the timestamps were put in.
        let mut before = self.parsed.tbs_certificate.clone();
        if let Some(extensions) = &mut before.extensions {
            extensions.retain(|extension| extension.extn_id != TIMESTAMPS);
        }
        let before = before.to_der().map_err(|_| none())?;
        let promised = timestamps(list.as_bytes()).unwrap_or_default().into_iter().any(|promise| {
            let at = Duration::from_millis(promise.time);
            root.certificate_log(&promise.log, at).is_some_and(|key| {
                let message = promise.message(&issuer_hash, &before);
                key.verify(&message, promise.signature).is_ok()
            })
        });
        if promised { Ok(()) } else { Err(none()) }
    }
}

/// A signed certificate timestamp of version 1 (RFC 6962, 3.2).
struct Timestamp<'a> {
    log: [u8; 32],
    /// In milliseconds since 1970.
    time: u64,
    extensions: &'a [u8],
    signature: &'a [u8],
}

impl Timestamp<'_> {
    /// What is signed, of an entry of the kind `precert_entry`.
    fn message(&self, issuer: &[u8; 32], certificate: &[u8]) -> Vec<u8> {
        // Version and kind of signature.
        let mut message = vec![0, 0];
        message.extend_from_slice(&self.time.to_be_bytes());
        message.extend_from_slice(&1u16.to_be_bytes());
        message.extend_from_slice(issuer);
        // Lengths of three and two bytes; what they count came out of such, or out of a document
        // of 4 MiB at most.
        message.extend_from_slice(&(certificate.len() as u32).to_be_bytes()[1..]);
        message.extend_from_slice(certificate);
        message.extend_from_slice(&(self.extensions.len() as u16).to_be_bytes());
        message.extend_from_slice(self.extensions);
        message
    }
}

/// The timestamps of a SignedCertificateTimestampList; `None` if it is malformed.
fn timestamps(list: &[u8]) -> Option<Vec<Timestamp<'_>>> {
    let mut all = Vec::new();
    let (mut list, _) = vector(list)?;
    while !list.is_empty() {
        let (one, rest) = vector(list)?;
        list = rest;
        // Other versions are for others to read.
        let (0, one) = (*one.first()?, one.get(1..)?) else { continue };
        let (log, one) = one.split_first_chunk::<32>()?;
        let (time, one) = one.split_first_chunk::<8>()?;
        let (extensions, one) = vector(one)?;
        // Hash and signature algorithms: the key knows its own.
        let (signature, _) = vector(one.get(2..)?)?;
        all.push(Timestamp { log: *log, time: u64::from_be_bytes(*time), extensions, signature });
    }
    Some(all)
}

/// Bytes with their length in two bytes before them, and what follows.
fn vector(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(u16::from_be_bytes(*len).into())
}
