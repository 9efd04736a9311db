//! Terminals: line discipline, console, pseudo-terminals.

pub mod ldisc;
pub mod terminal;
pub mod termios;
