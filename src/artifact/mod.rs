//! Disk images as what registries carry: images for KubeVirt and urunc, and plain artifacts.
//!
//! An artifact is built out of a finished disk image, so what is pushed is what was tested. Its
//! manifest depends on the disk alone; the same disk gives the same digest.

mod boot;
mod error;
mod layer;
mod layout;

use std::fs::File;
use std::io::{self, Read, Seek};

use serde_json::{Value, json};

use crate::disk::{self, Disk, Format};
use crate::provenance;
use crate::source::{self, Digest, Options, Progress, Reference, Store};

pub use boot::{BootFiles, boot_files};
pub use error::Error;

use layer::{Layer, Member};

const IMAGE_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const IMAGE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const IMAGE_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// What an attestation is of (in-toto, "in-toto attestations in OCI").
const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";
/// What [`Kind::Disk`] says it is.
const DISK_ARTIFACT: &str = "application/vnd.dock2uni.disk.v1";
/// QEMU's user in KubeVirt's launcher, which must be able to read a containerDisk.
const KUBEVIRT_USER: u32 = 107;

/// What to make of a disk image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// An image with `/disk/disk.qcow2`, for KubeVirt's `containerDisk`.
    ContainerDisk,
    /// An image with kernel and initrd, for KubeVirt's `kernelBoot`.
    KernelBoot,
    /// An image with kernel and initrd, and annotations that urunc reads.
    Urunc,
    /// The disk as an OCI artifact, as qcow2.
    Disk,
}

/// Bytes that a manifest names.
#[derive(Debug)]
pub struct Blob {
    /// SHA-256 of the bytes.
    pub digest: Digest,
    /// How many there are.
    pub size: u64,
    media_type: String,
    file: File,
    annotations: Value,
}

impl Blob {
    fn new(media_type: &str, mut file: File) -> io::Result<Blob> {
        let mut hasher = source::digest::Hasher::new();
        file.rewind()?;
        io::copy(&mut file, &mut hasher)?;
        let size = hasher.len();
        let media_type = media_type.to_owned();
        Ok(Blob { digest: hasher.finish(), size, media_type, file, annotations: Value::Null })
    }

    fn of_bytes(media_type: &str, bytes: &[u8]) -> io::Result<Blob> {
        let mut file = tempfile::tempfile()?;
        io::Write::write_all(&mut file, bytes)?;
        Blob::new(media_type, file)
    }

    /// The file that holds the bytes, from its start on.
    pub fn file(&self) -> &File {
        &self.file
    }

    fn descriptor(&self) -> Value {
        let mut value = json!({
            "mediaType": self.media_type,
            "digest": self.digest.to_string(),
            "size": self.size,
        });
        if !self.annotations.is_null() {
            value["annotations"] = self.annotations.clone();
        }
        value
    }
}

/// A manifest with all that it names.
#[derive(Debug)]
pub struct Artifact {
    /// The manifest, JSON.
    pub manifest: Vec<u8>,
    /// Its digest.
    pub digest: Digest,
    /// Configuration and layers.
    pub blobs: Vec<Blob>,
    /// What says where it comes from: an artifact that refers to this one.
    pub provenance: Option<Box<Artifact>>,
}

