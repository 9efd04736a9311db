//! Fields of the structures on disk (Linux `fs/ext4/ext4.h`, `include/linux/jbd2.h`).
//!
//! Readers give zero where a block ends before the field, writers do nothing there: offsets come
//! from the disk.

use crate::{BLOCK, Error, Result};

macro_rules! accessors {
    ($($get:ident $put:ident $type:ty, $from:ident $to:ident;)*) => {$(
        pub fn $get(bytes: &[u8], at: usize) -> $type {
            let field = bytes.get(at..).and_then(<[u8]>::first_chunk);
            field.map_or(0, |field| <$type>::$from(*field))
        }
        pub fn $put(bytes: &mut [u8], at: usize, value: $type) {
            if let Some(field) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
                *field = value.$to();
            }
        }
    )*};
}

accessors! {
    get8 put8 u8, from_le_bytes to_le_bytes;
    get16 put16 u16, from_le_bytes to_le_bytes;
    get32 put32 u32, from_le_bytes to_le_bytes;
    be32 put_be32 u32, from_be_bytes to_be_bytes;
}

/// A number whose halves lie apart.
pub fn get64(bytes: &[u8], low: usize, high: usize) -> u64 {
    u64::from(get32(bytes, low)) | u64::from(get32(bytes, high)) << 32
}

pub fn put64(bytes: &mut [u8], low: usize, high: usize, value: u64) {
    put32(bytes, low, value as u32);
    put32(bytes, high, (value >> 32) as u32);
}

/// Type of a file by its number in directory entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileType {
    /// Not said, or not known.
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
    /// By `st_mode`.
    pub fn of_mode(mode: u32) -> FileType {
        match mode >> 12 & 15 {
            8 => FileType::Regular,
            4 => FileType::Directory,
            2 => FileType::CharDevice,
            6 => FileType::BlockDevice,
            1 => FileType::Fifo,
            12 => FileType::Socket,
            10 => FileType::Symlink,
            _ => FileType::Unknown,
        }
    }

    /// The number that readdir(3) uses.
    pub fn dirent_type(number: u8) -> u8 {
        *[0, 8, 4, 2, 6, 1, 12, 10].get(usize::from(number)).unwrap_or(&0)
    }
}

/// Superblock fields, from the start of the superblock.
pub mod sb {
    pub const INODES: usize = 0x0;
    pub const BLOCKS: usize = 0x4;
    pub const FREE_BLOCKS: usize = 0xc;
    pub const FREE_INODES: usize = 0x10;
    pub const FIRST_DATA: usize = 0x14;
    pub const LOG_BLOCK: usize = 0x18;
    pub const LOG_CLUSTER: usize = 0x1c;
    pub const BLOCKS_PER_GROUP: usize = 0x20;
    pub const CLUSTERS_PER_GROUP: usize = 0x24;
    pub const INODES_PER_GROUP: usize = 0x28;
    pub const MOUNT_TIME: usize = 0x2c;
    pub const WRITE_TIME: usize = 0x30;
    pub const MOUNTS: usize = 0x34;
    pub const MAX_MOUNTS: usize = 0x36;
    pub const MAGIC: usize = 0x38;
    pub const STATE: usize = 0x3a;
    pub const ERRORS: usize = 0x3c;
    pub const CHECK_TIME: usize = 0x40;
    pub const REVISION: usize = 0x4c;
    pub const FIRST_INODE: usize = 0x54;
    pub const INODE_SIZE: usize = 0x58;
    pub const GROUP: usize = 0x5a;
    pub const COMPAT: usize = 0x5c;
    pub const INCOMPAT: usize = 0x60;
    pub const RO_COMPAT: usize = 0x64;
    pub const UUID: usize = 0x68;
    pub const LABEL: usize = 0x78;
    pub const RESERVED_GDT: usize = 0xce;
    pub const JOURNAL_INODE: usize = 0xe0;
    pub const LAST_ORPHAN: usize = 0xe8;
    pub const HASH_SEED: usize = 0xec;
    pub const HASH_VERSION: usize = 0xfc;
    pub const JOURNAL_BACKUP: usize = 0xfd;
    pub const DESC_SIZE: usize = 0xfe;
    pub const DEFAULT_OPTIONS: usize = 0x100;
    pub const MKFS_TIME: usize = 0x108;
    pub const JOURNAL_BLOCKS: usize = 0x10c;
    pub const BLOCKS_HIGH: usize = 0x150;
    pub const FREE_BLOCKS_HIGH: usize = 0x158;
    pub const MIN_EXTRA: usize = 0x15c;
    pub const WANT_EXTRA: usize = 0x15e;
    pub const FLAGS: usize = 0x160;
    pub const LOG_FLEX: usize = 0x174;
    pub const CHECKSUM_TYPE: usize = 0x175;
    pub const CHECKSUM_SEED: usize = 0x270;
    pub const CHECKSUM: usize = 0x3fc;
    /// Length in bytes, and where it is from the start of the device.
    pub const LEN: usize = 1024;
}

