//! Kernel, record and root of a disk image as files, for monitors that load a kernel themselves.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use dock2uni_format::record::{BLOCK, Record, Root, trailer};
use dock2uni_format::verity::Verity;
use serde_json::json;

use super::{Error, copy_file};
use crate::atomic::Aside;
use crate::disk::medium::Cursor;
use crate::disk::{Disk, Part};

/// What a monitor loads.
#[derive(Debug)]
pub struct BootFiles {
    /// The kernel: ELF with a PVH entry.
    pub kernel: File,
    /// What goes where Linux has its initrd.
    pub module: File,
    /// What the image runs.
    pub record: Record,
    /// What vouches for the root.
    pub verity: Option<Verity>,
}

/// Kernel, and a module with root and record: nothing else is needed to boot.
pub(super) fn in_memory(disk: &Disk) -> Result<BootFiles, Error> {
    let (mut record, footer) = disk.boot()?;
    record.root = Root::Here;
    let mut module = tempfile::tempfile()?;
    let len = root(disk, &mut module)?;
    let padding = len.next_multiple_of(BLOCK as u64) - len;
    // Less than a block.
    module.write_all(&vec![0; padding as usize])?;
    module.write_all(&trailer(&record, len, footer.verity))?;
    Ok(BootFiles { kernel: kernel(disk)?, module, record, verity: footer.verity })
}

/// Kernel, and a module with the record alone; the root is a disk of its own.
fn with_disk(disk: &Disk) -> Result<BootFiles, Error> {
    let (mut record, footer) = disk.boot()?;
    record.root = Root::Disk { uuid: disk.root()?.superblock().uuid };
    let mut module = tempfile::tempfile()?;
    module.write_all(&trailer(&record, 0, footer.verity))?;
    Ok(BootFiles { kernel: kernel(disk)?, module, record, verity: footer.verity })
}

fn kernel(disk: &Disk) -> Result<File, Error> {
    let mut file = tempfile::tempfile()?;
    file.write_all(&disk.kernel()?)?;
    Ok(file)
}

fn root(disk: &Disk, out: &mut dyn Write) -> Result<u64, Error> {
    let extent = disk.extent(Part::Root);
    let medium = disk.medium();
    let mut cursor = Cursor::new(&medium);
    cursor.seek(SeekFrom::Start(extent.start))?;
    Ok(io::copy(&mut cursor.take(extent.len), out)?)
}

/// Writes `kernel`, `record.img`, `root.erofs`, `initrd.img` and `boot.json` into a new directory.
///
/// With `record.img` as initrd and `root.erofs` as a virtio disk the root stays on its disk; with
/// `initrd.img` it is in memory.
///
/// # Errors
/// If the disk cannot be read, or the directory is there already or cannot be written.
pub fn boot_files(disk: &Disk, dir: &Path) -> Result<(), Error> {
    let failed = |source| Error::Write { path: dir.to_owned(), source };
    fs::create_dir(dir).map_err(failed)?;
    let result = write(disk, dir);
    if result.is_err() {
        // Made just now, by us; what is left of it says nothing.
        let _ = fs::remove_dir_all(dir);
    }
    result
}

fn write(disk: &Disk, dir: &Path) -> Result<(), Error> {
    let (small, whole) = (with_disk(disk)?, in_memory(disk)?);
    let record = &small.record;
    let texts = |list: &[Vec<u8>]| -> Vec<String> {
        list.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect()
    };
    let about = json!({
        "kernel": { "file": "kernel", "entry": "pvh", "cmdline": "" },
        "on_disk": { "initrd": "record.img", "disk": "root.erofs" },
        "in_memory": { "initrd": "initrd.img" },
        "runs": texts(&record.argv),
        "ports": record.ports.iter().map(|port| port.port).collect::<Vec<_>>(),
        "root_hash": small.verity.map(|verity| verity.hex()),
        "root_uuid": disk.root()?.superblock().uuid.map(|byte| format!("{byte:02x}")).concat(),
    });
    let put = |name: &str, from: &mut dyn FnMut(&mut dyn Write) -> Result<(), Error>| {
        let path = dir.join(name);
        let failed = |source| Error::Write { path: path.clone(), source };
        let aside = Aside::beside(&path).map_err(failed)?;
        from(&mut aside.file())?;
        aside.publish(&path).map_err(failed)
    };
    put("kernel", &mut |out| Ok(copy_file(&small.kernel, out).map(|_| ())?))?;
    put("record.img", &mut |out| Ok(copy_file(&small.module, out).map(|_| ())?))?;
    put("initrd.img", &mut |out| Ok(copy_file(&whole.module, out).map(|_| ())?))?;
    put("root.erofs", &mut |out| root(disk, out).map(|_| ()))?;
    put("boot.json", &mut |out| Ok(writeln!(out, "{about:#}")?))
}
