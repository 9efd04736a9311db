//! Signatures in the form that cosign makes and stores, with an identity provider, logs and trust
//! root of our own.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dock2uni::source::{self, Digest, Name, Options, Quiet, Reference, Store, Upload};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, PublicKeyData as _, SanType, SerialNumber, SigningKey as _,
    date_time_ymd,
};
use serde_json::{Value, json};

pub const ISSUER: &str = "https://login.example";
pub const IDENTITY: &str = "https://build.example/team/app/release.yml@refs/heads/main";
/// When everything was signed: 2026-03-01T00:10:00Z.
pub const TIME: u64 = 1_772_323_800;
const SIMPLE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

pub fn b64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// SubjectPublicKeyInfo.
fn spki(key: &KeyPair) -> Vec<u8> {
    key.subject_public_key_info()
}

/// What cosign signs.
pub fn payload(digest: &str) -> Vec<u8> {
    json!({
        "critical": {
            "identity": { "docker-reference": "example/app" },
            "image": { "docker-manifest-digest": digest },
            "type": "cosign container image signature",
        },
        "optional": null,
    })
    .to_string()
    .into_bytes()
}

/// A signature as cosign stores it: payload and annotations.
pub struct Signed {
    pub payload: Vec<u8>,
    pub annotations: Value,
}

/// Signs by a key alone.
pub fn by_key(key: &KeyPair, payload: Vec<u8>) -> Signed {
    let signature = b64(&key.sign(&payload).unwrap());
    Signed { payload, annotations: json!({ "dev.cosignproject.cosign/signature": signature }) }
}

/// Certificate authority, log of certificates, and transparency log.
pub struct Sigstore {
    ca: CertificateParams,
    ca_key: KeyPair,
    ca_certificate: Certificate,
    certificate_log: KeyPair,
    log: KeyPair,
}

impl Sigstore {
    pub fn new() -> Sigstore {
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name.push(rcgen::DnType::CommonName, "test authority");
        ca.not_before = date_time_ymd(2025, 1, 1);
        ca.not_after = date_time_ymd(2035, 1, 1);
        let key = || KeyPair::generate().unwrap();
        let ca_key = key();
        let ca_certificate = ca.self_signed(&ca_key).unwrap();
        Sigstore { ca, ca_key, ca_certificate, certificate_log: key(), log: key() }
    }

    /// `trusted_root.json`.
    pub fn trust_root(&self) -> Value {
        let log = |key: &KeyPair| {
            json!({
                "baseUrl": "https://log.example",
                "hashAlgorithm": "SHA2_256",
                "publicKey": {
                    "rawBytes": b64(&spki(key)),
                    "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                    "validFor": { "start": "2025-01-01T00:00:00.000Z" },
                },
                "logId": { "keyId": b64(&Digest::of(&spki(key)).0) },
            })
        };
        json!({
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [log(&self.log)],
            "certificateAuthorities": [{
                "subject": { "organization": "example", "commonName": "test authority" },
                "uri": "https://fulcio.example",
                "certChain": { "certificates": [{ "rawBytes": b64(self.ca_certificate.der()) }] },
                "validFor": { "start": "2025-01-01T00:00:00Z", "end": "2030-01-01T00:00:00Z" },
            }],
            "ctlogs": [log(&self.certificate_log)],
        })
    }