pub mod compat {
    pub const HAS_JOURNAL: u32 = 4;
    pub const EXT_ATTR: u32 = 8;
    pub const DIR_INDEX: u32 = 0x20;
    pub const SPARSE_SUPER2: u32 = 0x200;
}

pub mod incompat {
    pub const FILETYPE: u32 = 2;
    pub const RECOVER: u32 = 4;
    pub const EXTENTS: u32 = 0x40;
    pub const LONG: u32 = 0x80;
    pub const FLEX_BG: u32 = 0x200;
    pub const CSUM_SEED: u32 = 0x2000;
    /// Features without which nothing can be read.
    pub const KNOWN: u32 = FILETYPE | RECOVER | EXTENTS | LONG | FLEX_BG | CSUM_SEED;
}

pub mod ro_compat {
    pub const SPARSE_SUPER: u32 = 1;
    pub const LARGE_FILE: u32 = 2;
    pub const HUGE_FILE: u32 = 8;
    pub const DIR_NLINK: u32 = 0x20;
    pub const EXTRA_ISIZE: u32 = 0x40;
    pub const METADATA_CSUM: u32 = 0x400;
    /// Features that a writer must understand.
    pub const KNOWN: u32 =
        SPARSE_SUPER | LARGE_FILE | HUGE_FILE | DIR_NLINK | EXTRA_ISIZE | METADATA_CSUM;
}

/// `s_state`
pub const STATE_CLEAN: u16 = 1;
pub const STATE_ERRORS: u16 = 2;
/// `s_flags`
pub const FLAG_UNSIGNED_HASH: u32 = 2;

/// Group descriptor fields: the low half, and where the high half is if descriptors have one.
pub mod desc {
    pub const BLOCK_BITMAP: (usize, usize) = (0x0, 0x20);
    pub const INODE_BITMAP: (usize, usize) = (0x4, 0x24);
    pub const INODE_TABLE: (usize, usize) = (0x8, 0x28);
    pub const FREE_BLOCKS: (usize, usize) = (0xc, 0x2c);
    pub const FREE_INODES: (usize, usize) = (0xe, 0x2e);
    pub const USED_DIRS: (usize, usize) = (0x10, 0x30);
    pub const FLAGS: usize = 0x12;
    pub const BLOCK_BITMAP_CSUM: (usize, usize) = (0x18, 0x38);
    pub const INODE_BITMAP_CSUM: (usize, usize) = (0x1a, 0x3a);
    pub const ITABLE_UNUSED: (usize, usize) = (0x1c, 0x32);
    pub const CHECKSUM: usize = 0x1e;
    /// `bg_flags`
    pub const INODE_UNINIT: u16 = 1;
    pub const BLOCK_UNINIT: u16 = 2;
    pub const INODE_ZEROED: u16 = 4;
}

/// What the superblock says, checked.
#[derive(Clone, Copy)]
pub struct Geometry {
    pub blocks: u64,
    pub inodes: u32,
    pub blocks_per_group: u32,
    pub inodes_per_group: u32,
    pub groups: u32,
    pub desc_size: usize,
    pub first_inode: u32,
    pub reserved_gdt: u32,
    /// Start of checksums; `None`: the volume has none.
    pub csum: Option<u32>,
    pub hash_seed: [u32; 4],
    pub hash_version: u8,
    pub unsigned_hash: bool,
    pub dir_index: bool,
    pub sparse: bool,
    pub uuid: [u8; 16],
    pub journal_inode: u32,
    /// A feature that only readers may ignore, or no journal.
    pub read_only: Option<&'static str>,
}

