//! `dock2uni image`: looks into images.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde_json::json;

use super::args::{ImageArgs, ImageCommand};
use super::{Failure, exit, info, size};
use crate::browse::{self, Change, Entry, Image};
use crate::disk::Disk;

pub fn image(args: &ImageArgs) -> Result<u8, Failure> {
    match &args.command {
        ImageCommand::Info { file, json } => info::info(file, *json),
        ImageCommand::Ls { file, path, long, json } => ls(file, path, *long, *json),
        ImageCommand::Tree { file, path, json } => tree(file, path, *json),
        ImageCommand::Cat { file, paths } => cat(file, paths),
        ImageCommand::Cp { file, from, to, json } => cp(file, from, to, *json),
        ImageCommand::Diff { first, second, times, json } => diff(first, second, *times, *json),
        ImageCommand::Verify { file, json } => verify(file, *json),
        ImageCommand::Provenance { file } => provenance(file),
        ImageCommand::BootFiles { file, to } => boot_files(file, to),
        ImageCommand::Convert(args) => super::reformat::reformat(args),
    }
}

fn disk(file: &Path) -> Result<Disk, Failure> {
    Disk::open(file).map_err(|error| match error {
        crate::disk::Error::Io(source) => {
            Failure::io(format!("cannot read `{}`", file.display()), source)
        }
        other => other.into(),
    })
}

fn provenance(file: &Path) -> Result<u8, Failure> {
    let Some(statement) = disk(file)?.provenance()? else {
        let text = format!("`{}` does not say where it comes from", file.display());
        return Err(Failure::new(exit::NOT_FOUND, text, Some("convert the image again")));
    };
    print(format!("{statement:#}\n").as_bytes())?;
    Ok(exit::OK)
}

fn boot_files(file: &Path, to: &Path) -> Result<u8, Failure> {
    crate::artifact::boot_files(&disk(file)?, to)?;
    Ok(exit::OK)
}

/// Writes to standard output; a reader that has seen enough is no failure.
fn print(text: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::io("cannot write the output".into(), error))
        }
        _ => Ok(()),
    }
}

/// Control characters of names don't reach a terminal.
fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

fn ls(file: &Path, path: &OsStr, long: bool, as_json: bool) -> Result<u8, Failure> {
    let image = Image::open(file)?;
    let entries = image.list(path.as_bytes())?;
    let text = if as_json {
        format!("{:#}\n", json!(entries.iter().map(Entry::to_json).collect::<Vec<_>>()))
    } else if long {
        entries.iter().map(long_line).collect()
    } else {
        entries.iter().map(|entry| shown(&entry.path) + "\n").collect()
    };
    print(text.as_bytes())?;
    Ok(exit::OK)
}

fn long_line(entry: &Entry) -> String {
    let inode = &entry.node.inode;
    let size = match entry.device() {
        Some((major, minor)) => format!("{major}, {minor}"),
        None => inode.size.to_string(),
    };
    let target = entry.target.as_ref().map_or(String::new(), |to| format!(" -> {}", shown(to)));
    let time = httpdate::fmt_http_date(
        std::time::UNIX_EPOCH
            + std::time::Duration::from_secs(u64::try_from(entry.mtime).unwrap_or(0).min(1 << 37)),
    );
    format!(
        "{} {:>3} {:>5} {:>5} {size:>10} {} {}{target}\n",
        entry.permissions(),
        inode.nlink,
        inode.uid,
        inode.gid,
        &time[5..],
        shown(&entry.path),
    )
}

fn tree(file: &Path, path: &OsStr, as_json: bool) -> Result<u8, Failure> {
    let image = Image::open(file)?;
    let top = image.find(path.as_bytes())?;
    let mut text = String::new();
    let mut list = Vec::new();
    browse::walk(&image.root, &top, &mut |path, depth, node| {
        if as_json {
            list.push(image.entry_of(path, node)?.to_json());
            return Ok(());
        }
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let entry = image.entry_of(name, node)?;
        let end = match &entry.target {
            Some(target) => format!(" -> {}", shown(target)),
            None if node.is_dir() => "/".into(),
            None => String::new(),
        };
        text.push_str(&format!("{:width$}{}{end}\n", "", shown(name), width = 2 * depth));
        Ok(())
    })?;
    if as_json {
        text = format!("{:#}\n", json!(list));
    }
    print(text.as_bytes())?;
    Ok(exit::OK)
}

fn cat(file: &Path, paths: &[std::ffi::OsString]) -> Result<u8, Failure> {
    let image = Image::open(file)?;
    let mut out = std::io::stdout().lock();
    for path in paths {
        match image.cat(path.as_bytes(), &mut out) {
            Err(browse::Error::Output { source })
                if source.kind() == std::io::ErrorKind::BrokenPipe =>
            {
                break;
            }
            other => other?,
        };
    }
    // The same holds for what is still in the buffer.
    let _ = out.flush();
    Ok(exit::OK)
}

fn cp(file: &Path, from: &OsStr, to: &Path, as_json: bool) -> Result<u8, Failure> {
    let image = Image::open(file)?;
    if to == Path::new("-") {
        return cat(file, &[from.to_owned()]);
    }
    let copied = image.copy(from.as_bytes(), to)?;
    if as_json {
        print(format!("{:#}\n", json!(copied)).as_bytes())?;
    } else if copied.skipped > 0 {
        eprintln!("warning: {} devices, FIFOs or sockets were left out", copied.skipped);
    }
    Ok(exit::OK)
}

fn diff(first: &Path, second: &Path, times: bool, as_json: bool) -> Result<u8, Failure> {
    let (a, b) = (Image::open(first)?, Image::open(second)?);
    let found = browse::diff(&a, &b, times)?;
    let text: String = if as_json {
        format!("{:#}\n", json!(found))
    } else {
        let line = |difference: &browse::Difference| {
            let mark = match difference.change {
                Change::Added => '+',
                Change::Removed => '-',
                Change::Changed => '~',
            };
            let what = difference.what.join(", ");
            let what = if what.is_empty() { what } else { format!("  ({what})") };
            format!("{mark} {}{what}\n", shown(difference.path.as_bytes()))
        };
        found.iter().map(line).collect()
    };
    print(text.as_bytes())?;
    Ok(if found.is_empty() { exit::OK } else { exit::FAILURE })
}

fn verify(file: &Path, as_json: bool) -> Result<u8, Failure> {
    let image = Image::open(file)?;
    let checks = browse::verify(&image);
    let ok = checks.iter().all(|check| check.ok);
    if as_json {
        print(format!("{:#}\n", json!({ "ok": ok, "checks": checks })).as_bytes())?;
    } else {
        for check in &checks {
            let word = if check.ok { "ok" } else { "WRONG" };
            print(format!("{:<8} {word:<6} {}\n", check.name, check.detail).as_bytes())?;
        }
        let len = std::fs::metadata(file).map_or(0, |file| file.len());
        print(format!("{:<8} {} checked\n", "image", size::bytes(len)).as_bytes())?;
    }
    Ok(if ok { exit::OK } else { exit::CORRUPT })
}
