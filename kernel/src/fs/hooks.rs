//! What files do to the task that uses them.

/// The current task wrote to a pipe that nobody reads: SIGPIPE.
pub fn broken_pipe() {}

/// Bytes of memory that the kernel manages.
pub fn total_memory() -> u64 {
    memory().0
}

/// Bytes of memory: all, and free or easily freed.
pub fn memory() -> (u64, u64) {
    (256 << 20, 128 << 20)
}
