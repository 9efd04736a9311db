//! `dock2uni image info`.

use std::path::Path;

use serde_json::json;

use super::convert::{record_json, runs};
use super::{Failure, exit, size};
use crate::disk::{Disk, Error, Part};

pub fn info(path: &Path, as_json: bool) -> Result<u8, Failure> {
    let disk = Disk::open(path).map_err(|error| match error {
        Error::Io(source) => Failure::io(format!("cannot read `{}`", path.display()), source),
        other => other.into(),
    })?;
    let (record, footer) = disk.boot()?;
    let hash = footer.verity.map(|verity| verity.hex());
    let place = disk.place()?;
    let root = disk.root().map_err(crate::convert::Error::from)?;
    let uuid = uuid::Uuid::from_bytes(root.superblock().uuid);
    if as_json {
        let parts: serde_json::Map<_, _> = Part::ALL
            .into_iter()
            .map(|part| (part.name().to_owned(), json!(disk.extent(part))))
            .collect();
        let value = json!({
            "format": disk.format,
            "size": disk.size,
            "file_size": disk.file_len,
            "disk": disk.id.to_string(),
            "root": place,
            "uuid": uuid.to_string(),
            "root_hash": hash,
            "partitions": parts,
            "runs": record_json(&record),
        });
        println!("{value:#}");
        return Ok(exit::OK);
    }
    let line = |name: &str, value: &str| println!("{name:<8} {value}");
    line("image", &format!("{}, {}", path.display(), size::bytes(disk.file_len)));
    line("format", &format!("{}, a disk of {}", disk.format, size::bytes(disk.size)));
    for part in Part::ALL {
        let extent = disk.extent(part);
        let name = part.name().rsplit(' ').next().unwrap_or_default();
        line(name, &format!("{} at byte {}", size::bytes(extent.len), extent.start));
    }
    line("uuid", &uuid.to_string());
    line("hash", hash.as_deref().unwrap_or("none"));
    for (name, value) in runs(&record) {
        line(name, &value);
    }
    Ok(exit::OK)
}
