//! Classic BPF: programs that judge system calls (seccomp(2)) and packets (socket(7),
//! `SO_ATTACH_FILTER`), as Linux's Documentation/networking/filter.rst describes them.

use crate::arch::cpu;
use crate::errno::{Errno, Result};
use crate::io::get_user_slice;
use crate::random;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Instructions of one program (`BPF_MAXINSNS`).
const MAX_INSNS: usize = 4096;
/// What a program that can't be run answers: for a call `SECCOMP_RET_KILL_PROCESS`. None gets here
/// that was validated.
const BROKEN: u32 = 0x8000_0000;

/// A validated program that several share.
pub type Program = Arc<[Insn]>;

/// One `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insn {
    /// Operation.
    pub code: u16,
    /// Jump if true.
    pub jt: u8,
    /// Jump if false.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// `struct seccomp_data`: number, architecture, instruction pointer, six arguments.
pub type Data = [u32; 16];

/// What a program looks at.
#[derive(Clone, Copy)]
pub enum Input<'a> {
    /// A system call.
    Call(&'a Data),
    /// A packet.
    Packet(View<'a>),
}

/// A packet as a program sees it.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// All that is there of it.
    pub bytes: &'a [u8],
    /// Where in `bytes` the program's own data begin.
    pub start: usize,
    /// Where in `bytes` the network header begins.
    pub network: usize,
    /// Its protocol, an Ethernet type.
    pub protocol: u16,
    /// `PACKET_HOST`, ...
    pub kind: u8,
}

