//! `siginfo_t` (sigaction(2)).

use super::Signal;
use crate::io::Plain;

/// The part of `siginfo_t` that carries information: 48 bytes in the layout of x86-64; the other 80
/// are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct SigInfo {
    /// Signal number.
    pub signo: i32,
    /// `errno` value; nearly always 0.
    pub errno: i32,
    /// Cause (`SI_*`, `CLD_*`, ...).
    pub code: i32,
    /// Zero.
    pub pad: i32,
    /// Fields that depend on the cause.
    pub body: [u64; 4],
}

// SAFETY: integers only, padding made explicit.
unsafe impl Plain for SigInfo {}

/// Causes.
#[allow(missing_docs, reason = "the names are those of sigaction(2)")]
pub mod code {
    pub const SI_USER: i32 = 0;
    pub const SI_KERNEL: i32 = 0x80;
    pub const SI_QUEUE: i32 = -1;
    pub const SI_TIMER: i32 = -2;
    pub const SI_MESGQ: i32 = -3;
    pub const SI_TKILL: i32 = -6;
    pub const CLD_EXITED: i32 = 1;
    pub const CLD_KILLED: i32 = 2;
    pub const CLD_DUMPED: i32 = 3;
    pub const CLD_TRAPPED: i32 = 4;
    pub const CLD_STOPPED: i32 = 5;
    pub const CLD_CONTINUED: i32 = 6;
    pub const SEGV_MAPERR: i32 = 1;
    pub const SEGV_ACCERR: i32 = 2;
    pub const BUS_ADRALN: i32 = 1;
    pub const BUS_ADRERR: i32 = 2;
    pub const SYS_SECCOMP: i32 = 1;
}

impl SigInfo {
    /// Bytes of `siginfo_t` in user memory.
    pub const USER_SIZE: usize = 128;

    /// Without further fields.
    pub fn new(signal: Signal, code: i32) -> SigInfo {
        SigInfo { signo: signal.number().into(), code, ..SigInfo::default() }
    }
    /// Sent by the kernel itself.
    pub fn kernel(signal: Signal) -> SigInfo {
        SigInfo::new(signal, code::SI_KERNEL)
    }
    /// Sent by a process (kill(2), tgkill(2)).
    pub fn sent_by(signal: Signal, code: i32, pid: i32, uid: u32) -> SigInfo {
        let body = [u64::from(pid as u32) | u64::from(uid) << 32, 0, 0, 0];
        SigInfo { body, ..SigInfo::new(signal, code) }
    }
    /// Raised by a CPU exception at `addr`.
    pub fn fault(signal: Signal, code: i32, addr: usize) -> SigInfo {
        SigInfo { body: [addr as u64, 0, 0, 0], ..SigInfo::new(signal, code) }
    }
    /// A child changed state; times in clock ticks.
    pub fn child(code: i32, pid: i32, uid: u32, status: i32, utime: u64, stime: u64) -> SigInfo {
        let ids = u64::from(pid as u32) | u64::from(uid) << 32;
        let body = [ids, u64::from(status as u32), utime, stime];
        SigInfo { body, ..SigInfo::new(Signal::CHLD, code) }
    }
    /// A POSIX timer expired.
    pub fn timer(signal: Signal, id: i32, overrun: i32, value: u64) -> SigInfo {
        let body = [u64::from(id as u32) | u64::from(overrun as u32) << 32, value, 0, 0];
        SigInfo { body, ..SigInfo::new(signal, code::SI_TIMER) }
    }
    /// A seccomp filter refused a call.
    pub fn seccomp(data: u16, ip: usize, nr: u32) -> SigInfo {
        const AUDIT_ARCH_X86_64: u64 = 0xc000_003e;
        let body = [ip as u64, u64::from(nr) | AUDIT_ARCH_X86_64 << 32, 0, 0];
        let info = SigInfo::new(Signal::SYS, code::SYS_SECCOMP);
        SigInfo { body, errno: data.into(), ..info }
    }
    /// Sending process, for the causes that have one.
    pub fn pid(&self) -> i32 {
        self.body[0] as i32
    }
    /// Sending user, for the causes that have one.
    pub fn uid(&self) -> u32 {
        (self.body[0] >> 32) as u32
    }
    /// `siginfo_t` as user memory holds it.
    pub fn to_user(&self) -> [u64; 16] {
        let mut out = [0; 16];
        out[0] = u64::from(self.signo as u32) | u64::from(self.errno as u32) << 32;
        out[1] = u64::from(self.code as u32);
        out[2..6].copy_from_slice(&self.body);
        out
    }
    /// Reads what [`to_user`](SigInfo::to_user) writes.
    pub fn from_user(raw: &[u64; 16]) -> SigInfo {
        SigInfo {
            signo: raw[0] as i32,
            errno: (raw[0] >> 32) as i32,
            code: raw[1] as i32,
            pad: 0,
            body: [raw[2], raw[3], raw[4], raw[5]],
        }
    }
}
