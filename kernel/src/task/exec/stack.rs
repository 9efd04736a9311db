//! The initial stack: arguments, environment, auxiliary vector (getauxval(3)).

use crate::errno::{Errno, Result};
use alloc::vec::Vec;
use linux_raw_sys::auxvec::*;

/// Longest argument or environment string, terminator included (`MAX_ARG_STRLEN`).
pub const MAX_STRING: usize = 128 * 1024;
/// Most bytes of strings whatever the stack limit says.
const MAX_TOTAL: u64 = 6 << 20;

/// How many bytes of strings and pointers a program may get: a quarter of its stack limit.
pub fn limit(stack: u64) -> usize {
    (stack / 4).clamp(32 * 4096, MAX_TOTAL) as usize
}

/// What goes on the stack.
pub struct Contents<'a> {
    /// Arguments.
    pub argv: &'a [Vec<u8>],
    /// Environment.
    pub envp: &'a [Vec<u8>],
    /// Name of the program as it was asked for.
    pub execfn: &'a [u8],
    /// 16 random bytes.
    pub random: [u8; 16],
    /// Auxiliary vector, without the entries that point into the stack.
    pub auxv: &'a [(u32, usize)],
}

/// The finished stack.
#[derive(Debug)]
pub struct Stack {
    /// What lies from `sp` up to the top.
    pub bytes: Vec<u8>,
    /// Initial stack pointer.
    pub sp: usize,
    /// Start and end of arguments, then of environment.
    pub areas: [usize; 4],
}

/// Lays out the stack that ends at `top`. E2BIG if strings and pointers need more than `limit`
/// bytes.
pub fn build(top: usize, contents: &Contents<'_>, limit: usize) -> Result<Stack> {
    let total = |strings: &[Vec<u8>]| strings.iter().map(|s| s.len() + 1).sum::<usize>();
    let (arg_len, env_len) = (total(contents.argv), total(contents.envp));
    let pointers = contents.argv.len() + contents.envp.len();
    if arg_len + env_len + pointers * 8 > limit {
        return Err(Errno::E2BIG);
    }
    // From the top: a zero word, the name, environment, arguments, platform, random bytes, vectors.
    let execfn = top - 8 - (contents.execfn.len() + 1);
    let env_start = execfn - env_len;
    let arg_start = env_start - arg_len;
    let platform = arg_start - b"x86_64\0".len();
    let random = (platform & !15) - 16;
    let words =
        1 + contents.argv.len() + 1 + contents.envp.len() + 1 + 2 * (contents.auxv.len() + 4);
    let sp = (random - words * 8) & !15;

    let mut bytes = Vec::new();
    bytes.try_reserve_exact(top - sp).map_err(|_| Errno::ENOMEM)?;
    let word = |bytes: &mut Vec<u8>, value: usize| bytes.extend(value.to_le_bytes());
    word(&mut bytes, contents.argv.len());
    for (strings, start) in [(contents.argv, arg_start), (contents.envp, env_start)] {
        let mut at = start;
        for string in strings {
            word(&mut bytes, at);
            at += string.len() + 1;
        }
        word(&mut bytes, 0);
    }
    let own = [(AT_RANDOM, random), (AT_EXECFN, execfn), (AT_PLATFORM, platform)];
    for &(key, value) in contents.auxv.iter().chain(&own).chain(&[(AT_NULL, 0)]) {
        word(&mut bytes, key as usize);
        word(&mut bytes, value);
    }
    bytes.resize(random - sp, 0);
    bytes.extend(contents.random);
    bytes.resize(platform - sp, 0);
    bytes.extend(b"x86_64\0");
    for string in contents.argv.iter().chain(contents.envp) {
        bytes.extend(string);
        bytes.push(0);
    }
    bytes.extend(contents.execfn);
    bytes.resize(top - sp, 0);
    Ok(Stack { bytes, sp, areas: [arg_start, env_start, env_start, execfn] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_lead_to_the_strings() {
        let argv = [b"prog".to_vec(), b"".to_vec(), b"x y".to_vec()];
        let envp = [b"A=1".to_vec()];
        let contents = Contents {
            argv: &argv,
            envp: &envp,
            execfn: b"/bin/prog",
            random: [7; 16],
            auxv: &[(AT_PAGESZ, 4096)],
        };
        let top = 0x7fff_0000;
        let stack = build(top, &contents, 4096).unwrap();
        assert_eq!(stack.sp % 16, 0);
        assert_eq!(stack.bytes.len(), top - stack.sp);
        let word = |at: usize| usize::from_le_bytes(stack.bytes[at * 8..][..8].try_into().unwrap());
        let text = |addr: usize| {
            let from = &stack.bytes[addr - stack.sp..];
            &from[..from.iter().position(|&byte| byte == 0).unwrap()]
        };
        assert_eq!(word(0), 3);
        assert_eq!([text(word(1)), text(word(2)), text(word(3))], [&b"prog"[..], b"", b"x y"]);
        assert_eq!((word(4), text(word(5)), word(6)), (0, &b"A=1"[..], 0));
        assert_eq!((word(7), word(8)), (AT_PAGESZ as usize, 4096));
        assert_eq!(word(9), AT_RANDOM as usize);
        assert_eq!(&stack.bytes[word(10) - stack.sp..][..16], [7; 16]);
        assert_eq!(text(word(12)), b"/bin/prog");
        assert_eq!(text(word(14)), b"x86_64");
        assert_eq!((word(15), word(16)), (AT_NULL as usize, 0));
        assert_eq!(build(top, &contents, 10).unwrap_err(), Errno::E2BIG);
    }
}
