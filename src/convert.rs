//! The pipeline after the source: from a resolved image to files that boot.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use dock2uni_format::record::{self, Record, Root};

use crate::atomic::Aside;
use crate::config::{self, Files, Overrides, Stat};
use crate::disk::{self, Layout};
use crate::erofs::{ReadAt, ReadError, Reader};
use crate::rootfs::{self, Stats};
use crate::source::image::Image;

/// Why a conversion failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The root filesystem.
    #[error(transparent)]
    Rootfs(#[from] rootfs::Error),
    /// A root that was written before.
    #[error(transparent)]
    Root(#[from] ReadError),
    /// What the image should run.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The disk image.
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// The guest code.
    #[error(transparent)]
    NoKernel(#[from] crate::guest::NoKernel),
    /// The file to be made.
    #[error("`{}` cannot be written", path.display())]
    Write {
        /// What was to be made.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Error::Rootfs(error) => error.hint(),
            Error::Config(error) => error.hint(),
            Error::Disk(error) => error.hint(),
            Error::Root(_) => Some("remove the file and convert again"),
            Error::NoKernel(_) => Some("build it without D2U_KERNEL"),
            Error::Write { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull => {
                    Some("free some space, or write the image to another disk with `--output`")
                }
                io::ErrorKind::NotFound => Some("create the directory first"),
                _ => None,
            },
        }
    }
}

/// What a conversion made.
#[derive(Clone, Debug)]
pub struct Made {
    /// What will run.
    pub record: Record,
    /// Length of the file in bytes.
    pub len: u64,
    /// Length of the root in bytes.
    pub root_len: u64,
    /// What the root holds.
    pub stats: Stats,
    /// What could not be kept, in words.
    pub warnings: Vec<String>,
}

/// Makes a bootable disk image of `image` at `out`, which appears whole or not at all.
///
/// `progress` is told how many more bytes of the layers have been read, from any thread.
///
/// # Errors
/// See [`Error`].
pub fn disk_image(
    image: &Image,
    overrides: &Overrides,
    out: &Path,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Made, Error> {
    let write = |source| Error::Write { path: out.to_owned(), source };
    let layout = Layout::new()?;
    let aside = Aside::beside(out).map_err(write)?;
    let options = rootfs::Options::default();
    let root = rootfs::build(&image.layers, &options, aside.file(), layout.root, progress)?;
    let reader = root.reader(aside.file())?;
    let mut record = plan(image, overrides, &reader)?;
    record.root = Root::Disk { uuid: root.uuid };
    let container = record::trailer(&record, 0, [0; 32]);
    let len = disk::finish(aside.file(), layout, root.len, &container)?;
    aside.publish(out).map_err(write)?;
    Ok(Made { record, len, root_len: root.len, stats: root.stats, warnings: root.warnings })
}

/// Makes a bare root image of `image` at `out`, which appears whole or not at all.
///
/// # Errors
/// See [`Error`].
pub fn root_image(image: &Image, out: &Path, progress: &(dyn Fn(u64) + Sync)) -> Result<(), Error> {
    let write = |source| Error::Write { path: out.to_owned(), source };
    let aside = Aside::beside(out).map_err(write)?;
    rootfs::build(&image.layers, &rootfs::Options::default(), aside.file(), 0, progress)?;
    aside.publish(out).map_err(write)
}

/// Says what `image` will run, by its configuration, the options and its own files.
///
/// # Errors
/// See [`config::Error`].
pub fn plan(
    image: &Image,
    overrides: &Overrides,
    root: &Reader<impl ReadAt>,
) -> Result<Record, config::Error> {
    config::plan(&image.config_json, &image.config_digest.hex(), overrides, &Rootfs(root))
}

/// A root filesystem image as the planner sees it.
#[derive(Debug)]
pub struct Rootfs<'a, R>(pub &'a Reader<R>);

impl<R: ReadAt> Files for Rootfs<'_, R> {
    fn stat(&self, path: &[u8]) -> io::Result<Option<Stat>> {
        let node = self.0.lookup(path).map_err(io::Error::other)?;
        Ok(node.map(|node| Stat { mode: u32::from(node.inode.mode), size: node.inode.size }))
    }

    fn read(&self, path: &[u8], offset: u64, len: usize) -> io::Result<Option<Vec<u8>>> {
        let node = self.0.lookup(path).map_err(io::Error::other)?;
        let Some(node) = node.filter(|node| node.is_file()) else { return Ok(None) };
        let left = node.inode.size.saturating_sub(offset);
        let mut bytes = vec![0; len.min(usize::try_from(left).unwrap_or(len))];
        let read = self.0.read_at(&node, offset, &mut bytes).map_err(io::Error::other)?;
        bytes.truncate(read);
        Ok(Some(bytes))
    }
}

/// Writes a container with root and record, for direct boot with the root in memory.
///
/// # Errors
/// If the root cannot be read or the container cannot be written.
pub fn write_module(
    root: &mut impl io::Read,
    record: &Record,
    out: &mut impl Write,
) -> io::Result<()> {
    let len = io::copy(root, out)?;
    let padding = len.next_multiple_of(record::BLOCK as u64) - len;
    // Less than a block.
    out.write_all(&vec![0; padding as usize])?;
    out.write_all(&record::trailer(record, len, [0; 32]))
}
