//! Address spaces.

/// The memory of a process (or of several that share it by vfork or `CLONE_VM`).
pub struct AddressSpace(());
