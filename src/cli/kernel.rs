//! The embedded kernel, for other VMMs and for debugging.

use std::fs;
use std::path::Path;

use super::{Failure, exit};
use crate::guest;

pub fn extract(path: &Path) -> Result<u8, Failure> {
    let kernel =
        guest::kernel().map_err(|error| Failure::new(exit::FAILURE, error.to_string(), None))?;
    fs::write(path, kernel)
        .map_err(|error| Failure::io(format!("cannot write `{}`", path.display()), error))?;
    Ok(exit::OK)
}
