//! What a reference on the command line means.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::args::{BuildArgs, LimitKind, SourceArgs};
use super::progress::Display;
use super::{Failure, build, exit};
use crate::rootfs::Limits;
use crate::signature::Policy;
use crate::source::{self, Image, Opener, Options, Reference, Store};
use crate::{browse, convert, disk, dockerfile};

/// What can be run.
#[derive(Debug)]
pub enum Target {
    /// A container image, wherever it is.
    Reference(Reference),
    /// A disk image that `convert` made.
    Disk(PathBuf),
    /// A bare root image.
    Root(PathBuf),
    /// A directory with a Dockerfile.
    Context(PathBuf),
}

impl Target {
    /// Looks at what `text` names.
    pub fn detect(text: &str, build: &BuildArgs) -> Result<Target, Failure> {
        let path = Path::new(text);
        let is_path = matches!(text, "." | "..")
            || ["/", "./", "../"].iter().any(|prefix| text.starts_with(prefix));
        let no_image = path.is_dir() && !path.join("oci-layout").exists();
        if build.file.is_some() && !path.is_dir() {
            return Err(Failure::new(
                exit::USAGE,
                format!("`{text}` is no directory, and `--file` needs one as its build context"),
                Some("write `dock2uni convert . -f FILE`"),
            ));
        }
        if build.file.is_some() || dockerfile::is_context(path) || (is_path && no_image) {
            return Ok(Target::Context(path.to_owned()));
        }
        if path.is_file() {
            let failed = |error| Failure::io(format!("cannot read `{text}`"), error);
            let file = File::open(path).map_err(failed)?;
            if browse::is_root(&file).map_err(failed)? {
                return Ok(Target::Root(path.to_owned()));
            }
            if disk::format::holds_disk(&file).map_err(failed)? {
                return Ok(Target::Disk(path.to_owned()));
            }
        }
        Ok(Target::Reference(Reference::detect(text)?))
    }
}

/// How much of an image is brought in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetch {
    /// All of it.
    Layers,
    /// Manifest and configuration.
    Description,
}

/// Resolves a reference, with bars.
pub fn resolve(
    reference: &Reference,
    args: &SourceArgs,
    store: &Store,
    display: &Display,
) -> Result<Image, Failure> {
    resolve_with(reference, args, store, display, Fetch::Layers)
}

/// As [`resolve`], or as much of it as is wanted.
pub fn resolve_with(
    reference: &Reference,
    args: &SourceArgs,
    store: &Store,
    display: &Display,
    fetch: Fetch,
) -> Result<Image, Failure> {
    let mut options = options(args)?;
    options.layers = fetch == Fetch::Layers;
    let image = source::resolve(reference, &options, store, display)?;
    say_signed(&image, display);
    Ok(image)
}

/// Says whose signature the image has.
pub fn say_signed(image: &Image, display: &Display) {
    if let Some(signed) = &image.signed {
        display.say(&format!("signed by {}", signed.signer));
    }
}

/// How sources are reached.
pub fn options(args: &SourceArgs) -> Result<Options, Failure> {
    let mut options = Options::from_env();
    options.offline = args.offline;
    options.insecure_registries.extend(args.plain_http.iter().cloned());
    if args.ca_file.is_some() {
        options.ca_file.clone_from(&args.ca_file);
    }
    for limit in args.limit.iter().filter(|limit| limit.kind == LimitKind::ArchiveBytes) {
        options.archive_bytes = limit.value;
    }
    let identity =
        args.certificate_identity.as_deref().zip(args.certificate_oidc_issuer.as_deref());
    let key = args.verify_key.as_deref();
    if key.is_some() || identity.is_some() || args.trust_root.is_some() {
        options.policy = Some(Policy::load(key, identity, args.trust_root.as_deref())?);
    }
    Ok(options)
}

/// Bounds on images: the defaults, and what the user says.
pub fn limits(args: &SourceArgs) -> Limits {
    let mut limits = Limits::default();
    for limit in &args.limit {
        let value = limit.value;
        match limit.kind {
            LimitKind::Entries => limits.entries = value,
            LimitKind::LayerBytes => limits.layer_bytes = value,
            LimitKind::ImageBytes => limits.image_bytes = value,
            LimitKind::XattrBytes => limits.xattr_bytes = value as usize,
            LimitKind::SparseParts => limits.sparse_segments = value as usize,
            LimitKind::ArchiveBytes => {}
        }
    }
    limits
}