    /// A certificate for a key, valid for a month around [`TIME`], logged or not.
    pub fn certificate(&self, key: &KeyPair, logged: bool) -> Certificate {
        let issuer = Issuer::from_params(&self.ca, &self.ca_key);
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.serial_number = Some(SerialNumber::from(vec![1, 2, 3, 4]));
        params.not_before = date_time_ymd(2026, 3, 1);
        params.not_after = date_time_ymd(2026, 4, 1);
        params.subject_alt_names = vec![SanType::URI(IDENTITY.try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        // UTF8String.
        let text = [&[0x0c, ISSUER.len() as u8], ISSUER.as_bytes()].concat();
        let oid = [1, 3, 6, 1, 4, 1, 57264, 1, 8];
        params.custom_extensions = vec![CustomExtension::from_oid_content(&oid, text)];
        if logged {
            let before = params.signed_by(key, &issuer).unwrap();
            let list = self.timestamps(tbs(before.der()));
            let oid = [1, 3, 6, 1, 4, 1, 11129, 2, 4, 2];
            params.custom_extensions.push(CustomExtension::from_oid_content(&oid, list));
        }
        params.signed_by(key, &issuer).unwrap()
    }

    /// What the log of certificates promises about one, as its extension has it.
    fn timestamps(&self, tbs: &[u8]) -> Vec<u8> {
        let time = (TIME * 1000).to_be_bytes();
        let mut message = vec![0, 0];
        message.extend(time);
        message.extend([0, 1]);
        message.extend(Digest::of(&spki(&self.ca_key)).0);
        message.extend(&(tbs.len() as u32).to_be_bytes()[1..]);
        message.extend(tbs);
        message.extend([0, 0]);
        let signature = self.certificate_log.sign(&message).unwrap();
        let mut one = vec![0];
        one.extend(Digest::of(&spki(&self.certificate_log)).0);
        one.extend(time);
        // No extensions; SHA-256 and ECDSA.
        one.extend([0, 0, 4, 3]);
        one.extend((signature.len() as u16).to_be_bytes());
        one.extend(signature);
        let list = [&(one.len() as u16).to_be_bytes()[..], &one].concat();
        let list = [&(list.len() as u16).to_be_bytes()[..], &list].concat();
        // OCTET STRING with a length of one byte.
        assert!(list.len() < 128);
        [&[0x04, list.len() as u8][..], &list].concat()
    }

    /// Rekor's promise about an entry, and what it is over.
    fn promise(&self, body: &Value) -> (String, Value) {
        let payload = json!({
            "body": b64(body.to_string().as_bytes()),
            "integratedTime": TIME,
            "logID": Digest::of(&spki(&self.log)).hex(),
            "logIndex": 77,
        });
        (b64(&self.log.sign(payload.to_string().as_bytes()).unwrap()), payload)
    }

    /// Signs as `cosign sign` does for an identity, with all that it stores beside the signature.
    pub fn by_identity(&self, payload: Vec<u8>, logged: bool) -> Signed {
        let key = KeyPair::generate().unwrap();
        let pem = self.certificate(&key, logged).pem();
        let signature = b64(&key.sign(&payload).unwrap());
        let (promise, entry) = self.promise(&hashed_record(&payload, &signature, &pem));
        Signed {
            payload,
            annotations: json!({
                "dev.cosignproject.cosign/signature": signature,
                "dev.sigstore.cosign/certificate": pem,
                "dev.sigstore.cosign/chain": self.ca_certificate.pem(),
                "dev.sigstore.cosign/bundle": json!({
                    "SignedEntryTimestamp": promise,
                    "Payload": entry,
                }).to_string(),
            }),
        }
    }

    /// The same by a key, with an entry in the log.
    pub fn by_logged_key(&self, key: &KeyPair, payload: Vec<u8>) -> Signed {
        let mut signed = by_key(key, payload);
        let signature = signed.annotations["dev.cosignproject.cosign/signature"].as_str().unwrap();
        let pem = key.public_key_pem();
        let (promise, entry) = self.promise(&hashed_record(&signed.payload, signature, &pem));
        signed.annotations["dev.sigstore.cosign/bundle"] =
            json!({ "SignedEntryTimestamp": promise, "Payload": entry }).to_string().into();
        signed
    }

    /// A Sigstore bundle with a statement about an image, as newer cosigns store it.
    pub fn bundle(&self, digest: &str, predicate: &str) -> Value {
        let key = KeyPair::generate().unwrap();
        let certificate = self.certificate(&key, true);
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{ "digest": { "sha256": digest.trim_start_matches("sha256:") } }],
            "predicateType": predicate,
            "predicate": {},
        })
        .to_string();
        let kind = "application/vnd.in-toto+json";
        let encoded = format!("DSSEv1 {} {kind} {} {statement}", kind.len(), statement.len());
        let signature = b64(&key.sign(encoded.as_bytes()).unwrap());
        let (promise, entry) = self.promise(&json!({
            "apiVersion": "0.0.1",
            "kind": "dsse",
            "spec": {
                "envelopeHash": { "algorithm": "sha256", "value": "00" },
                "payloadHash": {
                    "algorithm": "sha256",
                    "value": Digest::of(statement.as_bytes()).hex(),
                },
                "signatures": [{
                    "signature": signature,
                    "verifier": b64(certificate.pem().as_bytes()),
                }],
            },
        }));
        json!({
            "mediaType": BUNDLE,
            "verificationMaterial": {
                "certificate": { "rawBytes": b64(certificate.der()) },
                "tlogEntries": [{
                    "logIndex": entry["logIndex"].to_string(),
                    "logId": { "keyId": b64(&Digest::of(&spki(&self.log)).0) },
                    "kindVersion": { "kind": "dsse", "version": "0.0.1" },
                    "integratedTime": entry["integratedTime"].to_string(),
                    "inclusionPromise": { "signedEntryTimestamp": promise },
                    "canonicalizedBody": entry["body"],
                }],
            },
            "dsseEnvelope": {
                "payload": b64(statement.as_bytes()),
                "payloadType": kind,
                "signatures": [{ "sig": signature }],
            },
        })
    }
}

