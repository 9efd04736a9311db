//! Vector and floating-point state beyond the 16 xmm registers, which the entry code saves by
//! itself.
//!
//! The kernel has no VEX code and no floating-point arithmetic, so x87, MXCSR and the upper vector
//! halves stay in the registers while it runs. They go to memory when another task takes the CPU,
//! and come back before user mode only if the CPU holds somebody else's.

use super::cpu::PerCpu;
use super::insn::{cpuid, read_cr0, read_cr4, write_cr0, write_cr4};
use crate::errno::{Errno, Result};
use alloc::alloc::{alloc_zeroed, dealloc};
use core::alloc::Layout;
use core::arch::asm;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Legacy area (FXSAVE layout) plus XSAVE header.
const LEGACY: usize = 512;
const HEADER: usize = 64;
const XMM: usize = 160;
const MXCSR: usize = 24;
const NOWHERE: u32 = u32::MAX;

/// State components in use (XCR0); 0 if the CPU has no XSAVE.
static FEATURES: AtomicU64 = AtomicU64::new(0);
/// Bytes of the save area.
static SIZE: AtomicU32 = AtomicU32::new(LEGACY as u32);
/// MXCSR bits that the CPU has.
static MXCSR_MASK: AtomicU32 = AtomicU32::new(0xffbf);

/// Linux's words in the `sw_reserved` bytes of a signal frame's legacy area (asm/sigcontext.h).
const SW_RESERVED: usize = 464;
const FP_XSTATE_MAGIC1: u32 = 0x4650_5853;
const FP_XSTATE_MAGIC2: u32 = 0x4650_5845;

/// Turns the vector units of this CPU on.
pub(super) fn init_cpu() {
    const CR0_MP: usize = 1 << 1;
    const CR0_EM_TS: usize = 1 << 2 | 1 << 3;
    const CR4_OSXSAVE: usize = 1 << 18;
    // SAFETY: only x87/SSE availability changes.
    unsafe { write_cr0(read_cr0() & !CR0_EM_TS | CR0_MP) };
    const XSAVE: u32 = 1 << 26;
    if cpuid(1, 0).ecx & XSAVE == 0 {
        return;
    }
    // SAFETY: the CPU has XSAVE.
    unsafe { write_cr4(read_cr4() | CR4_OSXSAVE) };
    let leaf = cpuid(0xd, 0);
    let offered = u64::from(leaf.edx) << 32 | u64::from(leaf.eax);
    let mut features = offered & 0b111;
    const AVX512: u64 = 0xe0;
    if offered & AVX512 == AVX512 && features & 4 != 0 {
        features |= AVX512;
    }
    // SAFETY: a subset of what the CPU offers, x87 and SSE among it.
    unsafe {
        asm!("xsetbv", in("ecx") 0, in("eax") features as u32, in("edx") (features >> 32) as u32,
            options(nostack, preserves_flags));
    }
    // EBX is the size for what XCR0 enables now.
    SIZE.store(cpuid(0xd, 0).ebx.max((LEGACY + HEADER) as u32), Ordering::Relaxed);
    FEATURES.store(features, Ordering::Relaxed);
}

fn size() -> usize {
    SIZE.load(Ordering::Relaxed) as usize
}

fn layout() -> Layout {
    // At most a few KiB by CPUID, and 64 is a power of two: always a valid layout.
    Layout::from_size_align(signal_size(), 64).unwrap_or(Layout::new::<[u8; LEGACY + HEADER]>())
}

/// Bytes that a signal frame needs for the floating-point state.
pub fn signal_size() -> usize {
    if FEATURES.load(Ordering::Relaxed) == 0 { LEGACY } else { size() + 4 }
}

/// `AT_HWCAP`, `AT_MINSIGSTKSZ`: bytes of signal frame beyond the fixed part that programs must
/// expect.
pub fn area_size() -> usize {
    size()
}

/// One thread's save area: [`signal_size`] bytes, of which the CPU uses all but the word that ends a
/// signal frame.
#[repr(C)]
pub struct FpuState {
    area: NonNull<u8>,
    /// CPU whose registers hold this state, if that CPU's `fpu_owner` agrees.
    cpu: u32,
    /// The registers may be newer than the area.
    dirty: bool,
}

// SAFETY: the area belongs to this value; registers are reached only through the CPU that runs its
// owner.
unsafe impl Send for FpuState {}
// SAFETY: nothing is changed through a shared reference.
unsafe impl Sync for FpuState {}