/// Reads a superblock (1,024 bytes). `device` is the length of the device in blocks.
pub fn superblock(bytes: &[u8], device: u64) -> Result<Geometry> {
    let corrupt = |what| Err(Error::Corrupt(what));
    if get16(bytes, sb::MAGIC) != 0xef53 {
        return Err(Error::Unsupported("not an ext4 volume"));
    }
    let (incompat, ro) = (get32(bytes, sb::INCOMPAT), get32(bytes, sb::RO_COMPAT));
    let compat = get32(bytes, sb::COMPAT);
    if incompat & !incompat::KNOWN != 0
        || incompat & incompat::EXTENTS == 0
        || incompat & incompat::FILETYPE == 0
        || compat & compat::SPARSE_SUPER2 != 0
        || get32(bytes, sb::REVISION) == 0
    {
        return Err(Error::Unsupported("the volume's features"));
    }
    if get32(bytes, sb::LOG_BLOCK) != 2 || get32(bytes, sb::LOG_CLUSTER) != 2 {
        return Err(Error::Unsupported("a block size other than 4096"));
    }
    if get16(bytes, sb::INODE_SIZE) != 256 {
        return Err(Error::Unsupported("an inode size other than 256"));
    }
    let has_csum = ro & ro_compat::METADATA_CSUM != 0;
    if has_csum
        && (get8(bytes, sb::CHECKSUM_TYPE) != 1
            || crate::crc::crc32c(!0, bytes.get(..sb::CHECKSUM).unwrap_or(&[]))
                != get32(bytes, sb::CHECKSUM))
    {
        return corrupt("superblock checksum");
    }
    let mut uuid = [0; 16];
    uuid.copy_from_slice(bytes.get(sb::UUID..sb::UUID + 16).unwrap_or(&[0; 16]));
    let seed = match incompat & incompat::CSUM_SEED {
        0 => crate::crc::crc32c(!0, &uuid),
        _ => get32(bytes, sb::CHECKSUM_SEED),
    };
    let long = incompat & incompat::LONG != 0;
    let high = |at| if long { at } else { usize::MAX };
    let blocks = get64(bytes, sb::BLOCKS, high(sb::BLOCKS_HIGH));
    let blocks_per_group = get32(bytes, sb::BLOCKS_PER_GROUP);
    let inodes_per_group = get32(bytes, sb::INODES_PER_GROUP);
    let inodes = get32(bytes, sb::INODES);
    if !(8..=8 * BLOCK as u32).contains(&blocks_per_group)
        || !(8..=8 * BLOCK as u32).contains(&inodes_per_group)
        || !inodes_per_group.is_multiple_of(8)
        || !blocks_per_group.is_multiple_of(8)
        || get32(bytes, sb::CLUSTERS_PER_GROUP) != blocks_per_group
        || get32(bytes, sb::FIRST_DATA) != 0
        || blocks == 0
    {
        return corrupt("superblock geometry");
    }
    if blocks > device {
        return corrupt("the volume is larger than its disk");
    }
    let groups = blocks.div_ceil(u64::from(blocks_per_group));
    if groups * u64::from(inodes_per_group) != u64::from(inodes) {
        return corrupt("superblock inode count");
    }
    let desc_size = if long { usize::from(get16(bytes, sb::DESC_SIZE)) } else { 32 };
    if !matches!(desc_size, 32 | 64) {
        return Err(Error::Unsupported("the size of group descriptors"));
    }
    let flags = get32(bytes, sb::FLAGS);
    let journal_inode = get32(bytes, sb::JOURNAL_INODE);
    let read_only = if ro & !ro_compat::KNOWN != 0 {
        Some("a feature that can only be read")
    } else if compat & compat::HAS_JOURNAL == 0 || journal_inode == 0 {
        Some("no journal")
    } else {
        None
    };
    Ok(Geometry {
        blocks,
        inodes,
        blocks_per_group,
        inodes_per_group,
        groups: groups as u32,
        desc_size,
        first_inode: get32(bytes, sb::FIRST_INODE).max(11),
        reserved_gdt: u32::from(get16(bytes, sb::RESERVED_GDT)),
        csum: has_csum.then_some(seed),
        hash_seed: core::array::from_fn(|at| get32(bytes, sb::HASH_SEED + 4 * at)),
        hash_version: get8(bytes, sb::HASH_VERSION),
        unsigned_hash: flags & FLAG_UNSIGNED_HASH != 0,
        dir_index: compat & compat::DIR_INDEX != 0,
        sparse: ro & ro_compat::SPARSE_SUPER != 0,
        uuid,
        journal_inode,
        read_only,
    })
}

impl Geometry {
    /// Whether a group starts with a copy of the superblock and of the group descriptors.
    pub fn has_super(&self, group: u32) -> bool {
        let power = |base: u32| {
            let mut n = base;
            while n < group {
                n = n.saturating_mul(base);
            }
            n == group
        };
        !self.sparse || group <= 1 || power(3) || power(5) || power(7)
    }

    /// Descriptors in a block.
    pub fn descs_per_block(&self) -> u32 {
        (BLOCK / self.desc_size) as u32
    }

    /// Blocks of descriptors.
    pub fn desc_blocks(&self) -> u32 {
        self.groups.div_ceil(self.descs_per_block())
    }

    /// Blocks of a group.
    pub fn group_blocks(&self, group: u32) -> u32 {
        let start = self.group_start(group);
        (self.blocks - start).min(u64::from(self.blocks_per_group)) as u32
    }

    /// First block of a group.
    pub fn group_start(&self, group: u32) -> u64 {
        u64::from(group) * u64::from(self.blocks_per_group)
    }
}
