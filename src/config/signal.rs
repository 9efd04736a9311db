//! Names and numbers of signals on x86_64 Linux (signal(7)).

use super::Error;

const NAMES: [(&str, u8); 33] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];
/// The first real-time signal that the C libraries leave to programs, and the last.
const RTMIN: u8 = 34;
const RTMAX: u8 = 64;

/// Reads a stop signal: a number, or a name with or without `SIG`, in either case; SIGTERM if
/// there is none.
pub fn parse(text: Option<&str>) -> Result<u8, Error> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(15) };
    let unknown = || Error::Signal(text.to_owned());
    if let Ok(number) = text.parse::<u8>() {
        return if (1..=RTMAX).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Ok(*number);
    }
    let number = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(""), _) => Some(RTMIN),
        (_, Some("")) => Some(RTMAX),
        (Some(rest), _) => rest.strip_prefix('+').and_then(|n| RTMIN.checked_add(n.parse().ok()?)),
        (_, Some(rest)) => rest.strip_prefix('-').and_then(|n| RTMAX.checked_sub(n.parse().ok()?)),
        _ => None,
    };
    number.filter(|number| (RTMIN..=RTMAX).contains(number)).ok_or_else(unknown)
}

/// The name of a signal, for messages.
pub fn name(number: u8) -> String {
    match NAMES.iter().find(|(_, known)| *known == number) {
        Some((name, _)) => format!("SIG{name}"),
        None if number >= RTMIN => format!("SIGRTMIN+{}", number - RTMIN),
        None => format!("signal {number}"),
    }
}
