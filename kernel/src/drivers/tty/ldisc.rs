//! The line discipline `N_TTY` (termios(3)): what becomes of a character that is typed or printed.
//!
//! A pure state machine: characters in, bytes to read, bytes to echo and signals out.

use super::termios::Termios;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use linux_raw_sys::general::*;

/// Bytes that may wait to be read, as in Linux (`N_TTY_BUF_SIZE`).
const CAPACITY: usize = 4096;

/// Marks an end of file in the input queue (`VEOF` typed): never a byte.
const EOF: u16 = 0x100;
/// Marks a byte that ends a line.
const EOL: u16 = 0x200;

/// What a typed character caused besides input.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Bytes to print.
    pub echo: Vec<u8>,
    /// Signal for the foreground process group.
    pub signal: Option<u32>,
    /// Input became readable.
    pub readable: bool,
}

/// The state of one terminal's input and output processing.
pub struct LineDiscipline {
    /// Settings in force.
    pub termios: Termios,
    /// Finished input; in canonical mode lines, else whatever came.
    input: VecDeque<u16>,
    /// The line being edited (canonical mode).
    line: Vec<u8>,
    /// Lines (or end-of-file marks) in `input`.
    lines: usize,
    /// The next character is taken literally (`VLNEXT`).
    literal: bool,
    /// Output is stopped (`VSTOP`).
    stopped: bool,
    /// Cursor column, for tab expansion and erasing.
    column: usize,
}

impl LineDiscipline {
    /// A terminal with default settings.
    pub fn new() -> Self {
        LineDiscipline {
            termios: Termios::default(),
            input: VecDeque::new(),
            line: Vec::new(),
            lines: 0,
            literal: false,
            stopped: false,
            column: 0,
        }
    }

    /// Whether output is stopped by `VSTOP`.
    pub fn output_stopped(&self) -> bool {
        self.stopped
    }

    /// Starts or stops output (tcflow(3)).
    pub fn set_output_stopped(&mut self, stopped: bool) {
        self.stopped = stopped;
    }

    /// Bytes that a read could return now.
    pub fn readable(&self) -> usize {
        if self.termios.local(ICANON) && self.lines == 0 { 0 } else { self.input.len() }
    }

    /// Whether another typed character finds room. A line that can't be finished otherwise takes
    /// characters (and drops them) for ever, as in Linux.
    pub fn has_room(&self) -> bool {
        self.termios.local(ICANON) && self.lines == 0
            || self.input.len() + self.line.len() + 1 < CAPACITY
    }

    /// Whether a read would return at once in the present mode, ignoring `VTIME`.
    pub fn read_ready(&self) -> bool {
        if self.termios.local(ICANON) {
            return self.lines > 0;
        }
        let min = usize::from(self.termios.cc[VMIN as usize]).max(1);
        let min = if self.termios.cc[VTIME as usize] == 0 { min } else { 1 };
        self.input.len() >= min
    }

    /// Takes a new setting; leaving canonical mode makes the unfinished line readable, as Linux
    /// does.
    pub fn set_termios(&mut self, termios: Termios) {
        if self.termios.local(ICANON) && termios.lflag & ICANON == 0 {
            self.input.extend(self.line.drain(..).map(u16::from));
            self.input.retain(|&unit| unit != EOF);
            self.lines = 0;
        } else if !self.termios.local(ICANON) && termios.lflag & ICANON != 0 {
            self.lines = self.input.iter().filter(|&&unit| unit & EOL != 0).count();
        }
        if termios.iflag & IXON == 0 {
            self.stopped = false;
        }
        self.termios = termios;
    }

    /// Drops unread input (tcflush(3)).
    pub fn flush_input(&mut self) {
        self.input.clear();
        self.line.clear();
        self.lines = 0;
    }

