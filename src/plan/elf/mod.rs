//! Programs and libraries: what an ELF file needs, and where the loader will find it.

mod cache;
mod closure;
mod object;
mod search;

pub use closure::{Builder, Closure, Member, Missing};
pub use object::{Function, Object};
pub use search::{How, Libc};
