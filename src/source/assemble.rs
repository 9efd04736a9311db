//! From a root document to an image: the same walk for every source.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use oci_spec::image::{Descriptor, ImageConfiguration, ImageManifest};

use super::arrival::{Arrival, Arrivals};
use super::digest::Digest;
use super::error::Error;
use super::image::{Image, Layer};
use super::manifest::{self, Blob};
use super::options::Options;
use super::platform::Platform;
use super::progress::Progress;
use super::store::Store;

/// Indexes may name indexes, but no honest image nests deeper.
const MAX_DEPTH: u32 = 4;
/// Entries without a platform must be opened to learn it; no honest index has more.
const MAX_OPENED: u32 = 32;

/// What every source works with.
pub(super) struct Context<'a> {
    pub options: &'a Options,
    pub store: &'a Store,
    pub progress: &'a dyn Progress,
    /// Set when one blob has failed for good, so that the others stop.
    pub cancelled: AtomicBool,
    /// Layers that are read while they arrive.
    arrivals: Mutex<Arc<Arrivals>>,
    /// Documents that are put into the store later, if any are.
    later: Mutex<Option<Vec<Document>>>,
}

/// What a resolution keeps beside layers.
pub(super) enum Document {
    /// A verified manifest, index or configuration.
    Blob(Digest, Vec<u8>),
    /// What a reference means.
    Reference(String, Digest),
}

impl<'a> Context<'a> {
    pub(super) fn new(options: &'a Options, store: &'a Store, progress: &'a dyn Progress) -> Self {
        let (cancelled, arrivals) = (AtomicBool::new(false), Mutex::default());
        Context { options, store, progress, cancelled, arrivals, later: Mutex::default() }
    }

    /// As [`Context::new`], for somebody who calls [`Context::put_kept`] while others wait for the
    /// network: bringing a document to the disk takes as long as fetching it.
    pub(super) fn deferred(
        options: &'a Options,
        store: &'a Store,
        progress: &'a dyn Progress,
    ) -> Self {
        Context { later: Mutex::new(Some(Vec::new())), ..Context::new(options, store, progress) }
    }

    /// Puts a document into the store, now or later.
    pub(super) fn keep(&self, document: Document) -> Result<(), Error> {
        match &mut *self.later.lock().unwrap_or_else(|e| e.into_inner()) {
            Some(later) => later.push(document),
            None => self.put(document)?,
        }
        Ok(())
    }

    /// Puts the documents into the store that were to be put later.
    pub(super) fn put_kept(&self) -> Result<(), Error> {
        let kept = match &mut *self.later.lock().unwrap_or_else(|e| e.into_inner()) {
            Some(later) => std::mem::take(later),
            None => Vec::new(),
        };
        kept.into_iter().try_for_each(|document| self.put(document))
    }

    fn put(&self, document: Document) -> Result<(), Error> {
        match document {
            Document::Blob(digest, bytes) => self.store.put(&digest, &bytes),
            Document::Reference(name, digest) => self.store.set_reference(&name, &digest),
        }
    }

    /// From now on somebody waits for these layers.
    pub(super) fn expect(&self, arrivals: &Arc<Arrivals>) {
        *self.arrivals.lock().unwrap_or_else(|e| e.into_inner()) = arrivals.clone();
    }

    /// Who waits for a layer.
    pub(super) fn arrival(&self, digest: &Digest) -> Option<Arc<Arrival>> {
        self.arrivals.lock().unwrap_or_else(|e| e.into_inner()).get(digest).cloned()
    }
}

/// A place that holds an image's documents and layers.
pub(super) trait Origin: Sync {
    /// Its name in messages.
    fn name(&self) -> String;

    /// A manifest or index, verified.
    fn manifest(&self, blob: &Blob) -> Result<Vec<u8>, Error>;

    /// A configuration, verified.
    fn config(&self, blob: &Blob) -> Result<Vec<u8>, Error>;

    /// Files with these layers, verified, in order.
    fn layers(&self, blobs: &[Blob]) -> Result<Vec<PathBuf>, Error>;
}

/// The manifest or index that a reference names, verified.
pub(super) struct Root {
    pub digest: Digest,
    pub bytes: Vec<u8>,
    pub media_type: Option<String>,
}

