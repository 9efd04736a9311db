//! Checks all that an image says about itself.

use std::collections::HashMap;

use dock2uni_format::record::{BLOCK, Root as Place};
use serde::Serialize;

use super::{Error, Image, copy, walk};
use crate::disk::{Disk, Part};
use crate::erofs::{ReadAt, verity};

/// One thing that was checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What.
    pub name: &'static str,
    /// What was found, or what is wrong.
    pub detail: String,
    /// Whether it is as it should be.
    pub ok: bool,
}

/// Checks partition table, boot record, what UEFI would boot, and every block and file of the root.
///
/// Opening the image has checked the table's own checksums and those of the file's format.
pub fn verify(image: &Image) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut add = |name, result: Result<String, String>| {
        let ok = result.is_ok();
        let (Ok(detail) | Err(detail)) = result;
        checks.push(Check { name, detail, ok });
    };
    if let Some(disk) = &image.disk {
        add("table", table(disk));
        add("record", record(image, disk));
        add("loader", loader(disk));
    }
    add("hashes", hashes(image));
    add("root", root(image));
    checks
}

fn words(error: impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// The backup at the disk's end says the same as the table at its start.
fn table(disk: &Disk) -> Result<String, String> {
    const SECTOR: u64 = crate::disk::SECTOR;
    let medium = disk.medium();
    let read = |at: u64, len: usize| -> Result<Vec<u8>, String> {
        let mut bytes = vec![0; len];
        medium.read_exact_at(&mut bytes, at).map_err(words)?;
        Ok(bytes)
    };
    let first = read(SECTOR, SECTOR as usize)?;
    let last = read(disk.size.saturating_sub(SECTOR), SECTOR as usize)?;
    // Identifier of the disk, and checksum of the entries.
    if !last.starts_with(b"EFI PART")
        || first[56..72] != last[56..72]
        || first[88..92] != last[88..92]
    {
        return Err("the backup at the disk's end is missing or another".into());
    }
    Ok(format!("disk {}, {} partitions", disk.id, Part::ALL.len()))
}

fn record(image: &Image, disk: &Disk) -> Result<String, String> {
    let (record, footer) = disk.boot().map_err(words)?;
    let uuid = image.root.superblock().uuid;
    match record.root {
        Place::Disk { uuid: named } if named != uuid => {
            return Err("it names another root filesystem".into());
        }
        Place::Here if footer.erofs_len == 0 => {
            return Err("it says that the root is with it, and there is none".into());
        }
        _ => {}
    }
    Ok(format!("version {}, checksum {:08x}", dock2uni_format::record::VERSION, footer.record_crc))
}

/// Every block of the root has the hash that the boot record vouches for; in a bare root, that of
/// its own tree.
fn hashes(image: &Image) -> Result<String, String> {
    let verity = match &image.disk {
        Some(disk) => disk.boot().map_err(words)?.1.verity,
        None => verity::find(image.root.source(), 0, image.len).map_err(words)?,
    };
    let start = image.disk.as_ref().map_or(0, |disk| disk.extent(Part::Root).start);
    let verity = verity.ok_or("the image has no hash tree; convert it again")?;
    let found = verity::check(image.root.source(), start, &verity).map_err(words)?;
    if found.damaged_count > 0 {
        let first: Vec<String> = found.damaged.iter().take(8).map(u64::to_string).collect();
        let more = if found.damaged_count > first.len() as u64 { ", ..." } else { "" };
        let (count, first) = (found.damaged_count, first.join(", "));
        return Err(format!("{count} of {} blocks are damaged: {first}{more}", found.blocks));
    }
    Ok(format!("{} blocks, root hash {}", found.blocks, verity.hex()))
}

/// The loader in the system partition has the same record as the disk.
fn loader(disk: &Disk) -> Result<String, String> {
    const MAX: u64 = 64 << 20;
    let part = disk.extent(Part::Record);
    if part.len > MAX || part.len < BLOCK as u64 {
        return Err("the record's partition is larger or smaller than it can be".into());
    }
    // Bounded just above.
    let mut container = vec![0; part.len as usize];
    disk.medium().read_exact_at(&mut container, part.start).map_err(words)?;
    let file = disk.loader().map_err(words)?;
    let sector = crate::disk::SECTOR as usize;
    let found = (0..file.len()).step_by(sector).any(|at| file[at..].starts_with(&container));
    if !found {
        return Err("it has another boot record than the disk".into());
    }
    disk.kernel().map_err(words)?;
    let signed = pe_signature(&file).is_some_and(|len| len > 0);
    Ok(format!("same record, {}", if signed { "signed" } else { "not signed" }))
}

/// Length of the signature of a PE32+ file.
fn pe_signature(file: &[u8]) -> Option<u32> {
    let start = u32::from_le_bytes(file.get(60..64)?.try_into().ok()?) as usize;
    let at = start.checked_add(24 + 112 + 4 * 8 + 4)?;
    Some(u32::from_le_bytes(file.get(at..at + 4)?.try_into().ok()?))
}

/// Every directory, inode, attribute and byte can be read, and counts agree.
fn root(image: &Image) -> Result<String, String> {
    let root = &image.root;
    let check = || -> Result<(u64, u64, HashMap<u64, (u32, u32)>), Error> {
        let top = root.root()?;
        let (mut files, mut bytes) = (1, 0);
        let mut links: HashMap<u64, (u32, u32)> = HashMap::new();
        walk::walk(root, &top, &mut |_, _, node| {
            files += 1;
            root.xattrs(node)?;
            if !node.is_dir() {
                let seen = links.entry(node.nid).or_insert((0, node.inode.nlink));
                seen.0 += 1;
                if seen.0 > 1 {
                    return Ok(());
                }
            }
            if node.is_file() {
                bytes += copy::contents(root, node, &mut |_| Ok(()))?;
            } else if node.file_type() == dock2uni_format::erofs::FileType::Symlink {
                root.read_link(node)?;
            }
            Ok(())
        })?;
        Ok((files, bytes, links))
    };
    let (files, bytes, links) = check().map_err(words)?;
    if let Some((nid, (found, said))) = links.iter().find(|(_, (found, said))| found != said) {
        return Err(format!("inode {nid} has {found} names and says {said}"));
    }
    let uuid = uuid::Uuid::from_bytes(root.superblock().uuid);
    Ok(format!("{uuid}, {files} files, {bytes} bytes read"))
}
