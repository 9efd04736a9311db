//! What can be wrong with a disk image.

use dock2uni_format::record;

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
    /// The kernel is not what it should be.
    #[error("the kernel cannot be booted by a BIOS: {0}")]
    Kernel(&'static str),
    /// The boot record is larger than the memory set aside for it.
    #[error("the image's configuration is too large for a boot record ({0} bytes)")]
    RecordTooLarge(usize),
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
            Error::Missing(_) => Some("give an image that `dock2uni convert` made"),
            Error::RecordTooLarge(_) => Some("labels and variables count: leave some away"),
            _ => None,
        }
    }
}
