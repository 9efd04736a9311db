//! Completions and manual pages, from the same definitions as the help.

use std::fs;
use std::path::Path;

use clap::CommandFactory;

use super::args::Cli;
use super::{Failure, exit};

pub fn completions(shell: clap_complete::Shell) -> Result<u8, Failure> {
    clap_complete::generate(shell, &mut Cli::command(), "dock2uni", &mut std::io::stdout());
    Ok(exit::OK)
}

pub fn man(directory: &Path) -> Result<u8, Failure> {
    let failed = |error| Failure::io(format!("cannot write to `{}`", directory.display()), error);
    fs::create_dir_all(directory).map_err(failed)?;
    clap_mangen::generate_to(Cli::command().disable_help_subcommand(true), directory)
        .map_err(failed)?;
    Ok(exit::OK)
}
