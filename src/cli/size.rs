//! Quantities as people write them.

pub use crate::units::bytes;

/// Reads a size: bytes, or with the suffix `k`, `m`, `g` or `t`.
pub fn size(text: &str) -> Result<u64, String> {
    const HELP: &str = "write a number with `m`, `g` or `t` after it, such as 20g";
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix("ib").or(lower.strip_suffix('b')).unwrap_or(&lower);
    let split = lower.find(|c: char| !c.is_ascii_digit()).unwrap_or(lower.len());
    let shift = match &lower[split..] {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(HELP.to_owned()),
    };
    let count: u64 = lower[..split].parse().map_err(|_| HELP.to_owned())?;
    count.checked_mul(1 << shift).ok_or_else(|| HELP.to_owned())
}

/// Reads `--memory` as Docker does: bytes, or with the suffix `b`, `k`, `m` or `g`. Returns MiB.
pub fn memory(text: &str) -> Result<u32, String> {
    const HELP: &str = "write a number with `m` or `g` after it, such as 256m";
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix("ib").unwrap_or(&lower);
    let (digits, shift) = match lower.as_bytes().last() {
        Some(b'k') => (&lower[..lower.len() - 1], 10),
        Some(b'm') => (&lower[..lower.len() - 1], 20),
        Some(b'g') => (&lower[..lower.len() - 1], 30),
        Some(b'b') => (&lower[..lower.len() - 1], 0),
        _ => (lower, 0),
    };
    let count: u64 = digits.parse().map_err(|_| HELP.to_owned())?;
    let bytes = count.checked_mul(1 << shift).ok_or_else(|| HELP.to_owned())?;
    let mib = bytes >> 20;
    if mib < 8 {
        return Err(format!("a VM needs at least 8m; {HELP}"));
    }
    u32::try_from(mib).map_err(|_| HELP.to_owned())
}

/// Reads `--cpus`: Docker takes fractions of processors, a VM has whole ones.
pub fn cpus(text: &str) -> Result<u32, String> {
    let value: f64 = text.parse().map_err(|_| "write a number such as 2".to_owned())?;
    if value > 0.0 && value <= 255.0 {
        // Between 1 and 255 after rounding up.
        Ok(value.ceil() as u32)
    } else {
        Err("a VM has between 1 and 255 processors".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_takes_dockers_suffixes() {
        for (text, mib) in [("256m", 256), ("1g", 1024), ("33554432", 32), ("65536K", 64)] {
            assert_eq!(memory(text), Ok(mib), "{text}");
        }
        for text in ["", "m", "1m", "x", "-1g", "99999999999999999999g"] {
            assert!(memory(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_have_suffixes() {
        for (text, bytes) in
            [("10g", 10 << 30), ("512MiB", 512 << 20), ("4096", 4096), ("1t", 1 << 40)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "g", "1x", "-1g", "99999999999t"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn cpus_round_up() {
        assert_eq!(cpus("1.5"), Ok(2));
        assert_eq!(cpus("0.1"), Ok(1));
        assert!(cpus("0").is_err() && cpus("NaN").is_err() && cpus("300").is_err());
    }
}
