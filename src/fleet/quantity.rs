//! Sizes, spans of time and permissions as Compose and Kubernetes write them.

use serde_json::Value;

use super::Error;
use super::yaml::{self, Place};

/// Bytes: a number with the suffix `b`, `k`, `kb`, `m`, `mb`, `g`, `gb` (Compose; powers of 1024).
pub fn compose_bytes(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &lower[digits.len()..] {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    scaled(
        digits,
        f64::from(1u32 << (shift % 30)) * if shift >= 30 { (1u64 << 30) as f64 } else { 1.0 },
    )
}

/// A Kubernetes quantity (`128Mi`, `1G`, `500m`, `1e3`) times `unit`, rounded up.
pub fn kubernetes(text: &str, unit: f64) -> Option<u64> {
    const SUFFIXES: [(&str, f64); 14] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
    ];
    let text = text.trim();
    let found = SUFFIXES.iter().find(|(suffix, _)| text.ends_with(suffix));
    let (digits, factor) = match found {
        Some((suffix, factor)) => (&text[..text.len() - suffix.len()], *factor),
        None => (text, 1.0),
    };
    scaled(digits, factor * unit)
}

fn scaled(digits: &str, factor: f64) -> Option<u64> {
    let value: f64 = digits.parse().ok()?;
    let value = (value * factor).ceil();
    // 2^53: beyond it, and for NaN, there is no exact number to give.
    (0.0..9e15).contains(&value).then_some(value as u64)
}

/// Permissions of a file at `key`: a number, or digits that people mean as octal.
///
/// `0644` is octal in YAML 1.1, which most tools read, and 644 in YAML 1.2; JSON has 420. Numbers whose
/// digits make up permissions that people give to files are taken for those.
///
/// # Errors
/// If it is neither.
pub fn mode(value: &Value, key: &str, place: &Place<'_>) -> Result<Option<u32>, Error> {
    const USUAL: [&str; 20] = [
        "400", "440", "444", "500", "550", "555", "600", "640", "644", "660", "664", "666", "700",
        "740", "744", "750", "755", "770", "775", "777",
    ];
    let Some(text) = yaml::opt_text(value, key, place)? else { return Ok(None) };
    // Digits after a zero are read as a fraction by some.
    let digits = text.trim_start_matches("0o").trim_end_matches(".0");
    let octal =
        digits != text || digits.len() > 1 && digits.starts_with('0') || USUAL.contains(&digits);
    let mode = u32::from_str_radix(digits, if octal { 8 } else { 10 });
    match mode {
        Ok(mode) if mode <= 0o7777 => Ok(Some(mode)),
        _ => Err(place.key(key).error(format!("`{text}` are no permissions such as 0644"))),
    }
}

/// Seconds of a span like `1m30s`, `500ms` or `2h`, rounded up (Go's `time.ParseDuration`).
pub fn seconds(text: &str) -> Option<u32> {
    let total = span(text)?.ceil();
    (total <= f64::from(u32::MAX)).then_some(total as u32)
}

/// Milliseconds of such a span, rounded up; so many that they are seconds in 32 bits at most.
pub fn milliseconds(text: &str) -> Option<u64> {
    let total = span(text)?;
    // What is a whole number in decimal may be a little above one in binary.
    (total <= f64::from(u32::MAX)).then(|| (total * 1e3 - 1e-6).ceil() as u64)
}

/// Seconds of such a span.
fn span(text: &str) -> Option<f64> {
    let mut rest = text.trim();
    if rest == "0" {
        return Some(0.0);
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| c.is_ascii_alphabetic() || c == 'µ')?;
        let (number, tail) = rest.split_at(unit_at);
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let factor = match &tail[..end] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += number.parse::<f64>().ok().filter(|value| *value >= 0.0)? * factor;
        rest = &tail[end..];
    }
    (text.trim() != "").then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("64m", 64 << 20), ("1.5g", 3 << 29), ("512", 512), ("2KB", 2048), ("1t", 1 << 40)]
        {
            assert_eq!(compose_bytes(text), Some(bytes), "{text}");
        }
        assert_eq!(compose_bytes("many"), None);
        for (text, unit, value) in [
            ("128Mi", 1.0, 128 << 20),
            ("1G", 1.0, 1_000_000_000),
            ("250m", 1000.0, 250),
            ("2", 1000.0, 2000),
            ("0.5", 1000.0, 500),
            ("1e3", 1.0, 1000),
        ] {
            assert_eq!(kubernetes(text, unit), Some(value), "{text}");
        }
        assert_eq!(kubernetes("-1", 1.0), None);
        assert_eq!(kubernetes("1e300", 1.0), None);
    }

    #[test]
    fn spans() {
        for (text, value) in
            [("30s", 30), ("1m30s", 90), ("500ms", 1), ("2h", 7200), ("1.5m", 90), ("0", 0)]
        {
            assert_eq!(seconds(text), Some(value), "{text}");
        }
        for text in ["", "5", "s", "1x", "-3s"] {
            assert_eq!(seconds(text), None, "{text}");
        }
        for (text, value) in [("250ms", 250), ("1m30.1s", 90_100), ("1us", 1), ("0", 0)] {
            assert_eq!(milliseconds(text), Some(value), "{text}");
        }
    }
}
