//! Interrupt entry: exceptions are reported, and interrupts leave what they interrupt alone.

use crate::arch::{clock, cpu, irq};
use crate::sync::softirq;
use crate::time::{Timer, TimerTarget};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::arch::asm;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// Ends in a panic that names the exception.
pub fn invalid_opcode() -> Result<(), &'static str> {
    // SAFETY: faults.
    unsafe { asm!("ud2") };
    Err("went on after an invalid opcode")
}

/// Ends in a panic that names the overflow.
pub fn stack_overflow() -> Result<(), &'static str> {
    #[inline(never)]
    fn deeper(depth: u64) -> u64 {
        let pad = core::hint::black_box([depth; 32]);
        if depth == u64::MAX { 0 } else { deeper(depth + 1) + pad[7] }
    }
    core::hint::black_box(deeper(1));
    Err("the stack has no end")
}

/// Ends in a page fault: kernel text can't be written.
pub fn write_to_text() -> Result<(), &'static str> {
    // SAFETY: faults.
    unsafe { (write_to_text as *const () as *mut u8).write_volatile(0xc3) };
    Err("kernel text is writable")
}

/// A timer that fires every 50 us, dirties vector registers, and runs formatting code.
struct Ticker {
    timer: crate::sync::Once<Timer>,
    ticks: AtomicU64,
}

impl TimerTarget for Ticker {
    fn expired(&self) {
        let ticks = self.ticks.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the registers are declared as changed.
        unsafe {
            asm!(
                "pcmpeqd xmm0, xmm0", "pcmpeqd xmm5, xmm5", "pcmpeqd xmm10, xmm10", "pcmpeqd xmm15, xmm15",
                out("xmm0") _, out("xmm5") _, out("xmm10") _, out("xmm15") _, options(nomem, nostack));
        }
        struct Sink;
        impl core::fmt::Write for Sink {
            fn write_str(&mut self, text: &str) -> core::fmt::Result {
                core::hint::black_box(text);
                Ok(())
            }
        }
        let _ = core::fmt::write(&mut Sink, format_args!("{ticks:?} {:x?}", [ticks; 3]));
        if let Some(timer) = self.timer.get() {
            timer.arm(clock::now_ns() + 50_000);
        }
    }
}

/// Fills the red zone and the vector registers, lets interrupts come, and looks at them again.
fn damaged_words() -> u64 {
    let damaged: u64;
    // SAFETY: writes to the 128 bytes below the stack pointer, which the interrupt entry must leave
    // alone and which nothing else uses here, since this code makes no calls. All registers it
    // changes are declared.
    unsafe {
        asm!(
            "mov {pattern}, 0x5a5a5a5a12345678",
            "movq xmm1, {pattern}", "movq xmm5, {pattern}", "movq xmm10, {pattern}", "movq xmm15, {pattern}",
            "mov {i}, -16",
            "2:", "mov [rsp + {i} * 8], {pattern}", "inc {i}", "jnz 2b",
            "mov {i}, 20000",
            "3:", "dec {i}", "jnz 3b",
            "xor {count:e}, {count:e}",
            "mov {i}, -16",
            "4:", "cmp [rsp + {i} * 8], {pattern}", "je 5f", "inc {count}", "5:", "inc {i}", "jnz 4b",
            "movq {i}, xmm1", "cmp {i}, {pattern}", "je 6f", "inc {count}", "6:",
            "movq {i}, xmm5", "cmp {i}, {pattern}", "je 6f", "inc {count}", "6:",
            "movq {i}, xmm10", "cmp {i}, {pattern}", "je 6f", "inc {count}", "6:",
            "movq {i}, xmm15", "cmp {i}, {pattern}", "je 6f", "inc {count}", "6:",
            pattern = out(reg) _, i = out(reg) _, count = out(reg) damaged,
            out("xmm1") _, out("xmm5") _, out("xmm10") _, out("xmm15") _);
    }
    damaged
}

