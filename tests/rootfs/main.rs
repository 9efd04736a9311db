//! Layers to root image: what the OCI image specification asks for, what hostile layers try, and
//! what other tools say of the result.

#[path = "../common/mod.rs"]
mod common;

mod apply;
mod archive;
mod compressed;
mod hostile;
mod image;
mod peers;
mod snapshot;
mod support;