impl FpuState {
    /// The state in which programs start. ENOMEM without memory.
    pub fn new() -> Result<FpuState> {
        // SAFETY: the layout has a size.
        let area = NonNull::new(unsafe { alloc_zeroed(layout()) }).ok_or(Errno::ENOMEM)?;
        let mut state = FpuState { area, cpu: NOWHERE, dirty: false };
        state.set_initial();
        state.end();
        Ok(state)
    }

    /// A copy, with what the registers of this CPU hold written back first.
    pub fn try_clone(&mut self) -> Result<FpuState> {
        let mut copy = FpuState::new()?;
        self.write_back();
        copy.bytes().copy_from_slice(self.bytes());
        Ok(copy)
    }

    /// Back to the state in which programs start.
    pub fn reset(&mut self) {
        self.invalidate();
        self.bytes().fill(0);
        self.set_initial();
    }

    fn set_initial(&mut self) {
        let features = FEATURES.load(Ordering::Relaxed);
        let bytes = self.bytes();
        bytes[0..2].copy_from_slice(&0x37fu16.to_le_bytes());
        bytes[MXCSR..MXCSR + 4].copy_from_slice(&0x1f80u32.to_le_bytes());
        if features != 0 {
            // x87 and SSE are loaded from the area, the rest gets its initial value.
            bytes[LEGACY..LEGACY + 8].copy_from_slice(&3u64.to_le_bytes());
        }
    }

    fn bytes(&mut self) -> &mut [u8] {
        let size = size();
        &mut self.all()[..size]
    }

    /// With the word behind what the CPU uses.
    fn all(&mut self) -> &mut [u8] {
        // SAFETY: `area` is as many bytes that this value owns; the size is fixed before the first
        // allocation.
        unsafe { core::slice::from_raw_parts_mut(self.area.as_ptr(), signal_size()) }
    }

    /// Writes the word that ends a signal frame.
    fn end(&mut self) {
        let size = size();
        if FEATURES.load(Ordering::Relaxed) != 0 {
            self.all()[size..].copy_from_slice(&FP_XSTATE_MAGIC2.to_le_bytes());
        }
    }

    /// Makes this CPU's registers hold the state. Interrupts are off.
    #[inline]
    pub(super) fn load(&mut self, this: &mut PerCpu) {
        if this.fpu_owner != self.area.as_ptr() as usize || self.cpu != this.index() {
            self.restore();
            this.fpu_owner = self.area.as_ptr() as usize;
            self.cpu = this.index();
        }
        self.dirty = true;
    }

    #[cold]
    fn restore(&mut self) {
        let features = FEATURES.load(Ordering::Relaxed);
        let area = self.area.as_ptr();
        // SAFETY: the area holds a valid image: made by `set_initial`, written by the CPU, or
        // checked by `restore_signal`.
        unsafe {
            if features != 0 {
                asm!("xrstor64 [{}]", in(reg) area, in("eax") u32::MAX, in("edx") u32::MAX,
                    out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _,
                    out("xmm5") _, out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _,
                    out("xmm10") _, out("xmm11") _, out("xmm12") _, out("xmm13") _,
                    out("xmm14") _, out("xmm15") _, options(nostack));
            } else {
                asm!("fxrstor64 [{}]", in(reg) area,
                    out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _,
                    out("xmm5") _, out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _,
                    out("xmm10") _, out("xmm11") _, out("xmm12") _, out("xmm13") _,
                    out("xmm14") _, out("xmm15") _, options(nostack));
            }
        }
    }

    /// Called with preemption off before another task may load its state into this CPU.
    #[inline]
    pub fn switch_out(&mut self) {
        if self.dirty {
            self.save();
        }
    }

    fn save(&mut self) {
        let area = self.area.as_ptr();
        // SAFETY: `dirty` says that this CPU's registers hold the state: it is set only on entering
        // user mode, and `switch_out` clears it before the task can move. The area is large enough
        // and aligned.
        unsafe {
            if FEATURES.load(Ordering::Relaxed) != 0 {
                asm!("xsave64 [{}]", in(reg) area, in("eax") u32::MAX, in("edx") u32::MAX,
                    options(nostack, preserves_flags));
            } else {
                asm!("fxsave64 [{}]", in(reg) area, options(nostack, preserves_flags));
            }
        }
        self.dirty = false;
    }

