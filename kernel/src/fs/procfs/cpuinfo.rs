//! /proc/cpuinfo.

use crate::errno::Result;
use crate::fs::pseudo::{Key, Text};
use crate::say;
use alloc::string::String;
use core::arch::x86_64::{__cpuid, __cpuid_count};

/// CPUID leaf, subleaf, register (0 to 3 for eax to edx), and the flags that its bits stand for.
type Flags = (u32, u32, usize, &'static [(u32, &'static str)]);

const FLAGS: [Flags; 6] = [
    (
        1,
        0,
        3,
        &[
            (0, "fpu"),
            (1, "vme"),
            (2, "de"),
            (3, "pse"),
            (4, "tsc"),
            (5, "msr"),
            (6, "pae"),
            (7, "mce"),
            (8, "cx8"),
            (9, "apic"),
            (11, "sep"),
            (12, "mtrr"),
            (13, "pge"),
            (14, "mca"),
            (15, "cmov"),
            (16, "pat"),
            (17, "pse36"),
            (19, "clflush"),
            (23, "mmx"),
            (24, "fxsr"),
            (25, "sse"),
            (26, "sse2"),
            (27, "ss"),
            (28, "ht"),
        ],
    ),
    (
        0x8000_0001,
        0,
        3,
        &[
            (11, "syscall"),
            (20, "nx"),
            (22, "mmxext"),
            (25, "fxsr_opt"),
            (26, "pdpe1gb"),
            (27, "rdtscp"),
            (29, "lm"),
        ],
    ),
    (
        1,
        0,
        2,
        &[
            (0, "pni"),
            (1, "pclmulqdq"),
            (3, "monitor"),
            (9, "ssse3"),
            (12, "fma"),
            (13, "cx16"),
            (17, "pcid"),
            (19, "sse4_1"),
            (20, "sse4_2"),
            (21, "x2apic"),
            (22, "movbe"),
            (23, "popcnt"),
            (24, "tsc_deadline_timer"),
            (25, "aes"),
            (26, "xsave"),
            (28, "avx"),
            (29, "f16c"),
            (30, "rdrand"),
            (31, "hypervisor"),
        ],
    ),
    (
        0x8000_0001,
        0,
        2,
        &[
            (0, "lahf_lm"),
            (2, "svm"),
            (5, "abm"),
            (6, "sse4a"),
            (7, "misalignsse"),
            (8, "3dnowprefetch"),
        ],
    ),
    (
        7,
        0,
        1,
        &[
            (0, "fsgsbase"),
            (3, "bmi1"),
            (5, "avx2"),
            (7, "smep"),
            (8, "bmi2"),
            (9, "erms"),
            (10, "invpcid"),
            (16, "avx512f"),
            (17, "avx512dq"),
            (18, "rdseed"),
            (19, "adx"),
            (20, "smap"),
            (23, "clflushopt"),
            (24, "clwb"),
            (28, "avx512cd"),
            (29, "sha_ni"),
            (30, "avx512bw"),
            (31, "avx512vl"),
        ],
    ),
    (
        7,
        0,
        2,
        &[
            (1, "avx512vbmi"),
            (2, "umip"),
            (3, "pku"),
            (8, "gfni"),
            (9, "vaes"),
            (10, "vpclmulqdq"),
            (22, "rdpid"),
        ],
    ),
];

fn leaf(leaf: u32, sub: u32) -> [u32; 4] {
    let highest = __cpuid(leaf & 0x8000_0000).eax;
    if leaf > highest {
        return [0; 4];
    }
    let result = __cpuid_count(leaf, sub);
    [result.eax, result.ebx, result.ecx, result.edx]
}

fn text_of(words: &[u32]) -> String {
    let bytes = words.iter().flat_map(|word| word.to_le_bytes());
    let printable = bytes.filter(|byte| (0x20..0x7f).contains(byte));
    printable.map(char::from).collect::<String>().trim().into()
}

pub fn cpuinfo(_key: &Key, out: &mut Text) -> Result<()> {
    let [_, b, c, d] = leaf(0, 0);
    let vendor = text_of(&[b, d, c]);
    let [signature, ..] = leaf(1, 0);
    let (mut family, mut model) = (signature >> 8 & 15, signature >> 4 & 15);
    if family == 15 {
        family += signature >> 20 & 255;
    }
    if family >= 6 {
        model |= (signature >> 16 & 15) << 4;
    }
    let brand =
        text_of(&[leaf(0x8000_0002, 0), leaf(0x8000_0003, 0), leaf(0x8000_0004, 0)].concat());
    let brand = if brand.is_empty() { &vendor } else { &brand };
    let [addresses, ..] = leaf(0x8000_0008, 0);
    let mhz = crate::fs::hooks::cpu_khz() / 1000;
    let khz = crate::fs::hooks::cpu_khz() % 1000;
    let cpus = crate::arch::cpu::count();
    for cpu in 0..cpus {
        say!(out, "processor\t: {cpu}\nvendor_id\t: {vendor}\ncpu family\t: {family}\n");
        say!(out, "model\t\t: {model}\nmodel name\t: {brand}\nstepping\t: {}\n", signature & 15);
        say!(out, "cpu MHz\t\t: {mhz}.{khz:03}\ncache size\t: 512 KB\nphysical id\t: 0\n");
        say!(out, "siblings\t: {cpus}\ncore id\t\t: {cpu}\ncpu cores\t: {cpus}\n");
        say!(out, "apicid\t\t: {cpu}\ninitial apicid\t: {cpu}\nfpu\t\t: yes\n");
        say!(
            out,
            "fpu_exception\t: yes\ncpuid level\t: {}\nwp\t\t: yes\nflags\t\t:",
            leaf(0, 0)[0]
        );
        for (number, sub, register, names) in FLAGS {
            let bits = leaf(number, sub)[register];
            for (bit, name) in names {
                if bits & 1 << bit != 0 {
                    say!(out, " {name}");
                }
            }
        }
        say!(out, "\nbugs\t\t:\nbogomips\t: {}.00\nclflush size\t: 64\n", mhz * 2);
        say!(
            out,
            "cache_alignment\t: 64\naddress sizes\t: {} bits physical, {} bits virtual\n",
            addresses & 255,
            addresses >> 8 & 255
        );
        say!(out, "power management:\n\n");
    }
    Ok(())
}
