//! Builds what runs in the guest, the kernel and its loaders, from a build script.
//!
//! The guest code lives in the same workspace and lock file as the tool, but needs other compiler
//! flags and its own profile, so it is built by a nested Cargo. [`cargo`] knows how to start one
//! that neither inherits the user's compiler settings nor waits for the outer Cargo's locks;
//! [`image`] turns the linked ELF files into what is embedded.
#![forbid(unsafe_code)]

pub mod calls;
pub mod cargo;
pub mod image;
mod pe;
mod relocs;
mod symbols;

use std::path::{Path, PathBuf};

/// What can go wrong while the guest code is built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// File that was worked on.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The nested Cargo could not build the package.
    #[error("building `{package}` for the guest failed; Cargo's own messages say why")]
    Cargo {
        /// Package that was built.
        package: &'static str,
    },
    /// The linked file is not as the linker script should have made it.
    #[error("{}: {what}", path.display())]
    Elf {
        /// The ELF file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

impl Error {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        move |source| Error::Io { path: path.to_owned(), source }
    }

    pub(crate) fn elf(path: &Path, what: impl Into<String>) -> Error {
        Error::Elf { path: path.to_owned(), what: what.into() }
    }
}

/// The finished kernel.
#[derive(Debug)]
pub struct Kernel {
    /// What is embedded and booted: loadable segments alone, with the symbol table filled in.
    pub elf: PathBuf,
    /// The same kernel with sections, symbols and line tables, for a debugger.
    pub debug: PathBuf,
}

/// Builds the kernel and makes the file to embed.
///
/// # Errors
/// If Cargo fails or the linked ELF cannot be packed.
pub fn kernel(build: &cargo::Build) -> Result<Kernel, Error> {
    let linked = build.run("dock2uni-kernel")?;
    let elf = linked.with_extension("elf");
    let debug = linked.with_extension("elf.debug");
    let bytes = std::fs::read(&linked).map_err(Error::io(&linked))?;
    let packed = image::pack(&linked, &bytes)?;
    cargo::replace(&elf, &packed)?;
    cargo::replace(&debug, &bytes)?;
    Ok(Kernel { elf, debug })
}

/// Builds the BIOS boot code: the MBR's, and the second stage.
///
/// # Errors
/// If Cargo fails or the linked ELF is not laid out as expected.
pub fn bios(build: &cargo::Build) -> Result<(Vec<u8>, Vec<u8>), Error> {
    // Where the firmware puts the one, and the one puts the other; see kernel/bios/bios.ld.
    const MBR: u64 = 0x7c00;
    const STAGE2: u64 = 0x8000;
    let linked = build.run("dock2uni-bios")?;
    let bytes = std::fs::read(&linked).map_err(Error::io(&linked))?;
    Ok((image::flat(&linked, &bytes, MBR)?, image::flat(&linked, &bytes, STAGE2)?))
}

/// Builds the EFI loader, a PE file to which the converter adds kernel and boot record.
///
/// # Errors
/// If Cargo fails or the linked ELF cannot be packed.
pub fn efi(build: &cargo::Build) -> Result<Vec<u8>, Error> {
    let linked = build.run("dock2uni-efi")?;
    let bytes = std::fs::read(&linked).map_err(Error::io(&linked))?;
    pe::pack(&linked, &bytes)
}
