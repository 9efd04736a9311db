//! Cases and tables of `bench-verdict` and `bench-slim`.

pub mod cases;
pub mod table;
