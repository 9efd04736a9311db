//! `layout-root LAYOUT|IMAGE OUT`: the root image of an OCI layout, or of a test image by name.

use std::{fs::File, path::PathBuf, process::ExitCode, time::Instant};

use bench_convert::{Result, end, layers};
use dock2uni::rootfs;

fn main() -> ExitCode {
    end(run())
}

fn run() -> Result<()> {
    let mut args = std::env::args_os().skip(1);
    let (Some(image), Some(out), None) = (args.next(), args.next(), args.next()) else {
        return Err("usage: layout-root LAYOUT|IMAGE OUT".into());
    };
    let mut layout = PathBuf::from(&image);
    if !layout.join("index.json").exists() {
        layout = test_images::build(&image.to_string_lossy())?;
    }
    let layers = layers(&layout)?;
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&out)?;
    let started = Instant::now();
    let root = rootfs::build(&layers, &rootfs::Options::default(), &file, 0, &|_| {})?;
    for warning in &root.warnings {
        eprintln!("warning: {warning}");
    }
    println!("{} bytes in {:.2?}: {:?}", root.len, started.elapsed(), root.stats);
    Ok(())
}
