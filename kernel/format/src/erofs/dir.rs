//! Directory blocks (`struct erofs_dirent`).

use super::{BLOCK, Error, NAME_MAX, array, put, u16_at};

/// Length of one entry without its name, in bytes.
pub const DIRENT_LEN: usize = 12;

/// Type of the inode a directory entry names (`EROFS_FT_*`, the same numbers as ext4's).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FileType {
    /// Not recorded, or a number we don't know: read the inode.
    Unknown = 0,
    /// Regular file.
    Regular = 1,
    /// Directory.
    Directory = 2,
    /// Character device.
    CharDevice = 3,
    /// Block device.
    BlockDevice = 4,
    /// FIFO.
    Fifo = 5,
    /// Socket.
    Socket = 6,
    /// Symbolic link.
    Symlink = 7,
}

impl FileType {
    /// The type of an inode with this `st_mode`.
    pub fn of_mode(mode: u16) -> FileType {
        match mode & 0o170_000 {
            0o100_000 => FileType::Regular,
            0o040_000 => FileType::Directory,
            0o020_000 => FileType::CharDevice,
            0o060_000 => FileType::BlockDevice,
            0o010_000 => FileType::Fifo,
            0o140_000 => FileType::Socket,
            0o120_000 => FileType::Symlink,
            _ => FileType::Unknown,
        }
    }

    fn from_disk(byte: u8) -> FileType {
        use FileType::*;
        [Unknown, Regular, Directory, CharDevice, BlockDevice, Fifo, Socket, Symlink]
            .get(usize::from(byte))
            .copied()
            .unwrap_or(Unknown)
    }
}

/// One directory entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dirent<'a> {
    /// Inode that is named.
    pub nid: u64,
    /// Its type.
    pub file_type: FileType,
    /// Name: 1 to 255 bytes, no NUL.
    pub name: &'a [u8],
}

/// View of one directory block, at most 4,096 bytes; the last block of a directory is cut to the
/// directory's size.
#[derive(Clone, Copy, Debug)]
pub struct DirBlock<'a> {
    bytes: &'a [u8],
    count: usize,
}

impl<'a> DirBlock<'a> {
    /// Checks the block's entry count; entries are checked as they are read.
    pub fn parse(bytes: &'a [u8]) -> Result<DirBlock<'a>, Error> {
        // The first name starts where the entries end.
        let names = usize::from(u16_at(bytes, 8)?);
        let count = names / DIRENT_LEN;
        if count == 0 || names % DIRENT_LEN != 0 || names >= bytes.len() || bytes.len() > BLOCK {
            return Err(Error::Dirent);
        }
        Ok(DirBlock { bytes, count })
    }

    /// Number of entries, at least 1.
    #[expect(clippy::len_without_is_empty, reason = "a block is never empty")]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Entry `index`, which is below [`DirBlock::len`].
    pub fn get(&self, index: usize) -> Result<Dirent<'a>, Error> {
        if index >= self.count {
            return Err(Error::Dirent);
        }
        let at = index * DIRENT_LEN;
        let start = usize::from(u16_at(self.bytes, at + 8)?);
        let last = index + 1 == self.count;
        let end = if last {
            self.bytes.len()
        } else {
            usize::from(u16_at(self.bytes, at + DIRENT_LEN + 8)?)
        };
        if start < self.count * DIRENT_LEN {
            return Err(Error::Dirent);
        }
        let mut name = self.bytes.get(start..end).ok_or(Error::Dirent)?;
        // Only the last name may be followed by padding.
        if last && let Some(nul) = name.iter().position(|&b| b == 0) {
            name = &name[..nul];
        }
        if name.is_empty() || name.len() > NAME_MAX || name.contains(&0) {
            return Err(Error::Dirent);
        }
        Ok(Dirent {
            nid: u64::from_le_bytes(array(self.bytes, at)?),
            file_type: FileType::from_disk(self.bytes[at + 10]),
            name,
        })
    }

    /// All entries in order.
    pub fn iter(&self) -> impl Iterator<Item = Result<Dirent<'a>, Error>> + use<'a> {
        let block = *self;
        (0..self.count).map(move |index| block.get(index))
    }

    /// Looks a name up by binary search. To choose the block of a larger directory, search for
    /// the last block whose first name is not greater than `name`.
    pub fn find(&self, name: &[u8]) -> Result<Option<Dirent<'a>>, Error> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            let entry = self.get(middle)?;
            match entry.name.cmp(name) {
                core::cmp::Ordering::Equal => return Ok(Some(entry)),
                core::cmp::Ordering::Less => low = middle + 1,
                core::cmp::Ordering::Greater => high = middle,
            }
        }
        Ok(None)
    }
}

/// Writes entries, sorted by name, as one directory block at the start of `out` and returns the
/// bytes used: `DIRENT_LEN` and the name's length for each. The caller has seen to it that they
/// fit `out` and 4,096 bytes; the bytes after them should be zero.
pub fn emit_dir_block<'a>(
    entries: impl ExactSizeIterator<Item = Dirent<'a>>,
    out: &mut [u8],
) -> usize {
    let mut name_at = entries.len() * DIRENT_LEN;
    for (index, entry) in entries.enumerate() {
        let at = index * DIRENT_LEN;
        put(out, at, &entry.nid.to_le_bytes());
        put(out, at + 8, &(name_at as u16).to_le_bytes());
        put(out, at + 10, &[entry.file_type as u8, 0]);
        put(out, name_at, entry.name);
        name_at += entry.name.len();
    }
    name_at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> [Dirent<'static>; 3] {
        [
            Dirent { nid: 1, file_type: FileType::Directory, name: b"." },
            Dirent { nid: 2, file_type: FileType::Directory, name: b".." },
            Dirent { nid: 1 << 40, file_type: FileType::Symlink, name: b"lib\xff" },
        ]
    }

    #[test]
    fn entries_survive_a_round_trip_padded_and_cut() {
        let mut block = [0; BLOCK];
        let used = emit_dir_block(entries().into_iter(), &mut block);
        assert_eq!(used, 3 * 12 + 7);
        for bytes in [&block[..], &block[..used]] {
            let dir = DirBlock::parse(bytes).unwrap();
            assert!(dir.iter().map(Result::unwrap).eq(entries()));
            for entry in entries() {
                assert_eq!(dir.find(entry.name), Ok(Some(entry)));
            }
            assert_eq!(dir.find(b"li"), Ok(None));
            assert_eq!(dir.find(b"zzz"), Ok(None));
            assert_eq!(dir.get(3), Err(Error::Dirent));
        }
    }

    #[test]
    fn lying_offsets_are_refused() {
        let mut block = [0; BLOCK];
        assert!(DirBlock::parse(&block).is_err());
        emit_dir_block(entries().into_iter(), &mut block);
        block[12 + 8] = 0;
        let dir = DirBlock::parse(&block).unwrap();
        assert_eq!(dir.get(0), Err(Error::Dirent));
        assert_eq!(dir.get(1), Err(Error::Dirent));
        block[8] = 37;
        assert!(DirBlock::parse(&block).is_err());
        assert!(DirBlock::parse(&block[..9]).is_err());
    }
}