fn hashed_record(payload: &[u8], signature: &str, verifier: &str) -> Value {
    json!({
        "apiVersion": "0.0.1",
        "kind": "hashedrekord",
        "spec": {
            "data": { "hash": { "algorithm": "sha256", "value": Digest::of(payload).hex() } },
            "signature": {
                "content": signature,
                "publicKey": { "content": b64(verifier.as_bytes()) },
            },
        },
    })
}

/// The part of a certificate that is signed.
fn tbs(certificate: &[u8]) -> &[u8] {
    // Both have lengths of two bytes: 30 82 LL LL 30 82 LL LL.
    assert_eq!((certificate[1], certificate[5]), (0x82, 0x82));
    let len = u16::from_be_bytes([certificate[6], certificate[7]]);
    &certificate[4..8 + usize::from(len)]
}

/// How signatures are stored.
#[derive(Clone, Copy, Debug)]
pub enum Storage {
    /// By a tag that is made of the digest.
    Tag,
    /// As a referrer, in the list that stands in for the API.
    Referrer,
}

/// Puts signatures beside an image, as cosign does, in place of those that are there.
pub fn store_signatures(repository: &str, digest: &str, signatures: &[Signed], how: Storage) {
    let layers: Vec<(&str, &[u8], Value)> = signatures
        .iter()
        .map(|signed| (SIMPLE, &signed.payload[..], signed.annotations.clone()))
        .collect();
    let artifact = "application/vnd.dev.cosign.artifact.sig.v1+json";
    store(repository, digest, &layers, artifact, how);
}

/// Puts a Sigstore bundle beside an image.
pub fn store_bundle(repository: &str, digest: &str, bundle: &Value) {
    let bytes = bundle.to_string().into_bytes();
    store(repository, digest, &[(BUNDLE, &bytes, json!({}))], BUNDLE, Storage::Referrer);
}

fn store(
    repository: &str,
    digest: &str,
    layers: &[(&str, &[u8], Value)],
    artifact: &str,
    how: Storage,
) {
    let config = json!({
        "architecture": "", "created": "0001-01-01T00:00:00Z", "os": "",
        "rootfs": { "type": "layers", "diff_ids": [] }, "config": {},
    })
    .to_string();
    let descriptor = |kind: &str, bytes: &[u8]| {
        json!({
            "mediaType": kind,
            "digest": Digest::of(bytes).to_string(),
            "size": bytes.len(),
        })
    };
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", config.as_bytes()),
        "layers": layers.iter().map(|(kind, bytes, annotations)| {
            let mut layer = descriptor(kind, bytes);
            layer["annotations"] = annotations.clone();
            layer
        }).collect::<Vec<_>>(),
    });
    let mut blobs: Vec<&[u8]> = layers.iter().map(|(_, bytes, _)| *bytes).collect();
    blobs.push(config.as_bytes());
    let hex = digest.trim_start_matches("sha256:");
    match how {
        Storage::Tag => {
            push(&format!("{repository}:sha256-{hex}.sig"), &blobs, &manifest, MANIFEST);
        }
        Storage::Referrer => {
            manifest["artifactType"] = artifact.into();
            manifest["subject"] = json!({ "mediaType": MANIFEST, "digest": digest, "size": 1 });
            let text = manifest.to_string();
            let own = Digest::of(text.as_bytes());
            push(&format!("{repository}@{own}"), &blobs, &manifest, MANIFEST);
            let mut entry = descriptor(MANIFEST, text.as_bytes());
            entry["artifactType"] = artifact.into();
            let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [entry] });
            push(&format!("{repository}:sha256-{hex}"), &[], &index, INDEX);
        }
    }
}

fn push(to: &str, blobs: &[&[u8]], manifest: &Value, kind: &'static str) {
    let name: Name = match to.parse().unwrap() {
        Reference::Registry(name) => name,
        other => panic!("{other}"),
    };
    let files: Vec<_> = blobs
        .iter()
        .map(|bytes| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            file
        })
        .collect();
    let uploads: Vec<_> = blobs
        .iter()
        .zip(&files)
        .map(|(bytes, file)| Upload { digest: Digest::of(bytes), size: bytes.len() as u64, file })
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let manifest = manifest.to_string();
    source::push(&name, &uploads, (manifest.as_bytes(), kind), &Options::default(), &store, &Quiet)
        .unwrap();
}
