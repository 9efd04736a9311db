//! Inodes (`struct erofs_inode_compact`, `struct erofs_inode_extended`).

use super::{BLOCK, Error, XATTR_HEADER_LEN, array, put, u16_at, u32_at, u64_at};

/// Length of a compact inode in bytes.
pub const COMPACT_LEN: usize = 32;
/// Length of an extended inode in bytes.
pub const EXTENDED_LEN: usize = 64;

/// A point in time: seconds since the epoch (may be negative) and nanoseconds after them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Time {
    /// Seconds since 1970-01-01 00:00:00 UTC.
    pub secs: i64,
    /// Nanoseconds, below 1,000,000,000.
    pub nanos: u32,
}

/// Where an inode's data lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Contiguous blocks from [`Inode::u`] on.
    Plain,
    /// Whole blocks from [`Inode::u`] on; the tail after the inode's xattrs.
    Inline,
    /// Block addresses by chunk after the inode's xattrs; [`Inode::u`] is a
    /// [`ChunkInfo`](super::ChunkInfo).
    Chunk,
    /// Compressed, with an index for each block after the inode's xattrs; [`Inode::u`] is the number
    /// of blocks that the data takes.
    Compressed,
}

/// One inode in either on-disk form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inode {
    /// Where the data lies.
    pub layout: Layout,
    /// Length of the xattr body in its own unit; see [`Inode::xattr_len`].
    pub xattr_icount: u16,
    /// File type and permissions, as in `st_mode`.
    pub mode: u16,
    /// Number of names.
    pub nlink: u32,
    /// Length in bytes.
    pub size: u64,
    /// First block, chunk format or device number: see [`Layout`] and [`decode_dev`].
    pub u: u32,
    /// Serial number, for 32-bit `stat`.
    pub ino: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time; `None` means the superblock's build time (compact form).
    pub mtime: Option<Time>,
}

/// Length in bytes (32 or 64) of the inode that starts with these two bytes.
pub fn inode_len(first: [u8; 2]) -> usize {
    if first[0] & 1 == 0 { COMPACT_LEN } else { EXTENDED_LEN }
}

impl Inode {
    /// Reads an inode; `bytes` starts at the inode and holds [`inode_len`] bytes or more.
    pub fn parse(bytes: &[u8]) -> Result<Inode, Error> {
        let format = u16_at(bytes, 0)?;
        let layout = match format >> 1 & 7 {
            0 => Layout::Plain,
            1 => Layout::Compressed,
            2 => Layout::Inline,
            4 => Layout::Chunk,
            _ => return Err(Error::Layout(format)),
        };
        // Bits above the layout belong to formats newer than ours.
        if format >> 4 != 0 {
            return Err(Error::Layout(format));
        }
        let xattr_icount = u16_at(bytes, 2)?;
        let mode = u16_at(bytes, 4)?;
        let (u, ino) = (u32_at(bytes, 16)?, u32_at(bytes, 20)?);
        if format & 1 == 0 {
            let inode: [u8; COMPACT_LEN] = array(bytes, 0)?;
            return Ok(Inode {
                layout,
                xattr_icount,
                mode,
                nlink: u32::from(u16_at(&inode, 6)?),
                size: u64::from(u32_at(&inode, 8)?),
                u,
                ino,
                uid: u32::from(u16_at(&inode, 24)?),
                gid: u32::from(u16_at(&inode, 26)?),
                mtime: None,
            });
        }
        let inode: [u8; EXTENDED_LEN] = array(bytes, 0)?;
        Ok(Inode {
            layout,
            xattr_icount,
            mode,
            nlink: u32_at(&inode, 44)?,
            size: u64_at(&inode, 8)?,
            u,
            ino,
            uid: u32_at(&inode, 24)?,
            gid: u32_at(&inode, 28)?,
            mtime: Some(Time {
                secs: u64_at(&inode, 32)?.cast_signed(),
                nanos: u32_at(&inode, 40)?,
            }),
        })
    }

    /// Whether all fields fit the compact form.
    pub fn fits_compact(&self) -> bool {
        self.mtime.is_none()
            && self.nlink <= u32::from(u16::MAX)
            && self.size <= u64::from(u32::MAX)
            && self.uid <= u32::from(u16::MAX)
            && self.gid <= u32::from(u16::MAX)
    }

    /// Length of the form that [`Inode::emit`] writes.
    ///
    /// A compact inode cannot carry its own mtime, and an extended one always does: the caller
    /// sets `mtime` to `None` only where [`Inode::fits_compact`] then holds.
    #[expect(clippy::len_without_is_empty, reason = "the length of a record, never empty")]
    pub fn len(&self) -> usize {
        if self.fits_compact() { COMPACT_LEN } else { EXTENDED_LEN }
    }

