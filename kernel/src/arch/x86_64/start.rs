//! Start-up of the boot CPU, up to the portable boot flow in [`crate::init`].

use super::early::FreeMemory;
use super::gdt::{IST_STACK, IST_STACKS};
use super::{boot_info, cpu, fpu, mem, paging, serial, speculation, trap, uaccess, user};
use crate::debug;
use core::cell::UnsafeCell;

#[repr(C, align(16))]
struct Stacks(UnsafeCell<[u8; IST_STACKS * IST_STACK]>);
// SAFETY: only the boot CPU's interrupts use them.
unsafe impl Sync for Stacks {}
static STACKS: Stacks = Stacks(UnsafeCell::new([0; IST_STACKS * IST_STACK]));

/// Goes on from the entry code. `start_info` is a physical address.
pub(super) fn boot_cpu(start_info: usize, tsc: u64) -> ! {
    // SAFETY: once, on the boot CPU, with stacks and slot of its own.
    unsafe {
        (*cpu::segments(0)).load(STACKS.0.get() as usize);
        cpu::init(0);
    }
    serial::init();
    trap::init_idt();
    trap::load_idt();
    // SAFETY: the boot tables are active and nothing is allocated.
    let boot = match unsafe { boot_info::read(start_info, tsc) } {
        Ok(boot) => boot,
        Err(why) => panic!("{why}"),
    };
    crate::log::configure(boot.cmdline());
    mem::init();
    let mut free = FreeMemory::new(boot);
    // SAFETY: the boot CPU is alone and text is still writable.
    unsafe { uaccess::patch() };
    let low = core::iter::once(0..0x10_0000);
    let above = boot.regions().iter().map(|region| region.range());
    let ram = low.chain(above.filter(|range| range.start >= 0x10_0000));
    // SAFETY: the boot CPU is alone, on the boot tables.
    unsafe { paging::init(ram, &mut |frames| free.take(frames)) };
    init_cpu();
    let bytes: usize = free.ranges().iter().map(|range| range.len()).sum();
    debug!("boot: {} KiB free, boot line `{}`", bytes >> 10, boot.cmdline());
    crate::init::start(boot, free.ranges())
}

/// What every CPU sets up for itself once it runs on the kernel's tables.
pub(super) fn init_cpu() {
    fpu::init_cpu();
    uaccess::init_cpu();
    speculation::init_cpu();
    user::init_cpu();
}
