//! Time from the time-stamp counter, the timer interrupt, and the date from the CMOS clock.

use super::firmware;
use super::insn::{cpuid, inb, outb, rdtsc};
use super::{apic, paravirt};
use crate::debug;
use crate::time::vdso::Scale;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Time-stamp counter at monotonic time zero: the kernel's entry.
static BASE: AtomicU64 = AtomicU64::new(0);
/// Nanoseconds a cycle, in units of 2^-32.
static MULTIPLIER: AtomicU64 = AtomicU64::new(0);
/// Cycles a nanosecond, in units of 2^-32.
static CYCLES_PER_NS: AtomicU64 = AtomicU64::new(0);
/// Local APIC timer counts a nanosecond, in units of 2^-32 (divider 16); 0 if deadlines are used.
static COUNTS_PER_NS: AtomicU64 = AtomicU64::new(0);
static DEADLINE: AtomicBool = AtomicBool::new(false);
static FREQUENCY_KHZ: AtomicU32 = AtomicU32::new(0);

/// How long the counter is compared with a reference, if the machine doesn't tell its frequency.
const CALIBRATION_NS: u64 = 2_000_000;
/// A first measurement that is thrown away: an emulator translates the code on its way, which takes
/// time.
const WARM_UP_NS: u64 = 20_000;

/// Raw cycle counter.
#[inline]
pub fn cycles() -> u64 {
    rdtsc()
}

/// Nanoseconds since boot, monotonic.
#[inline]
pub fn now_ns() -> u64 {
    let cycles = rdtsc().wrapping_sub(BASE.load(Ordering::Relaxed));
    ((u128::from(cycles) * u128::from(MULTIPLIER.load(Ordering::Relaxed))) >> 32) as u64
}

/// How monotonic time follows from the cycle counter; `None` if programs can't compute it.
pub fn scale() -> Option<Scale> {
    Some(Scale {
        base_cycles: BASE.load(Ordering::Relaxed),
        multiplier: MULTIPLIER.load(Ordering::Relaxed),
        base_ns: 0,
    })
}

/// Frequency of the cycle counter in kHz.
pub fn frequency_khz() -> u32 {
    FREQUENCY_KHZ.load(Ordering::Relaxed)
}

/// Finds the counter's frequency and prepares the boot CPU's timer.
pub(super) fn init(entry_tsc: u64) {
    BASE.store(entry_tsc, Ordering::Relaxed);
    let (khz, source) = frequency();
    FREQUENCY_KHZ.store(khz, Ordering::Relaxed);
    MULTIPLIER.store((1_000_000u64 << 32) / u64::from(khz), Ordering::Relaxed);
    CYCLES_PER_NS.store((u64::from(khz) << 32) / 1_000_000, Ordering::Relaxed);
    debug!("clock: counter at {khz} kHz ({source})");
    const CPUID_TSC_DEADLINE: u32 = 1 << 24;
    if cpuid(1, 0).ecx & CPUID_TSC_DEADLINE != 0 {
        DEADLINE.store(true, Ordering::Relaxed);
    } else {
        COUNTS_PER_NS.store(apic_rate(), Ordering::Relaxed);
    }
    init_cpu();
}

/// Prepares this CPU's timer.
pub(super) fn init_cpu() {
    if DEADLINE.load(Ordering::Relaxed) {
        apic::timer_deadline_mode();
    } else {
        apic::timer_oneshot_mode();
    }
}

/// Arms this CPU's timer interrupt for a point of [`now_ns`] time; `u64::MAX` disarms.
pub fn set_oneshot(deadline_ns: u64) {
    if DEADLINE.load(Ordering::Relaxed) {
        let tsc = if deadline_ns == u64::MAX {
            0
        } else {
            let cycles =
                u128::from(deadline_ns) * u128::from(CYCLES_PER_NS.load(Ordering::Relaxed));
            // One more: the rounding must not make the interrupt come before the deadline.
            BASE.load(Ordering::Relaxed).wrapping_add((cycles >> 32) as u64 + 1)
        };
        return apic::timer_deadline(tsc);
    }
    if deadline_ns == u64::MAX {
        return apic::timer_start(0);
    }
    let wait = u128::from(deadline_ns.saturating_sub(now_ns()));
    let counts = (wait * u128::from(COUNTS_PER_NS.load(Ordering::Relaxed))) >> 32;
    // A deadline further off than the counter reaches fires early; the queue then arms again.
    apic::timer_start(u32::try_from(counts + 1).unwrap_or(u32::MAX));
}

