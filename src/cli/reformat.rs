//! `dock2uni image convert`: the same disk in a file of another format.

use serde_json::json;

use super::args::ReformatArgs;
use super::{Failure, exit, size};
use crate::convert;
use crate::disk::{Disk, Format};

pub fn reformat(args: &ReformatArgs) -> Result<u8, Failure> {
    let format = args.format.or_else(|| Format::of_path(&args.output)).ok_or_else(|| {
        Failure::new(
            exit::USAGE,
            format!(
                "`{}` does not say by its name which format it is to have",
                args.output.display()
            ),
            Some("name the format with `--format`"),
        )
    })?;
    let disk = Disk::open(&args.file).map_err(|error| match error {
        crate::disk::Error::Io(source) => {
            Failure::io(format!("cannot read `{}`", args.file.display()), source)
        }
        other => other.into(),
    })?;
    let made = convert::reformat(&disk, format, &args.output)?;
    if args.json {
        let value = json!({
            "path": made.path, "format": made.format, "size": made.len,
            "disk_size": made.disk_size, "root": made.place,
        });
        println!("{value:#}");
    } else if !args.quiet {
        println!("output   {} ({})", made.path.display(), size::bytes(made.len));
    }
    Ok(exit::OK)
}
