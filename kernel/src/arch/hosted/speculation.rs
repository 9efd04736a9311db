//! Speculative execution: the host's affair.

/// The files of /sys/devices/system/cpu/vulnerabilities.
pub const NAMES: [&str; 1] = ["spec_store_bypass"];

/// What one of [`NAMES`] says.
pub fn status(_index: usize) -> &'static str {
    "Not affected"
}
