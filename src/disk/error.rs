//! What can be wrong with a disk image.

use dock2uni_format::record;

use super::Format;

/// Why a disk image cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Reading or writing failed.
    #[error("the disk image cannot be read or written")]
    Io(#[from] std::io::Error),
    /// The partition table.
    #[error("the partition table is damaged or missing")]
    Table(#[from] gpt::GptError),
    /// Too short, or not made by us.
    #[error("this is no dock2uni image: it has no `{0}` partition")]
    Missing(&'static str),
    /// A partition reaches beyond the file.
    #[error("the image is cut off: its `{0}` partition ends beyond the file")]
    CutOff(&'static str),
    /// The boot record.
    #[error("the boot record is damaged: {0}")]
    Record(RecordFault),
    /// A file of another format contradicts itself.
    #[error("the {format} file is damaged: {what}")]
    File {
        /// What it says it is.
        format: Format,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A file of another format uses what is not read here.
    #[error("the {format} file cannot be read: it has {what}")]
    FileUses {
        /// What it is.
        format: Format,
        /// What it has.
        what: &'static str,
    },
    /// The kernel is not what it should be.
    #[error("no boot disk can be made with this kernel: {0}")]
    Kernel(&'static str),
    /// The boot record is larger than the memory set aside for it.
    #[error("the image's configuration is too large for a boot record ({0} bytes)")]
    RecordTooLarge(usize),
    /// A root that is to be loaded is larger than what can be.
    #[error("the root filesystem of {} MiB is too large to be loaded into memory at boot", .0 >> 20)]
    RootTooLarge(u64),
    /// A signing key or certificate.
    #[error("the Secure Boot {what} cannot be used: {why}")]
    Signer {
        /// Key or certificate.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// There is no guest code.
    #[error(transparent)]
    NoKernel(#[from] crate::guest::NoKernel),
}

/// A record error in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordFault(pub record::Error);

impl std::fmt::Display for RecordFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            record::Error::NoFooter => f.write_str("it has no footer"),
            record::Error::Version(version) => {
                write!(f, "it is of version {version}, this program reads {}", record::VERSION)
            }
            record::Error::Bounds => f.write_str("it points outside of its partition"),
            record::Error::Checksum => f.write_str("its checksum is wrong"),
            record::Error::Malformed => f.write_str("it does not decode"),
        }
    }
}

impl From<record::Error> for Error {
    fn from(error: record::Error) -> Error {
        Error::Record(RecordFault(error))
    }
}

impl Error {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Error::Io(source) if source.kind() == std::io::ErrorKind::StorageFull => {
                Some("free some space, or write the image to another disk")
            }
            Error::Table(_) | Error::CutOff(_) | Error::Record(_) => {
                Some("convert the image again")
            }
            Error::File { .. } => Some("make the file again"),
            Error::FileUses { .. } => {
                Some("`qemu-img convert -O qcow2` makes a file without it, if you trust this one")
            }
            Error::Missing(_) => Some("give an image that `dock2uni convert` made"),
            Error::RootTooLarge(_) => Some("use `--root disk` and virtio disks"),
            Error::Signer { .. } => {
                Some("give an RSA key and its certificate as PEM, the key without a password")
            }
            Error::RecordTooLarge(_) => Some("labels and variables count: leave some away"),
            _ => None,
        }
    }
}