impl Artifact {
    /// An in-toto statement as an artifact that refers to `subject`, in the form that cosign and
    /// ORAS read (OCI image specification 1.1, "Manifests", `subject`).
    fn of_statement(statement: &Value, subject: &Artifact) -> io::Result<Artifact> {
        let config = Blob::of_bytes(EMPTY, b"{}")?;
        let mut layer = Blob::of_bytes(provenance::MEDIA_TYPE, statement.to_string().as_bytes())?;
        layer.annotations = json!({ PREDICATE_TYPE: provenance::PREDICATE });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": IMAGE_MANIFEST,
            "artifactType": provenance::MEDIA_TYPE,
            "config": config.descriptor(),
            "layers": [layer.descriptor()],
            "subject": {
                "mediaType": subject.media_type(),
                "digest": subject.digest.to_string(),
                "size": subject.manifest.len(),
            },
            "annotations": { PREDICATE_TYPE: provenance::PREDICATE },
        });
        let manifest = manifest.to_string().into_bytes();
        let digest = Digest::of(&manifest);
        Ok(Artifact { manifest, digest, blobs: vec![config, layer], provenance: None })
    }

    /// How a list of referrers names it.
    fn referrer(&self) -> Value {
        json!({
            "mediaType": self.media_type(),
            "artifactType": provenance::MEDIA_TYPE,
            "digest": self.digest.to_string(),
            "size": self.manifest.len(),
            "annotations": { PREDICATE_TYPE: provenance::PREDICATE },
        })
    }

    fn uploads(&self) -> Vec<source::Upload<'_>> {
        let blobs = self.blobs.iter();
        blobs
            .map(|blob| source::Upload { digest: blob.digest, size: blob.size, file: &blob.file })
            .collect()
    }

    /// Media type of the manifest.
    pub fn media_type(&self) -> &'static str {
        IMAGE_MANIFEST
    }

    /// Says what it belongs to: a manifest in the same repository (OCI image specification,
    /// `subject`). Registries list it among that one's referrers.
    pub fn set_subject(&mut self, media_type: &str, digest: &Digest, size: u64) {
        // The manifest is our own, an object.
        let Ok(mut manifest) = serde_json::from_slice::<Value>(&self.manifest) else { return };
        let digest = digest.to_string();
        manifest["subject"] = json!({ "mediaType": media_type, "digest": digest, "size": size });
        self.manifest = manifest.to_string().into_bytes();
        self.digest = Digest::of(&self.manifest);
    }
}

/// Makes an artifact of a disk image.
///
/// # Errors
/// If the disk cannot be read, lacks what is asked for, or there is no room for temporary files.
pub fn build(disk: &Disk, kind: Kind) -> Result<Artifact, Error> {
    let record = disk.record()?;
    let mut annotations = json!({
        "dev.dock2uni.disk": disk.id.to_string(),
        "dev.dock2uni.kind": kind,
    });
    let (config, layers, artifact_type) = match kind {
        Kind::Disk => {
            let file = tempfile::tempfile()?;
            disk::format::write(Format::Qcow2, &disk.medium(), &file)?;
            let mut blob = Blob::new(&format!("{DISK_ARTIFACT}+qcow2"), file)?;
            blob.annotations = json!({ "org.opencontainers.image.title": "disk.qcow2" });
            (Blob::of_bytes(EMPTY, b"{}")?, vec![blob], Some(DISK_ARTIFACT))
        }
        Kind::ContainerDisk => {
            let mut file = tempfile::tempfile()?;
            disk::format::write(Format::Qcow2, &disk.medium(), &file)?;
            file.rewind()?;
            let members =
                [Member { path: "disk/disk.qcow2", mode: 0o440, owner: KUBEVIRT_USER, file }];
            let layer = Layer::write(members)?;
            (config(&layer, &record)?, vec![layer.blob], None)
        }
        Kind::KernelBoot | Kind::Urunc => {
            let BootFiles { kernel, module, .. } = boot::in_memory(disk)?;
            let mut members = vec![
                Member { path: "boot/kernel", mode: 0o444, owner: 0, file: kernel },
                Member { path: "boot/initrd", mode: 0o444, owner: 0, file: module },
            ];
            if kind == Kind::Urunc {
                let fields = urunc();
                let mut file = tempfile::tempfile()?;
                io::Write::write_all(&mut file, encoded(&fields).to_string().as_bytes())?;
                file.rewind()?;
                members.push(Member { path: "urunc.json", mode: 0o444, owner: 0, file });
                for (name, value) in fields {
                    annotations[name] = value.into();
                }
            }
            let layer = Layer::write(members)?;
            (config(&layer, &record)?, vec![layer.blob], None)
        }
    };
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": IMAGE_MANIFEST,
        "config": config.descriptor(),
        "layers": layers.iter().map(Blob::descriptor).collect::<Vec<_>>(),
        "annotations": annotations,
    });
    if let Some(artifact_type) = artifact_type {
        manifest["artifactType"] = artifact_type.into();
    }
    let manifest = manifest.to_string().into_bytes();
    let digest = Digest::of(&manifest);
    let blobs = std::iter::once(config).chain(layers).collect();
    let mut artifact = Artifact { manifest, digest, blobs, provenance: None };
    if let Some(statement) = disk.provenance()? {
        let statement = provenance::of_manifest(&statement, digest);
        artifact.provenance = Some(Box::new(Artifact::of_statement(&statement, &artifact)?));
    }
    Ok(artifact)
}

