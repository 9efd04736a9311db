//! Entrypoint and Cmd.

use super::docker::Config;
use super::{Error, Overrides};

/// Joins Entrypoint and Cmd.
///
/// As in Docker, the image's Cmd is dropped as soon as the user gives an entrypoint, even an empty
/// one, because it was written as arguments for another program.
pub fn merge(image: &Config, overrides: &Overrides) -> Result<Vec<Vec<u8>>, Error> {
    let given = !overrides.command.is_empty();
    let (entrypoint, command) = match &overrides.entrypoint {
        Some(program) if program.is_empty() => (Vec::new(), &overrides.command),
        Some(program) => (vec![program.clone()], &overrides.command),
        None if given => (image.entrypoint.clone(), &overrides.command),
        None => (image.entrypoint.clone(), &image.cmd),
    };
    let argv: Vec<Vec<u8>> =
        entrypoint.iter().chain(command).map(|text| text.clone().into_bytes()).collect();
    if argv.is_empty() {
        return Err(Error::NoCommand);
    }
    if argv.iter().any(|arg| arg.contains(&0)) {
        return Err(Error::NulInArgument);
    }
    Ok(argv)
}
