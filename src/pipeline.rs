//! From a reference to disk images in one call, as batches and services need it.
//!
//! ```no_run
//! use dock2uni::config::Overrides;
//! use dock2uni::convert::{DiskOptions, Output};
//! use dock2uni::disk::Format;
//! use dock2uni::pipeline::{self, Unwatched};
//! use dock2uni::source::{Options, Reference, Store};
//!
//! let output = Output { format: Format::Qcow2, path: "nginx.qcow2".into() };
//! let made = pipeline::convert(
//!     &Reference::detect("nginx")?,
//!     &Options::from_env(),
//!     &Store::open_default()?,
//!     &Overrides::default(),
//!     &[output],
//!     &DiskOptions::default(),
//!     &Unwatched,
//! )?;
//! println!("{} is {}", made.image.name, made.image.manifest);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::config::Overrides;
use crate::convert::{self, DiskOptions, Disks, Output};
use crate::erofs::Compression;
use crate::roots;
use crate::source::{self, Bar, Digest, Image, Options, Progress, Quiet, Reference, Store};

/// Is told how a conversion gets on, from any thread.
pub trait Watch: Progress {
    /// All layers are there; so many bytes of them are about to be applied.
    fn applying(&self, _total: u64) {}

    /// So many more bytes of the layers have been applied.
    fn applied(&self, _bytes: u64) {}
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unwatched;

impl Progress for Unwatched {
    fn start(&self, digest: &Digest, total: u64) -> Box<dyn Bar> {
        Quiet.start(digest, total)
    }
}

impl Watch for Unwatched {}

/// Why a conversion failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The image could not be brought in.
    #[error(transparent)]
    Source(#[from] source::Error),
    /// It could not be converted.
    #[error(transparent)]
    Convert(#[from] convert::Error),
    /// A layer that had been verified when it came in was damaged on the disk, and is gone now.
    #[error("a layer of `{image}` was damaged in the store")]
    Damaged {
        /// The image.
        image: String,
        /// What came of it.
        source: convert::Error,
    },
}

impl Error {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Source(error) => error.hint(),
            Error::Convert(error) => error.hint().map(str::to_owned),
            Error::Damaged { .. } => Some("run again to fetch it anew".to_owned()),
        }
    }

    /// Whether the same call may succeed a little later.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Source(error) => error.is_transient(),
            Error::Convert(_) => false,
            Error::Damaged { .. } => true,
        }
    }
}

/// What a conversion made.
#[derive(Clone, Debug)]
pub struct Made {
    /// The image that was converted, by digest.
    pub image: Image,
    /// The disks.
    pub disks: Disks,
}

/// Converts what `reference` names. The image's root is kept in the store, so that the next
/// conversion of the same image, with whatever options, reads no layer; layers that are there need
/// not be fetched, and need not be fetched at all if the root is there.
///
/// Blocks; call it from an ordinary thread.
///
/// # Errors
/// See [`Error`].
pub fn convert(
    reference: &Reference,
    from: &Options,
    store: &Store,
    overrides: &Overrides,
    outputs: &[Output],
    options: &DiskOptions<'_>,
    watch: &dyn Watch,
) -> Result<Made, Error> {
    let described = Options { layers: false, ..from.clone() };
    let mut image = source::resolve(reference, &described, store, &Quiet)?;
    if !has_root(&image, options.root.compression, store) {
        let full = Options { layers: true, ..from.clone() };
        image = source::resolve(reference, &full, store, watch)?;
    }
    let disks = disks(&image, store, overrides, outputs, options, watch)?;
    Ok(Made { image, disks })
}

/// Whether the image's root is in the store, so that its layers need not be.
pub fn has_root(image: &Image, compression: Option<Compression>, store: &Store) -> bool {
    roots::path(image, compression, store).is_ok_and(|path| path.exists())
}

/// The second half of [`convert`]: makes disks of an image that is here.
///
/// # Errors
/// [`Error::Convert`] and [`Error::Damaged`].
pub fn disks(
    image: &Image,
    store: &Store,
    overrides: &Overrides,
    outputs: &[Output],
    options: &DiskOptions<'_>,
    watch: &dyn Watch,
) -> Result<Disks, Error> {
    watch.applying(image.layers.iter().map(|layer| layer.size).sum());
    let made = match options.root.selection {
        // A root with some files left out is nobody else's.
        Some(_) => convert::disk_images(image, overrides, outputs, options, &|n| watch.applied(n))
            .map(|made| Disks {
                record: made.record,
                files: made.files,
                root_len: made.root_len,
                provenance: made.provenance,
                inventory: made.inventory,
            }),
        None => {
            roots::of_with(image, &options.root, store, &|n| watch.applied(n)).and_then(|root| {
                convert::disk_images_of_root(image, &root, overrides, outputs, options)
            })
        }
    };
    made.map_err(|error| failed(error, image, store))
}

/// If a layer was damaged in the store it is taken out of it, so that trying again helps.
pub(crate) fn failed(error: convert::Error, image: &Image, store: &Store) -> Error {
    let bad = matches!(&error, convert::Error::Rootfs(error) if error.is_bad_image());
    if bad && store.repair(image).is_ok_and(|damaged| !damaged.is_empty()) {
        return Error::Damaged { image: image.name.clone(), source: error };
    }
    Error::Convert(error)
}
