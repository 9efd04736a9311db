//! The command line: arguments to calls of the library, results to text.
//!
//! Standard output carries results alone; what is said to people on the way goes to standard
//! error. Every failure is printed once, as a chain of causes and a hint, and has a documented
//! exit status, see [`exit`].

mod args;
mod build;
mod convert;
mod doctor;
pub mod exit;
mod failure;
mod generate;
mod image;
mod info;
mod inspect;
mod kernel;
mod mounts;
mod progress;
mod reformat;
mod roots;
mod run;
mod size;
mod target;
mod volume;
mod with_parent;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};
use failure::Failure;

/// Parses the arguments, does what they say, and reports.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Convert(args) => convert::convert(&args),
        Command::Run(args) => run::run(&args),
        Command::Inspect(args) => inspect::inspect(&args),
        Command::Image(args) => image::image(&args),
        Command::Volume(args) => volume::volume(&args),
        Command::Doctor => doctor::doctor(),
        Command::Completions { shell } => generate::completions(shell),
        Command::Man { directory } => generate::man(&directory),
        Command::Kernel { extract } => kernel::extract(&extract),
        Command::Sandbox { job, inside } => Ok(crate::dockerfile::sandbox(&job, inside)),
        Command::WithParent { command } => with_parent::exec(&command),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            failure.print();
            ExitCode::from(failure.code)
        }
    }
}
