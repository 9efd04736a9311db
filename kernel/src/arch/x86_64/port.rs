//! I/O ports for drivers (PCI configuration by ports 0xcf8 and 0xcfc).

pub use super::insn::{inb, inl, inw, outb, outl, outw};
