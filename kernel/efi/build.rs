//! Passes the linker script, in guest builds only.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Without this line a changed script would not relink.
    println!("cargo:rerun-if-changed=efi.ld");
    if env::var_os("CARGO_CFG_GUEST").is_some()
        && let Some(dir) = env::var_os("CARGO_MANIFEST_DIR")
    {
        println!("cargo:rustc-link-arg-bins=-T{}/efi.ld", dir.display());
    }
}