    fn write_back(&mut self) {
        let _guard = crate::sync::preempt_disable();
        self.switch_out();
    }

    /// Forgets what the registers hold; the area is what counts.
    fn invalidate(&mut self) {
        self.dirty = false;
        self.cpu = NOWHERE;
    }

    /// The state as a signal frame has it, [`signal_size`] bytes: in the area itself, where what XSAVE
    /// leaves alone and XRSTOR ignores is filled in.
    pub(super) fn signal_frame(&mut self, xmm: &[[u64; 2]; 16]) -> &[u8] {
        self.write_back();
        let features = FEATURES.load(Ordering::Relaxed);
        let size = size() as u32;
        let bytes = self.bytes();
        for (register, slot) in xmm.iter().zip(bytes[XMM..].chunks_exact_mut(16)) {
            slot[..8].copy_from_slice(&register[0].to_le_bytes());
            slot[8..].copy_from_slice(&register[1].to_le_bytes());
        }
        let reserved = &mut bytes[SW_RESERVED..LEGACY];
        reserved.fill(0);
        if features != 0 {
            reserved[0..4].copy_from_slice(&FP_XSTATE_MAGIC1.to_le_bytes());
            reserved[4..8].copy_from_slice(&(size + 4).to_le_bytes());
            reserved[8..16].copy_from_slice(&features.to_le_bytes());
            reserved[16..20].copy_from_slice(&size.to_le_bytes());
            // The xmm registers were just written: say so, or XRSTOR would reset them.
            bytes[LEGACY] |= 2;
        }
        self.all()
    }

    /// Takes the state from a signal frame, as far as Linux would: without the magic words only the
    /// legacy part. `read` fills a buffer with the frame's bytes from an offset on. Without a frame, or
    /// if it can't be read, the state is that in which programs start.
    pub(super) fn restore_signal(
        &mut self,
        xmm: &mut [[u64; 2]; 16],
        read: Option<impl FnMut(usize, &mut [u8]) -> Result<()>>,
    ) -> Result<()> {
        let result = match read {
            Some(read) => self.take_frame(read).inspect_err(|_| self.reset()),
            None => {
                self.reset();
                Ok(())
            }
        };
        self.end();
        for (register, slot) in xmm.iter_mut().zip(self.bytes()[XMM..].chunks_exact(16)) {
            *register = [u64::from_le_bytes(first(slot)), u64::from_le_bytes(first(&slot[8..]))];
        }
        result
    }

    fn take_frame(&mut self, mut read: impl FnMut(usize, &mut [u8]) -> Result<()>) -> Result<()> {
        self.invalidate();
        let features = FEATURES.load(Ordering::Relaxed);
        let size = size();
        let all = self.all();
        read(0, &mut all[..LEGACY])?;
        let word = |all: &[u8], at: usize| u32::from_le_bytes(first(&all[at..]));
        let mut whole = features != 0
            && word(all, SW_RESERVED) == FP_XSTATE_MAGIC1
            && word(all, SW_RESERVED + 4) as usize >= size + 4
            && word(all, SW_RESERVED + 16) as usize == size;
        if whole {
            read(LEGACY, &mut all[LEGACY..])?;
            whole = word(all, size) == FP_XSTATE_MAGIC2;
        }
        if features != 0 {
            // The header decides whether XRSTOR faults: only known components, nothing reserved.
            let bits = if whole { u64::from_le_bytes(first(&all[LEGACY..])) & features } else { 3 };
            all[LEGACY..LEGACY + HEADER].fill(0);
            all[LEGACY..LEGACY + 8].copy_from_slice(&bits.to_le_bytes());
        }
        all[SW_RESERVED..LEGACY].fill(0);
        let mxcsr = word(all, MXCSR) & MXCSR_MASK.load(Ordering::Relaxed);
        all[MXCSR..MXCSR + 4].copy_from_slice(&mxcsr.to_le_bytes());
        Ok(())
    }
}

impl Drop for FpuState {
    fn drop(&mut self) {
        // A CPU that still names the area as its owner is harmless: a new state at this address has
        // `cpu: NOWHERE`. SAFETY: allocated by `new` with the same layout.
        unsafe { dealloc(self.area.as_ptr(), layout()) };
    }
}

/// The first bytes of a slice that callers have checked to be long enough.
fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[..N]);
    out
}
