//! Manifests and indexes: OCI's, and Docker's schema 2, which have the same shape.

use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::digest::Digest;
use super::error::Error;
use super::image::Compression;

/// Largest manifest, index or configuration that is accepted; registries refuse larger ones
/// (OCI distribution specification, "Pushing Manifests").
pub(super) const MAX_DOCUMENT: u64 = 4 << 20;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1";

/// What a registry is asked for.
pub(super) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// Digest and size of some content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Blob {
    pub digest: Digest,
    pub size: u64,
}

/// A parsed manifest or index.
#[derive(Debug)]
pub(super) enum Document {
    Index(Box<ImageIndex>),
    Manifest(Box<ImageManifest>),
}

/// The members that tell the kinds of documents apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    schema_version: Option<u32>,
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
    fs_layers: Option<IgnoredAny>,
}

impl Document {
    /// Reads a document whose digest has been verified. `declared` is the media type by which it
    /// was named or served; `what` names it in errors.
    pub(super) fn parse(what: &str, bytes: &[u8], declared: Option<&str>) -> Result<Self, Error> {
        let malformed = |reason: String| Error::Malformed { what: what.into(), reason };
        let probe: Probe = serde_json::from_slice(bytes).map_err(|e| malformed(e.to_string()))?;
        let media_type = probe.media_type.as_deref().or(declared).unwrap_or_default();
        if media_type.starts_with(DOCKER_SCHEMA1)
            || probe.schema_version == Some(1)
            || probe.fs_layers.is_some()
        {
            return Err(Error::Unsupported {
                what: what.into(),
                reason:
                    "it is a Docker schema 1 manifest; push the image again with a current tool"
                        .into(),
            });
        }
        // One document that reads as either kind could show different images to different tools
        // (CVE-2021-41190).
        let is_index = match (&probe.manifests, probe.layers.is_some() || probe.config.is_some()) {
            (Some(_), false) => true,
            (None, true) => false,
            (Some(_), true) => return Err(malformed("it is both an index and a manifest".into())),
            (None, false) => {
                return Err(Error::Unsupported {
                    what: what.into(),
                    reason: format!("its media type `{media_type}` is none of an image"),
                });
            }
        };
        let contradicts = match media_type {
            OCI_INDEX | DOCKER_LIST => !is_index,
            OCI_MANIFEST | DOCKER_MANIFEST => is_index,
            _ => false,
        };
        if contradicts {
            return Err(malformed(format!("its content is not of its media type `{media_type}`")));
        }
        if is_index {
            let index = serde_json::from_slice(bytes).map_err(|e| malformed(e.to_string()))?;
            return Ok(Self::Index(Box::new(index)));
        }
        let manifest: ImageManifest =
            serde_json::from_slice(bytes).map_err(|e| malformed(e.to_string()))?;
        match manifest.config().media_type().as_ref() {
            OCI_CONFIG | DOCKER_CONFIG => Ok(Self::Manifest(Box::new(manifest))),
            other => Err(Error::Unsupported {
                what: what.into(),
                reason: format!("it is no container image: its configuration is `{other}`"),
            }),
        }
    }
}

/// Whether an index entry is an image or a further index, and not an attestation or other
/// artifact.
pub(super) fn is_image(descriptor: &Descriptor) -> bool {
    let annotated = descriptor
        .annotations()
        .as_ref()
        .is_some_and(|a| a.contains_key("vnd.docker.reference.type"));
    let known = matches!(
        descriptor.media_type().as_ref(),
        OCI_INDEX | OCI_MANIFEST | DOCKER_LIST | DOCKER_MANIFEST
    );
    let unknown_platform = descriptor.platform().as_ref().is_some_and(|platform| {
        platform.os().to_string() == "unknown" && platform.architecture().to_string() == "unknown"
    });
    known && !annotated && !unknown_platform && descriptor.artifact_type().is_none()
}

/// Digest and size out of a descriptor.
pub(super) fn blob(descriptor: &Descriptor) -> Result<Blob, Error> {
    let text = descriptor.digest().to_string();
    match text.parse() {
        Ok(digest) => Ok(Blob { digest, size: descriptor.size() }),
        Err(e) => {
            Err(Error::Unsupported { what: format!("digest `{text}`"), reason: e.to_string() })
        }
    }
}