struct Found {
    digest: Digest,
    manifest: ImageManifest,
    config: ImageConfiguration,
    config_blob: Blob,
    config_json: Vec<u8>,
    diff_ids: Vec<Digest>,
}

struct Walk<'a> {
    origin: &'a dyn Origin,
    platform: &'a Platform,
    available: Vec<String>,
    opened: u32,
}

/// Chooses the platform, reads the configuration and brings in the layers.
pub(super) fn assemble(
    context: &Context<'_>,
    origin: &dyn Origin,
    name: String,
    root: Root,
) -> Result<Image, Error> {
    let (mut image, blobs) = describe(context, origin, name, root)?;
    if context.options.layers {
        let paths = origin.layers(&blobs)?;
        let paths: HashMap<Digest, PathBuf> =
            blobs.iter().map(|blob| blob.digest).zip(paths).collect();
        for layer in &mut image.layers {
            // Each layer is one of the blobs.
            if let Some(path) = paths.get(&layer.digest) {
                layer.path.clone_from(path);
            }
        }
    }
    Ok(image)
}

/// Chooses the platform and reads the configuration. The layers' paths are those that they have, or
/// will have, in the store; each layer's blob is listed once.
pub(super) fn describe(
    context: &Context<'_>,
    origin: &dyn Origin,
    name: String,
    root: Root,
) -> Result<(Image, Vec<Blob>), Error> {
    let platform = &context.options.platform;
    let mut walk = Walk { origin, platform, available: Vec::new(), opened: 0 };
    let document = manifest::Document::parse(
        &format!("manifest {} from {}", root.digest, origin.name()),
        &root.bytes,
        root.media_type.as_deref(),
    )?;
    let Some(found) = walk.open(root.digest, document, 0)? else {
        let mut available = walk.available;
        available.sort();
        available.dedup();
        if available.is_empty() {
            return Err(Error::Unsupported { what: name, reason: "it holds no image".into() });
        }
        return Err(Error::WrongPlatform { image: name, wanted: platform.to_string(), available });
    };

    let descriptors = found.manifest.layers();
    if descriptors.len() != found.diff_ids.len() {
        return Err(Error::Malformed {
            what: format!("configuration {} from {}", found.config_blob.digest, origin.name()),
            reason: format!(
                "it has {} diff IDs for {} layers",
                found.diff_ids.len(),
                descriptors.len()
            ),
        });
    }
    let mut layers = Vec::with_capacity(descriptors.len());
    let mut blobs: Vec<Blob> = Vec::new();
    let mut seen = HashMap::new();
    for (descriptor, diff_id) in descriptors.iter().zip(&found.diff_ids) {
        let blob = manifest::blob(descriptor)?;
        // A layer may occur twice in an image (an empty one often does): fetch it once.
        let index = *seen.entry(blob).or_insert_with(|| {
            blobs.push(blob);
            blobs.len() - 1
        });
        layers.push((index, manifest::compression(descriptor)?, *diff_id));
    }
    let layers = layers.into_iter().map(|(index, compression, diff_id)| Layer {
        digest: blobs[index].digest,
        size: blobs[index].size,
        diff_id,
        compression,
        path: context.store.blob_path(&blobs[index].digest),
    });
    let image = Image {
        name,
        manifest: found.digest,
        config_digest: found.config_blob.digest,
        config: found.config,
        config_json: found.config_json,
        layers: layers.collect(),
        signed: None,
    };
    Ok((image, blobs))
}