/// As [`image`], with something to be done to it, which for an image in a registry begins while its
/// layers arrive: see [`source::resolve_with`].
pub fn image_with<T>(
    target: &Target,
    build: &BuildArgs,
    args: &SourceArgs,
    store: &Store,
    display: &Display,
    work: &mut dyn FnMut(&Image, Opener<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    match target {
        Target::Reference(reference) => {
            source::resolve_with(reference, &options(args)?, store, display, &mut |image, open| {
                say_signed(image, display);
                work(image, open)
            })
        }
        other => {
            let image = image(other, build, args, store, display)?;
            work(&image, &source::stored)
        }
    }
}

/// Resolves a reference or builds a Dockerfile, with bars.
pub fn image(
    target: &Target,
    build: &BuildArgs,
    args: &SourceArgs,
    store: &Store,
    display: &Display,
) -> Result<Image, Failure> {
    match target {
        Target::Context(path) => build::build(path, build, &options(args)?, store, display),
        Target::Reference(reference) => resolve(reference, args, store, display),
        Target::Disk(path) | Target::Root(path) => Err(Failure::new(
            exit::USAGE,
            format!("`{}` is a disk or root image", path.display()),
            Some(
                "give a container image; `dock2uni run` boots disk images, and `dock2uni image info` \
                 looks into them",
            ),
        )),
    }
}

/// A conversion's failure. If a layer was damaged in the store it is taken out of it, so that
/// running again helps.
pub fn conversion_failed(error: convert::Error, image: &Image, store: &Store) -> Failure {
    let bad = matches!(&error, convert::Error::Rootfs(error) if error.is_bad_image());
    let repaired = bad && store.repair(image).is_ok_and(|damaged| !damaged.is_empty());
    let failure = Failure::from(error);
    if repaired {
        return failure.with_hint("the layer was damaged in the store; run again to fetch it anew");
    }
    failure
}

/// The name of the file that an image is converted to if none is given, without an extension.
pub fn default_stem(target: &Target) -> Result<PathBuf, Failure> {
    let stem = match target {
        Target::Reference(reference) => reference_stem(reference),
        Target::Context(path) | Target::Disk(path) | Target::Root(path) => file_stem(path),
    };
    let safe = |stem: &String| !stem.is_empty() && !stem.starts_with('.');
    let stem = stem.filter(safe).ok_or_else(|| {
        Failure::new(
            exit::USAGE,
            "the image has no name to call the file by",
            Some("name the file with `--output`"),
        )
    })?;
    Ok(PathBuf::from(stem))
}

fn reference_stem(reference: &Reference) -> Option<String> {
    match reference {
        Reference::Registry(name) => name.repository.rsplit('/').next().map(str::to_owned),
        Reference::OciLayout { path, name }
        | Reference::OciArchive { path, name }
        | Reference::DockerArchive { path, name } => match name {
            Some(name) if !name.starts_with('@') => short(name),
            _ => file_stem(path),
        },
        Reference::Archive { path } => file_stem(path),
        Reference::Engine { name, .. } | Reference::Containerd { name } => short(name),
    }
}

/// `docker.io/library/nginx:1.27` is called `nginx`.
fn short(name: &str) -> Option<String> {
    let name = name.split('@').next()?.rsplit('/').next()?;
    name.split(':').next().map(str::to_owned)
}

fn file_stem(path: &Path) -> Option<String> {
    let path = path.canonicalize().ok()?;
    let name = path.file_name()?.to_str()?;
    // A directory's name is taken whole; of a file's, what comes before the first dot.
    if path.is_dir() { Some(name.to_owned()) } else { name.split('.').next().map(str::to_owned) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_is_named_after_the_image() {
        let name = |text: &str| {
            let target = Target::detect(text, &BuildArgs::default()).unwrap();
            default_stem(&target).unwrap().display().to_string()
        };
        assert_eq!(name("nginx"), "nginx");
        assert_eq!(name("127.0.0.1:5000/team/web:1.2"), "web");
        assert_eq!(short("docker.io/library/nginx:1.27").as_deref(), Some("nginx"));
    }
}
