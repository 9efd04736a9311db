//! PAX extended header records: `LENGTH KEY=VALUE\n`, the value any bytes.

use dock2uni_format::erofs::Time;

use super::{Fault, Segment};

pub(super) const PATH: &[u8] = b"path";
pub(super) const LINKPATH: &[u8] = b"linkpath";
pub(super) const SIZE: &[u8] = b"size";
pub(super) const UID: &[u8] = b"uid";
pub(super) const GID: &[u8] = b"gid";
pub(super) const MTIME: &[u8] = b"mtime";
const XATTR: &[u8] = b"SCHILY.xattr.";
/// Records with one value that are kept.
const KNOWN: [&[u8]; 13] = [
    PATH,
    LINKPATH,
    SIZE,
    UID,
    GID,
    MTIME,
    b"GNU.sparse.major",
    b"GNU.sparse.minor",
    b"GNU.sparse.name",
    b"GNU.sparse.realsize",
    b"GNU.sparse.size",
    b"GNU.sparse.map",
    b"GNU.sparse.numblocks",
];
/// Attributes in one header; no filesystem takes more. Looking one up is linear.
const MAX_XATTRS: usize = 1024;

/// The records that mean something to us, of one extended header or of all global ones.
///
/// Of global headers only what describes owners, times and attributes is used; a name or size
/// for every following entry would only let one archive read as two different ones.
#[derive(Debug, Default)]
pub(super) struct Records {
    plain: Vec<(Vec<u8>, Vec<u8>)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Sparse 0.0: repeated offset and length.
    offsets: Vec<u64>,
    lengths: Vec<u64>,
}

impl Records {
    pub fn clear(&mut self) {
        *self = Records::default();
    }

    /// Adds the records of `text`. Later ones replace earlier ones; an empty value takes a record
    /// away.
    pub fn parse(&mut self, mut text: &[u8], max_segments: usize) -> Result<(), Fault> {
        while !text.is_empty() {
            let space = text.iter().position(|&b| b == b' ').ok_or(Fault::Pax)?;
            let len: usize = decimal(&text[..space]).ok_or(Fault::Pax)?;
            if len <= space + 1 || len > text.len() || text[len - 1] != b'\n' {
                return Err(Fault::Pax);
            }
            let record = &text[space + 1..len - 1];
            let equals = record.iter().position(|&b| b == b'=').ok_or(Fault::Pax)?;
            self.add(&record[..equals], &record[equals + 1..], max_segments)?;
            text = &text[len..];
        }
        Ok(())
    }

    fn add(&mut self, key: &[u8], value: &[u8], max_segments: usize) -> Result<(), Fault> {
        if let Some(name) = key.strip_prefix(XATTR) {
            // Unlike other records, an attribute may well have an empty value.
            replace(&mut self.xattrs, name, Some(value));
            if self.xattrs.len() > MAX_XATTRS {
                return Err(Fault::Range("number of extended attributes"));
            }
        } else if key == b"GNU.sparse.offset" || key == b"GNU.sparse.numbytes" {
            let list = if key.ends_with(b"offset") { &mut self.offsets } else { &mut self.lengths };
            list.push(decimal(value).ok_or(Fault::Sparse)?);
            if list.len() > max_segments {
                return Err(Fault::SparseLimit(max_segments));
            }
        } else if KNOWN.contains(&key) {
            replace(&mut self.plain, key, Some(value).filter(|value| !value.is_empty()));
        }
        Ok(())
    }

    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.plain.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_slice())
    }

    pub fn xattrs(&self) -> impl Iterator<Item = &(Vec<u8>, Vec<u8>)> {
        self.xattrs.iter()
    }

    pub fn has_xattr(&self, name: &[u8]) -> bool {
        self.xattrs.iter().any(|(have, _)| have == name)
    }

    /// The real name of a sparse file; the entry's own is made up.
    pub fn sparse_name(&self) -> Option<&[u8]> {
        self.get(b"GNU.sparse.name")
    }

    /// Length with holes, if the map is at the start of the data (format 1.0).
    pub fn sparse_1_0(&self) -> Result<Option<u64>, Fault> {
        match (self.get(b"GNU.sparse.major"), self.get(b"GNU.sparse.minor")) {
            (Some(b"1"), Some(b"0")) => {}
            (None, None) | (Some(b"0"), Some(_)) => return Ok(None),
            _ => return Err(Fault::Sparse),
        }
        let size = self.get(b"GNU.sparse.realsize").and_then(decimal).ok_or(Fault::Sparse)?;
        Ok(Some(size))
    }

    /// Length with holes and map, if the records hold it (formats 0.0 and 0.1).
    pub fn take_sparse_map(&mut self) -> Result<Option<(u64, Vec<Segment>)>, Fault> {
        let segments = if let Some(map) = self.get(b"GNU.sparse.map") {
            let numbers: Option<Vec<u64>> = map.split(|&b| b == b',').map(decimal).collect();
            let numbers = numbers.filter(|n| n.len() % 2 == 0).ok_or(Fault::Sparse)?;
            numbers.chunks_exact(2).map(|n| Segment { offset: n[0], len: n[1] }).collect()
        } else if self.get(b"GNU.sparse.numblocks").is_some() {
            if self.offsets.len() != self.lengths.len() {
                return Err(Fault::Sparse);
            }
            let pairs = self.offsets.drain(..).zip(self.lengths.drain(..));
            pairs.map(|(offset, len)| Segment { offset, len }).collect()
        } else {
            return Ok(None);
        };
        let size = self.get(b"GNU.sparse.size").and_then(decimal).ok_or(Fault::Sparse)?;
        Ok(Some((size, segments)))
    }
}