pub(super) fn timer_interrupt() {
    crate::time::timer::interrupt();
}

/// Spins for this long. For hardware protocols.
pub fn delay_ns(ns: u64) {
    let end = now_ns() + ns;
    while now_ns() < end {
        core::hint::spin_loop();
    }
}

/// Frequency of the counter in kHz, and where it comes from.
fn frequency() -> (u32, &'static str) {
    if let Some(khz) = paravirt::tsc_khz() {
        return (khz, "hypervisor");
    }
    // Crystal clock and ratio (SDM vol. 2, CPUID leaf 15h).
    let leaf = cpuid(0x15, 0);
    if leaf.eax != 0 && leaf.ebx != 0 && leaf.ecx != 0 {
        let hz = u64::from(leaf.ecx) * u64::from(leaf.ebx) / u64::from(leaf.eax);
        if hz > 1_000_000 {
            return ((hz / 1000) as u32, "CPUID");
        }
    }
    let pm_timer = firmware::get().power().map_or(0, |power| power.pm_timer);
    if pm_timer != 0
        && by_pm_timer(pm_timer, WARM_UP_NS).is_some()
        && let Some(khz) = by_pm_timer(pm_timer, CALIBRATION_NS)
    {
        return (khz, "PM timer");
    }
    if let Some(khz) = by_pit() {
        return (khz, "PIT");
    }
    if paravirt::hypervisor().is_some() {
        by_apic(WARM_UP_NS);
        return (by_apic(CALIBRATION_NS), "APIC timer at 1 GHz");
    }
    panic!("no clock to find the time-stamp counter's frequency with");
}

/// Cycles between two readings of a reference, with the uncertainty of each reading halved.
fn stamped<T>(read: impl Fn() -> T) -> (T, u64) {
    let mut best = u64::MAX;
    let mut result = None;
    for _ in 0..3 {
        let before = rdtsc();
        let value = read();
        let after = rdtsc();
        if after.wrapping_sub(before) < best || result.is_none() {
            best = after.wrapping_sub(before);
            result = Some((value, before + best / 2));
        }
    }
    // The loop has run.
    result.unwrap_or_else(|| unreachable!())
}

fn khz(cycles: u64, ns: u64) -> Option<u32> {
    let khz = u128::from(cycles) * 1_000_000 / u128::from(ns.max(1));
    u32::try_from(khz).ok().filter(|&khz| khz > 10_000)
}

fn by_pm_timer(port: u16, duration_ns: u64) -> Option<u32> {
    const HZ: u64 = 3_579_545;
    let (start, start_tsc) = stamped(|| firmware::pm_timer(port));
    let mut spins = 0;
    loop {
        let (now, tsc) = stamped(|| firmware::pm_timer(port));
        let ticks = u64::from(now.wrapping_sub(start) & 0xff_ffff);
        let ns = ticks * 1_000_000_000 / HZ;
        if ns >= duration_ns {
            return khz(tsc.wrapping_sub(start_tsc), ns);
        }
        spins += 1;
        if ticks == 0 && spins > 10_000 {
            return None;
        }
    }
}

/// The interval timer's word for it, or the best of several if the host took the processor away
/// meanwhile.
fn by_pit() -> Option<u32> {
    const TRIES: u32 = 5;
    let mut best: Option<(u64, u32)> = None;
    count_down(WARM_UP_NS)?;
    for _ in 0..TRIES {
        let (cycles, uncertain, ns) = count_down(CALIBRATION_NS)?;
        let khz = khz(cycles, ns)?;
        if best.is_none_or(|(least, _)| uncertain < least) {
            best = Some((uncertain, khz));
        }
        if uncertain < cycles / 64 {
            break;
        }
    }
    best.map(|(_, khz)| khz)
}

/// Channel 2 of the interval timer counts down once; its gate and output are bits of port 0x61.
/// Cycles from its start to its end, how many of them may be too many or too few, and the time that it
/// takes.
fn count_down(duration_ns: u64) -> Option<(u64, u64, u64)> {
    const HZ: u64 = 1_193_182;
    const OUTPUT: u8 = 1 << 5;
    let count = (duration_ns * HZ / 1_000_000_000) as u16;
    // SAFETY: the interval timer's channel 2 is nobody else's; the speaker stays off.
    unsafe {
        outb(0x61, inb(0x61) & !3 | 1);
        outb(0x43, 0xb0);
        outb(0x42, count as u8);
    }
    let asked = rdtsc();
    // SAFETY: as above; with this byte it begins.
    unsafe { outb(0x42, (count >> 8) as u8) };
    let start = rdtsc();
    let (mut spins, mut before) = (0u32, start);
    // SAFETY: reading the port has no effect.
    while unsafe { inb(0x61) } & OUTPUT == 0 {
        before = rdtsc();
        spins += 1;
        if spins > 5_000_000 {
            return None;
        }
    }
    let end = rdtsc();
    let (begun, ended) = (start.wrapping_sub(asked), end.wrapping_sub(before));
    // Both happened somewhere between two readings.
    let cycles = end.wrapping_sub(asked).wrapping_sub((begun + ended) / 2);
    // A port that doesn't exist reads as ones, at once.
    (spins > 0).then(|| (cycles, begun + ended, u64::from(count) * 1_000_000_000 / HZ))
}

