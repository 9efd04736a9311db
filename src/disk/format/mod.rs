//! Files that hold a disk: what hypervisors and clouds take, written and read.
//!
//! Every format is a function of the disk's bytes, so the same disk gives the same file; where a
//! format asks for an identifier, the disk's own is used. Readers take files from anywhere: what a
//! file says is checked before memory or offsets depend on it, and nothing but the file itself is
//! ever opened (no parents, no backing files, no other extents).

pub mod archive;
pub mod qcow2;
pub mod vdi;
pub mod vhd;
pub mod vhdx;
pub mod vmdk;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::medium::{Medium, Raw, for_each_block, is_zero};
use super::{Error, SECTOR};

/// How a disk is kept in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// The bytes themselves, zeros left out where the filesystem can.
    Raw,
    /// QEMU, Proxmox, OpenStack.
    Qcow2,
    /// VMware, stream-optimised.
    Vmdk,
    /// Azure and Hyper-V, fixed size: what Azure takes.
    Vhd,
    /// Hyper-V, growing.
    VhdDynamic,
    /// Hyper-V, second version.
    Vhdx,
    /// VirtualBox.
    Vdi,
    /// Google Compute Engine: `disk.raw` in a tar.gz.
    Gce,
    /// Amazon EC2: raw, whole GiB.
    Ami,
    /// VMware and VirtualBox: a VM with its disk.
    Ova,
    /// A CD that BIOS and UEFI boot, and a disk as well.
    Iso,
}

impl Format {
    /// All of them.
    pub const ALL: [Format; 11] = [
        Format::Raw,
        Format::Qcow2,
        Format::Vmdk,
        Format::Vhd,
        Format::VhdDynamic,
        Format::Vhdx,
        Format::Vdi,
        Format::Gce,
        Format::Ami,
        Format::Ova,
        Format::Iso,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Format::Raw => "raw",
            Format::Qcow2 => "qcow2",
            Format::Vmdk => "vmdk",
            Format::Vhd => "vhd",
            Format::VhdDynamic => "vhd-dynamic",
            Format::Vhdx => "vhdx",
            Format::Vdi => "vdi",
            Format::Gce => "gce",
            Format::Ami => "ami",
            Format::Ova => "ova",
            Format::Iso => "iso",
        }
    }

    /// What its files are called, without the leading dot.
    pub fn extension(self) -> &'static str {
        match self {
            Format::Raw => "img",
            Format::VhdDynamic => "dynamic.vhd",
            Format::Gce => "tar.gz",
            Format::Ami => "ami.raw",
            other => other.name(),
        }
    }

    /// The format that a file of this name is expected to have.
    pub fn of_path(path: &Path) -> Option<Format> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        // The longest extension that fits.
        let fits = |format: &Format| name.ends_with(&format!(".{}", format.extension()));
        let raw = name.ends_with(".raw").then_some(Format::Raw);
        let all = Format::ALL.into_iter().filter(fits);
        all.max_by_key(|format| format.extension().len()).or(raw)
    }

    /// What it is for, in a few words.
    pub fn purpose(self) -> &'static str {
        match self {
            Format::Raw => "a disk as it is, sparse; for anything that takes raw disks",
            Format::Qcow2 => "QEMU, libvirt, Proxmox, OpenStack",
            Format::Vmdk => "VMware (stream-optimised)",
            Format::Vhd => "Azure, Hyper-V (fixed)",
            Format::VhdDynamic => "Hyper-V (growing)",
            Format::Vhdx => "Hyper-V",
            Format::Vdi => "VirtualBox",
            Format::Gce => "Google Compute Engine (disk.raw in a tar.gz)",
            Format::Ami => "Amazon EC2 (raw, whole GiB)",
            Format::Ova => "VMware, VirtualBox (a VM with its disk)",
            Format::Iso => "a CD or stick that BIOS and UEFI boot",
        }
    }

    /// The disk's size is a multiple of this many bytes: clouds count in MiB and GiB.
    pub fn granularity(self) -> u64 {
        match self {
            Format::Gce | Format::Ami => 1 << 30,
            _ => 1 << 20,
        }
    }

    /// Whether the hypervisors that take this format offer disks that the kernel has no driver
    /// for, so that the boot code has to bring the root filesystem into memory.
    pub fn wants_memory_root(self) -> bool {
        !matches!(self, Format::Raw | Format::Qcow2)
    }

    /// QEMU's name for its driver, where it has one.
    pub fn qemu(self) -> Option<&'static str> {
        match self {
            Format::Raw | Format::Ami | Format::Iso => Some("raw"),
            Format::Qcow2 => Some("qcow2"),
            Format::Vmdk => Some("vmdk"),
            Format::Vhd | Format::VhdDynamic => Some("vpc"),
            Format::Vhdx => Some("vhdx"),
            Format::Vdi => Some("vdi"),
            Format::Gce | Format::Ova => None,
        }
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Format, String> {
        Format::ALL.into_iter().find(|format| format.name() == text).ok_or_else(|| {
            let names: Vec<_> = Format::ALL.iter().map(|format| format.name()).collect();
            format!("the formats are {}", names.join(", "))
        })
    }
}