fn replace(list: &mut Vec<(Vec<u8>, Vec<u8>)>, key: &[u8], value: Option<&[u8]>) {
    list.retain(|(name, _)| name != key);
    if let Some(value) = value {
        list.push((key.to_vec(), value.to_vec()));
    }
}

/// A decimal number without sign.
pub(super) fn decimal<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    // `parse` would take a plus sign.
    if !text.first()?.is_ascii_digit() {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

pub(super) fn number(text: &[u8], field: &'static str) -> Result<u64, Fault> {
    decimal(text).ok_or(Fault::Range(field))
}

/// Seconds with any number of decimals, maybe negative; digits past nanoseconds are cut.
pub(super) fn time(text: &[u8]) -> Result<Time, Fault> {
    let fault = || Fault::Range("mtime");
    let (negative, digits) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = match digits.iter().position(|&b| b == b'.') {
        Some(dot) => (&digits[..dot], &digits[dot + 1..]),
        None => (digits, &digits[..0]),
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(fault());
    }
    let secs: i64 = decimal(whole).ok_or_else(fault)?;
    let nanos = fraction
        .iter()
        .chain(std::iter::repeat(&b'0'))
        .take(9)
        .fold(0, |nanos, &digit| nanos * 10 + u32::from(digit - b'0'));
    Ok(match (negative, nanos) {
        (false, _) => Time { secs, nanos },
        (true, 0) => Time { secs: -secs, nanos },
        // Nanoseconds count forward from the second before.
        (true, _) => Time { secs: -secs - 1, nanos: 1_000_000_000 - nanos },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_hold_any_bytes() {
        let mut records = Records::default();
        records.parse(b"32 SCHILY.xattr.security.x=\x01\n=\0\n19 path=a name = b\n", 9).unwrap();
        assert_eq!(records.get(PATH), Some(&b"a name = b"[..]));
        let xattrs: Vec<_> = records.xattrs().cloned().collect();
        assert_eq!(xattrs, [(b"security.x".to_vec(), b"\x01\n=\0".to_vec())]);
        records.parse(b"8 path=\n", 9).unwrap();
        assert_eq!(records.get(PATH), None);
    }

    #[test]
    fn malformed_records_are_refused() {
        for text in
            [&b"path=a\n"[..], b"99 path=a\n", b"3 a\n", b"+9 path=a\n", b"9 path=aX", b"5 "]
        {
            assert!(Records::default().parse(text, 9).is_err(), "{}", text.escape_ascii());
        }
    }

    #[test]
    fn times_have_fractions_and_signs() {
        let cases: [(&[u8], i64, u32); 5] = [
            (b"1350244992.023960108", 1_350_244_992, 23_960_108),
            (b"7", 7, 0),
            (b"7.5000000009", 7, 500_000_000),
            (b"-1.25", -2, 750_000_000),
            (b"-3", -3, 0),
        ];
        for (text, secs, nanos) in cases {
            assert_eq!(time(text).unwrap(), Time { secs, nanos });
        }
        for text in [&b""[..], b".5", b"1.x", b"--1", b"1e3", b"99999999999999999999"] {
            assert!(time(text).is_err());
        }
    }
}
