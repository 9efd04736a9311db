//! The nested Cargo.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Error;

/// The one target: its prebuilt `core` and `alloc` come with every toolchain.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The one package that is not linked to a fixed address.
const EFI: &str = "dock2uni-efi";

/// How to build guest code.
#[derive(Clone, Debug)]
pub struct Build {
    /// Root of the workspace: where `Cargo.lock` and `.cargo/config.toml` are.
    pub workspace: PathBuf,
    /// Where the nested Cargo builds; never the outer Cargo's own directory, whose lock is held.
    pub target_dir: PathBuf,
    /// Cargo profile, `guest` or `guest-dev`.
    pub profile: String,
}

impl Build {
    /// Builds the workspace at `workspace`, next to whatever the running program was built into.
    ///
    /// `inside` is a path in the outer target directory (`OUT_DIR`, or the running executable).
    /// The guest directory is shared by the outer profiles, so that a release build or a
    /// Clippy run does not build the kernel a second time.
    pub fn new(workspace: &Path, inside: &Path) -> Build {
        let target = inside
            .ancestors()
            .find(|dir| dir.join("CACHEDIR.TAG").exists() || dir.join(".rustc_info.json").exists())
            .unwrap_or(inside);
        let profile = env::var("D2U_KERNEL_PROFILE").ok().filter(|name| !name.is_empty());
        Build {
            workspace: workspace.to_owned(),
            target_dir: target.join("guest"),
            profile: profile.unwrap_or_else(|| "guest".to_owned()),
        }
    }

    /// Builds one package and returns the path of its linked binary.
    ///
    /// # Errors
    /// If Cargo cannot be started or fails; its messages have gone to standard error by then.
    pub fn run(&self, package: &'static str) -> Result<PathBuf, Error> {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(&cargo);
        command
            .current_dir(&self.workspace)
            .args(["build", "--locked", "--package", package, "--target", TARGET])
            .args(["--profile", &self.profile])
            .arg("--target-dir")
            .arg(self.dir(package))
            .stdin(Stdio::null());
        for (name, _) in env::vars_os() {
            if name.to_str().is_none_or(leaks) {
                command.env_remove(&name);
            }
        }
        command.env("CARGO_ENCODED_RUSTFLAGS", self.flags(package).join("\x1f"));
        let status = command.status().map_err(Error::io(Path::new(&cargo)))?;
        if !status.success() {
            return Err(Error::Cargo { package });
        }
        Ok(self.dir(package).join(TARGET).join(&self.profile).join(package))
    }

    /// Other flags, another directory: they would throw each other's work away.
    fn dir(&self, package: &str) -> PathBuf {
        if package == EFI { self.target_dir.join("efi") } else { self.target_dir.clone() }
    }

    fn flags(&self, package: &str) -> Vec<String> {
        const STATIC: &[&str] = &[
            "-Crelocation-model=static",
            // The kernel lives in the top 2 GiB.
            "-Ccode-model=kernel",
            "-Cforce-frame-pointers=yes",
            "-Clink-arg=-static",
            "-Clink-arg=--no-pie",
            // It moves all the same: `relocs.rs` collects what is to be mended then.
            "-Clink-arg=--emit-relocs",
        ];
        // UEFI loads it wherever there is room.
        const MOVABLE: &[&str] =
            &["-Crelocation-model=pic", "-Clink-arg=-pie", "-Clink-arg=--no-dynamic-linker"];
        let place = if package == EFI { MOVABLE } else { STATIC };
        let mut flags: Vec<String> = place
            .iter()
            .chain(&[
                "-Cpanic=abort",
                // Interrupts may use what lies below the stack pointer.
                "-Cno-redzone=yes",
                "-Clink-arg=-znorelro",
                "-Clink-arg=--build-id=none",
                "--cfg",
                "guest",
            ])
            .map(|flag| (*flag).to_owned())
            .collect();
        // A linker by its own name, not through `cc`: nothing from the user's tool chain gets in.
        let linker: &[&str] = if has_rust_lld() {
            // Functions of the same instructions become one: instances of generic code, mostly.
            &["-Clinker=rust-lld", "-Clinker-flavor=ld.lld", "-Clink-arg=--icf=all"]
        } else {
            // Distributions may leave rust-lld out; GNU ld takes the same script.
            &["-Clinker=ld", "-Clinker-flavor=ld"]
        };
        flags.extend(linker.iter().map(|&flag| flag.to_owned()));
        if self.profile == "guest" {
            // The same kernel whatever the path of the checkout.
            flags.push(format!("--remap-path-prefix={}=/dock2uni", self.workspace.display()));
        }
        flags
    }
}

/// Whether a variable of the outer build would change the inner one.
fn leaks(name: &str) -> bool {
    const KEPT: [&str; 6] = [
        "CARGO_HOME",
        "CARGO_MAKEFLAGS",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTR",
        "CARGO_TERM_",
    ];
    const OTHER: [&str; 17] = [
        "RUSTFLAGS",
        "RUSTDOCFLAGS",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_LINKER",
        "CLIPPY_ARGS",
        "CLIPPY_CONF_DIR",
        "DEBUG",
        "HOST",
        "LD_LIBRARY_PATH",
        "NUM_JOBS",
        "OPT_LEVEL",
        "OUT_DIR",
        "PROFILE",
        "RUSTDOC",
        "TARGET",
        "D2U_KERNEL_PROFILE",
    ];
    let cargo = name.starts_with("CARGO") && !KEPT.iter().any(|kept| name.starts_with(kept));
    cargo || name.starts_with("DEP_") || OTHER.contains(&name)
}

fn has_rust_lld() -> bool {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let Ok(output) = Command::new(rustc).args(["--print", "sysroot"]).output() else {
        return false;
    };
    let Ok(sysroot) = String::from_utf8(output.stdout) else { return false };
    let tools = Path::new(sysroot.trim()).join("lib/rustlib").join(TARGET).join("bin");
    tools.join("rust-lld").exists()
}

/// Writes a file aside and renames it, so that concurrent builds never see half of it.
///
/// A file that already holds `bytes` is left alone, and with it its modification time.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    if std::fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".{}", std::process::id()));
    let aside = PathBuf::from(aside);
    std::fs::write(&aside, bytes).map_err(Error::io(&aside))?;
    std::fs::rename(&aside, path).map_err(Error::io(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_configures_the_registry_and_the_job_server_gets_through() {
        for name in ["CARGO_HOME", "CARGO_MAKEFLAGS", "CARGO_NET_OFFLINE", "PATH", "RUSTC"] {
            assert!(!leaks(name), "{name}");
        }
        for name in [
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER",
            "CARGO_BUILD_TARGET",
            "CARGO_PROFILE_RELEASE_LTO",
            "CARGO_CFG_UNIX",
            "RUSTC_WORKSPACE_WRAPPER",
            "DEP_Z_ROOT",
        ] {
            assert!(leaks(name), "{name}");
        }
    }
}
