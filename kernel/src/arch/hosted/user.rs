//! User mode; a test process has none, so contexts are only data here.

use crate::errno::Result;

/// What user code sees of the CPU, saved at kernel entry.
#[derive(Debug, Default)]
#[allow(missing_docs, reason = "fields are the registers of those names")]
pub struct UserContext {
    pub rax: usize,
    pub rbx: usize,
    pub rcx: usize,
    pub rdx: usize,
    pub rsi: usize,
    pub rdi: usize,
    pub rbp: usize,
    pub rsp: usize,
    pub r8: usize,
    pub r9: usize,
    pub r10: usize,
    pub r11: usize,
    pub r12: usize,
    pub r13: usize,
    pub r14: usize,
    pub r15: usize,
    pub rip: usize,
    pub rflags: usize,
    pub fs_base: usize,
    pub gs_base: usize,
    /// System call number at entry, or `usize::MAX` when the entry was no system call.
    pub orig_rax: usize,
}

impl UserContext {
    /// The state in which a program starts.
    pub fn new(rip: usize, rsp: usize) -> Result<UserContext> {
        Ok(UserContext { rip, rsp, rflags: 0x202, orig_rax: usize::MAX, ..UserContext::default() })
    }
    /// A copy for a new thread.
    pub fn try_clone(&mut self) -> Result<UserContext> {
        Ok(UserContext { ..*self })
    }
    /// Sets the flags that programs may set and keeps the others.
    pub fn set_user_flags(&mut self, flags: usize) {
        self.rflags = flags & 0x0025_0dd5 | 0x202;
    }
    /// The floating-point state as a signal frame carries it.
    pub fn signal_fpu(&mut self) -> &[u8] {
        &[0; super::fpu::SIZE]
    }
    /// Takes floating-point state from a signal frame.
    pub fn restore_signal_fpu(
        &mut self,
        _read: Option<impl FnMut(usize, &mut [u8]) -> Result<()>>,
    ) -> Result<()> {
        Ok(())
    }
    /// Puts the floating-point state back to what a program starts with.
    pub fn reset_fpu(&mut self) {}
    /// Called before another task takes the CPU.
    pub fn switch_out(&mut self) {}
}

/// Why user mode was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserExit {
    /// `syscall`; number in `orig_rax`.
    Syscall,
    /// A CPU exception: vector, error code, and the address for page faults.
    Fault {
        /// Exception vector.
        vector: u8,
        /// Error code, 0 if the exception has none.
        error: u32,
        /// CR2.
        addr: usize,
    },
    /// A device or inter-processor interrupt, already acknowledged.
    Interrupt,
}

/// Runs user code until something happens.
pub fn enter(_context: &mut UserContext, _urgent: impl FnOnce() -> bool) -> UserExit {
    panic!("a test process has no user mode");
}
