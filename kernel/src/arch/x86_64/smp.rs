//! Starting the other CPUs.

use super::apic::{self, Message};
use super::gdt::{IST_STACK, IST_STACKS};
use super::kstack::KernelStack;
use super::paging::{kernel_root, phys_to_virt};
use super::{clock, cpu, firmware, start, trap};
use crate::arch::{MAX_CPUS, PAGE_SIZE};
use crate::mm::Block;
use crate::{debug, error};
use core::arch::global_asm;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// Physical pages of low memory that start-up code and its page tables use; `early` keeps them
/// free.
const CODE: usize = 0x8000;
const PML4: usize = 0x9000;
const PDPT: usize = 0xa000;
const PD: usize = 0xb000;
/// Words at the end of the code page: stack pointer and entry point.
const STACK_WORD: usize = 0x8ff0;
const ENTRY_WORD: usize = 0x8fe8;

global_asm!(
    r#"
    .section .rodata.ap, "a"
    .code16
    .globl ap_start
    .globl ap_end
ap_start:
    cli
    cld
    xorw %ax, %ax
    movw %ax, %ds
    lgdtl {code} + ap_gdtr - ap_start
    movl $0x6a0, %eax
    movl %eax, %cr4
    movl ${pml4}, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x901, %eax
    wrmsr
    movl $0x80010033, %eax
    movl %eax, %cr0
    ljmpl $0x10, ${code} + ap_long - ap_start
    .code64
ap_long:
    movl $0x18, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movq {stack_word}, %rsp
    movq {entry_word}, %rax
    xorl %ebp, %ebp
    pushq $0
    jmp *%rax
    .balign 8
ap_gdt:
    .quad 0
    .quad 0
    .quad 0x00af9b000000ffff
    .quad 0x00cf93000000ffff
ap_gdtr:
    .word 31
    .long {code} + ap_gdt - ap_start
ap_end:
    .code64
"#,
    code = const CODE,
    pml4 = const PML4,
    stack_word = const STACK_WORD,
    entry_word = const ENTRY_WORD,
    options(att_syntax)
);

unsafe extern "C" {
    static ap_start: u8;
    static ap_end: u8;
}

/// CPUs that run, the boot CPU among them; the next one takes this as its index.
static RUNNING: AtomicUsize = AtomicUsize::new(1);
/// Interrupt stacks for the CPU that starts.
static STACKS: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());
static MAIN: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// Starts every CPU that firmware names. Each runs `main` on a kernel stack of its own, with
/// interrupts off. Returns how many CPUs run.
pub fn start(main: fn() -> !) -> usize {
    MAIN.store(main as *mut (), Ordering::Release);
    let me = apic::id();
    let others = firmware::get().cpus().iter().filter(|&&id| id != me);
    let mut prepared = false;
    for (index, &apic_id) in others.enumerate() {
        if index + 1 >= MAX_CPUS {
            error!("smp: only {MAX_CPUS} CPUs are used");
            break;
        }
        if !core::mem::replace(&mut prepared, true) {
            prepare();
        }
        if !start_one(apic_id) {
            error!("smp: CPU with APIC ID {apic_id} doesn't start; going on without it");
            break;
        }
    }
    let count = RUNNING.load(Ordering::Acquire);
    debug!("smp: {count} CPUs");
    count
}

/// Fills the low pages: code, and tables that map it in place besides the kernel's half.
fn prepare() {
    let word = |paddr: usize, index: usize| (phys_to_virt(paddr) as *mut usize).wrapping_add(index);
    // SAFETY: the low pages belong to this module, and the direct map has them.
    unsafe {
        let from = &raw const ap_start;
        let len = (&raw const ap_end).offset_from(from) as usize;
        core::ptr::copy_nonoverlapping(from, phys_to_virt(CODE) as *mut u8, len);
        for table in [PML4, PDPT, PD] {
            (phys_to_virt(table) as *mut u8).write_bytes(0, PAGE_SIZE);
        }
        for index in 256..512 {
            word(PML4, index).write(word(kernel_root(), index).read());
        }
        word(PML4, 0).write(PDPT | 3);
        word(PDPT, 0).write(PD | 3);
        word(PD, 0).write(0x83);
        word(ENTRY_WORD, 0).write(ap_entry as *const () as usize);
    }
}

fn start_one(apic_id: u32) -> bool {
    let index = RUNNING.load(Ordering::Acquire);
    let (Ok(stack), Ok(ist)) = (KernelStack::new(), Block::alloc(3)) else {
        error!("smp: no memory for another CPU's stacks");
        return false;
    };
    const _: () = assert!(IST_STACKS * IST_STACK <= 8 * PAGE_SIZE);
    STACKS.store(ist.into_ptr(), Ordering::Release);
    // SAFETY: the low page belongs to this module.
    unsafe { (phys_to_virt(STACK_WORD) as *mut usize).write_volatile(stack.top()) };
    // The CPU's first stack is its own for good.
    core::mem::forget(stack);
    cpu::set_apic_id(index, apic_id);
    apic::send(apic_id, Message::Init);
    // Real hardware wants 10 ms here; virtual CPUs are ready at once.
    clock::delay_ns(10_000);
    let deadline = clock::now_ns() + 1_000_000_000;
    let mut retry = 0;
    while clock::now_ns() < deadline {
        if RUNNING.load(Ordering::Acquire) > index {
            return true;
        }
        if clock::now_ns() >= retry {
            apic::send(apic_id, Message::Startup((CODE >> 12) as u8));
            retry = clock::now_ns() + 100_000_000;
        }
        core::hint::spin_loop();
    }
    false
}

extern "C" fn ap_entry() -> ! {
    let index = RUNNING.load(Ordering::Acquire);
    // SAFETY: this CPU is the only one that starts now: slot `index` and the stacks are its own.
    unsafe {
        (*cpu::segments(index)).load(STACKS.load(Ordering::Acquire) as usize);
        cpu::init(index);
    }
    trap::load_idt();
    super::paging::init_cpu();
    start::init_cpu();
    apic::init_cpu();
    clock::init_cpu();
    cpu::set_count(index + 1);
    RUNNING.store(index + 1, Ordering::Release);
    // SAFETY: `start` has stored a `fn() -> !`.
    let main = unsafe { core::mem::transmute::<*mut (), fn() -> !>(MAIN.load(Ordering::Acquire)) };
    main()
}
