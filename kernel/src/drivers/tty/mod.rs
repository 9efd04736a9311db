//! Terminals: line discipline, console, pseudo-terminals.

pub mod ldisc;
pub mod termios;
