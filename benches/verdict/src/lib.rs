//! Cases and tables of `bench-verdict` and `bench-slim`.

pub mod cases;
pub mod table;

use std::path::PathBuf;
use std::process::ExitCode;

/// Exit status of a bench: 1 if something was not as it should be, 2 if it could not be measured.
pub fn status(done: Result<bool, String>) -> ExitCode {
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// The tool beside this program.
pub fn dock2uni() -> Result<PathBuf, String> {
    let path = std::env::current_exe().map_err(|error| error.to_string())?;
    let path = path.with_file_name("dock2uni");
    if path.exists() { Ok(path) } else { Err("build dock2uni first: cargo build --release".into()) }
}
