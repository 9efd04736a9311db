//! The two facts that the kernel needs from ACPI bytecode, found by their encoding: no interpreter.

/// SLP_TYPa and SLP_TYPb of the sleep state S5: `Name (_S5, Package { a, b, ... })`.
pub fn s5(code: &[u8]) -> Option<[u8; 2]> {
    let mut rest = &code[find(code, b"_S5_\x12")? + 5..];
    // PkgLength: the top two bits of its first byte say how many bytes follow.
    let more = usize::from(rest.first()? >> 6);
    rest = rest.get(1 + more..)?;
    let count = *rest.first()?;
    rest = &rest[1..];
    let mut values = [0; 2];
    for value in values.iter_mut().take(usize::from(count)) {
        (*value, rest) = small_integer(rest)?;
    }
    Some(values)
}

/// ZeroOp, OneOp or BytePrefix (ACPI 6.5, 20.2.3).
fn small_integer(code: &[u8]) -> Option<(u8, &[u8])> {
    match *code.first()? {
        value @ (0 | 1) => Some((value, &code[1..])),
        0x0a => Some((*code.get(1)?, &code[2..])),
        _ => None,
    }
}

/// Address of the event selector and interrupt of a generic event device (`ACPI0013`), with which
/// virtual machines without PM1 registers announce the power button. The address is that of its
/// operation region `EREG`.
pub fn generic_event_device(code: &[u8]) -> Option<(u64, u32)> {
    let at = find(code, b"ACPI0013")?;
    let device = &code[at..code.len().min(at + 512)];
    // Extended interrupt descriptor: 0x89, length, flags, count 1, interrupt (ACPI 6.5, 6.4.3.6).
    let descriptor = find(device, &[0x89, 6, 0])?;
    let interrupt = u32_at(device, descriptor + 5)?;
    // OperationRegion (EREG, SystemMemory, address, length).
    let region = find(device, b"\x5b\x80EREG\x00")? + 7;
    let address = match *device.get(region)? {
        0x0c => u64::from(u32_at(device, region + 1)?),
        0x0e => {
            u64::from(u32_at(device, region + 1)?) | u64::from(u32_at(device, region + 5)?) << 32
        }
        _ => return None,
    };
    Some((address, interrupt))
}

fn find(code: &[u8], pattern: &[u8]) -> Option<usize> {
    code.windows(pattern.len()).position(|window| window == pattern)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