/// The compression that a layer's media type declares.
pub(super) fn compression(descriptor: &Descriptor) -> Result<Compression, Error> {
    match descriptor.media_type().as_ref() {
        "application/vnd.oci.image.layer.v1.tar"
        | "application/vnd.oci.image.layer.nondistributable.v1.tar"
        | "application/vnd.docker.image.rootfs.diff.tar" => Ok(Compression::None),
        "application/vnd.oci.image.layer.v1.tar+gzip"
        | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
        | "application/vnd.docker.image.rootfs.diff.tar.gzip"
        | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => Ok(Compression::Gzip),
        "application/vnd.oci.image.layer.v1.tar+zstd"
        | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
        | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Ok(Compression::Zstd),
        other => Err(Error::Unsupported {
            what: format!("layer {}", descriptor.digest()),
            reason: if other.ends_with("+encrypted") {
                "it is encrypted; decrypt the image first".into()
            } else {
                format!("its media type is `{other}`; plain, gzip and zstd tar layers are")
            },
        }),
    }
}

/// Reads a configuration whose digest has been verified.
pub(super) fn config(what: &str, bytes: &[u8]) -> Result<(ImageConfiguration, Vec<Digest>), Error> {
    let malformed = |reason: String| Error::Malformed { what: what.into(), reason };
    let mut config: ImageConfiguration =
        serde_json::from_slice(bytes).map_err(|e| malformed(e.to_string()))?;
    let diff_ids = config.rootfs().diff_ids().iter().map(|id| id.parse());
    let diff_ids = diff_ids
        .collect::<Result<Vec<Digest>, _>>()
        .map_err(|e| malformed(format!("bad diff ID: {e}")))?;
    // oci-spec reads these sets through a hash map: sort them, so that equal configurations give
    // equal images.
    if let Some(mut inner) = config.config().clone() {
        if let Some(mut ports) = inner.exposed_ports().clone() {
            ports.sort();
            inner.set_exposed_ports(Some(ports));
        }
        if let Some(mut volumes) = inner.volumes().clone() {
            volumes.sort();
            inner.set_volumes(Some(volumes));
        }
        config.set_config(Some(inner));
    }
    Ok((config, diff_ids))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str, declared: Option<&str>) -> Result<Document, Error> {
        Document::parse("manifest", json.as_bytes(), declared)
    }

    #[test]
    fn kinds_are_told_by_content_and_must_match_the_media_type() {
        let index = r#"{"schemaVersion":2,"manifests":[]}"#;
        assert!(matches!(parse(index, None), Ok(Document::Index(_))));
        assert!(matches!(parse(index, Some("application/json")), Ok(Document::Index(_))));
        assert!(matches!(parse(index, Some(OCI_MANIFEST)), Err(Error::Malformed { .. })));
        let both = r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#;
        assert!(matches!(parse(both, None), Err(Error::Malformed { .. })));
        assert!(matches!(parse("{}", None), Err(Error::Unsupported { .. })));
        assert!(matches!(parse("[", None), Err(Error::Malformed { .. })));
        let old = r#"{"schemaVersion":1,"fsLayers":[]}"#;
        assert!(matches!(parse(old, None), Err(Error::Unsupported { .. })));
    }

    #[test]
    fn artifacts_are_no_images() {
        let json = format!(
            r#"{{"schemaVersion":2,"layers":[],"config":{{"mediaType":
            "application/vnd.cncf.helm.config.v1+json","size":2,"digest":"sha256:{}"}}}}"#,
            "00".repeat(32)
        );
        let error = parse(&json, None).unwrap_err();
        assert!(error.to_string().contains("helm"), "{error}");
    }

    #[test]
    fn ports_and_volumes_are_sorted() {
        let ports: Vec<String> = (0..50).map(|n| format!("\"{}/tcp\":{{}}", 1000 + n)).collect();
        let json = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{"ExposedPorts":{{{}}},
            "Volumes":{{"/b":{{}},"/a":{{}}}},"Env":null}},
            "rootfs":{{"type":"layers","diff_ids":[]}}}}"#,
            ports.join(",")
        );
        let (config, _) = super::config("config", json.as_bytes()).unwrap();
        let config = config.config().as_ref().unwrap();
        assert!(config.exposed_ports().as_ref().unwrap().is_sorted());
        assert_eq!(config.volumes().as_ref().unwrap(), &["/a", "/b"]);
    }
}
