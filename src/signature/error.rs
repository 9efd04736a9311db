//! What can go wrong with signatures.

use std::path::PathBuf;

use crate::source::{self, Digest};

/// Why an image is not taken for signed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The registry.
    #[error(transparent)]
    Source(#[from] source::Error),
    /// Files have no signatures beside them.
    #[error("`{0}` is in no registry, so there is no signature to check")]
    NotInRegistry(String),
    /// No signature at all.
    #[error("`{image}` ({digest}) is not signed")]
    Unsigned {
        /// The reference.
        image: String,
        /// What it stands for.
        digest: Digest,
    },
    /// Signatures, but not the right ones.
    #[error("no signature of `{image}` ({digest}) is accepted: {}", reasons.join("; "))]
    Rejected {
        /// The reference.
        image: String,
        /// What it stands for.
        digest: Digest,
        /// What is wrong with each signature.
        reasons: Vec<String>,
    },
    /// A key that cannot be used.
    #[error("the key `{}` cannot be used: {why}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A trust root that cannot be used.
    #[error("the trust root `{}` cannot be used: {why}", path.display())]
    TrustRoot {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// An identity without anyone to vouch for it.
    #[error("an identity can only be checked against a trust root")]
    NoTrustRoot,
    /// Neither key nor identity, or both.
    #[error("signatures are checked against either a key or an identity")]
    NoSigner,
}

impl Error {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Error::Source(error) => return error.hint(),
            Error::NotInRegistry(_) => "name the image in its registry".into(),
            Error::Unsigned { digest, .. } => {
                format!("sign it by `cosign sign --key KEY REPOSITORY@{digest}`")
            }
            Error::Rejected { .. } => {
                "do not use the image unless you know why; `cosign tree` shows what it has".into()
            }
            Error::Key { .. } => {
                "give the public key that `cosign generate-key-pair` wrote, `cosign.pub`".into()
            }
            Error::TrustRoot { .. } | Error::NoTrustRoot => {
                "give `--trust-root` the file `trusted_root.json` that `cosign trusted-root create` \
                 writes, or that of https://tuf-repo-cdn.sigstore.dev"
                    .into()
            }
            Error::NoSigner => {
                "use `--verify-key`, or `--certificate-identity` with `--certificate-oidc-issuer`"
                    .into()
            }
        })
    }
}