    /// Writes the inode to the start of `out`, which holds [`Inode::len`] bytes or more.
    pub fn emit(&self, out: &mut [u8]) {
        let compact = self.fits_compact();
        let layout = match self.layout {
            Layout::Plain => 0u16,
            Layout::Compressed => 1,
            Layout::Inline => 2,
            Layout::Chunk => 4,
        };
        out[..self.len()].fill(0);
        put(out, 0, &(layout << 1 | u16::from(!compact)).to_le_bytes());
        put(out, 2, &self.xattr_icount.to_le_bytes());
        put(out, 4, &self.mode.to_le_bytes());
        put(out, 16, &self.u.to_le_bytes());
        put(out, 20, &self.ino.to_le_bytes());
        if compact {
            put(out, 6, &(self.nlink as u16).to_le_bytes());
            put(out, 8, &(self.size as u32).to_le_bytes());
            put(out, 24, &(self.uid as u16).to_le_bytes());
            put(out, 26, &(self.gid as u16).to_le_bytes());
            return;
        }
        let mtime = self.mtime.unwrap_or_default();
        put(out, 8, &self.size.to_le_bytes());
        put(out, 24, &self.uid.to_le_bytes());
        put(out, 28, &self.gid.to_le_bytes());
        put(out, 32, &mtime.secs.to_le_bytes());
        put(out, 40, &mtime.nanos.to_le_bytes());
        put(out, 44, &self.nlink.to_le_bytes());
    }

    /// Length of the xattr body that follows the inode, in bytes.
    pub fn xattr_len(&self) -> usize {
        match self.xattr_icount {
            0 => 0,
            n => XATTR_HEADER_LEN + 4 * (usize::from(n) - 1),
        }
    }

    /// Length in bytes of the tail of an [`Layout::Inline`] file.
    pub fn tail_len(&self) -> usize {
        // The remainder is below 4,096.
        if self.layout == Layout::Inline { (self.size % BLOCK as u64) as usize } else { 0 }
    }
}

/// Packs a device number as `i_rdev` holds it (Linux `new_encode_dev`); `None` if the major is
/// above 12 bits or the minor above 20.
pub fn encode_dev(major: u32, minor: u32) -> Option<u32> {
    let fits = major < 1 << 12 && minor < 1 << 20;
    fits.then_some(minor & 0xff | major.wrapping_shl(8) | (minor & !0xff).wrapping_shl(12))
}

/// Unpacks `i_rdev` into major and minor.
pub fn decode_dev(rdev: u32) -> (u32, u32) {
    (rdev >> 8 & 0xfff, rdev & 0xff | rdev >> 12 & 0xf_ff00)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Inode {
        Inode {
            layout: Layout::Inline,
            xattr_icount: 3,
            mode: 0o100_755,
            nlink: 1,
            size: 5000,
            u: 77,
            ino: 12,
            uid: 0,
            gid: 101,
            mtime: None,
        }
    }

    #[test]
    fn both_forms_survive_a_round_trip() {
        let mtime = Some(Time { secs: -1, nanos: 999_999_999 });
        let cases = [
            (sample(), COMPACT_LEN),
            (Inode { mtime, ..sample() }, EXTENDED_LEN),
            (
                Inode { mtime, uid: u32::MAX, size: 1 << 40, nlink: 70_000, ..sample() },
                EXTENDED_LEN,
            ),
            (Inode { layout: Layout::Chunk, ..sample() }, COMPACT_LEN),
            (Inode { layout: Layout::Plain, ..sample() }, COMPACT_LEN),
            (Inode { layout: Layout::Compressed, ..sample() }, COMPACT_LEN),
        ];
        for (inode, len) in cases {
            let mut bytes = [0xff; EXTENDED_LEN];
            inode.emit(&mut bytes);
            assert_eq!(inode.len(), len);
            assert_eq!(inode_len([bytes[0], bytes[1]]), len);
            assert_eq!(Inode::parse(&bytes[..len]), Ok(inode));
            assert_eq!(Inode::parse(&bytes[..len - 1]), Err(Error::Truncated));
        }
        assert_eq!(sample().xattr_len(), 20);
        assert_eq!(sample().tail_len(), 904);
    }

    #[test]
    fn layouts_that_are_not_known_are_refused() {
        let mut bytes = [0; 32];
        // Compact indexes.
        bytes[0] = 3 << 1;
        assert_eq!(Inode::parse(&bytes), Err(Error::Layout(6)));
    }

    #[test]
    fn device_numbers_survive_a_round_trip() {
        for (major, minor) in [(1, 3), (4, 64), (259, 0xf_ffff), (0xfff, 256)] {
            let dev = encode_dev(major, minor);
            assert_eq!(dev.map(decode_dev), Some((major, minor)));
        }
        assert_eq!(encode_dev(1, 3), Some(0x103));
        assert_eq!(encode_dev(4096, 0), None);
    }
}