    /// Takes one character from the keyboard.
    pub fn typed(&mut self, byte: u8, effects: &mut Effects) {
        let mut byte = byte;
        if self.termios.iflag & ISTRIP != 0 {
            byte &= 0x7f;
        }
        if core::mem::take(&mut self.literal) {
            return self.insert(byte, effects);
        }
        match byte {
            b'\r' if self.termios.iflag & IGNCR != 0 => return,
            b'\r' if self.termios.iflag & ICRNL != 0 => byte = b'\n',
            b'\n' if self.termios.iflag & INLCR != 0 => byte = b'\r',
            _ => {}
        }
        if self.termios.iflag & IXON != 0 && self.flow_control(byte) {
            return;
        }
        if self.termios.local(ISIG) && self.signal(byte, effects) {
            return;
        }
        if self.termios.local(ICANON) {
            self.edit(byte, effects);
        } else {
            self.insert(byte, effects);
        }
    }

    fn flow_control(&mut self, byte: u8) -> bool {
        if self.termios.control(VSTART) == Some(byte) {
            self.stopped = false;
        } else if self.termios.control(VSTOP) == Some(byte) {
            self.stopped = true;
        } else {
            self.stopped &= self.termios.iflag & IXANY == 0;
            return false;
        }
        true
    }

    fn signal(&mut self, byte: u8, effects: &mut Effects) -> bool {
        let found = [(VINTR, SIGINT), (VQUIT, SIGQUIT), (VSUSP, SIGTSTP)]
            .into_iter()
            .find(|&(index, _)| self.termios.control(index) == Some(byte));
        let Some((_, signal)) = found else { return false };
        if !self.termios.local(NOFLSH) {
            self.flush_input();
        }
        self.echo(byte, effects);
        effects.signal = Some(signal);
        true
    }

    fn edit(&mut self, byte: u8, effects: &mut Effects) {
        let is = |index: u32| self.termios.control(index) == Some(byte);
        let extended = self.termios.local(IEXTEN);
        if is(VERASE) {
            self.erase_one(effects);
        } else if is(VKILL) {
            while !self.line.is_empty() && self.termios.local(ECHOKE) {
                self.erase_one(effects);
            }
            self.line.clear();
            if self.termios.local(ECHOK) && !self.termios.local(ECHOKE) {
                self.echo(byte, effects);
                self.print(b"\n", &mut effects.echo);
            }
        } else if extended && is(VWERASE) {
            let blank = |byte: &u8| *byte == b' ' || *byte == b'\t';
            while self.line.last().is_some_and(blank) {
                self.erase_one(effects);
            }
            while self.line.last().is_some_and(|byte| !blank(byte)) {
                self.erase_one(effects);
            }
        } else if extended && is(VLNEXT) {
            self.literal = true;
            if self.termios.local(ECHO) && self.termios.local(ECHOCTL) {
                effects.echo.extend_from_slice(b"^\x08");
            }
        } else if extended && is(VREPRINT) {
            self.echo(byte, effects);
            self.print(b"\n", &mut effects.echo);
            for at in 0..self.line.len() {
                self.echo(self.line[at], effects);
            }
        } else if is(VEOF) {
            self.finish_line(None, effects);
        } else if byte == b'\n' {
            if self.termios.local(ECHO | ECHONL) {
                self.print(b"\n", &mut effects.echo);
            }
            self.finish_line(Some(byte), effects);
        } else if is(VEOL) || extended && is(VEOL2) {
            self.echo(byte, effects);
            self.finish_line(Some(byte), effects);
        } else {
            self.insert(byte, effects);
        }
    }

    fn insert(&mut self, byte: u8, effects: &mut Effects) {
        // One place stays free for the end of the line, so a full queue can still be finished.
        if self.input.len() + self.line.len() + 1 >= CAPACITY {
            if self.termios.iflag & IMAXBEL != 0 {
                effects.echo.push(7);
            }
            return;
        }
        self.echo(byte, effects);
        if self.termios.local(ICANON) {
            self.line.push(byte);
        } else {
            self.input.push_back(u16::from(byte) | if byte == b'\n' { EOL } else { 0 });
            effects.readable = true;
        }
    }

