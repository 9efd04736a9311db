//! What the host tells the kernel, in the other direction of the [status](crate::status) channel.
//!
//! One line per event, ended by `\n`. The kernel ignores lines that it does not know.
//!
//! ```text
//! size 24 80            rows and columns of the user's terminal
//! input-end 1234        standard input has ended: so many bytes of it went over the serial line
//! ```

use core::fmt::{self, Display, Formatter};

/// Longest line, its end included.
pub const MAX_LINE: usize = 64;

/// One line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// The terminal's size.
    Size {
        /// Lines.
        rows: u16,
        /// Characters in a line.
        columns: u16,
    },
    /// Standard input has ended.
    InputEnd {
        /// Bytes that were sent before.
        bytes: u64,
    },
}

impl Control {
    /// Reads one line, without its newline. `None` for what this version does not know.
    pub fn parse(line: &str) -> Option<Control> {
        let (word, rest) = line.split_once(' ')?;
        Some(match word {
            "size" => {
                let (rows, columns) = rest.split_once(' ')?;
                Control::Size { rows: rows.parse().ok()?, columns: columns.parse().ok()? }
            }
            "input-end" => Control::InputEnd { bytes: rest.parse().ok()? },
            _ => return None,
        })
    }
}

/// Writes the line without its newline.
impl Display for Control {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Control::Size { rows, columns } => write!(f, "size {rows} {columns}"),
            Control::InputEnd { bytes } => write!(f, "input-end {bytes}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn lines_read_back_and_strangers_are_ignored() {
        for control in
            [Control::Size { rows: 24, columns: 80 }, Control::InputEnd { bytes: 1 << 40 }]
        {
            let line = control.to_string();
            assert!(line.len() < MAX_LINE);
            assert_eq!(Control::parse(&line), Some(control));
        }
        for line in ["", "size", "size 1", "size 1 x", "size 70000 1", "input-end -1", "reboot 1"] {
            assert_eq!(Control::parse(line), None, "{line}");
        }
    }
}