/// What a reader says about a file.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It contradicts itself.
    #[error("{0}")]
    Damaged(&'static str),
    /// It uses what is not read here.
    #[error("it has {0}")]
    Unsupported(&'static str),
}

/// Writes `disk` to the empty file `out` and returns its length in bytes.
///
/// # Errors
/// If the disk cannot be read, the file cannot be written, or the disk is too large for the format.
pub fn write(format: Format, disk: &dyn Medium, out: &File) -> io::Result<u64> {
    match format {
        Format::Raw | Format::Ami | Format::Iso => write_sparse(disk, out),
        Format::Qcow2 => qcow2::write(disk, out),
        Format::Vmdk => vmdk::write(disk, out),
        Format::Vhd => vhd::write_fixed(disk, out),
        Format::VhdDynamic => vhd::write_dynamic(disk, out),
        Format::Vhdx => vhdx::write(disk, out),
        Format::Vdi => vdi::write(disk, out),
        Format::Gce => archive::write_gce(disk, out),
        Format::Ova => archive::write_ova(disk, out),
    }
}

/// A file, seen as the disk in it.
pub struct Opened {
    /// How the file holds it. Raw disks of every kind are called raw.
    pub format: Format,
    /// The disk.
    pub disk: Box<dyn Medium>,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("format", &self.format).finish_non_exhaustive()
    }
}

/// Opens a file of any format by its contents. What no format claims is raw.
///
/// # Errors
/// If the file cannot be read, is damaged, or uses what is not supported.
pub fn open(file: File) -> Result<Opened, Error> {
    let len = file.metadata()?.len();
    let format = detect(&file, len)?;
    let disk: Result<Box<dyn Medium>, Fault> = match format {
        Format::Raw | Format::Ami | Format::Iso => Ok(Box::new(Raw::new(file)?)),
        Format::Qcow2 => qcow2::Qcow2::open(file).map(|disk| Box::new(disk) as _),
        Format::Vmdk => vmdk::Vmdk::open(file, 0, len).map(|disk| Box::new(disk) as _),
        Format::Vhd | Format::VhdDynamic => {
            vhd::Vhd::open(file, len).map(|disk| Box::new(disk) as _)
        }
        Format::Vhdx => vhdx::Vhdx::open(file).map(|disk| Box::new(disk) as _),
        Format::Vdi => vdi::Vdi::open(file).map(|disk| Box::new(disk) as _),
        Format::Gce => archive::open_gce(file).map(|disk| Box::new(disk) as _),
        Format::Ova => archive::open_ova(file).map(|disk| Box::new(disk) as _),
    };
    match disk {
        Ok(disk) => Ok(Opened { format, disk }),
        Err(Fault::Io(error)) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error.into()),
        Err(Fault::Io(_)) => Err(Error::File { format, what: "it is cut off" }),
        Err(Fault::Damaged(what)) => Err(Error::File { format, what }),
        Err(Fault::Unsupported(what)) => Err(Error::FileUses { format, what }),
    }
}

/// Whether a file looks like a disk of one of the formats: no mere archive, and not just anything
/// that a raw disk might be.
///
/// # Errors
/// If the file cannot be read.
pub fn holds_disk(file: &File) -> io::Result<bool> {
    let mut first = [0; 512];
    Ok(match detect(file, file.metadata()?.len())? {
        Format::Raw => {
            let mut magic = [0; 8];
            file.read_exact_at(&mut magic, SECTOR).is_ok() && &magic == b"EFI PART"
        }
        // Container images come as such archives, too; ours begin with the disk.
        Format::Gce => {
            let stream = flate2::read::GzDecoder::new(file.try_clone()?).take(512);
            let mut bytes = Vec::new();
            // What does not unpack is none.
            let _ = io::BufReader::new(stream).read_to_end(&mut bytes);
            rewind(file)?;
            bytes.starts_with(b"disk.raw\0")
        }
        Format::Ova => {
            file.read_exact_at(&mut first, 0)?;
            let name = first[..100].split(|byte| *byte == 0).next().unwrap_or_default();
            name.ends_with(b".ovf")
        }
        _ => true,
    })
}