    fn finish_line(&mut self, end: Option<u8>, effects: &mut Effects) {
        self.input.extend(self.line.drain(..).map(u16::from));
        self.input.push_back(end.map_or(EOF, |byte| u16::from(byte) | EOL));
        self.lines += 1;
        effects.readable = true;
    }

    fn erase_one(&mut self, effects: &mut Effects) {
        let Some(byte) = self.line.pop() else { return };
        if self.termios.iflag & IUTF8 != 0 {
            let mut last = byte;
            while last & 0xc0 == 0x80 {
                let Some(byte) = self.line.pop() else { break };
                last = byte;
            }
        }
        if !self.termios.local(ECHO) {
            return;
        }
        if !self.termios.local(ECHOE) {
            return self.echo(self.termios.cc[VERASE as usize], effects);
        }
        let width = match byte {
            b'\t' => 1,
            0..=31 | 127 if self.termios.local(ECHOCTL) => 2,
            _ => 1,
        };
        for _ in 0..width {
            effects.echo.extend_from_slice(b"\x08 \x08");
            self.column = self.column.saturating_sub(1);
        }
    }

    fn echo(&mut self, byte: u8, effects: &mut Effects) {
        if !self.termios.local(ECHO) {
            return;
        }
        let control = byte < 32 && byte != b'\t' && byte != b'\n' || byte == 127;
        if control && self.termios.local(ECHOCTL) {
            effects.echo.extend_from_slice(&[b'^', byte ^ 0x40]);
            self.column += 2;
        } else {
            self.print(&[byte], &mut effects.echo);
        }
    }

    /// Output processing (`OPOST`): appends to `out` what the terminal gets for `bytes`.
    pub fn print(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let oflag = self.termios.oflag;
        if oflag & OPOST == 0 {
            return out.extend_from_slice(bytes);
        }
        for &byte in bytes {
            match byte {
                b'\n' => {
                    if oflag & ONLCR != 0 {
                        out.push(b'\r');
                        self.column = 0;
                    }
                    self.column *= usize::from(oflag & ONLRET == 0);
                    out.push(b'\n');
                }
                b'\r' if oflag & ONOCR != 0 && self.column == 0 => {}
                b'\r' => {
                    self.column = 0;
                    out.push(if oflag & OCRNL != 0 { b'\n' } else { b'\r' });
                }
                b'\t' => {
                    let spaces = 8 - self.column % 8;
                    self.column += spaces;
                    if oflag & TABDLY == XTABS {
                        out.extend(core::iter::repeat_n(b' ', spaces));
                    } else {
                        out.push(b'\t');
                    }
                }
                8 => {
                    self.column = self.column.saturating_sub(1);
                    out.push(8);
                }
                _ => {
                    let byte = if oflag & OLCUC != 0 { byte.to_ascii_uppercase() } else { byte };
                    // Continuation bytes of UTF-8 don't move the cursor.
                    self.column += usize::from(byte >= 32 && byte & 0xc0 != 0x80);
                    out.push(byte);
                }
            }
        }
    }

    /// Takes readable input into `out`: in canonical mode at most one line, nothing at an end of
    /// file.
    pub fn take(&mut self, out: &mut [u8]) -> usize {
        let canonical = self.termios.local(ICANON);
        if canonical && self.lines == 0 {
            return 0;
        }
        let mut n = 0;
        while n < out.len() {
            let Some(unit) = self.input.pop_front() else { break };
            if unit == EOF {
                self.lines = self.lines.saturating_sub(1);
                break;
            }
            out[n] = unit as u8;
            n += 1;
            if unit & EOL != 0 {
                self.lines = self.lines.saturating_sub(1);
                if canonical {
                    return n;
                }
            }
        }
        // A line that filled the buffer to the byte before its end-of-file mark is finished by it.
        if canonical && n == out.len() && n > 0 && self.input.front() == Some(&EOF) {
            self.input.pop_front();
            self.lines = self.lines.saturating_sub(1);
        }
        n
    }
}

