//! Looks into finished images: lists, reads, copies out, compares and verifies.
//!
//! Everything works on a root filesystem behind [`ReadAt`](crate::erofs::ReadAt), so on any disk
//! format and on bare roots alike. Images come from anywhere: directories that contain themselves,
//! names that are no names and sizes that are no sizes end in an error.

mod copy;
mod diff;
mod error;
mod verify;
mod walk;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dock2uni_format::erofs::FileType;
use dock2uni_format::record::Record;

use crate::disk::medium::{Medium, Raw};
use crate::disk::{self, Disk, Part};
use crate::erofs::{Node, Reader};
use crate::sbom::{Inventory, Subject};

pub use copy::Copied;
pub use diff::{Change, Difference, diff};
pub use error::Error;
pub use verify::{Check, verify};
pub use walk::{Entry, walk};

/// A root filesystem behind any medium.
pub type Root = Reader<Arc<dyn Medium>>;

/// First bytes of an EROFS superblock, and where they are.
const EROFS_MAGIC: [u8; 4] = 0xe0f5_e1e2u32.to_le_bytes();
const EROFS_AT: u64 = 1024;
/// A file that is shown or compared is read in pieces of this many bytes.
const PIECE: usize = 256 << 10;

/// Whether a file is a bare root image.
///
/// # Errors
/// If it cannot be read.
pub fn is_root(file: &File) -> std::io::Result<bool> {
    let mut magic = [0; 4];
    match std::os::unix::fs::FileExt::read_exact_at(file, &mut magic, EROFS_AT) {
        Ok(()) => Ok(magic == EROFS_MAGIC),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// A disk image of any format, or a bare root image.
pub struct Image {
    /// The root filesystem.
    pub root: Root,
    /// The disk, unless it is a bare root.
    pub disk: Option<Disk>,
    /// Length of the file in bytes.
    len: u64,
    path: PathBuf,
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Image").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Image {
    /// Opens a file.
    ///
    /// # Errors
    /// If it cannot be read, or is no image.
    pub fn open(path: &Path) -> Result<Image, Error> {
        let failed = |source| Error::Open { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let len = file.metadata().map_err(failed)?.len();
        if is_root(&file).map_err(failed)? {
            let medium: Arc<dyn Medium> = Arc::new(Raw::new(file).map_err(failed)?);
            let root = Reader::open(medium, 0)?;
            return Ok(Image { root, disk: None, len, path: path.to_owned() });
        }
        let disk = Disk::open(path).map_err(|error| match error {
            disk::Error::Io(source) => failed(source),
            other => other.into(),
        })?;
        let root = disk.root()?;
        Ok(Image { root, disk: Some(disk), len, path: path.to_owned() })
    }

    /// The boot record; a bare root has none.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn record(&self) -> Result<Option<Record>, Error> {
        Ok(self.disk.as_ref().map(Disk::record).transpose()?)
    }

    /// What the image consists of. A disk knows which container image it was made of.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn inventory(&self) -> Result<Inventory, Error> {
        let provenance = self.disk.as_ref().map(Disk::provenance).transpose()?.flatten();
        let digest = provenance.as_ref().and_then(|statement| {
            let image = "/predicate/buildDefinition/externalParameters/image";
            statement.pointer(image)?.as_str()?.parse().ok()
        });
        let name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let start = self.disk.as_ref().map_or(0, |disk| disk.extent(Part::Root).start);
        let subject = Subject { name, digest, created: None };
        Ok(Inventory::read(self.root.source(), start, subject)?)
    }

    /// The file at a path, symbolic links followed.
    ///
    /// # Errors
    /// If there is none.
    pub fn find(&self, path: &[u8]) -> Result<Node, Error> {
        self.root.lookup(path)?.ok_or_else(|| Error::not_found(path))
    }

    /// The file at a path; a symbolic link itself.
    ///
    /// # Errors
    /// If there is none.
    pub fn find_link(&self, path: &[u8]) -> Result<Node, Error> {
        self.root.lookup_link(path)?.ok_or_else(|| Error::not_found(path))
    }

    /// A file by its path, as a directory's listing has it.
    ///
    /// # Errors
    /// If there is none, or it is damaged.
    pub fn entry(&self, path: &[u8]) -> Result<Entry, Error> {
        let node = self.find_link(path)?;
        Entry::new(&self.root, path.to_vec(), node)
    }

    /// A file that was found by [`walk`], under a name.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn entry_of(&self, name: &[u8], node: &Node) -> Result<Entry, Error> {
        Entry::new(&self.root, name.to_vec(), *node)
    }

    /// The files in a directory, sorted by name; a file that is none stands for itself.
    ///
    /// # Errors
    /// If there is none, or it is damaged.
    pub fn list(&self, path: &[u8]) -> Result<Vec<Entry>, Error> {
        let node = self.find(path)?;
        if !node.is_dir() {
            return Ok(vec![Entry::new(&self.root, path.to_vec(), node)?]);
        }
        let mut entries = Vec::new();
        for found in self.root.read_dir(&node)? {
            walk::check_name(&found.name)?;
            let node = self.root.node(found.nid)?;
            entries.push(Entry::new(&self.root, found.name, node)?);
        }
        Ok(entries)
    }

    /// Writes a file's contents.
    ///
    /// # Errors
    /// If it is no regular file, is damaged, or `out` cannot be written.
    pub fn cat(&self, path: &[u8], out: &mut dyn std::io::Write) -> Result<u64, Error> {
        let node = self.find(path)?;
        if node.file_type() != FileType::Regular {
            return Err(Error::NotFile(text(path)));
        }
        copy::contents(&self.root, &node, &mut |bytes| {
            out.write_all(bytes).map_err(|source| Error::Output { source })
        })
    }

    /// Copies a file, or a directory with all that is in it, to `to`.
    ///
    /// Nothing is written outside of `to`, whatever the image's names and links say: links are
    /// copied as links and never followed. A directory that is there already gets the copy into
    /// it. Files that exist are not overwritten.
    ///
    /// # Errors
    /// If something is missing, in the way, or cannot be written.
    pub fn copy(&self, from: &[u8], to: &Path) -> Result<Copied, Error> {
        copy::copy(self, from, to)
    }
}

/// A path for people.
pub(crate) fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).escape_debug().to_string()
}
