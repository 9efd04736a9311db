//! Shell scripts, read for what they will start.

mod eval;
mod expand;
mod parse;
mod refusal;
mod test;

#[cfg(test)]
mod tests;

pub use eval::{How, Outcome, Run, Start, Value, World, walk};
pub use expand::matches;
pub use refusal::Refusal;
