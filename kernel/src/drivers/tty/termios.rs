//! Terminal settings (termios(3)), in the kernel's layout of `struct termios` and `struct
//! termios2`.

use linux_raw_sys::general::*;

/// Number of control characters.
pub const NCC: usize = 19;

/// Terminal settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Termios {
    /// Input modes.
    pub iflag: u32,
    /// Output modes.
    pub oflag: u32,
    /// Control modes.
    pub cflag: u32,
    /// Local modes.
    pub lflag: u32,
    /// Line discipline; only `N_TTY` (0) exists here.
    pub line: u8,
    /// Control characters, indexed by `VINTR` and friends.
    pub cc: [u8; NCC],
    /// Input speed in baud.
    pub ispeed: u32,
    /// Output speed in baud.
    pub ospeed: u32,
}

impl Default for Termios {
    /// What a new Linux terminal has (`tty_std_termios`).
    fn default() -> Self {
        let mut cc = [0; NCC];
        for (index, value) in [
            (VINTR, 3),
            (VQUIT, 28),
            (VERASE, 127),
            (VKILL, 21),
            (VEOF, 4),
            (VMIN, 1),
            (VSTART, 17),
            (VSTOP, 19),
            (VSUSP, 26),
            (VREPRINT, 18),
            (VDISCARD, 15),
            (VWERASE, 23),
            (VLNEXT, 22),
        ] {
            cc[index as usize] = value;
        }
        Termios {
            iflag: ICRNL | IXON,
            oflag: OPOST | ONLCR,
            cflag: B38400 | CS8 | CREAD | HUPCL,
            lflag: ISIG | ICANON | ECHO | ECHOE | ECHOK | ECHOCTL | ECHOKE | IEXTEN,
            line: 0,
            cc,
            ispeed: 38400,
            ospeed: 38400,
        }
    }
}

impl Termios {
    /// Size of `struct termios` (`TCGETS`).
    pub const SIZE: usize = 36;
    /// Size of `struct termios2` (`TCGETS2`).
    pub const SIZE2: usize = 44;

    /// The layout of `struct termios2`; its first [`SIZE`](Termios::SIZE) bytes are a `struct
    /// termios`.
    pub fn emit(&self) -> [u8; Self::SIZE2] {
        let mut raw = [0; Self::SIZE2];
        for (at, word) in [
            (0, self.iflag),
            (4, self.oflag),
            (8, self.cflag),
            (12, self.lflag),
            (36, self.ispeed),
            (40, self.ospeed),
        ] {
            raw[at..at + 4].copy_from_slice(&word.to_ne_bytes());
        }
        raw[16] = self.line;
        raw[17..36].copy_from_slice(&self.cc);
        raw
    }

    /// Reads `struct termios` (36 bytes) or `struct termios2` (44); speeds stay as they were in the
    /// shorter one.
    pub fn parse(raw: &[u8], before: &Termios) -> Option<Termios> {
        let word = |at: usize| Some(u32::from_ne_bytes(raw.get(at..at + 4)?.try_into().ok()?));
        Some(Termios {
            iflag: word(0)?,
            oflag: word(4)?,
            cflag: word(8)?,
            lflag: word(12)?,
            // Other line disciplines don't exist here; Linux ignores an unknown one the same way.
            line: before.line,
            cc: raw.get(17..36)?.try_into().ok()?,
            ispeed: word(36).unwrap_or(before.ispeed),
            ospeed: word(40).unwrap_or(before.ospeed),
        })
    }

    /// Whether any of the local modes is on.
    pub fn local(&self, flags: u32) -> bool {
        self.lflag & flags != 0
    }

    /// The control character at `index`; `None` if it is disabled (`_POSIX_VDISABLE`).
    pub fn control(&self, index: u32) -> Option<u8> {
        Some(self.cc[index as usize]).filter(|&value| value != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_round_trips() {
        let mut termios = Termios { oflag: 7, ..Termios::default() };
        termios.cc[VMIN as usize] = 9;
        let raw = termios.emit();
        assert_eq!(Termios::parse(&raw, &Termios::default()), Some(termios));
        assert_eq!(Termios::parse(&raw[..36], &Termios::default()), Some(termios));
        assert_eq!(Termios::parse(&raw[..35], &termios), None);
    }
}
