//! A report on an image in a registry that reads no more of it than it needs.

use super::root::Root;
use super::{Error, Report, examine};
use crate::config::Overrides;
use crate::erofs::ReadAt;
use crate::rootfs::outline::Outlined;
use crate::rootfs::{self, Limits};
use crate::roots;
use crate::source::{self, Image, Progress, Reference, Store};

/// A report, and what it took.
#[derive(Debug)]
pub struct Remote {
    /// The report.
    pub report: Report,
    /// The image, not all of whose layers are in the store.
    pub image: Image,
    /// Bytes that were read of layers with tables of contents, beside the tables.
    pub read: u64,
    /// Bytes that these layers have.
    pub of: u64,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The image or a part of it could not be brought in.
    #[error(transparent)]
    Source(#[from] source::Error),
    /// Nothing can be said about it.
    #[error(transparent)]
    Plan(#[from] Error),
}

/// As [`report`](super::report) for an image in a registry, with layers that list their files
/// (eStargz, zstd:chunked) left there: only what is looked at is fetched. Other layers are brought into
/// the store. `None` if there is nothing that can be left there, or it is in the store already.
///
/// What the report says is what the tables say. The manifest vouches for them, but not that they are
/// true to the layers; a conversion reads the layers themselves.
///
/// # Errors
/// See [`RemoteError`].
pub fn report(
    reference: &Reference,
    overrides: &Overrides,
    limits: Limits,
    options: &source::Options,
    store: &Store,
    progress: &dyn Progress,
) -> Result<Option<Remote>, RemoteError> {
    let is_here = |image: &Image| roots::path(image, None, store).is_ok_and(|path| path.exists());
    source::resolve_outlined(
        reference,
        options,
        store,
        progress,
        &is_here,
        &mut |image, tables, parts| {
            let file = tempfile::tempfile().map_err(Error::Temporary)?;
            let options = rootfs::Options { limits, ..rootfs::Options::default() };
            let outlined = Outlined::make(&image.layers, tables, &options, file, parts);
            let outlined = outlined.map_err(Error::from)?;
            let root = Root::open(&outlined as &dyn ReadAt, 0).map_err(Error::from)?;
            let plan = examine(image, overrides, &root);
            if let Some(error) = outlined.failed() {
                return Err(RemoteError::Source(error));
            }
            let listed = image.layers.iter().zip(tables).filter(|(_, table)| table.is_some());
            Ok(Remote {
                report: plan?.report,
                image: image.clone(),
                read: outlined.read(),
                of: listed.map(|(layer, _)| layer.size).sum(),
            })
        },
    )
}
