//! Archives (under construction: they are refused).

use super::{Error, Image, assemble::Context};
use std::path::Path;
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Oci,
    Docker,
}
pub(super) fn resolve(
    _c: &Context<'_>,
    path: &Path,
    _k: Option<Kind>,
    _w: Option<&str>,
    _n: String,
) -> Result<Image, Error> {
    Err(Error::Unsupported {
        what: path.display().to_string(),
        reason: "archives are not read yet; use a layout directory or a registry".into(),
    })
}
