//! The boot record: everything the image's configuration says about running it.
//!
//! # Layout
//! The record is found from the end of its container (a disk partition, a raw
//! file, or the boot module): the last 4,096 bytes hold a [`Footer`]; the
//! footer says where the postcard-encoded [`Record`] starts and how long it is,
//! and where the EROFS image is if the container carries one.
//!
//! ```text
//! 0                     erofs_len            record_offset      end-4096     end
//! | EROFS image (maybe) | pad to 4 KiB       | Record, padded   | Footer       |
//! ```
//! An EROFS image has its hash tree ([`crate::verity`]) with it, wherever it is.

use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};

use crate::verity::{DIGEST, Verity};

/// Size of the footer block, and the alignment of every part of a container.
pub const BLOCK: usize = 4096;
/// First bytes of the footer block.
pub const MAGIC: [u8; 8] = *b"d2uboot\0";
/// Raised whenever [`Record`] or [`Footer`] changes shape.
pub const VERSION: u32 = 7;
/// Largest encoded record that a reader accepts, in bytes.
pub const MAX_RECORD: usize = 1 << 20;

/// What to run and how, exactly as `docker run` would have applied it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Program and arguments: Entrypoint followed by Cmd. Bytes, not text: argv need not be UTF-8.
    pub argv: Vec<Vec<u8>>,
    /// `NAME=value` entries, in order, with the defaults that Docker adds (PATH, HOSTNAME, HOME).
    pub env: Vec<Vec<u8>>,
    /// Absolute working directory; created by the kernel if the image lacks it, as Docker does.
    pub cwd: Vec<u8>,
    /// User the main process runs as.
    pub user: User,
    /// Host name (uts nodename).
    pub hostname: String,
    /// Signal sent to the main process on a stop request (number on x86_64 Linux).
    pub stop_signal: u8,
    /// Seconds between the stop signal and SIGKILL.
    pub stop_grace_secs: u32,
    /// Ports the image exposes.
    pub ports: Vec<Port>,
    /// Mount points declared as volumes: writable, empty-if-absent directories.
    pub volumes: Vec<Vec<u8>>,
    /// HEALTHCHECK, if any.
    pub healthcheck: Option<Healthcheck>,
    /// Image labels.
    pub labels: Vec<(String, String)>,
    /// Network configuration.
    pub net: Net,
    /// Where the root filesystem is.
    pub root: Root,
    /// Whether the main process gets a terminal (`-t`).
    pub tty: bool,
    /// What is mounted over the root, in this order.
    pub mounts: Vec<Mount>,
    /// Whether the host's standard input reaches it (`-i`).
    pub stdin: bool,
    /// Which system calls programs may make.
    pub syscalls: Syscalls,
    /// Whether blocks of the root are checked against its hash tree before they are used.
    pub check_root: bool,
    /// Variables whose values only the machine that runs it knows.
    pub variables: Vec<Variable>,
    /// Resource limits of its processes, in place of those that containers have.
    pub limits: Vec<Limit>,
    /// Settings of the kernel ([`crate::settings`]) and their values, as written to /proc/sys.
    pub settings: Vec<(String, String)>,
}

/// A resource limit (getrlimit(2)); `u64::MAX` is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// `RLIMIT_*`
    pub resource: u8,
    /// What the kernel enforces.
    pub soft: u64,
    /// How far it may be raised.
    pub hard: u64,
}

/// A variable whose value is a file that the host shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Of the directory ([`MountKind::Host`]).
    pub tag: String,
    /// The file in it, without a slash; all its bytes are the value.
    pub file: String,
}

/// Something mounted over the root (`-v`, `--tmpfs`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path; made if the image lacks it.
    pub path: Vec<u8>,
    /// Whether it can't be written to.
    pub read_only: bool,
    /// What it is.
    pub kind: MountKind,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountKind {
    /// The ext4 volume with this UUID. An empty one gets what the image has at the path.
    Volume {
        /// `s_uuid` of the superblock.
        uuid: [u8; 16],
    },
    /// A directory that the host shows: by virtio-9p, or copied to a disk in ISO 9660.
    Host {
        /// Mount tag of the device, or label of the disk.
        tag: String,
    },
    /// Memory.
    Tmpfs {
        /// Options as of mount(2).
        options: String,
    },
}

/// Which system calls programs may make.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Syscalls {
    /// Every one.
    #[default]
    All,
    /// Every one; at the end the kernel says which were made.
    Record,
    /// These numbers, and [`ALWAYS`](crate::syscalls::ALWAYS).
    Only(Vec<u16>),
}

