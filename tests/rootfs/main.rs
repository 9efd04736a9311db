//! Layers to root image: what the OCI image specification asks for, what hostile layers try, and
//! what other tools say of the result.

mod apply;
mod support;
