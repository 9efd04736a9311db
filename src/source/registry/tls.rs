//! Whom to trust, per registry.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::source::error::Error;
use crate::source::options::Options;

/// The TLS settings for `host[:port]`: the system's authorities, the user's, and those that
/// `certs.d` holds for this host alone.
pub(super) fn config(options: &Options, host: &str) -> Result<ClientConfig, Error> {
    let tls = |reason: String| Error::Tls { host: host.into(), reason };
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    // Distributions ship certificates that rustls can't use; the rest counts.
    roots.add_parsable_certificates(system.certs);
    if let Some(file) = &options.ca_file {
        add(&mut roots, file)
            .map_err(|reason| Error::Option { option: format!("`{}`", file.display()), reason })?;
    }
    let mut client = None;
    for dir in &options.certs_dirs {
        for file in files(&dir.join(host)) {
            match file.extension().and_then(|e| e.to_str()) {
                Some("crt") => {
                    add(&mut roots, &file).map_err(|e| tls(format!("`{}`: {e}", file.display())))?
                }
                Some("cert") if client.is_none() => {
                    let pair = identity(&file);
                    client = Some(pair.map_err(|e| tls(format!("`{}`: {e}", file.display())))?);
                }
                _ => {}
            }
        }
    }
    if roots.is_empty() {
        return Err(tls("no trusted authorities are installed (package `ca-certificates`)".into()));
    }
    let builder =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| tls(e.to_string()))?
            .with_root_certificates(roots);
    match client {
        None => Ok(builder.with_no_client_auth()),
        Some((chain, key)) => {
            builder.with_client_auth_cert(chain, key).map_err(|e| tls(e.to_string()))
        }
    }
}

/// The files of a directory in a fixed order; none if it can't be read.
fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    files
}

fn add(roots: &mut RootCertStore, file: &Path) -> Result<(), String> {
    let mut count = 0;
    for certificate in CertificateDer::pem_file_iter(file).map_err(|e| e.to_string())? {
        let certificate = certificate.map_err(|e| e.to_string())?;
        roots.add(certificate).map_err(|e| e.to_string())?;
        count += 1;
    }
    if count == 0 { Err("it holds no certificate in PEM form".into()) } else { Ok(()) }
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// A client certificate and the key beside it (`client.cert`, `client.key`).
fn identity(file: &Path) -> Result<Identity, String> {
    let chain = CertificateDer::pem_file_iter(file)
        .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>())
        .map_err(|e| e.to_string())?;
    let key = file.with_extension("key");
    let key = PrivateKeyDer::from_pem_file(&key).map_err(|e| format!("{}: {e}", key.display()))?;
    Ok((chain, key))
}

/// Settings for a registry that the machine's configuration calls insecure.
pub(super) fn unverified() -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(Anybody(provider.signature_verification_algorithms));
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map(|builder| {
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        })
        .map_err(|e| Error::Tls { host: "nobody".into(), reason: e.to_string() })
}

/// Takes every certificate, but not a handshake that its key has not signed.
#[derive(Debug)]
struct Anybody(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// Settings for a client that speaks plain HTTP only: it trusts nobody.
pub(crate) fn unused() -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map(|builder| builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
        .map_err(|e| Error::Tls { host: "nobody".into(), reason: e.to_string() })
}