/// Numeric identity of the main process, resolved at conversion from the image's own passwd and
/// group files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// User ID.
    pub uid: u32,
    /// Primary group ID.
    pub gid: u32,
    /// Supplementary group IDs.
    pub groups: Vec<u32>,
}

/// One exposed port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Port number in the guest.
    pub port: u16,
    /// Transport.
    pub proto: Proto,
}

/// Transport of an exposed port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Proto {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP: carried for information, not served by the kernel.
    Sctp,
}

/// HEALTHCHECK of the image; durations in nanoseconds, as in the image config.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Healthcheck {
    /// Command to run (already expanded: `CMD-SHELL` has become the image's shell and `-c`).
    pub argv: Vec<Vec<u8>>,
    /// Time between checks.
    pub interval_ns: u64,
    /// Time after which one check counts as failed.
    pub timeout_ns: u64,
    /// Time after start in which failures do not count.
    pub start_period_ns: u64,
    /// Time between checks during the start period.
    pub start_interval_ns: u64,
    /// Consecutive failures that make the container unhealthy.
    pub retries: u32,
}

/// Network configuration of the first interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Net {
    /// IPv4 configuration.
    pub v4: V4,
    /// IPv6 configuration.
    pub v6: V6,
    /// DNS servers in text form; if there are any, those of DHCP and of routers are not used.
    pub dns: Vec<String>,
    /// DNS search domains.
    pub search: Vec<String>,
    /// Extra `/etc/hosts` entries: name, address.
    pub hosts: Vec<(String, String)>,
}

/// How the first interface gets its IPv4 address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum V4 {
    /// Ask by DHCP.
    #[default]
    Dhcp,
    /// Fixed address.
    Static {
        /// Address.
        addr: [u8; 4],
        /// Prefix length in bits.
        prefix: u8,
        /// Default gateway.
        gateway: Option<[u8; 4]>,
    },
    /// Loopback only.
    None,
}

/// IPv6 configuration; there is a link-local address unless it is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum V6 {
    /// What routers announce, by stateless autoconfiguration (RFC 4862).
    #[default]
    Auto,
    /// Fixed address.
    Static {
        /// Address.
        addr: [u8; 16],
        /// Prefix length in bits.
        prefix: u8,
        /// Default gateway; without one routers are asked for it.
        gateway: Option<[u8; 16]>,
    },
    /// Loopback only.
    None,
}

/// Where the kernel finds the root filesystem.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Root {
    /// In the same container as this record (module in RAM, or partition on disk).
    #[default]
    Here,
    /// On the virtio-blk device that carries an EROFS superblock with this UUID (whole disk or
    /// partition).
    Disk {
        /// `uuid` field of the EROFS superblock.
        uuid: [u8; 16],
    },
}

/// The last block of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footer {
    /// Length of the EROFS image with its hash tree at the start of the container in bytes; 0 if
    /// there is none.
    pub erofs_len: u64,
    /// Where the record starts, from the start of the container.
    pub record_offset: u64,
    /// Length of the encoded record in bytes.
    pub record_len: u32,
    /// CRC-32C of the encoded record.
    pub record_crc: u32,
    /// What the EROFS image is checked against, here or elsewhere; `None` if it has no hash tree.
    pub verity: Option<Verity>,
}

/// Why a container was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// No footer magic where it should be.
    NoFooter,
    /// Made by another version of dock2uni: the version found.
    Version(u32),
    /// Offsets or lengths point outside the container.
    Bounds,
    /// The record's checksum does not match.
    Checksum,
    /// The record does not decode.
    Malformed,
}

impl Footer {
    /// Writes the footer into a zeroed block.
    pub fn emit(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        block[0..8].copy_from_slice(&MAGIC);
        block[8..12].copy_from_slice(&VERSION.to_le_bytes());
        block[12..16].copy_from_slice(&self.record_len.to_le_bytes());
        block[16..24].copy_from_slice(&self.erofs_len.to_le_bytes());
        block[24..32].copy_from_slice(&self.record_offset.to_le_bytes());
        block[32..36].copy_from_slice(&self.record_crc.to_le_bytes());
        if let Some(verity) = &self.verity {
            block[36..40].copy_from_slice(&verity.blocks.to_le_bytes());
            block[64..64 + DIGEST].copy_from_slice(&verity.root_hash);
        }
        block
    }

