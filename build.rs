//! Builds the guest kernel and hands it to the crate for embedding.
//!
//! - `D2U_KERNEL_PROFILE=guest-dev` compiles the kernel faster, for work on it.
//! - `D2U_KERNEL=FILE` embeds a kernel that was built before, as packagers may want.
//! - `D2U_KERNEL=none` builds a tool without a kernel, for checks that do not boot anything.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use dock2uni_guest_build::cargo::Build;

fn main() -> ExitCode {
    match embed() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn embed() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-env-changed=D2U_KERNEL");
    println!("cargo:rerun-if-env-changed=D2U_KERNEL_PROFILE");
    for input in ["build.rs", "kernel", "Cargo.toml", "Cargo.lock"] {
        println!("cargo:rerun-if-changed={input}");
    }
    let workspace = PathBuf::from(var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(var("OUT_DIR")?);
    let build = Build::new(&workspace, &out);

    let chosen = env::var("D2U_KERNEL").unwrap_or_default();
    let kernel = match chosen.as_str() {
        "none" => Vec::new(),
        "" => read(&dock2uni_guest_build::kernel(&build)?.elf)?,
        file => read(Path::new(file))?,
    };
    let dispatch = workspace.join("kernel/src/syscall/dispatch.rs");
    let calls = dock2uni_guest_build::calls::implemented(&fs::read_to_string(&dispatch)?);
    fs::write(out.join("calls.txt"), calls.join("\n"))?;
    let (mbr, stage2) = match chosen.as_str() {
        "none" => (Vec::new(), Vec::new()),
        _ => dock2uni_guest_build::bios(&build)?,
    };
    let efi = match chosen.as_str() {
        "none" => Vec::new(),
        _ => dock2uni_guest_build::efi(&build)?,
    };
    fs::write(out.join("kernel.elf"), kernel)?;
    fs::write(out.join("loader.efi"), efi)?;
    fs::write(out.join("mbr.bin"), mbr)?;
    fs::write(out.join("stage2.bin"), stage2)?;
    Ok(())
}

fn var(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("{name}: {error}"))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}
