//! What the kernel tells its host over the status channel.
//!
//! The channel is the first port of a virtio console device (`virtconsole` on QEMU's
//! `virtio-serial`), apart from the serial console that carries the application's output. The
//! kernel writes one line per event, ended by `\n`; the host writes nothing. A host without the
//! device loses nothing but the events.
//!
//! ```text
//! start 41203117        the main process runs, so many nanoseconds after the kernel's entry
//! health healthy        the state of HEALTHCHECK changed: starting, healthy or unhealthy
//! check TEXT            a health check failed: why, and the start of its output
//! syscalls WORDS         the calls that were made: hexadecimal words of 64 bits, lowest first
//! failed TEXT           the main process could not be started, and why
//! listens 80            somebody listens on this TCP port, for the first time
//! local 2019            the same, but on an address of loopback, which nobody outside reaches
//! used opened PATH      a file of that name was seen, opened or executed (on `d2u.witness`)
//! call 257              the call of this number was made for the first time (on `d2u.witness`)
//! exit 0                the main process exited with this status; the VM powers off
//! signal 11             the main process was killed by this signal; the VM powers off
//! panic TEXT            the kernel panicked; the VM stops
//! ```
//!
//! A reader ignores lines that it does not know.

use crate::syscalls::Set;
use alloc::{string::String, vec::Vec};
use core::fmt::{self, Display, Formatter, Write};

/// One line on the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status<'a> {
    /// The main process runs.
    Start {
        /// Time since the kernel's first instruction in nanoseconds.
        ns: u64,
    },
    /// The state of the health check changed.
    Health(Health),
    /// A health check failed: why, and the start of its output.
    Check(&'a str),
    /// The calls that were made while recording.
    Syscalls(Set),
    /// Somebody listens on a TCP port.
    Listens(u16),
    /// Somebody listens on a TCP port of loopback alone.
    ListensLocally(u16),
    /// A file was used; its path as [`escape`] writes it.
    Used(Use, &'a str),
    /// A system call was made.
    Call(u32),
    /// The main process could not be started.
    Failed(&'a str),
    /// The main process exited with this status.
    Exit(u8),
    /// The main process was killed by this signal (x86_64 Linux number).
    Signal(u8),
    /// The kernel panicked.
    Panic(&'a str),
}

/// State of HEALTHCHECK, as `docker inspect` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Within the start period, no check has passed yet.
    Starting,
    /// The last check passed, or fewer than `retries` failed in a row.
    Healthy,
    /// `retries` checks in a row failed.
    Unhealthy,
}

/// How a file was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    /// Its name was looked up, or a symbolic link was followed.
    Seen,
    /// It was opened.
    Opened,
    /// It was executed.
    Executed,
}

impl Use {
    fn word(self) -> &'static str {
        match self {
            Use::Seen => "seen",
            Use::Opened => "opened",
            Use::Executed => "executed",
        }
    }
}

/// Writes a path so that it fits on a line and is text: bytes other than printable ASCII, and
/// backslashes, become `\xNN`.
pub fn escape(path: &[u8]) -> String {
    let mut out = String::with_capacity(path.len());
    for &byte in path {
        match byte {
            b'\\' => out.push_str("\\x5c"),
            b' '..=b'~' => out.push(char::from(byte)),
            _ => {
                out.push_str("\\x");
                for digit in [byte >> 4, byte & 15] {
                    out.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
                }
            }
        }
    }
    out
}

/// Undoes [`escape`]; what it would not have written stays as it is.
pub fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, more)) = rest.split_first() {
        let digits = rest.strip_prefix(b"\\x").and_then(|digits| digits.get(..2));
        let value = digits
            .and_then(|digits| core::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        (rest, _) = match value {
            Some(value) => (&rest[4..], out.push(value)),
            None => (more, out.push(byte)),
        };
    }
    out
}