impl<'a> View<'a> {
    /// A packet for this machine: `bytes` begin with the IP header, the program's data at `start`.
    pub fn ip(bytes: &'a [u8], start: usize) -> View<'a> {
        let v6 = bytes.first().is_some_and(|byte| byte >> 4 == 6);
        View { bytes, start, network: 0, protocol: if v6 { 0x86dd } else { 0x800 }, kind: 0 }
    }

    /// Bytes that have no headers.
    pub fn plain(bytes: &'a [u8]) -> View<'a> {
        View { bytes, start: 0, network: 0, protocol: 0, kind: 0 }
    }

    fn data(&self) -> &'a [u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// Loads `size` bytes in network order.
    fn load(&self, at: u32, size: usize) -> Option<u32> {
        // Above these offsets lies what is known besides the packet's data: of it, its network
        // header (`SKF_NET_OFF`), and the whole of it (`SKF_LL_OFF`).
        const BESIDES: u32 = 0xffff_f000;
        const NETWORK: u32 = 0xfff0_0000;
        const LINK: u32 = 0xffe0_0000;
        let (bytes, at) = match at {
            BESIDES.. => {
                // `SKF_AD_PROTOCOL`, `_PKTTYPE`, `_IFINDEX`, `_CPU`, `_RANDOM`.
                return match at - BESIDES {
                    0 => Some(self.protocol.into()),
                    4 => Some(self.kind.into()),
                    8 => Some(2),
                    36 => Some(cpu::id() as u32),
                    56 => Some(random::next_u64() as u32),
                    _ => None,
                };
            }
            NETWORK.. => (self.bytes.get(self.network..)?, at - NETWORK),
            LINK.. => (self.bytes, at - LINK),
            _ => (self.data(), at),
        };
        let at = at as usize;
        let bytes = bytes.get(at..at.checked_add(size)?)?;
        Some(bytes.iter().fold(0, |word, &byte| word << 8 | u32::from(byte)))
    }
}

impl Input<'_> {
    fn len(&self) -> u32 {
        match self {
            Input::Call(_) => 64,
            Input::Packet(view) => view.data().len() as u32,
        }
    }

    /// Loads `size` bytes at `at`; packets are in network order. `None`: they are not there.
    fn load(&self, at: u32, size: usize) -> Option<u32> {
        match self {
            Input::Call(data) => data.get(at as usize / 4).copied(),
            Input::Packet(view) => view.load(at, size),
        }
    }
}

/// Reads the instructions that a `struct sock_fprog` points to, eight bytes each. EINVAL if it
/// points to nothing.
pub fn read(fprog: [u64; 2]) -> Result<Vec<u8>> {
    let mut raw = alloc::vec![0u8; 8 * program_len(fprog)?];
    if fprog[1] == 0 {
        return Err(Errno::EINVAL);
    }
    get_user_slice(fprog[1] as usize, &mut raw)?;
    Ok(raw)
}

/// A program of such instructions; `packets`: it looks at packets. EINVAL if it can't run.
pub fn decode(raw: &[u8], packets: bool) -> Result<Vec<Insn>> {
    let insn = |word: &[u8; 8]| {
        let [c0, c1, jt, jf, k @ ..] = *word;
        Insn { code: u16::from_ne_bytes([c0, c1]), jt, jf, k: u32::from_ne_bytes(k) }
    };
    let program: Vec<Insn> = raw.as_chunks().0.iter().map(insn).collect();
    if validate(&program, packets) { Ok(program) } else { Err(Errno::EINVAL) }
}

/// Instructions of a `struct sock_fprog`. EINVAL for none and for too many.
pub fn program_len(fprog: [u64; 2]) -> Result<usize> {
    match usize::from(fprog[0] as u16) {
        len @ 1..=MAX_INSNS => Ok(len),
        _ => Err(Errno::EINVAL),
    }
}

/// Whether a program can run: known instructions, jumps forward and inside, loads inside the data
/// (of a call; what a packet lacks ends the program), a return at the end.
pub fn validate(program: &[Insn], packets: bool) -> bool {
    let len = program.len();
    if len == 0 || len > MAX_INSNS {
        return false;
    }
    let one = |(at, insn): (usize, &Insn)| {
        let inside = |offset: usize| at + 1 + offset < len;
        match insn.code {
            0x20 | 0x28 | 0x30 | 0x40 | 0x48 | 0x50 | 0xb1 if packets => true,
            0x20 => insn.k < 64 && insn.k % 4 == 0,
            0x00 | 0x01 | 0x80 | 0x81 | 0x06 | 0x16 | 0x07 | 0x87 => true,
            0x60 | 0x61 | 0x02 | 0x03 => insn.k < 16,
            0x04 | 0x0c | 0x14 | 0x1c | 0x24 | 0x2c | 0x44 | 0x4c | 0x54 | 0x5c | 0xa4 | 0xac => {
                true
            }
            0x34 => insn.k != 0,
            0x64 | 0x74 => insn.k < 32,
            0x3c | 0x6c | 0x7c | 0x84 => true,
            0x05 => (insn.k as usize) < len && inside(insn.k as usize),
            0x15 | 0x1d | 0x25 | 0x2d | 0x35 | 0x3d | 0x45 | 0x4d => {
                inside(insn.jt.into()) && inside(insn.jf.into())
            }
            _ => false,
        }
    };
    program.iter().enumerate().all(one) && matches!(program[len - 1].code, 0x06 | 0x16)
}

/// Runs a validated program.
pub fn run(program: &[Insn], input: Input<'_>) -> u32 {
    let (mut a, mut x, mut pc) = (0u32, 0u32, 0usize);
    let mut mem = [0u32; 16];
    while let Some(insn) = program.get(pc) {
        pc += 1;
        let k = insn.k;
        let operand = if insn.code & 0x08 != 0 { x } else { k };
        let mut jump = |taken: bool| pc += usize::from(if taken { insn.jt } else { insn.jf });
        match insn.code {
            0x20 | 0x28 | 0x30 | 0x40 | 0x48 | 0x50 => {
                let size = [4, 2, 1][usize::from(insn.code >> 3 & 3) % 3];
                let at = if insn.code & 0x40 != 0 { x.wrapping_add(k) } else { k };
                match input.load(at, size) {
                    Some(value) => a = value,
                    // For a packet: not wanted.
                    None => return 0,
                }
            }
            0xb1 => match input.load(k, 1) {
                Some(byte) => x = (byte & 15) * 4,
                None => return 0,
            },
            0x00 => a = k,
            0x01 => x = k,
            0x80 => a = input.len(),
            0x81 => x = input.len(),
            0x60 => a = mem[k as usize],
            0x61 => x = mem[k as usize],
            0x02 => mem[k as usize] = a,
            0x03 => mem[k as usize] = x,
            0x04 | 0x0c => a = a.wrapping_add(operand),
            0x14 | 0x1c => a = a.wrapping_sub(operand),
            0x24 | 0x2c => a = a.wrapping_mul(operand),
            0x34 | 0x3c => match a.checked_div(operand) {
                Some(quotient) => a = quotient,
                None => return 0,
            },
            0x44 | 0x4c => a |= operand,
            0x54 | 0x5c => a &= operand,
            0x64 | 0x6c => a = a.checked_shl(operand).unwrap_or(0),
            0x74 | 0x7c => a = a.checked_shr(operand).unwrap_or(0),
            0x84 => a = a.wrapping_neg(),
            0xa4 | 0xac => a ^= operand,
            0x05 => pc += k as usize,
            0x15 | 0x1d => jump(a == operand),
            0x25 | 0x2d => jump(a > operand),
            0x35 | 0x3d => jump(a >= operand),
            0x45 | 0x4d => jump(a & operand != 0),
            0x07 => x = a,
            0x87 => a = x,
            0x06 => return k,
            0x16 => return a,
            _ => return BROKEN,
        }
    }
    BROKEN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_that_could_run_astray_are_refused() {
        let ret = Insn { code: 0x06, jt: 0, jf: 0, k: 0 };
        for insn in [
            Insn { code: 0x05, jt: 0, jf: 0, k: 1 },
            Insn { code: 0x05, jt: 0, jf: 0, k: u32::MAX },
            Insn { code: 0x15, jt: 1, jf: 0, k: 0 },
            Insn { code: 0x20, jt: 0, jf: 0, k: 64 },
            Insn { code: 0x20, jt: 0, jf: 0, k: 2 },
            Insn { code: 0x02, jt: 0, jf: 0, k: 16 },
            Insn { code: 0x34, jt: 0, jf: 0, k: 0 },
            Insn { code: 0x30, jt: 0, jf: 0, k: 0 },
        ] {
            assert!(!validate(&[insn, ret], false), "{insn:?}");
        }
        assert!(!validate(&[], false) && !validate(&[Insn { code: 0, jt: 0, jf: 0, k: 0 }], false));
    }

    #[test]
    fn packets_are_judged_by_their_bytes() {
        let insn = |code: u16, k: u32, jt: u8, jf: u8| Insn { code, jt, jf, k };
        // Of UDP in IPv4, the destination port 68, behind options of any length.
        let program = [
            insn(0x30, 9, 0, 0),
            insn(0x15, 17, 0, 4),
            insn(0xb1, 0, 0, 0),
            insn(0x48, 2, 0, 0),
            insn(0x15, 68, 0, 1),
            insn(0x06, u32::MAX, 0, 0),
            insn(0x06, 0, 0, 0),
        ];
        assert!(validate(&program, true) && !validate(&program, false));
        let mut packet = [0u8; 40];
        (packet[0], packet[9], packet[27]) = (0x46, 17, 68);
        let judge = |packet: &[u8]| run(&program, Input::Packet(View::ip(packet, 0)));
        assert_eq!(judge(&packet), u32::MAX);
        assert_eq!(judge(&packet[..27]), 0, "too short");
        packet[0] = 0x45;
        assert_eq!(judge(&packet), 0);
    }

    #[test]
    fn packets_have_more_than_the_data_that_a_program_is_for() {
        let load = |code: u16, k: u32| {
            let insn = |code: u16, k: u32| Insn { code, jt: 0, jf: 0, k };
            let program = [insn(code, k), insn(0x16, 0)];
            assert!(validate(&program, true));
            // Two bytes of a link, three of a network header, then its own.
            let bytes = [1, 2, 0x45, 4, 5, 6, 7];
            let view = View { bytes: &bytes, start: 5, network: 2, protocol: 0x806, kind: 3 };
            run(&program, Input::Packet(view))
        };
        assert_eq!(load(0x28, 0), 0x0607);
        assert_eq!(load(0x80, 0), 2, "its length");
        assert_eq!(load(0x30, 2), 0, "behind its end");
        assert_eq!(load(0x28, 0xfff0_0001), 0x0405);
        assert_eq!(load(0x30, 0xffe0_0001), 2);
        assert_eq!(load(0x30, 0xffe0_0007), 0);
        assert_eq!((load(0x20, 0xffff_f000), load(0x20, 0xffff_f004)), (0x806, 3));
    }
}
