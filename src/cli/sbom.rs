//! `dock2uni sbom`.

use std::fs::File;
use std::io::Write as _;

use super::args::SbomArgs;
use super::progress::Display;
use super::target::Target;
use super::{Failure, exit, roots};
use crate::browse;
use crate::sbom::{Form, Inventory, Subject};
use crate::source::Store;

pub fn sbom(args: &SbomArgs) -> Result<u8, Failure> {
    let inventory = inventory(args)?;
    let form = match (args.format, &args.output) {
        (Some(form), _) => form.into(),
        (None, Some(path)) => Form::of_path(path),
        (None, None) => Form::CycloneDx,
    };
    if let Some(path) = &args.output {
        let failed = |error| Failure::io(format!("cannot write `{}`", path.display()), error);
        inventory.write(form, path).map_err(failed)?;
        return Ok(exit::OK);
    }
    match std::io::stdout().write_all(inventory.to_text(form).as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::io("cannot write the output".into(), error))
        }
        _ => Ok(exit::OK),
    }
}

fn inventory(args: &SbomArgs) -> Result<Inventory, Failure> {
    let target = Target::detect(&args.reference, &args.build)?;
    if let Target::Disk(path) | Target::Root(path) = &target {
        return Ok(browse::Image::open(path)?.inventory()?);
    }
    let store = Store::open_default()?;
    let display = Display::new(args.quiet);
    let (image, root) = roots::resolve(&target, &args.build, &args.source, &store, &display)?;
    display.clear();
    let file = File::open(&root)
        .map_err(|error| Failure::io(format!("cannot read `{}`", root.display()), error))?;
    let inventory = Inventory::read(&file, 0, Subject::of_image(&image));
    Ok(inventory.map_err(crate::convert::Error::from)?)
}
