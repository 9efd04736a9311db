//! Builds the kernel alone and prints the path of the ELF file that boots.
//!
//! For work on the kernel: `scripts/kernel-build [--profile guest-dev] [--debug]`.

use std::path::Path;
use std::process::ExitCode;

use dock2uni_guest_build::cargo::Build;

fn main() -> ExitCode {
    let mut debug = false;
    let mut profile = None;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--debug" => debug = true,
            "--profile" => profile = args.next(),
            _ => {
                eprintln!("usage: kernel-build [--profile guest|guest-dev] [--debug]");
                return ExitCode::from(2);
            }
        }
    }
    // Built by Cargo in this workspace, for use in this workspace alone.
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let built = std::env::current_exe()
        .and_then(|exe| Ok((exe, workspace.canonicalize()?)))
        .map_err(|error| error.to_string())
        .and_then(|(exe, workspace)| {
            let mut build = Build::new(&workspace, &exe);
            if let Some(profile) = profile {
                build.profile = profile;
            }
            dock2uni_guest_build::kernel(&build).map_err(|error| error.to_string())
        });
    match built {
        Ok(kernel) => {
            println!("{}", if debug { &kernel.debug } else { &kernel.elf }.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