/// Work that goes through prebuilt library code, with a result that depends on all of it.
fn library_work(seed: u64) -> u64 {
    let mut numbers: alloc::vec::Vec<u64> =
        (0..200).map(|i| (i * 7919 + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
    numbers.sort_unstable();
    let named: alloc::vec::Vec<(u64, String)> =
        numbers.iter().map(|&number| (number, format!("{number:x}"))).collect();
    named.iter().fold(0u64, |hash, (key, text)| {
        let wide = u128::from(*key) * 0x1_0000_0001 / (u128::from(seed) + 3);
        text.chars()
            .flat_map(char::to_uppercase)
            .fold(hash ^ wide as u64, |hash, c| (hash ^ u64::from(c)).wrapping_mul(0x100_0000_01b3))
    })
}

/// Interrupted code finds its red zone, its vector registers and its results as it left them.
pub fn red_zone() -> Result<(), &'static str> {
    let ticker = Arc::new(Ticker { timer: crate::sync::Once::new(), ticks: AtomicU64::new(0) });
    let _ = ticker.timer.set(Timer::new(ticker.clone()));
    let expected = library_work(5);
    cpu::set_preempt_count(0);
    irq::enable();
    // A preemption count of zero lets the interrupt exit run pending work on top of the interrupted
    // code.
    softirq::register(softirq::Kind::Misc, || {
        core::hint::black_box(library_work(1));
    });
    let timer = ticker.timer.get().ok_or("the timer was just set")?;
    timer.arm(clock::now_ns());
    // As long as it takes where the machine has others to serve.
    let end = clock::now_ns() + 60_000_000_000;
    let (mut damaged, mut wrong) = (0, 0);
    while ticker.ticks.load(Ordering::Relaxed) < 5000 && clock::now_ns() < end {
        damaged += damaged_words();
        wrong += u64::from(library_work(5) != expected);
        softirq::raise(softirq::Kind::Misc);
    }
    timer.cancel();
    irq::disable();
    cpu::set_preempt_count(1);
    let ticks = ticker.ticks.load(Ordering::Relaxed);
    crate::debug!("selftest: {ticks} ticks on CPU {}", cpu::id());
    match (ticks, damaged, wrong) {
        (0..1000, ..) => Err("too few interrupts to tell"),
        (_, 0, 0) => Ok(()),
        (_, 0, _) => Err("an interrupt changed the result of library code"),
        _ => Err("an interrupt changed a red zone or a vector register"),
    }
}

const STORM: u32 = 20_000;
static LEFT: AtomicU32 = AtomicU32::new(STORM);
/// The lowest address of a stack that the storm's interrupts ran on.
static DEEPEST: AtomicUsize = AtomicUsize::new(usize::MAX);

/// The next interrupt is there as soon as this one is over.
fn blow(vector: &AtomicU8) {
    let here = 0u8;
    DEEPEST.fetch_min(&raw const here as usize, Ordering::Relaxed);
    softirq::raise(softirq::Kind::Misc);
    if LEFT.fetch_sub(1, Ordering::Relaxed) > 1 {
        irq::interrupt_self(vector.load(Ordering::Relaxed));
    }
}

/// Interrupts that never pause take no more stack than two of them.
pub fn storm() -> Result<(), &'static str> {
    static VECTOR: AtomicU8 = AtomicU8::new(0);
    let vector = irq::alloc_msi_vector(cpu::id(), |_| blow(&VECTOR), 0);
    VECTOR.store(vector.map_err(|_| "there is no vector")?.1 as u8, Ordering::Relaxed);
    softirq::register(softirq::Kind::Misc, || ());
    let here = 0u8;
    cpu::set_preempt_count(0);
    irq::enable();
    irq::interrupt_self(VECTOR.load(Ordering::Relaxed));
    let end = clock::now_ns() + 60_000_000_000;
    while LEFT.load(Ordering::Relaxed) > 0 && clock::now_ns() < end {
        core::hint::spin_loop();
    }
    irq::disable();
    cpu::set_preempt_count(1);
    if LEFT.load(Ordering::Relaxed) > 0 {
        return Err("the storm was over too soon");
    }
    let depth = (&raw const here as usize).saturating_sub(DEEPEST.load(Ordering::Relaxed));
    crate::debug!("selftest: {depth} bytes of stack");
    if depth < 4096 { Ok(()) } else { Err("interrupts pile up on the stack") }
}
