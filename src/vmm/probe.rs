//! A guest of forty bytes that shows whether an accelerator executes code.
//!
//! It is entered by PVH in 32-bit mode, switches SSE on, clears a register a million times (less
//! than a millisecond on a processor), and reports on QEMU's `isa-debug-exit` port. Nested
//! virtualisation has been seen that offers `/dev/kvm`, but interprets guests an instruction at a
//! time or dies on the first SSE instruction; neither gets to the end in time.

/// Value that the guest writes to the exit port.
const REPORT: u8 = 0x2a;
/// I/O port of the exit device.
pub const PORT: u8 = 0xf4;
/// QEMU's exit status for the report: `isa-debug-exit` doubles the value and adds one.
pub const STATUS: i32 = (REPORT as i32) << 1 | 1;

const LOAD: u32 = 0x10_0000;
const HEADERS: usize = 64 + 2 * 56;
const NOTE: usize = 20;

#[rustfmt::skip]
const CODE: [u8; 39] = [
    0x0f, 0x20, 0xe0,                   // mov eax, cr4
    0x0d, 0x00, 0x06, 0x00, 0x00,       // or eax, OSFXSR | OSXMMEXCPT
    0x0f, 0x22, 0xe0,                   // mov cr4, eax
    0x0f, 0x20, 0xc0,                   // mov eax, cr0
    0x83, 0xe0, 0xfb,                   // and eax, ~EM
    0x83, 0xc8, 0x02,                   // or eax, MP
    0x0f, 0x22, 0xc0,                   // mov cr0, eax
    0xb9, 0x40, 0x42, 0x0f, 0x00,       // mov ecx, 1000000
    0x0f, 0x57, 0xc0,                   // again: xorps xmm0, xmm0
    0x49,                               // dec ecx
    0x75, 0xfa,                         // jnz again
    0xb0, REPORT,                       // mov al, REPORT
    0xe6, PORT,                         // out PORT, al
    0xf4,                               // hlt
];

/// The guest as an ELF file with the PVH note (Xen's `XEN_ELFNOTE_PHYS32_ENTRY`).
pub fn guest() -> Vec<u8> {
    let code_at = HEADERS + NOTE;
    let len = (code_at + CODE.len()) as u64;
    let load = u64::from(LOAD);
    let entry = LOAD + code_at as u32;

    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1];
    elf.resize(16, 0);
    elf.extend([2, 0, 62, 0, 1, 0, 0, 0]); // ET_EXEC, EM_X86_64, version
    for word in [u64::from(entry), 64, 0] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend([0, 0, 0, 0, 64, 0, 56, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    let mut header = |kind: u32, offset: u64, size: u64, align: u64| {
        elf.extend(kind.to_le_bytes());
        elf.extend(7u32.to_le_bytes());
        for word in [offset, load + offset, load + offset, size, size, align] {
            elf.extend(word.to_le_bytes());
        }
    };
    header(1, 0, len, 4096); // PT_LOAD
    header(4, HEADERS as u64, NOTE as u64, 4); // PT_NOTE
    for word in [4u32, 4, 18] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(b"Xen\0");
    elf.extend(entry.to_le_bytes());
    elf.extend(CODE);
    elf
}