    /// Reads a footer out of the last block of a container of `container_len` bytes.
    pub fn parse(block: &[u8], container_len: u64) -> Result<Footer, Error> {
        let block: &[u8; BLOCK] = block.try_into().map_err(|_| Error::NoFooter)?;
        if block[0..8] != MAGIC {
            return Err(Error::NoFooter);
        }
        let u32_at = |at: usize| {
            u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
        };
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if u32_at(8) != VERSION {
            return Err(Error::Version(u32_at(8)));
        }
        let mut root_hash = [0; DIGEST];
        root_hash.copy_from_slice(&block[64..64 + DIGEST]);
        let blocks = u32_at(36);
        let footer = Footer {
            record_len: u32_at(12),
            erofs_len: u64_at(16),
            record_offset: u64_at(24),
            record_crc: u32_at(32),
            verity: (blocks != 0).then_some(Verity { root_hash, blocks }),
        };
        let end =
            footer.record_offset.checked_add(u64::from(footer.record_len)).ok_or(Error::Bounds)?;
        if footer.record_len as usize > MAX_RECORD
            || footer.erofs_len > footer.record_offset
            || end > container_len
        {
            return Err(Error::Bounds);
        }
        Ok(footer)
    }
}

impl Record {
    /// Encodes the record.
    pub fn encode(&self) -> Vec<u8> {
        // postcard fails only for types it cannot represent; every field here is a plain sequence
        // or integer.
        postcard::to_allocvec(self).unwrap_or_default()
    }

    /// Decodes a record after checking it against its footer.
    pub fn decode(bytes: &[u8], footer: &Footer) -> Result<Record, Error> {
        if crc32c(bytes) != footer.record_crc {
            return Err(Error::Checksum);
        }
        postcard::from_bytes(bytes).map_err(|_| Error::Malformed)
    }
}

/// Appends record and footer to a container that so far holds `erofs_len` bytes of EROFS image and
/// hash tree. `verity` is that of the root, in the container or not.
///
/// Returns the bytes that follow the image, starting at the next multiple of [`BLOCK`].
pub fn trailer(record: &Record, erofs_len: u64, verity: Option<Verity>) -> Vec<u8> {
    let mut out = record.encode();
    let footer = Footer {
        erofs_len,
        record_offset: erofs_len.next_multiple_of(BLOCK as u64),
        record_len: out.len() as u32,
        record_crc: crc32c(&out),
        verity,
    };
    out.resize(out.len().next_multiple_of(BLOCK), 0);
    out.extend_from_slice(&footer.emit());
    out
}

/// CRC-32C (Castagnoli, reflected), the checksum EROFS and ext4 use as well; RFC 3720 appendix B.4.
pub fn crc32c(bytes: &[u8]) -> u32 {
    // A table of half bytes: small, and a sixth of the work of going bit by bit, which booting feels.
    const HALVES: [u32; 16] = {
        let mut table = [0; 16];
        let mut index = 0;
        while index < 16 {
            let mut crc = index as u32;
            let mut bit = 0;
            while bit < 4 {
                crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
                bit += 1;
            }
            table[index] = crc;
            index += 1;
        }
        table
    };
    let half = |crc: u32| (crc >> 4) ^ HALVES[(crc & 15) as usize];
    !bytes.iter().fold(!0, |crc, &byte| half(half(crc ^ u32::from(byte))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_check_value() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn record_survives_the_container() {
        let record =
            Record { argv: [b"/bin/true".to_vec()].into(), stop_signal: 3, ..Record::default() };
        let verity = Some(Verity { root_hash: [7; DIGEST], blocks: 2 });
        let tail = trailer(&record, 5000, verity);
        let total = 8192 + tail.len() as u64;
        let footer = Footer::parse(&tail[tail.len() - BLOCK..], total).unwrap();
        assert_eq!(footer.record_offset, 8192);
        assert_eq!(footer.verity, verity);
        let start = (footer.record_offset - 8192) as usize;
        let back =
            Record::decode(&tail[start..start + footer.record_len as usize], &footer).unwrap();
        assert_eq!(back, record);
    }

    #[test]
    fn damage_is_named() {
        let tail = trailer(&Record::default(), 0, None);
        let len = tail.len() as u64;
        let mut block = tail[tail.len() - BLOCK..].to_vec();
        assert_eq!(Footer::parse(&block[1..], len), Err(Error::NoFooter));
        block[8] = 9;
        assert_eq!(Footer::parse(&block, len), Err(Error::Version(9)));
        block[8] = VERSION as u8;
        block[31] = 0xff;
        assert_eq!(Footer::parse(&block, len), Err(Error::Bounds));
    }
}
