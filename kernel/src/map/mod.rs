//! Ordered maps that share their code.
//!
//! A `BTreeMap` costs five kilobytes of instructions for each pair of types it is used with. What
//! has few entries is [`Sorted`]; what may have many is a [`Tree`], the one instance there is.

mod sorted;
mod tree;

pub use sorted::Sorted;
pub use tree::{Several, Thin, Tree, pair};
