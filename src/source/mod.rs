//! Where images come from: registries, OCI layouts, archives, and the stores of container engines.
//!
//! Every source yields the same [`Image`]: a checked configuration and an ordered list of layer
//! blobs that lie, verified, in the content-addressed [`store`] (or, for a layout directory and for
//! containerd's store, in place).
//!
//! ```no_run
//! use dock2uni::source::{self, Options, Quiet, Reference, Store};
//!
//! let reference = Reference::detect("nginx:1.27")?;
//! let store = Store::open_default()?;
//! let image = source::resolve(&reference, &Options::from_env(), &store, &Quiet)?;
//! println!("{} has {} layers", image.name, image.layers.len());
//! # Ok::<(), source::Error>(())
//! ```

mod archive;
mod arrival;
mod assemble;
mod built;
pub mod clean;
mod containerd;
pub mod digest;
mod engine;
mod error;
pub mod image;
mod layout;
mod manifest;
mod options;
mod platform;
mod progress;
mod reference;
mod registries;
mod registry;
pub(crate) mod store;
pub(crate) mod table;

use std::sync::Arc;
use std::sync::atomic::Ordering;

pub(crate) use self::built::built;
pub use self::digest::Digest;
pub use self::engine::Sockets;
pub use self::error::{Class, Error};
pub use self::image::{Compression, Image, Layer};
pub use self::options::{ForbiddenHost, Options, Reach};
pub use self::platform::Platform;
pub use self::progress::{Bar, Outcome, Progress, Quiet};
pub use self::reference::{Engine, Name, Reference};
pub use self::registries::Files as RegistriesFiles;
pub(crate) use self::registry::tls_for_engines;
pub use self::registry::{Attached, Referrer, Signature, Upload};
pub use self::store::Store;

use self::arrival::Arrivals;
use self::assemble::{Context, Origin as _, assemble, describe};
use self::layout::Layout;
use self::registry::Registry;
use crate::signature::{self, Verified};

/// Sends a GET request with the settings and the trust that registries are spoken to with, and
/// returns the answer's body as a stream.
///
/// # Errors
/// [`Error::Status`] for any answer but 200; [`Error::Unreachable`], [`Error::Tls`] and
/// [`Error::Transfer`]; [`Error::NotCached`] if the options forbid the network.
pub(crate) fn get(options: &Options, address: &str) -> Result<reqwest::blocking::Response, Error> {
    registry::get(options, address)
}

/// Brings in the image that `reference` names, and returns once all of it is verified.
///
/// If the options have a policy, nothing of the image is fetched before a signature of it has been
/// accepted.
///
/// Blocks; call it from an ordinary thread, not from within an async runtime. Several calls, in
/// several processes too, may use one store at once. A call that is killed leaves the store
/// sound, and the next one resumes what had begun.
///
/// # Errors
/// Every variant of [`Error`]; [`Error::class`] sorts them and [`Error::hint`] advises.
pub fn resolve(
    reference: &Reference,
    options: &Options,
    store: &Store,
    progress: &dyn Progress,
) -> Result<Image, Error> {
    let context = Context::new(options, store, progress);
    let name = reference.to_string();
    let (pinned, signed) = trusted(reference, options, store)?;
    Ok(Image { signed, ..bring(&context, &pinned, name)? })
}

/// The reference with the digest that the policy accepts, if the options have one.
fn trusted(
    reference: &Reference,
    options: &Options,
    store: &Store,
) -> Result<(Reference, Option<Verified>), Error> {
    let Some(policy) = &options.policy else { return Ok((reference.clone(), None)) };
    let pinned = signature::pin(reference, policy, options, store);
    let (pinned, verified) = pinned.map_err(|error| Error::Signature(Box::new(error)))?;
    Ok((pinned, Some(verified)))
}

/// Brings in an image, whose name in messages is `name`.
fn bring(context: &Context<'_>, reference: &Reference, name: String) -> Result<Image, Error> {
    match reference {
        Reference::Registry(wanted) => registries::resolve(context, wanted, &mut |attempt| {
            assemble(context, attempt.registry, attempt.name, attempt.root)
        }),
        Reference::OciLayout { path, name: wanted } => {
            let (layout, root) = Layout::open(context, path, wanted.as_deref())?;
            assemble(context, &layout, name, root)
        }
        Reference::OciArchive { path, name: wanted } => {
            archive::resolve(context, path, Some(archive::Kind::Oci), wanted.as_deref(), name)
        }
        Reference::DockerArchive { path, name: wanted } => {
            archive::resolve(context, path, Some(archive::Kind::Docker), wanted.as_deref(), name)
        }
        Reference::Archive { path } => archive::resolve(context, path, None, None, name),
        Reference::Engine { engine, name: wanted } => {
            engine::resolve(context, *engine, wanted, name)
        }
        Reference::Containerd { name: wanted } => containerd::resolve(context, wanted, name),
    }
}

/// Where a layer's bytes come from while its image is on its way.
pub type Opener<'a> = &'a (dyn Fn(&Layer) -> std::io::Result<Box<dyn std::io::Read + Send>> + Sync);

