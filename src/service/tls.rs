//! TLS: whom the service trusts, and the certificate that it shows.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// Settings for a client that trusts the system's authorities.
///
/// # Errors
/// In words.
pub fn client() -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    // Distributions ship certificates that rustls can't use; the rest counts.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|e| e.to_string())?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// A certificate that is read again when its file changes.
#[derive(Debug)]
pub struct Identity {
    chain: PathBuf,
    key: PathBuf,
    current: RwLock<(Arc<CertifiedKey>, [Option<SystemTime>; 2])>,
}

impl Identity {
    /// Reads a certificate chain and its key, both PEM.
    ///
    /// # Errors
    /// In words.
    pub fn load(chain: &Path, key: &Path) -> Result<Arc<Identity>, String> {
        let times = times(chain, key);
        let current = RwLock::new((Arc::new(read(chain, key)?), times));
        let (chain, key) = (chain.to_owned(), key.to_owned());
        Ok(Arc::new(Identity { chain, key, current }))
    }

    /// Settings for a server that shows this certificate, whichever it is at the time.
    ///
    /// # Errors
    /// In words.
    pub fn server(self: &Arc<Identity>) -> Result<ServerConfig, String> {
        let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
        let builder = builder.with_safe_default_protocol_versions().map_err(|e| e.to_string())?;
        let mut config = builder.with_no_client_auth().with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    /// Reads the files again if they have changed; whether they had. With a mistake in them the old
    /// certificate stays.
    ///
    /// # Errors
    /// In words.
    pub fn refresh(&self) -> Result<bool, String> {
        let now = times(&self.chain, &self.key);
        if self.current.read().unwrap_or_else(PoisonError::into_inner).1 == now {
            return Ok(false);
        }
        let read = read(&self.chain, &self.key);
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        // Complained about once.
        current.1 = now;
        current.0 = Arc::new(read?);
        Ok(true)
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().unwrap_or_else(PoisonError::into_inner).0.clone())
    }
}

fn times(chain: &Path, key: &Path) -> [Option<SystemTime>; 2] {
    [chain, key].map(|path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok())
}

fn read(chain: &Path, key: &Path) -> Result<CertifiedKey, String> {
    let certificates = CertificateDer::pem_file_iter(chain)
        .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>())
        .map_err(|error| format!("`{}`: {error}", chain.display()))?;
    if certificates.is_empty() {
        return Err(format!("`{}` holds no certificate in PEM form", chain.display()));
    }
    let private = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| format!("`{}`: {error}", key.display()))?;
    CertifiedKey::from_der(certificates, private, &default_provider())
        .map_err(|error| format!("`{}`: {error}", key.display()))
}
