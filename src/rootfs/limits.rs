//! Bounds on what an image may ask for.

/// Bounds on hostile or broken images. The defaults are far above what real images hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries of all layers together; each costs about 110 bytes of memory.
    pub entries: u64,
    /// Bytes of all layers together when inflated.
    pub layer_bytes: u64,
    /// Bytes of the root image.
    pub image_bytes: u64,
    /// Bytes of one path in a layer (Linux `PATH_MAX`).
    pub path_bytes: usize,
    /// Bytes of extended attributes of all files together, equal ones counted once.
    pub xattr_bytes: usize,
    /// Parts with data in all sparse files together.
    pub sparse_segments: usize,
}

impl Limits {
    /// What applies if nothing else is said.
    pub const DEFAULT: Limits = Limits {
        entries: 4_000_000,
        layer_bytes: 256 << 30,
        image_bytes: 1 << 40,
        path_bytes: 4096,
        xattr_bytes: 32 << 20,
        sparse_segments: 1 << 20,
    };
}

impl Default for Limits {
    fn default() -> Limits {
        Limits::DEFAULT
    }
}