/// Readers of archives start where the file's position is.
fn rewind(file: &File) -> io::Result<()> {
    io::Seek::rewind(&mut &*file)
}

/// The format of a file, by its first and last bytes.
fn detect(file: &File, len: u64) -> io::Result<Format> {
    let at = |offset: u64, magic: &[u8]| -> io::Result<bool> {
        let mut bytes = vec![0; magic.len()];
        match file.read_exact_at(&mut bytes, offset) {
            Ok(()) => Ok(bytes == magic),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    };
    // A raw disk of ours first: its contents must not make it something else.
    if at(SECTOR, b"EFI PART")? && !at(len.saturating_sub(512), vhd::MAGIC)? {
        return Ok(Format::Raw);
    }
    let found = if at(0, qcow2::MAGIC)? {
        Format::Qcow2
    } else if at(0, vmdk::MAGIC)? {
        Format::Vmdk
    } else if at(0, vhdx::MAGIC)? {
        Format::Vhdx
    } else if at(0, vhd::MAGIC)? {
        Format::VhdDynamic
    } else if at(len.saturating_sub(512), vhd::MAGIC)? {
        Format::Vhd
    } else if at(vdi::MAGIC_AT, &vdi::MAGIC.to_le_bytes())? {
        Format::Vdi
    } else if at(0, &[0x1f, 0x8b])? {
        Format::Gce
    } else if at(257, b"ustar")? {
        Format::Ova
    } else {
        Format::Raw
    };
    Ok(found)
}

/// Copies a disk and leaves out what is zero.
pub(super) fn write_sparse(disk: &dyn Medium, out: &File) -> io::Result<u64> {
    out.set_len(disk.size())?;
    for_each_block(disk, 64 << 10, |index, bytes| {
        if is_zero(bytes) { Ok(()) } else { out.write_all_at(bytes, index * (64 << 10)) }
    })?;
    Ok(disk.size())
}

/// The identifier of a disk: that of its partition table, which follows from its contents.
fn identity(disk: &dyn Medium) -> io::Result<[u8; 16]> {
    const DISK_GUID: u64 = SECTOR + 56;
    let mut id = [0; 16];
    if disk.size() >= 2 * SECTOR {
        disk.read_exact_at(&mut id, DISK_GUID)?;
    }
    Ok(id)
}

/// Writes a file from its start to its end.
struct Sink<'f> {
    out: BufWriter<&'f File>,
    position: u64,
}

impl<'f> Sink<'f> {
    fn new(file: &'f File) -> Sink<'f> {
        Sink { out: BufWriter::with_capacity(256 << 10, file), position: 0 }
    }

    fn position(&self) -> u64 {
        self.position
    }

    /// The position in sectors, for formats that count in 32 bits of them.
    fn sectors(&self) -> io::Result<u32> {
        let sectors = self.position.div_ceil(SECTOR);
        u32::try_from(sectors).map_err(|_| io::Error::other("the disk is too large for the format"))
    }

    /// Zeros up to the next multiple of `block`.
    fn pad(&mut self, block: u64) -> io::Result<()> {
        self.pad_to(self.position.next_multiple_of(block))
    }

    /// Zeros up to `end`.
    fn pad_to(&mut self, end: u64) -> io::Result<()> {
        let mut left = end.saturating_sub(self.position);
        while left > 0 {
            // At most the array's length.
            let len = left.min(4096) as usize;
            self.write_all(&[0; 4096][..len])?;
            left -= len as u64;
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<u64> {
        self.out.flush()?;
        Ok(self.position)
    }
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.out.write(bytes)?;
        self.position += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Unpacks at most `len` bytes, and fills up with zeros what a disk's end cut short.
fn inflate(stream: impl Read, len: usize) -> io::Result<Vec<u8>> {
    let mut plain = Vec::with_capacity(len);
    stream.take(len as u64).read_to_end(&mut plain)?;
    plain.resize(len, 0);
    Ok(plain)
}

/// Numbers at places that the caller knows to be inside.
fn le32(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte))
}

fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from(le32(bytes, at)) | u64::from(le32(bytes, at + 4)) << 32
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().fold(0, |value, byte| value << 8 | u32::from(*byte))
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from(be32(bytes, at)) << 32 | u64::from(be32(bytes, at + 4))
}
