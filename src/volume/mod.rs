//! Volumes: ext4 in sparse files that outlive the VMs that use them.
//!
//! A volume is one file, `NAME.ext4`, in the state directory. It appears whole or not at all, and
//! whoever uses it holds a lock on it: one VM to write, any number to read. Linux mounts the file by
//! a loop device, and e2fsck checks it.

mod device;
mod error;
mod mount;
mod spec;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use dock2uni_ext4::{BLOCK, Format, MIN_SIZE, mkfs};

use crate::atomic::Aside;
use crate::environment;
use crate::lock::Lock;
pub use error::Error;
pub use mount::{Mounted, mount};
pub use spec::{Source, Spec, Tmpfs};

/// Size of a volume that is made by being used: what a file of that size takes is what is written.
pub const DEFAULT_SIZE: u64 = 10 << 30;
/// Largest size, in bytes; files of the host can't always be larger.
pub const MAX_SIZE: u64 = 8 << 40;
/// Names the state directory.
pub const VARIABLE: &str = "DOCK2UNI_VOLUMES";
const SUFFIX: &str = ".ext4";

/// The directory that volumes are in.
#[derive(Clone, Debug)]
pub struct Volumes {
    dir: PathBuf,
}

/// What is known about a volume.
#[derive(Clone, Debug)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
    /// Size in bytes.
    pub size: u64,
    /// What the file takes on the host's disk, in bytes.
    pub allocated: u64,
    /// UUID of the filesystem.
    pub uuid: [u8; 16],
    /// When it was made, or its file was.
    pub created: Option<SystemTime>,
    /// Whether a VM uses it.
    pub in_use: bool,
}

/// A volume in use, until this is dropped.
#[derive(Debug)]
pub struct Held {
    /// Its file, which carries the lock.
    pub file: File,
    /// The path of it.
    pub path: PathBuf,
    /// UUID of the filesystem.
    pub uuid: [u8; 16],
}

impl Volumes {
    /// The directory that `DOCK2UNI_VOLUMES` names, or `dock2uni/volumes` in the user's data
    /// directory (XDG base directory specification).
    ///
    /// # Errors
    /// If neither it nor HOME is set.
    pub fn open_default() -> Result<Volumes, Error> {
        let dir = environment::path(VARIABLE).or_else(|| {
            Some(environment::base("XDG_DATA_HOME", ".local/share")?.join("dock2uni/volumes"))
        });
        Ok(Volumes { dir: dir.ok_or(Error::NoHome)? })
    }

    /// A directory of the caller's choice.
    pub fn at(dir: &Path) -> Volumes {
        Volumes { dir: dir.to_owned() }
    }

    /// The file of a name.
    fn path(&self, name: &str) -> Result<PathBuf, Error> {
        spec::check_name(name)?;
        Ok(self.dir.join(format!("{name}{SUFFIX}")))
    }

