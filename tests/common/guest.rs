//! The program of `tests/guest`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The program, built once for each test run: static, or with the system's libraries.
pub fn program(linked_statically: bool) -> &'static Path {
    static BUILT: [OnceLock<PathBuf>; 2] = [OnceLock::new(), OnceLock::new()];
    BUILT[usize::from(linked_statically)].get_or_init(|| {
        let (name, flags) = match linked_statically {
            true => ("static", "-Ctarget-feature=+crt-static"),
            false => ("dynamic", ""),
        };
        const TARGET: &str = "x86_64-unknown-linux-gnu";
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guest-tests").join(name);
        super::run(
            Command::new(env!("CARGO"))
                .current_dir(env!("CARGO_MANIFEST_DIR"))
                .args(["build", "--locked", "--package", "guest-tests", "--target", TARGET])
                .arg("--target-dir")
                .arg(&dir)
                .env_remove("CARGO_ENCODED_RUSTFLAGS")
                .env("RUSTFLAGS", flags)
                // Nobody debugs it here, and the image gets smaller.
                .env("CARGO_PROFILE_DEV_DEBUG", "0"),
        );
        dir.join(TARGET).join("debug/guest-tests")
    })
}
