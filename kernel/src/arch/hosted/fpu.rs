//! Extended registers; tests have none to keep.

pub(super) const SIZE: usize = 512;

/// Bytes that a signal frame needs for the floating-point state.
pub fn signal_size() -> usize {
    SIZE
}
