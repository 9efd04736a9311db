//! The last steps: out of the firmware, out of 64-bit mode, into the kernel.

use core::arch::global_asm;

use r_efi::efi::{self, Guid, SystemTable};

use crate::file::Kernel;
use crate::memory::{MAX_RANGES, Map, Range};

/// One thing to do when the firmware is gone: copy, then clear what follows.
#[derive(Clone, Copy)]
#[repr(C)]
struct Step {
    to: u32,
    from: u32,
    copy: u32,
    clear: u32,
}

/// `hvm_start_info` and its lists (Xen's `arch-x86/hvm/start_info.h`).
#[repr(C)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    modules: u32,
    module_list: u64,
    command_line: u64,
    rsdp: u64,
    memory_map: u64,
    ranges: u32,
    reserved: u32,
    module: [u64; 4],
    empty: u64,
}

/// What the code that runs without the firmware needs, in one piece of memory that is ours: code,
/// stack, descriptor table, steps and the kernel's start info.
#[repr(C, align(4096))]
pub struct Handover {
    code: [u8; 512],
    stack: [u64; 64],
    table: [u64; 4],
    pointer: [u16; 8],
    steps: [Step; 9],
    info: StartInfo,
    map: [Range; MAX_RANGES],
}

const CODE: usize = core::mem::offset_of!(Handover, code);
const STACK: usize = core::mem::offset_of!(Handover, table);
const POINTER: usize = core::mem::offset_of!(Handover, pointer);
const STEPS: usize = core::mem::offset_of!(Handover, steps);
const INFO: usize = core::mem::offset_of!(Handover, info);

impl Handover {
    /// Prepares everything but the memory map. `module` lies below 4 GiB, as does this.
    pub fn prepare(&mut self, kernel: &Kernel, module: &[u8], system: &SystemTable) {
        let code = handover_start as *const u8 as usize;
        let end = handover_end as *const u8 as usize;
        // SAFETY: the code between two labels of the assembler text below.
        let code = unsafe { core::slice::from_raw_parts(code as *const u8, end - code) };
        self.code[..code.len()].copy_from_slice(code);
        self.table = [0, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0];
        let base = &raw const self.table as u64;
        self.pointer[0] = 31;
        for (index, word) in self.pointer[1..5].iter_mut().enumerate() {
            *word = (base >> (16 * index)) as u16;
        }
        for (step, segment) in self.steps.iter_mut().zip(kernel.segments()) {
            // The image, and with it the kernel in it, was checked to lie below 4 GiB.
            *step = Step {
                to: segment.address,
                from: segment.bytes.as_ptr() as usize as u32,
                copy: segment.bytes.len() as u32,
                clear: segment.zeros,
            };
        }
        self.info = StartInfo {
            magic: 0x336e_c578,
            version: 1,
            flags: 0,
            modules: 1,
            module_list: &raw const self.info.module as u64,
            command_line: &raw const self.info.empty as u64,
            rsdp: rsdp(system),
            memory_map: self.map.as_ptr() as u64,
            ranges: 0,
            reserved: 0,
            module: [module.as_ptr() as u64, module.len() as u64, 0, 0],
            empty: 0,
        };
    }

    /// Leaves for the kernel. The firmware's boot services are gone.
    pub fn go(&mut self, map: &Map, kernel: &Kernel) -> ! {
        self.info.ranges = map.ranges(&mut self.map).len() as u32;
        let start = &raw mut *self as usize;
        // SAFETY: the copy of `handover_start`, which takes these arguments and stays in this
        // piece of memory until it enters the kernel.
        unsafe {
            let enter: unsafe extern "sysv64" fn(usize, u32) -> ! =
                core::mem::transmute(start + CODE);
            enter(start, kernel.entry)
        }
    }
}

/// Where the ACPI root pointer is; 0 if the firmware does not say.
fn rsdp(system: &SystemTable) -> u64 {
    const ACPI_20: Guid = Guid::from_fields(
        0x8868_e871,
        0xe4f1,
        0x11d3,
        0xbc,
        0x22,
        &[0x00, 0x80, 0xc7, 0x3c, 0x88, 0x81],
    );
    if system.configuration_table.is_null() {
        return 0;
    }
    // SAFETY: the firmware says how many entries there are.
    let entries = unsafe {
        core::slice::from_raw_parts::<efi::ConfigurationTable>(
            system.configuration_table,
            system.number_of_table_entries,
        )
    };
    let found = entries.iter().find(|entry| entry.vendor_guid == ACPI_20);
    found.map_or(0, |entry| entry.vendor_table as u64)
}

unsafe extern "C" {
    fn handover_start();
    fn handover_end();
}

// rdi: the structure above, below 4 GiB and mapped in place; esi: the kernel's entry.
global_asm!(
    r#"
    .section .text.handover, "ax"
    .code64
    .globl handover_start
handover_start:
    cli
    cld
    leaq {stack}(%rdi), %rsp
    lgdt {pointer}(%rdi)
    movl %esi, %ebp
    leaq 2f(%rip), %rax
    pushq $8
    pushq %rax
    lretq
    .code32
2:
    movl $16, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %fs
    movl %eax, %gs
    movl %eax, %ss
    movl %cr0, %eax
    andl $0x7fffffff, %eax          /* paging off, and with it 64-bit mode */
    movl %eax, %cr0
    movl $0xc0000080, %ecx
    rdmsr
    andl $0xfffffeff, %eax          /* LME */
    wrmsr
    xorl %eax, %eax
    movl %eax, %cr4
    leal {info}(%edi), %eax
    pushl %eax
    leal {steps}(%edi), %ebx
3:
    movl (%ebx), %edi
    testl %edi, %edi
    jz 4f
    movl 4(%ebx), %esi
    movl 8(%ebx), %ecx
    movl %ecx, %edx
    shrl $2, %ecx
    rep movsl
    movl %edx, %ecx
    andl $3, %ecx
    rep movsb
    movl 12(%ebx), %ecx
    xorl %eax, %eax
    rep stosb
    addl $16, %ebx
    jmp 3b
4:
    popl %ebx
    jmp *%ebp
    .globl handover_end
handover_end:
    .code64
"#,
    stack = const STACK,
    pointer = const POINTER,
    steps = const STEPS,
    info = const INFO,
    options(att_syntax)
);
