//! See `dock2uni::cli`.

fn main() -> std::process::ExitCode {
    dock2uni::cli::main()
}
