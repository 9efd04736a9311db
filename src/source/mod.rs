//! Where images come from: registries, OCI layouts, archives.
//!
//! Every source yields the same [`Image`]: a checked configuration and an ordered list of layer
//! blobs that lie, verified, in the content-addressed [`store`].

pub mod digest;
pub mod image;
