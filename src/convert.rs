//! The pipeline after the source: from a resolved image to files that boot.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use dock2uni_format::record::{self, Mount, Record, Root, Variable};
use dock2uni_format::verity::Verity;

use crate::atomic::Aside;
use crate::config::{self, Files, Overrides, Stat};
use crate::disk::{self, Format, Layout, Place, RootPart, Signer};
use crate::erofs::{Compression, ReadAt, ReadError, Reader, verity};
use crate::provenance;
use crate::rootfs::select::Selection;
use crate::rootfs::{self, Limits, Stats, With};
use crate::sbom::{Inventory, Subject};
use crate::source::Opener;
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
    /// CDs have more on them, and clouds want other sizes.
    #[error("the format {0} needs a disk of its own, made of the container image")]
    OtherDisk(Format),
    /// The kernel has no driver for CDs.
    #[error("the root filesystem cannot stay on a CD")]
    RootOnCd,
    /// Nothing to make.
    #[error("no file to make was named")]
    NoOutput,
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
            Error::OtherDisk(_) => Some("use `dock2uni convert --format`"),
            Error::RootOnCd => Some("leave `--root` away, or make the other formats on their own"),
            Error::NoOutput => None,
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
    /// The files, in the order they were asked for.
    pub files: Vec<MadeFile>,
    /// Length of the root in bytes, hash tree included.
    pub root_len: u64,
    /// What vouches for the root.
    pub verity: Verity,
    /// What the root holds.
    pub stats: Stats,
    /// Where they come from: an in-toto statement about the root.
    pub provenance: serde_json::Value,
    /// What the image consists of, if that was asked for.
    pub inventory: Option<Inventory>,
    /// What could not be kept, in words.
    pub warnings: Vec<String>,
}

/// A file that a conversion made.
#[derive(Clone, Debug)]
pub struct MadeFile {
    /// Where it is.
    pub path: PathBuf,
    /// How it holds the disk.
    pub format: Format,
    /// Length of the file in bytes.
    pub len: u64,
    /// Size of the disk in bytes.
    pub disk_size: u64,
    /// Where the kernel finds the root when the disk boots.
    pub place: Place,
}

/// A file to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// How it is to hold the disk.
    pub format: Format,
    /// Where it goes.
    pub path: PathBuf,
}

/// How disks are to be made.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskOptions<'a> {
    /// Where the kernel finds the root; by the format if `None`.
    pub place: Option<Place>,
    /// Signs the EFI loader.
    pub signer: Option<&'a Signer>,
    /// What becomes of the root filesystem.
    pub root: RootOptions<'a>,
    /// What the disk says is mounted.
    pub mounts: &'a [Mount],
    /// Variables whose values the disk leaves to the host.
    pub variables: &'a [Variable],
    /// Find out what the image consists of.
    pub inventory: bool,
}

/// How a root filesystem is to be made.
#[derive(Clone, Copy, Default)]
pub struct RootOptions<'a> {
    /// The files that are kept, if not all are.
    pub selection: Option<&'a Selection>,
    /// Where the layers' bytes come from, if not from their files.
    pub open: Option<Opener<'a>>,
    /// Bounds on what the image may ask for.
    pub limits: Limits,
    /// How files are compressed, if they are.
    pub compression: Option<Compression>,
    /// Tells people why nothing seems to happen.
    pub say: Option<&'a (dyn Fn(&str) + Sync)>,
}

impl std::fmt::Debug for RootOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let RootOptions { selection, limits, compression, .. } = self;
        f.debug_struct("RootOptions")
            .field("selection", selection)
            .field("limits", limits)
            .field("compression", compression)
            .finish_non_exhaustive()
    }
}

impl<'a> RootOptions<'a> {
    fn with(&self) -> With<'a> {
        With { selection: self.selection, open: self.open, direct: false }
    }

    fn build(&self) -> rootfs::Options {
        let RootOptions { limits, compression, .. } = *self;
        rootfs::Options { limits, compression, ..rootfs::Options::default() }
    }
}

