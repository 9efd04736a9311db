//! Variables of the environment. One that is empty counts as one that is not there, as the XDG base
//! directory specification has it.

use std::env;
use std::path::PathBuf;

/// A variable's text, if it is one.
pub(crate) fn text(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// A variable that names a file or a directory.
pub(crate) fn path(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// A base directory of the user: what `variable` names, else the directory `under_home`.
pub(crate) fn base(variable: &str, under_home: &str) -> Option<PathBuf> {
    path(variable).or_else(|| Some(path("HOME")?.join(under_home)))
}
