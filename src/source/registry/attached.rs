//! What is attached to an image: signatures, by cosign's tags and by the referrers of the OCI
//! distribution specification, version 1.1 ("Listing Referrers").

use std::collections::BTreeMap;

use reqwest::{Method, StatusCode};
use serde::Deserialize;

use super::retry::Retrier;
use super::{Registry, accept, read_all};
use crate::source::digest::Digest;
use crate::source::error::Error;
use crate::source::manifest::{Blob, MAX_DOCUMENT};

const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// Artifact types of signatures that are referrers, and the beginning of those of bundles.
const COSIGN_SIGNATURE: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle";
/// Manifests that are opened, and signatures that are taken; who attaches more than these hides
/// something.
const MAX_MANIFESTS: usize = 64;
const MAX_SIGNATURES: usize = 256;

/// Signatures of an image, as they were stored. Nothing about them is checked.
#[derive(Clone, Debug)]
pub struct Attached {
    /// What the reference stands for, a manifest or an index; verified.
    pub digest: Digest,
    /// Signatures over "simple signing" payloads.
    pub signatures: Vec<Signature>,
    /// Sigstore bundles, JSON.
    pub bundles: Vec<Vec<u8>>,
}

impl Attached {
    /// Whether there is no signature.
    pub fn is_empty(&self) -> bool {
        self.signatures.is_empty() && self.bundles.is_empty()
    }
}

/// A payload and what was put beside it.
#[derive(Clone, Debug)]
pub struct Signature {
    /// JSON, verified to have the digest that its manifest says.
    pub payload: Vec<u8>,
    /// Annotations of its descriptor.
    pub annotations: BTreeMap<String, String>,
}

/// A manifest or an index; every part of them that matters here.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Listing {
    manifests: Vec<Entry>,
    layers: Vec<Entry>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Entry {
    media_type: String,
    artifact_type: String,
    digest: String,
    size: u64,
    annotations: Option<BTreeMap<String, String>>,
}

impl Registry<'_> {
    /// The signatures of the image that the reference names.
    pub(in crate::source) fn attached(&self) -> Result<Attached, Error> {
        let digest = self.root()?.digest;
        self.need_network(&format!("what is attached to `{}`", self.name))?;
        let mut attached = Attached { digest, signatures: Vec::new(), bundles: Vec::new() };
        if let Some(bytes) = self.tagged(&format!("sha256-{}.sig", digest.hex()))? {
            self.take(&bytes, &mut attached)?;
        }
        let referrers = self.referrers(&digest)?.manifests;
        let wanted = |entry: &&Entry| {
            entry.artifact_type == COSIGN_SIGNATURE || entry.artifact_type.starts_with(BUNDLE)
        };
        for entry in referrers.iter().filter(wanted).take(MAX_MANIFESTS) {
            let bytes = self.document("signature's manifest", "manifests", &entry.blob()?)?;
            self.take(&bytes, &mut attached)?;
        }
        Ok(attached)
    }

    /// Fetches the signatures that a manifest lists.
    fn take(&self, manifest: &[u8], attached: &mut Attached) -> Result<(), Error> {
        let listing = self.listing(manifest)?;
        for layer in listing.layers {
            if attached.signatures.len() + attached.bundles.len() >= MAX_SIGNATURES {
                break;
            }
            let is_bundle = layer.media_type.starts_with(BUNDLE);
            if !is_bundle && layer.media_type != SIMPLE_SIGNING {
                continue;
            }
            let payload = self.document("signature", "blobs", &layer.blob()?)?;
            if is_bundle {
                attached.bundles.push(payload);
            } else {
                let annotations = layer.annotations.unwrap_or_default();
                attached.signatures.push(Signature { payload, annotations });
            }
        }
        Ok(())
    }

    /// What refers to a manifest: by the API, or from registries without it by the tag that stands
    /// in for it.
    fn referrers(&self, digest: &Digest) -> Result<Listing, Error> {
        let url = self.url("referrers", &digest.to_string())?;
        let mut retrier = Retrier::new(self.context, &self.name.host);
        let answer = loop {
            match self.attempt(&Method::GET, &url, &accept()).and_then(|response| {
                if response.status() != StatusCode::OK {
                    return Ok(None);
                }
                read_all(&url, response, MAX_DOCUMENT, || "list of referrers".into()).map(Some)
            }) {
                Ok(answer) => break answer,
                Err(failure) => retrier.pause(failure)?,
            }
        };
        let answer = match answer {
            Some(answer) => Some(answer),
            None => self.tagged(&format!("sha256-{}", digest.hex()))?,
        };
        answer.map_or_else(|| Ok(Listing::default()), |bytes| self.listing(&bytes))
    }

    /// The manifest of a tag, if there is one.
    pub(super) fn tagged(&self, tag: &str) -> Result<Option<Vec<u8>>, Error> {
        match self.fetch_manifest(tag, None) {
            Ok(root) => Ok(Some(root.bytes)),
            Err(Error::TagUnknown { .. } | Error::RepositoryUnknown { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn listing(&self, bytes: &[u8]) -> Result<Listing, Error> {
        serde_json::from_slice(bytes).map_err(|error| Error::Malformed {
            what: format!("list of signatures from {}", self.name.host),
            reason: error.to_string(),
        })
    }
}

impl Entry {
    fn blob(&self) -> Result<Blob, Error> {
        let unsupported = |reason: String| Error::Unsupported {
            what: format!("signature's digest `{}`", self.digest),
            reason,
        };
        let digest = self.digest.parse::<Digest>();
        let digest = digest.map_err(|error| unsupported(error.to_string()))?;
        let (size, limit) = (self.size, MAX_DOCUMENT);
        if size > limit {
            return Err(Error::TooLarge { what: format!("signature {digest}"), size, limit });
        }
        Ok(Blob { digest, size })
    }
}