/// Makes a raw bootable disk image of `image` at `out`. See [`disk_images`].
///
/// # Errors
/// See [`Error`].
pub fn disk_image(
    image: &Image,
    overrides: &Overrides,
    out: &Path,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Made, Error> {
    let output = Output { format: Format::Raw, path: out.to_owned() };
    disk_images(image, overrides, &[output], &DiskOptions::default(), progress)
}

/// Makes bootable disk images of `image`. Files appear whole or not at all, and none appears before
/// all are complete.
///
/// `progress` is told how many more bytes of the layers have been read, from any thread.
///
/// # Errors
/// See [`Error`].
pub fn disk_images(
    image: &Image,
    overrides: &Overrides,
    outputs: &[Output],
    options: &DiskOptions<'_>,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Made, Error> {
    check(outputs, options)?;
    let (layout, base) = base(outputs)?;
    let root_options = options.root.build();
    let (layers, file) = (&image.layers, base.file());
    // Unless other files are made of it, the root is read again in small parts only.
    let direct = outputs.len() == 1 && raw(outputs) == Some(0) && !options.inventory;
    let with = With { direct, ..options.root.with() };
    let root = rootfs::build_with(layers, &with, &root_options, file, layout.root, progress)?;
    let record = plan(image, overrides, &root.reader(base.file())?)?;
    let part =
        RootPart { start: layout.root, len: root.len, uuid: root.uuid, verity: Some(root.verity) };
    let provenance = provenance::of_root(image, overrides, &options.root, &root.verity);
    let disks = write_disks(base, part, record, (image, provenance), outputs, options)?;
    let Disks { record, files, root_len, provenance, inventory } = disks;
    let (verity, stats, warnings) = (root.verity, root.stats, root.warnings);
    Ok(Made { record, files, root_len, verity, stats, provenance, inventory, warnings })
}

/// As [`disk_images`], around a root that [`root_image`] has written: it is copied, by reference
/// where the filesystem can, and no layer is read.
///
/// # Errors
/// See [`Error`].
pub fn disk_images_of_root(
    image: &Image,
    root: &Path,
    overrides: &Overrides,
    outputs: &[Output],
    options: &DiskOptions<'_>,
) -> Result<Disks, Error> {
    check(outputs, options)?;
    let reader = Reader::open(File::open(root).map_err(ReadError::Io)?, 0)?;
    let (record, uuid) = (plan(image, overrides, &reader)?, reader.superblock().uuid);
    let (layout, base) = base(outputs)?;
    let copy = || -> io::Result<u64> {
        let (mut from, mut to) = (File::open(root)?, base.file());
        to.seek(SeekFrom::Start(layout.root))?;
        io::copy(&mut from, &mut to)
    };
    let failed = |source| Error::Write { path: outputs[0].path.clone(), source };
    let len = copy().map_err(failed)?;
    let verity = verity::find(reader.source(), 0, len).map_err(ReadError::Io)?;
    // Every root that is kept has a tree.
    let verity = verity.ok_or(ReadError::Bounds(0))?;
    let part = RootPart { start: layout.root, len, uuid, verity: Some(verity) };
    let provenance = provenance::of_root(image, overrides, &options.root, &verity);
    write_disks(base, part, record, (image, provenance), outputs, options)
}

/// Disks that were made around a root.
#[derive(Clone, Debug)]
pub struct Disks {
    /// What will run.
    pub record: Record,
    /// The files, in the order they were asked for.
    pub files: Vec<MadeFile>,
    /// Length of the root in bytes, hash tree included.
    pub root_len: u64,
    /// Where they come from: an in-toto statement about the root.
    pub provenance: serde_json::Value,
    /// What the image consists of, if that was asked for.
    pub inventory: Option<Inventory>,
}

fn check(outputs: &[Output], options: &DiskOptions<'_>) -> Result<(), Error> {
    if outputs.is_empty() {
        return Err(Error::NoOutput);
    }
    let cd = outputs.iter().any(|output| output.format == Format::Iso);
    if cd && options.place == Some(Place::Disk) {
        return Err(Error::RootOnCd);
    }
    Ok(())
}

fn write_failed(path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Write { path, source }
}

/// Which output grows in the file that the root is written to: the raw disk; the others are made
/// of that.
fn raw(outputs: &[Output]) -> Option<usize> {
    outputs.iter().position(|output| output.format == Format::Raw)
}

/// The file that the root goes to. There is an output.
fn base(outputs: &[Output]) -> Result<(Layout, Aside), Error> {
    let path = &outputs[raw(outputs).unwrap_or(0)].path;
    Ok((Layout::new()?, Aside::beside(path).map_err(write_failed(path))?))
}

/// Makes every disk around the root that is in `base`.
fn write_disks(
    base: Aside,
    part: RootPart,
    mut record: Record,
    (image, provenance): (&Image, serde_json::Value),
    outputs: &[Output],
    options: &DiskOptions<'_>,
) -> Result<Disks, Error> {
    record.mounts = options.mounts.to_vec();
    record.variables = options.variables.to_vec();
    // A signature that vouched for the loader alone would be worth little.
    record.check_root |= options.signer.is_some();
    let raw = raw(outputs);
    let statement = provenance.to_string();
    let inventory = if options.inventory {
        let source: &File = base.file();
        Some(Inventory::read(&source, part.start, Subject::of_image(image))?)
    } else {
        None
    };
    let mut files = Vec::new();
    let mut asides = Vec::new();
    for (index, Output { format, path }) in outputs.iter().enumerate() {
        let wanted = if format.wants_memory_root() { Place::Memory } else { Place::Disk };
        let place = options.place.unwrap_or(wanted);
        let disk = disk::Options {
            place,
            granularity: format.granularity(),
            iso: *format == Format::Iso,
            signer: options.signer,
            provenance: statement.as_bytes(),
        };
        let disk = disk::assemble(base.file(), part, &record, &disk)?;
        let len = if raw == Some(index) {
            // What this adds is not where the root is, so the others may still be made of that.
            disk.complete().map_err(write_failed(path))?
        } else {
            let aside = Aside::beside(path).map_err(write_failed(path))?;
            let len =
                disk::format::write(*format, &disk, aside.file()).map_err(write_failed(path))?;
            asides.push((aside, path));
            len
        };
        let disk_size = disk::Medium::size(&disk);
        files.push(MadeFile { path: path.clone(), format: *format, len, disk_size, place });
    }
    for (aside, path) in asides {
        aside.publish(path).map_err(write_failed(path))?;
    }
    if let Some(raw) = raw {
        let base_path = &outputs[raw].path;
        base.publish(base_path).map_err(write_failed(base_path))?;
    }
    let record = with_root(record, part.uuid, files.first().map(|file| file.place));
    Ok(Disks { record, files, root_len: part.len, provenance, inventory })
}

/// Makes a file of another format that holds the same disk.
///
/// # Errors
/// If the disk cannot be read or the file cannot be written, or the format needs another disk.
pub fn reformat(disk: &disk::Disk, format: Format, out: &Path) -> Result<MadeFile, Error> {
    let write = |source| Error::Write { path: out.to_owned(), source };
    let place = disk.place()?;
    if format == Format::Iso || !disk.size.is_multiple_of(format.granularity()) {
        return Err(Error::OtherDisk(format));
    }
    let aside = Aside::beside(out).map_err(write)?;
    let medium = disk.medium();
    let len = disk::format::write(format, &medium, aside.file()).map_err(write)?;
    aside.publish(out).map_err(write)?;
    Ok(MadeFile { path: out.to_owned(), format, len, disk_size: disk.size, place })
}

/// The record as the first disk has it.
fn with_root(mut record: Record, uuid: [u8; 16], place: Option<Place>) -> Record {
    record.root = match place {
        Some(Place::Memory) => Root::Here,
        _ => Root::Disk { uuid },
    };
    record
}

/// Makes a bare root image of `image` at `out`, which appears whole or not at all.
///
/// # Errors
/// See [`Error`].
pub fn root_image(
    image: &Image,
    options: &RootOptions<'_>,
    out: &Path,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(), Error> {
    let write = |source| Error::Write { path: out.to_owned(), source };
    let aside = Aside::beside(out).map_err(write)?;
    let (layers, with) = (&image.layers, &options.with());
    rootfs::build_with(layers, with, &options.build(), aside.file(), 0, progress)?;
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

/// Writes a container with root and record, for direct boot with the root in memory. `root` is the
/// image with its hash tree, if it has one.
///
/// # Errors
/// If the root cannot be read or the container cannot be written.
pub fn write_module(
    root: &mut impl io::Read,
    record: &Record,
    verity: Option<Verity>,
    out: &mut impl Write,
) -> io::Result<()> {
    let len = io::copy(root, out)?;
    let padding = len.next_multiple_of(record::BLOCK as u64) - len;
    // Less than a block.
    out.write_all(&vec![0; padding as usize])?;
    out.write_all(&record::trailer(record, len, verity))
}
