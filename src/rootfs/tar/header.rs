//! The 512-byte header block.

use super::{BLOCK, Fault, Segment, sparse, until_nul};

/// A header block of any dialect.
pub(crate) struct Header([u8; BLOCK]);

impl Header {
    pub fn new(block: [u8; BLOCK]) -> Header {
        Header(block)
    }

    /// Checks the checksum: the sum of all bytes with the field itself read as spaces. Old
    /// writers summed signed bytes.
    pub fn check(&self) -> Result<(), Fault> {
        let want = number(&self.0[148..156]).ok_or(Fault::Checksum)?;
        let bytes = || {
            let field = 148..156;
            self.0.iter().enumerate().map(move |(i, &b)| if field.contains(&i) { b' ' } else { b })
        };
        let unsigned: i64 = bytes().map(i64::from).sum();
        let signed: i64 = bytes().map(|b| i64::from(b.cast_signed())).sum();
        if want == unsigned || want == signed { Ok(()) } else { Err(Fault::Checksum) }
    }

    pub fn kind(&self) -> u8 {
        self.0[156]
    }

    /// The name, with the ustar prefix where there is one.
    pub fn path(&self, out: &mut Vec<u8>) {
        let prefix = if self.is_posix() { until_nul(&self.0[345..500]) } else { &[] };
        if !prefix.is_empty() {
            out.extend_from_slice(prefix);
            out.push(b'/');
        }
        out.extend_from_slice(until_nul(&self.0[..100]));
    }

    pub fn link(&self) -> &[u8] {
        until_nul(&self.0[157..257])
    }

    pub fn mode(&self) -> Result<u64, Fault> {
        self.unsigned(100..108, "mode")
    }

    pub fn uid(&self) -> Result<u64, Fault> {
        self.unsigned(108..116, "uid")
    }

    pub fn gid(&self) -> Result<u64, Fault> {
        self.unsigned(116..124, "gid")
    }

    pub fn size(&self) -> Result<u64, Fault> {
        self.unsigned(124..136, "size")
    }

    pub fn mtime(&self) -> Result<i64, Fault> {
        number(&self.0[136..148]).ok_or(Fault::Number("mtime"))
    }

    pub fn dev(&self) -> Result<(u32, u32), Fault> {
        let part = |range| {
            let number = self.unsigned(range, "device number")?;
            u32::try_from(number).map_err(|_| Fault::Range("device number"))
        };
        Ok((part(329..337)?, part(337..345)?))
    }

    /// Appends the segments in the header of an old GNU sparse file; true if more follow.
    pub fn gnu_segments(&self, out: &mut Vec<Segment>) -> Result<bool, Fault> {
        sparse::table(&self.0[386..482], out)?;
        Ok(self.0[482] != 0)
    }

    /// Length with holes of an old GNU sparse file.
    pub fn gnu_real_size(&self) -> Result<u64, Fault> {
        self.unsigned(483..495, "real size")
    }

    fn is_posix(&self) -> bool {
        // GNU's magic is "ustar  \0"; it keeps other things where the prefix would be.
        self.0[257..263] == *b"ustar\0"
    }

    fn unsigned(&self, range: std::ops::Range<usize>, field: &'static str) -> Result<u64, Fault> {
        let value = number(&self.0[range]).ok_or(Fault::Number(field))?;
        u64::try_from(value).map_err(|_| Fault::Range(field))
    }
}

/// A numeric field: octal text, or GNU's big-endian two's complement with the top bit as mark.
/// Empty fields are 0.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    let &first = field.first()?;
    if first & 0x80 != 0 {
        // Bit 6 is the sign; the value starts below the mark.
        let negative = first & 0x40 != 0;
        let start = i128::from(first & 0x3f) - if negative { 0x40 } else { 0 };
        let value = field[1..].iter().fold(start, |value, &byte| value << 8 | i128::from(byte));
        return i64::try_from(value).ok();
    }
    let text = field.trim_ascii_start();
    let end = text.iter().position(|&b| b == b' ' || b == 0).unwrap_or(text.len());
    text[..end].iter().try_fold(0i64, |value, &digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_are_octal_or_binary() {
        let cases: [(&[u8], Option<i64>); 8] = [
            (b"0000644\0", Some(0o644)),
            (b"  644 \0\0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"77777777777\0", Some(0o77_777_777_777)),
            (b"\x80\0\0\0\0\0\0\0\0\x20\0\0", Some(0x20_0000)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"12x\0", None),
            (b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
        ];
        for (field, value) in cases {
            assert_eq!(number(field), value, "{}", field.escape_ascii());
        }
    }
}