/// What urunc wants to know: which kind of guest, by which monitor, and where its files are. Ours
/// boots as Linux does.
fn urunc() -> Vec<(&'static str, String)> {
    [
        ("com.urunc.unikernel.unikernelType", "linux"),
        ("com.urunc.unikernel.hypervisor", "qemu"),
        ("com.urunc.unikernel.binary", "/boot/kernel"),
        ("com.urunc.unikernel.initrd", "/boot/initrd"),
        ("com.urunc.unikernel.cmdline", ""),
        ("com.urunc.unikernel.unikernelVersion", env!("CARGO_PKG_VERSION")),
        ("com.urunc.unikernel.mountRootfs", "false"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .to_vec()
}

/// The same for `urunc.json`, where values are base64.
fn encoded(fields: &[(&'static str, String)]) -> Value {
    use base64::Engine as _;
    let engine = base64::engine::general_purpose::STANDARD;
    fields
        .iter()
        .map(|(name, value)| ((*name).to_owned(), Value::from(engine.encode(value))))
        .collect()
}

/// An image configuration with what the application exposes.
fn config(layer: &Layer, record: &dock2uni_format::record::Record) -> Result<Blob, Error> {
    let ports: serde_json::Map<String, Value> = record
        .ports
        .iter()
        .map(|port| {
            let proto = format!("{:?}", port.proto).to_lowercase();
            (format!("{}/{proto}", port.port), json!({}))
        })
        .collect();
    let labels: serde_json::Map<String, Value> =
        record.labels.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": { "ExposedPorts": ports, "Labels": labels },
        "rootfs": { "type": "layers", "diff_ids": [layer.diff_id.to_string()] },
        "history": [{ "created_by": "dock2uni" }],
    });
    Ok(Blob::of_bytes(IMAGE_CONFIG, config.to_string().as_bytes())?)
}

/// Brings an artifact to a registry or into an OCI layout directory, which is made if need be, and
/// names it there; with it goes what says where it comes from.
///
/// # Errors
/// If the destination is neither, refuses, or cannot be written.
pub fn push(
    artifact: &Artifact,
    to: &Reference,
    options: &Options,
    store: &Store,
    progress: &dyn Progress,
) -> Result<(), Error> {
    match to {
        Reference::Registry(name) => {
            let manifest = (&artifact.manifest[..], artifact.media_type());
            source::push(name, &artifact.uploads(), manifest, options, store, progress)?;
            let Some(provenance) = &artifact.provenance else { return Ok(()) };
            let referrer = source::Referrer {
                subject: artifact.digest,
                manifest: &provenance.manifest,
                media_type: provenance.media_type(),
                descriptor: provenance.referrer(),
            };
            let blobs = provenance.uploads();
            Ok(source::attach(name, &blobs, &referrer, options, store, progress)?)
        }
        Reference::OciLayout { path, name } => {
            layout::add(artifact, path, name.as_deref())?;
            match &artifact.provenance {
                Some(provenance) => layout::add(provenance, path, None),
                None => Ok(()),
            }
        }
        other => Err(Error::Destination(other.to_string())),
    }
}

/// Copies a file whole.
fn copy_file(from: &File, to: &mut dyn io::Write) -> io::Result<u64> {
    let mut from = from.try_clone()?;
    from.rewind()?;
    io::copy(&mut from.take(u64::MAX), to)
}
