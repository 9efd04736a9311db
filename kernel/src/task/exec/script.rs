//! `#!` lines (execve(2), "Interpreter scripts").

use crate::errno::{Errno, Result};

/// How much of a file is looked at (`BINPRM_BUF_SIZE`).
pub const HEAD_LEN: usize = 256;

/// Interpreter and its optional argument. ENOEXEC if there is no usable name.
pub fn parse(head: &[u8]) -> Result<(&[u8], Option<&[u8]>)> {
    let rest = head.strip_prefix(b"#!").ok_or(Errno::ENOEXEC)?;
    let end = rest.iter().position(|&byte| byte == b'\n');
    let line = &rest[..end.unwrap_or(rest.len())];
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let stop = |byte: &u8| blank(byte) || *byte == 0;
    let start = line.iter().position(|byte| !blank(byte)).ok_or(Errno::ENOEXEC)?;
    let line = &line[start..];
    let name_end = line.iter().position(stop);
    // A name that reaches the end of what was read may have been cut.
    if end.is_none() && head.len() >= HEAD_LEN && name_end.is_none() {
        return Err(Errno::ENOEXEC);
    }
    let (name, rest) = line.split_at(name_end.unwrap_or(line.len()));
    if name.is_empty() {
        return Err(Errno::ENOEXEC);
    }
    let rest = &rest[..rest.iter().position(|&byte| byte == 0).unwrap_or(rest.len())];
    let from = rest.iter().position(|byte| !blank(byte));
    let to = rest.iter().rposition(|byte| !blank(byte));
    let argument = from.zip(to).map(|(from, to)| &rest[from..=to]);
    Ok((name, argument))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_after_the_name_is_one_argument() {
        assert_eq!(parse(b"#!/bin/sh\necho").unwrap(), (&b"/bin/sh"[..], None));
        assert_eq!(
            parse(b"#! \t/bin/sh -e  -u \n").unwrap(),
            (&b"/bin/sh"[..], Some(&b"-e  -u"[..]))
        );
        assert_eq!(parse(b"#!/usr/bin/env sh").unwrap(), (&b"/usr/bin/env"[..], Some(&b"sh"[..])));
        for bad in [&b"#!\n"[..], b"#!   \n/bin/sh", b"echo", b"#!"] {
            assert_eq!(parse(bad), Err(Errno::ENOEXEC));
        }
        let mut long = b"#!/".to_vec();
        long.resize(HEAD_LEN, b'x');
        assert_eq!(parse(&long), Err(Errno::ENOEXEC));
    }
}
