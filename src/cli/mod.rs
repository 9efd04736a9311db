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
mod fleet;
mod generate;
mod image;
mod info;
mod inspect;
mod kernel;
mod mounts;
mod progress;
mod push;
mod reformat;
mod roots;
mod run;
mod sbom;
#[cfg(feature = "service")]
mod serve;
mod settings;
mod size;
mod system;
mod target;
mod template;
mod trial;
mod volume;
mod with_parent;

#[cfg(feature = "service")]
pub(crate) use size::size as parse_size;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use args::{Cli, Command};
use failure::Failure;

/// Parses the arguments, does what they say, and reports.
pub fn main() -> ExitCode {
    let result = parse().and_then(|cli| match cli.command {
        Command::Convert(args) => convert::convert(&args),
        Command::Run(args) => run::run(&args),
        Command::Sbom(args) => sbom::sbom(&args),
        Command::Trace(args) => trial::trace(&args),
        Command::Inspect(args) => inspect::inspect(&args),
        Command::Fleet(args) => fleet::fleet(&args),
        Command::Image(args) => image::image(&args),
        Command::Volume(args) => volume::volume(&args),
        Command::Push(args) => push::push(&args),
        Command::Template(args) => template::template(&args),
        Command::System(args) => system::system(&args),
        #[cfg(feature = "service")]
        Command::Serve(args) => serve::serve(&args),
        #[cfg(feature = "service")]
        Command::Worker(args) => serve::worker(&args),
        #[cfg(feature = "service")]
        Command::Conversion => Ok(crate::service::convert::main()),
        Command::Doctor { json } => doctor::doctor(json),
        Command::Completions { shell } => generate::completions(shell),
        Command::Man { directory } => generate::man(&directory),
        Command::Kernel { extract } => kernel::extract(&extract),
        Command::Supervise { directory } => {
            crate::fleet::up::supervisor::main(&directory).map(|()| exit::OK).map_err(Failure::from)
        }
        Command::Sandbox { job, inside } => Ok(crate::dockerfile::sandbox(&job, inside)),
        Command::WithParent { own_memory, command } => with_parent::exec(own_memory, &command),
    });
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            failure.print();
            ExitCode::from(failure.code)
        }
    }
}

/// The arguments, with the defaults of the configuration file.
fn parse() -> Result<Cli, Failure> {
    let matches = settings::apply(Cli::command())?.get_matches();
    // The matches are those of this very definition; what is wrong with them ends the process.
    Ok(Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit()))
}