/// Opens a layer that lies where it says.
///
/// # Errors
/// If it doesn't.
pub fn stored(layer: &Layer) -> std::io::Result<Box<dyn std::io::Read + Send>> {
    Ok(Box::new(std::fs::File::open(&layer.path)?))
}

/// As [`resolve`], with something to be done to the image, which begins when its description is there
/// and reads the layers while they arrive. It must read every layer to its end before it shows a
/// result to anybody: nothing that was read is verified before that.
///
/// The work is done again if a download had to start over and the work has failed meanwhile.
///
/// # Errors
/// Those of [`resolve`], and those of the work.
pub fn resolve_with<T, E: From<Error>>(
    reference: &Reference,
    options: &Options,
    store: &Store,
    progress: &dyn Progress,
    work: &mut dyn FnMut(&Image, Opener<'_>) -> Result<T, E>,
) -> Result<T, E> {
    let (pinned, signed) = trusted(reference, options, store)?;
    let Reference::Registry(wanted) = &pinned else {
        let image = resolve(reference, options, store, progress)?;
        return work(&image, &stored);
    };
    let context = Context::deferred(options, store, progress);
    let mut done = None;
    let image = registries::resolve(&context, wanted, &mut |attempt| {
        let described = describe(&context, attempt.registry, attempt.name, attempt.root)?;
        let (mut image, mut blobs) = described;
        image.signed.clone_from(&signed);
        // The work wants the uppermost layer first.
        blobs.reverse();
        let arrivals = Arc::new(Arrivals::new(blobs.iter().map(|blob| blob.digest)));
        context.expect(&arrivals);
        let fetched = std::thread::scope(|scope| {
            let fetch = scope.spawn(|| {
                let _end = arrivals.until_end();
                attempt.registry.layers(&blobs)
            });
            let put = scope.spawn(|| context.put_kept());
            let result = work(&image, &|layer| arrivals.open(layer));
            if result.is_err() {
                context.cancelled.store(true, Ordering::Relaxed);
            }
            done = Some(result);
            let fetched = fetch.join().unwrap_or(Err(Error::Cancelled));
            let put = put.join().unwrap_or(Err(Error::Cancelled));
            fetched.and_then(|paths| put.map(|()| paths))
        });
        let failed = done.as_ref().is_some_and(Result::is_err);
        match fetched {
            Ok(_) if failed && arrivals.any_again() => done = None,
            Ok(_) => {}
            // The work has failed first, and not for want of a layer.
            Err(Error::Cancelled) if failed => {}
            Err(error) => return Err(error),
        }
        Ok(image)
    })?;
    match done {
        Some(result) => result,
        None => work(&image, &stored),
    }
}

/// Gives bytes of a layer's blob, from and to, as they come.
pub(crate) type Parts<'a> = &'a dyn Fn(&Layer, u64, u64) -> Result<Vec<u8>, Error>;

/// Does something with an image of a registry whose larger layers need not be here: those that have
/// tables of contents are given by them, and their bytes on request. All others are brought in. `None`
/// if there is no layer that can be left where it is, or `is_here` says that none is needed.
///
/// # Errors
/// Those of [`resolve`], and those of the work.
pub(crate) fn resolve_outlined<T, E: From<Error>>(
    reference: &Reference,
    options: &Options,
    store: &Store,
    progress: &dyn Progress,
    is_here: &dyn Fn(&Image) -> bool,
    work: &mut dyn FnMut(&Image, &[Option<table::Table>], Parts<'_>) -> Result<T, E>,
) -> Result<Option<T>, E> {
    if options.offline || !matches!(reference, Reference::Registry(_)) {
        return Ok(None);
    }
    let (pinned, signed) = trusted(reference, options, store)?;
    let Reference::Registry(wanted) = &pinned else { return Ok(None) };
    let context = Context::new(options, store, progress);
    let mut done = None;
    registries::resolve(&context, wanted, &mut |attempt| {
        let registry = attempt.registry;
        let (mut image, mut blobs) = describe(&context, registry, attempt.name, attempt.root)?;
        image.signed.clone_from(&signed);
        if is_here(&image) {
            return Ok(image);
        }
        let tables = registry.tables(&image)?;
        if tables.iter().all(Option::is_none) {
            return Ok(image);
        }
        let listed = image.layers.iter().zip(&tables).filter(|(_, table)| table.is_some());
        let listed: Vec<Digest> = listed.map(|(layer, _)| layer.digest).collect();
        blobs.retain(|blob| !listed.contains(&blob.digest));
        registry.layers(&blobs)?;
        done = Some(work(&image, &tables, &|layer, from, to| {
            let blob = manifest::Blob { digest: layer.digest, size: layer.size };
            // It gave others before.
            let none = || Error::BlobUnknown { origin: registry.name(), digest: layer.digest };
            registry.range(&blob, from, to)?.ok_or_else(none)
        }));
        Ok(image)
    })?;
    done.transpose()
}

/// For fuzzing: a document as whatever it may be.
pub(crate) fn parse_any(bytes: &[u8]) {
    let _ = table::stargz_place(bytes, 1 << 20);
    for zstd in [false, true] {
        if let Some(table) = table::parse(bytes, zstd, 1 << 20) {
            let chunks = table.entries.iter().flat_map(|file| &file.chunks);
            assert!(chunks.into_iter().all(|chunk| chunk.from <= chunk.to && chunk.to <= 1 << 20));
        }
    }
    for media_type in [None, Some("application/vnd.oci.image.index.v1+json")] {
        if let Ok(manifest::Document::Index(index)) =
            manifest::Document::parse("fuzz", bytes, media_type)
        {
            for entry in index.manifests().iter().filter(|entry| manifest::is_image(entry)) {
                let _ = (manifest::blob(entry), Platform::of_descriptor(entry));
            }
        }
    }
    if let Ok(manifest::Document::Manifest(found)) = manifest::Document::parse("fuzz", bytes, None)
    {
        for layer in found.layers() {
            let _ = (manifest::blob(layer), manifest::compression(layer));
        }
    }
    if let Ok((config, _)) = manifest::config("fuzz", bytes) {
        let _ = Platform::of_config(&config);
    }
}

/// For fuzzing: a file as `registries.conf`.
pub(crate) fn registries_any(path: &std::path::Path) {
    let files = RegistriesFiles { main: vec![path.into()], ..RegistriesFiles::default() };
    if let Ok(registries) = files.load() {
        for name in ["nginx", "r.example/a/b:c"] {
            let name: Result<Name, _> = name.parse();
            let _ = name.map(|name| registries.places(&name));
        }
    }
}

/// For fuzzing: a file as containerd's database.
pub(crate) fn containerd_any(path: &std::path::Path) {
    let _ = containerd::entries(path);
}

/// Brings blobs and a manifest, given with its media type, to a registry, where `name` says.
///
/// # Errors
/// If the registry cannot be reached, refuses, or a blob cannot be read.
pub fn push(
    name: &Name,
    blobs: &[Upload<'_>],
    manifest: (&[u8], &'static str),
    options: &Options,
    store: &Store,
    progress: &dyn Progress,
) -> Result<(), Error> {
    let context = Context::new(options, store, progress);
    // A push goes to where the name says, whatever stands in its place for pulls.
    let insecure = options.registries.load()?.places(name)?.iter().any(|p| !p.mirror && p.insecure);
    Registry::new(&context, name, insecure).push(blobs, manifest)
}

/// Brings an artifact to a registry that refers to another one there.
///
/// # Errors
/// If the registry cannot be reached, refuses, or a blob cannot be read.
pub fn attach(
    name: &Name,
    blobs: &[Upload<'_>],
    referrer: &Referrer<'_>,
    options: &Options,
    store: &Store,
    progress: &dyn Progress,
) -> Result<(), Error> {
    let context = Context::new(options, store, progress);
    let insecure = options.registries.load()?.places(name)?.iter().any(|p| !p.mirror && p.insecure);
    Registry::new(&context, name, insecure).attach(blobs, referrer)
}

/// What a name in a registry stands for, and the signatures that are attached to it there.
///
/// # Errors
/// If the image does not exist, or the registry cannot be reached.
pub fn attached(name: &Name, options: &Options, store: &Store) -> Result<Attached, Error> {
    let context = Context::new(options, store, &Quiet);
    registries::attached(&context, name)
}

/// `HOST/REPOSITORY:TAG` of every image that a registry has below `prefix` (all, if it is empty).
///
/// # Errors
/// If the registry cannot be reached, refuses to list what it has, or has more than 10,000 images.
pub fn catalog(
    host: &str,
    prefix: &str,
    options: &Options,
    store: &Store,
) -> Result<Vec<String>, Error> {
    let context = Context::new(options, store, &Quiet);
    registry::catalog::references(&context, host, prefix)
}

/// The repositories that a registry lists.
///
/// # Errors
/// As [`catalog`].
pub fn repositories(host: &str, options: &Options, store: &Store) -> Result<Vec<String>, Error> {
    let context = Context::new(options, store, &Quiet);
    registry::catalog::repositories(&context, host)
}

/// The tags of a repository; none if it isn't there.
///
/// # Errors
/// If the registry cannot be reached, refuses to list them, or has more than 10,000.
pub fn tags(
    host: &str,
    repository: &str,
    options: &Options,
    store: &Store,
) -> Result<Vec<String>, Error> {
    let context = Context::new(options, store, &Quiet);
    registry::catalog::tags(&context, host, repository)
}

/// The digest of the manifest or index that a name leads to now; `None` if it leads nowhere, or the
/// registry does not tell.
///
/// # Errors
/// If the registry cannot be reached, or refuses.
pub fn digest_of(name: &Name, options: &Options, store: &Store) -> Result<Option<Digest>, Error> {
    let context = Context::new(options, store, &Quiet);
    Registry::new(&context, name, false).current_digest(&name.selector())
}