impl<'a> Status<'a> {
    /// Reads one line, without its newline. `None` for what this version does not know.
    pub fn parse(line: &'a str) -> Option<Status<'a>> {
        let line = line.trim_end_matches('\r');
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        Some(match word {
            "start" => Status::Start { ns: rest.parse().ok()? },
            "health" => Status::Health(match rest {
                "starting" => Health::Starting,
                "healthy" => Health::Healthy,
                "unhealthy" => Health::Unhealthy,
                _ => return None,
            }),
            "check" => Status::Check(rest),
            "syscalls" => {
                let mut set = Set::default();
                let mut words = rest.split(' ');
                for slot in &mut set {
                    *slot = u64::from_str_radix(words.next()?, 16).ok()?;
                }
                Status::Syscalls(set)
            }
            "listens" => Status::Listens(rest.parse().ok()?),
            "local" => Status::ListensLocally(rest.parse().ok()?),
            "used" => {
                let (how, path) = rest.split_once(' ')?;
                let uses = [Use::Seen, Use::Opened, Use::Executed];
                Status::Used(uses.into_iter().find(|known| known.word() == how)?, path)
            }
            "call" => Status::Call(rest.parse().ok()?),
            "failed" => Status::Failed(rest),
            "exit" => Status::Exit(rest.parse().ok()?),
            "signal" => Status::Signal(rest.parse().ok()?),
            "panic" => Status::Panic(rest),
            _ => return None,
        })
    }
}

/// Writes the line without its newline; control characters in texts become spaces.
impl Display for Status<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Status::Start { ns } => write!(f, "start {ns}"),
            Status::Health(health) => write!(f, "health {health}"),
            Status::Check(text) => text_line(f, "check ", text),
            Status::Syscalls(set) => {
                f.write_str("syscalls")?;
                set.iter().try_for_each(|word| write!(f, " {word:x}"))
            }
            Status::Listens(port) => write!(f, "listens {port}"),
            Status::ListensLocally(port) => write!(f, "local {port}"),
            Status::Used(how, path) => write!(f, "used {} {path}", how.word()),
            Status::Call(number) => write!(f, "call {number}"),
            Status::Failed(text) => text_line(f, "failed ", text),
            Status::Exit(code) => write!(f, "exit {code}"),
            Status::Signal(signal) => write!(f, "signal {signal}"),
            Status::Panic(text) => text_line(f, "panic ", text),
        }
    }
}

impl Display for Health {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Health::Starting => "starting",
            Health::Healthy => "healthy",
            Health::Unhealthy => "unhealthy",
        })
    }
}

fn text_line(f: &mut Formatter<'_>, word: &str, text: &str) -> fmt::Result {
    f.write_str(word)?;
    text.chars().try_for_each(|c| f.write_char(if c.is_control() { ' ' } else { c }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn every_line_reads_back() {
        for status in [
            Status::Start { ns: 41_203_117 },
            Status::Health(Health::Unhealthy),
            Status::Check("exit status 1: no answer"),
            Status::Syscalls([1, u64::MAX, 0, 2, 3, 4, 5, 1 << 63]),
            Status::Listens(8080),
            Status::ListensLocally(2019),
            Status::Used(Use::Executed, "/bin/a b\\x0a"),
            Status::Call(257),
            Status::Failed("/bin/app: no such file"),
            Status::Exit(3),
            Status::Signal(11),
            Status::Panic("index out of bounds"),
        ] {
            assert_eq!(Status::parse(&status.to_string()), Some(status));
        }
    }

    #[test]
    fn any_path_goes_through() {
        for path in [&b"/a b/c"[..], b"/x\n\\x0a", "/\u{e9}".as_bytes(), b"\xff\\"] {
            let text = escape(path);
            assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{text}");
            assert_eq!(unescape(&text), path);
        }
        assert_eq!(unescape("\\xzz\\x4"), b"\\xzz\\x4");
    }

    #[test]
    fn texts_stay_on_one_line_and_strangers_are_ignored() {
        assert_eq!(Status::Panic("a\nb\tc").to_string(), "panic a b c");
        assert_eq!(Status::parse("exit 0\r"), Some(Status::Exit(0)));
        for line in ["", "exit", "exit 300", "signal x", "health fine", "hello world"] {
            assert_eq!(Status::parse(line), None, "{line}");
        }
    }
}