/// QEMU's local APIC counts nanoseconds, whatever else the machine lacks.
fn by_apic(duration_ns: u64) -> u32 {
    apic::timer_oneshot_mode();
    apic::timer_start(u32::MAX);
    let (start, start_tsc) = stamped(apic::timer_left);
    loop {
        let (now, tsc) = stamped(apic::timer_left);
        let ns = u64::from(start.wrapping_sub(now)) * 16;
        if ns >= duration_ns {
            apic::timer_start(0);
            // A counter below 10 MHz doesn't exist.
            return khz(tsc.wrapping_sub(start_tsc), ns).unwrap_or(1_000_000);
        }
    }
}

/// Local APIC timer counts a nanosecond (divider 16), in units of 2^-32.
fn apic_rate() -> u64 {
    apic::timer_oneshot_mode();
    if paravirt::hypervisor().is_some_and(|name| name != *b"VMwareVMware") {
        // KVM and QEMU run it at 1 GHz.
        return (1 << 32) / 16;
    }
    apic::timer_start(u32::MAX);
    let (start, start_tsc) = stamped(apic::timer_left);
    let cycles = CALIBRATION_NS * u64::from(frequency_khz()) / 1_000_000;
    while rdtsc().wrapping_sub(start_tsc) < cycles {
        core::hint::spin_loop();
    }
    let (end, end_tsc) = stamped(apic::timer_left);
    apic::timer_start(0);
    let ns = u128::from(end_tsc - start_tsc) * 1_000_000 / u128::from(frequency_khz());
    ((u128::from(start.wrapping_sub(end)) << 32) / ns.max(1)) as u64
}

/// Nanoseconds since the Unix epoch at monotonic time zero.
pub fn boot_epoch_ns() -> u64 {
    let now = paravirt::wall_clock_ns().unwrap_or_else(|| cmos_seconds() * 1_000_000_000);
    now.saturating_sub(now_ns())
}

/// The CMOS clock as seconds since the epoch; 0 if the machine has none (the clock then starts at
/// 1970).
fn cmos_seconds() -> u64 {
    let read = || [0x00, 0x02, 0x04, 0x07, 0x08, 0x09, 0x32].map(firmware::cmos);
    const UPDATING: u8 = 0x80;
    let mut fields = read();
    // Two equal readings outside of an update are one moment's.
    for _ in 0..1000 {
        let again = read();
        if firmware::cmos(0x0a) & UPDATING == 0 && again == fields {
            break;
        }
        fields = again;
    }
    if fields == [0xff; 7] {
        return 0;
    }
    let format = firmware::cmos(0x0b);
    const BINARY: u8 = 4;
    const HOURS_24: u8 = 2;
    const PM: u8 = 0x80;
    let pm = format & HOURS_24 == 0 && fields[2] & PM != 0;
    if format & HOURS_24 == 0 {
        fields[2] &= !PM;
    }
    if format & BINARY == 0 {
        fields = fields.map(|field| (field >> 4) * 10 + (field & 15));
    }
    let [second, minute, mut hour, day, month, year, century] = fields.map(u64::from);
    if format & HOURS_24 == 0 {
        hour = hour % 12 + if pm { 12 } else { 0 };
    }
    let century = if (19..=22).contains(&century) { century } else { 20 };
    days_from_civil(century * 100 + year, month, day) * 86_400 + hour * 3600 + minute * 60 + second
}

/// Days from 1970-01-01 to a date of the Gregorian calendar, which must not be earlier.
fn days_from_civil(year: u64, month: u64, day: u64) -> u64 {
    // Years start in March, so that the leap day is the last one.
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let days = year * 365 + year / 4 - year / 100 + year / 400;
    (days + (month * 153 + 2) / 5 + day - 1).saturating_sub(719_468)
}