impl Walk<'_> {
    /// The image for the platform in a document, if there is one.
    fn open(
        &mut self,
        digest: Digest,
        document: manifest::Document,
        depth: u32,
    ) -> Result<Option<Found>, Error> {
        match document {
            manifest::Document::Manifest(manifest) => self.check(digest, *manifest),
            manifest::Document::Index(index) => {
                let entries: Vec<_> =
                    index.manifests().iter().filter(|d| manifest::is_image(d)).collect();
                let mut ranked = Vec::new();
                for entry in &entries {
                    if let Some(offer) = Platform::of_descriptor(entry) {
                        match self.platform.rank(&offer) {
                            Some(rank) => ranked.push((rank, *entry)),
                            None => self.available.push(offer.to_string()),
                        }
                    }
                }
                // The sort is stable: among equals the first entry wins.
                ranked.sort_by_key(|(rank, _)| *rank);
                let unlabelled = entries.iter().filter(|e| e.platform().is_none()).copied();
                for entry in ranked.into_iter().map(|(_, entry)| entry).chain(unlabelled) {
                    if let Some(found) = self.follow(entry, depth + 1)? {
                        return Ok(Some(found));
                    }
                }
                Ok(None)
            }
        }
    }

    fn follow(&mut self, descriptor: &Descriptor, depth: u32) -> Result<Option<Found>, Error> {
        self.opened += 1;
        if depth > MAX_DEPTH || self.opened > MAX_OPENED {
            return Err(Error::Malformed {
                what: format!("index from {}", self.origin.name()),
                reason: "it nests too deeply or has too many entries without a platform".into(),
            });
        }
        let blob = manifest::blob(descriptor)?;
        let what = format!("manifest {} from {}", blob.digest, self.origin.name());
        check_size(&what, blob.size)?;
        let bytes = self.origin.manifest(&blob)?;
        let media_type = descriptor.media_type().to_string();
        let document = manifest::Document::parse(&what, &bytes, Some(&media_type))?;
        self.open(blob.digest, document, depth)
    }

    fn check(&mut self, digest: Digest, manifest: ImageManifest) -> Result<Option<Found>, Error> {
        let config_blob = manifest::blob(manifest.config())?;
        let what = format!("configuration {} from {}", config_blob.digest, self.origin.name());
        check_size(&what, config_blob.size)?;
        let config_json = self.origin.config(&config_blob)?;
        let (config, diff_ids) = manifest::config(&what, &config_json)?;
        let offer = Platform::of_config(&config);
        if self.platform.rank(&offer).is_none() {
            self.available.push(offer.to_string());
            return Ok(None);
        }
        Ok(Some(Found { digest, manifest, config, config_blob, config_json, diff_ids }))
    }
}

fn check_size(what: &str, size: u64) -> Result<(), Error> {
    let limit = manifest::MAX_DOCUMENT;
    if size > limit {
        return Err(Error::TooLarge { what: what.into(), size, limit });
    }
    Ok(())
}

/// Checks a document's bytes against its descriptor.
pub(super) fn verify(
    what: &'static str,
    origin: &str,
    blob: &Blob,
    bytes: &[u8],
) -> Result<(), Error> {
    let (origin, digest, expected) = (origin.to_string(), blob.digest, blob.size);
    if bytes.len() as u64 != expected {
        let found = bytes.len() as u64;
        return Err(Error::SizeMismatch { what, origin, digest, expected, found });
    }
    let found = Digest::of(bytes);
    if found != digest {
        return Err(Error::DigestMismatch { what, origin, expected: digest, found });
    }
    Ok(())
}

/// Does `work` for all blobs, several at once, and returns the results in order. After the first
/// failure the others are told to stop; that failure is the one reported.
pub(super) fn in_parallel<T: Send>(
    context: &Context<'_>,
    blobs: &[Blob],
    work: impl Fn(&Blob) -> Result<T, Error> + Sync,
) -> Result<Vec<T>, Error> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new((Vec::with_capacity(blobs.len()), None));
    let worker = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(blob) = blobs.get(index) else { return };
            if context.cancelled.load(Ordering::Relaxed) {
                return;
            }
            let result = work(blob);
            // A poisoned lock means that another worker panicked; its panic is passed on when
            // the scope ends.
            let mut done = done.lock().unwrap_or_else(|e| e.into_inner());
            match result {
                Ok(value) => done.0.push((index, value)),
                Err(error) => {
                    context.cancelled.store(true, Ordering::Relaxed);
                    done.1.get_or_insert(error);
                    return;
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..context.options.parallel.clamp(1, blobs.len().max(1)) {
            scope.spawn(worker);
        }
        worker();
    });
    let (mut values, error) = done.into_inner().unwrap_or_else(|e| e.into_inner());
    if let Some(error) = error {
        return Err(error);
    }
    values.sort_by_key(|(index, _)| *index);
    Ok(values.into_iter().map(|(_, value)| value).collect())
}