    /// Makes and removes are done one after the other.
    fn lock_dir(&self) -> Result<Lock, Error> {
        let failed = Error::io("cannot lock", &self.dir);
        fs::create_dir_all(&self.dir).map_err(Error::io("cannot create", &self.dir))?;
        let path = self.dir.join(".lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(path);
        lock.and_then(Lock::alone).map_err(failed)
    }

    /// Makes an empty volume of `size` bytes.
    ///
    /// # Errors
    /// If there is one of that name, the size is out of range, or the file cannot be written.
    pub fn create(&self, name: &str, size: u64) -> Result<Volume, Error> {
        self.create_as(name, size, None)
    }

    /// As [`Volumes::create`], with a UUID that is known beforehand.
    ///
    /// # Errors
    /// As [`Volumes::create`].
    pub fn create_as(
        &self,
        name: &str,
        size: u64,
        uuid: Option<[u8; 16]>,
    ) -> Result<Volume, Error> {
        let path = self.path(name)?;
        let _lock = self.lock_dir()?;
        if path.exists() {
            return Err(Error::Exists(name.to_owned()));
        }
        self.make(name, &path, size, uuid)?;
        self.look(name)
    }

    fn make(
        &self,
        name: &str,
        path: &Path,
        size: u64,
        given: Option<[u8; 16]>,
    ) -> Result<(), Error> {
        let size = size / BLOCK as u64 * BLOCK as u64;
        if !(MIN_SIZE..=MAX_SIZE).contains(&size) {
            return Err(Error::Size(size));
        }
        let failed = Error::io("cannot create", path);
        let make = || -> io::Result<()> {
            let aside = Aside::beside(path)?;
            aside.file().set_len(size)?;
            let mut random = [0; 32];
            File::open("/dev/urandom")?.read_exact(&mut random)?;
            let (mut uuid, mut hash_seed) = ([0; 16], [0; 16]);
            uuid.copy_from_slice(&random[..16]);
            hash_seed.copy_from_slice(&random[16..]);
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let format = Format {
                uuid: given.unwrap_or_else(|| {
                    uuid::Builder::from_random_bytes(uuid).into_uuid().into_bytes()
                }),
                hash_seed,
                label: name.as_bytes().to_vec(),
                uid: 0,
                gid: 0,
                mode: 0o755,
                now: (now.as_secs() as i64, now.subsec_nanos()),
            };
            let disk = device::Disk::new(aside.file().try_clone()?, size);
            let failure = disk.failure.clone();
            mkfs(Box::new(disk), &format).map_err(|error| match failure.lock() {
                Ok(mut cause) => {
                    cause.take().unwrap_or_else(|| io::Error::other(format!("{error:?}")))
                }
                Err(_) => io::Error::other(format!("{error:?}")),
            })?;
            aside.publish(path)
        };
        make().map_err(failed)
    }

    /// All volumes, by name.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn list(&self) -> Result<Vec<Volume>, Error> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(Error::io("cannot read", &self.dir))?,
        };
        let _lock = self.quiet();
        let mut all = Vec::new();
        for entry in entries {
            let entry = entry.map_err(Error::io("cannot read", &self.dir))?;
            let name = entry.file_name();
            let Some(name) = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)) else {
                continue;
            };
            if spec::check_name(name).is_ok() {
                match self.look(name) {
                    // Removed meanwhile.
                    Err(Error::NotFound(_)) => {}
                    other => all.push(other?),
                }
            }
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// Looks at one volume.
    ///
    /// # Errors
    /// If there is none of that name, or its file is something else.
    pub fn inspect(&self, name: &str) -> Result<Volume, Error> {
        let _lock = self.quiet();
        self.look(name)
    }

    /// Keeps others from taking volumes into use while it is looked whether they are: for a moment they
    /// would seem to be. Where nothing can be written, nobody takes any.
    fn quiet(&self) -> Option<Lock> {
        if self.dir.exists() { self.lock_dir().ok() } else { None }
    }

    fn look(&self, name: &str) -> Result<Volume, Error> {
        let path = self.path(name)?;
        let file = open(name, &path, false)?;
        let meta = file.metadata().map_err(Error::io("cannot read", &path))?;
        let uuid = read_uuid(&file, &path)?;
        let created = meta.created().or_else(|_| meta.modified()).ok();
        let in_use = Lock::try_alone(file).is_ok_and(|lock| lock.is_none());
        Ok(Volume {
            name: name.to_owned(),
            size: meta.len(),
            allocated: meta.blocks() * 512,
            uuid,
            created,
            in_use,
            path,
        })
    }

    /// Removes a volume with all that is in it.
    ///
    /// # Errors
    /// If there is none of that name, or a VM uses it.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        let path = self.path(name)?;
        let _lock = self.lock_dir()?;
        let _held = lock(name, open(name, &path, true)?, true)?;
        fs::remove_file(&path).map_err(Error::io("cannot remove", &path))
    }

    /// Takes a volume into use, making it if there is none.
    ///
    /// # Errors
    /// If another VM uses it, or it can't be made.
    pub fn hold(&self, name: &str, read_only: bool) -> Result<Held, Error> {
        let path = self.path(name)?;
        let _lock = self.lock_dir()?;
        if !path.exists() {
            self.make(name, &path, DEFAULT_SIZE, None)?;
        }
        let file = lock(name, open(name, &path, !read_only)?, !read_only)?;
        let uuid = read_uuid(&file, &path)?;
        Ok(Held { file, path, uuid })
    }
}

fn open(name: &str, path: &Path, write: bool) -> Result<File, Error> {
    let opened = OpenOptions::new().read(true).write(write).open(path);
    opened.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::NotFound(name.to_owned()),
        _ => Error::io("cannot open", path)(error),
    })
}

fn lock(name: &str, file: File, alone: bool) -> Result<File, Error> {
    let locked = if alone { file.try_lock() } else { file.try_lock_shared() };
    match locked {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::InUse(name.to_owned())),
        Err(TryLockError::Error(error)) => Err(Error::io("cannot lock", Path::new(name))(error)),
    }
}

/// UUID of the ext4 filesystem in a file.
fn read_uuid(file: &File, path: &Path) -> Result<[u8; 16], Error> {
    let mut header = [0; 1024];
    file.read_exact_at(&mut header, 1024).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::NotAVolume(path.to_owned()),
        _ => Error::io("cannot read", path)(error),
    })?;
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&header[0x68..0x78]);
    if header[0x38..0x3a] == [0x53, 0xef] {
        Ok(uuid)
    } else {
        Err(Error::NotAVolume(path.to_owned()))
    }
}

#[cfg(test)]
mod tests;