impl Default for LineDiscipline {
    fn default() -> Self {
        LineDiscipline::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn type_all(tty: &mut LineDiscipline, text: &[u8]) -> Effects {
        let mut effects = Effects::default();
        for &byte in text {
            tty.typed(byte, &mut effects);
        }
        effects
    }
    fn take(tty: &mut LineDiscipline, len: usize) -> Vec<u8> {
        let mut buf = vec![0; len];
        let n = tty.take(&mut buf);
        buf.truncate(n);
        buf
    }

    #[test]
    fn a_line_is_readable_when_it_ends() {
        let mut tty = LineDiscipline::new();
        assert!(!type_all(&mut tty, b"ab").readable);
        assert!(!tty.read_ready());
        let effects = type_all(&mut tty, b"c\r");
        assert!(effects.readable && tty.read_ready());
        assert_eq!(effects.echo, b"c\r\n");
        assert_eq!(take(&mut tty, 2), b"ab");
        assert_eq!(take(&mut tty, 9), b"c\n");
        assert!(!tty.read_ready());
    }

    #[test]
    fn erase_and_kill_edit_the_line() {
        let mut tty = LineDiscipline::new();
        let effects = type_all(&mut tty, b"xy\x7f");
        assert_eq!(effects.echo, b"xy\x08 \x08");
        type_all(&mut tty, b"junk\x15two words\x17!\n");
        assert_eq!(take(&mut tty, 99), b"two !\n");
    }

    #[test]
    fn end_of_file_gives_what_is_there_then_nothing() {
        let mut tty = LineDiscipline::new();
        type_all(&mut tty, b"ab\x04\x04");
        assert_eq!(take(&mut tty, 2), b"ab");
        assert!(tty.read_ready());
        assert_eq!(take(&mut tty, 2), b"");
        assert!(!tty.read_ready());
    }

    #[test]
    fn interrupt_flushes_and_signals() {
        let mut tty = LineDiscipline::new();
        let effects = type_all(&mut tty, b"abc\x03");
        assert_eq!(effects.signal, Some(SIGINT));
        assert_eq!(effects.echo, b"abc^C");
        type_all(&mut tty, b"\n");
        assert_eq!(take(&mut tty, 9), b"\n");
    }

    #[test]
    fn raw_mode_gives_every_byte() {
        let mut tty = LineDiscipline::new();
        type_all(&mut tty, b"ab");
        let raw = Termios { iflag: 0, oflag: 0, lflag: 0, ..tty.termios };
        tty.set_termios(raw);
        let effects = type_all(&mut tty, b"\x03\r");
        assert!(effects.echo.is_empty() && effects.signal.is_none() && effects.readable);
        assert_eq!(take(&mut tty, 9), b"ab\x03\r");
    }

    #[test]
    fn literal_next_takes_control_characters_as_text() {
        let mut tty = LineDiscipline::new();
        assert_eq!(type_all(&mut tty, b"\x16\x03\n").signal, None);
        assert_eq!(take(&mut tty, 9), b"\x03\n");
    }

    #[test]
    fn stop_and_start_hold_output() {
        let mut tty = LineDiscipline::new();
        type_all(&mut tty, b"\x13");
        assert!(tty.output_stopped());
        type_all(&mut tty, b"\x11");
        assert!(!tty.output_stopped());
    }

    #[test]
    fn output_processing_expands_newlines_and_tabs() {
        let mut tty = LineDiscipline::new();
        let mut out = Vec::new();
        tty.print(b"a\n", &mut out);
        tty.termios.oflag |= XTABS;
        tty.print(b"ab\tc", &mut out);
        assert_eq!(out, b"a\r\nab      c");
    }

    #[test]
    fn a_full_queue_drops_typing_but_not_the_end_of_the_line() {
        let mut tty = LineDiscipline::new();
        type_all(&mut tty, &[b'x'; 5000]);
        type_all(&mut tty, b"\n");
        assert_eq!(take(&mut tty, 8192).len(), CAPACITY);
    }
}
