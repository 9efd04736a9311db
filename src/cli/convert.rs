//! `dock2uni convert`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use dock2uni_format::record::{Record, Syscalls};
use serde_json::json;

use super::args::{ConvertArgs, DiskArgs};
use super::progress::Display;
use super::target::{self, Target};
use super::trial::{self, Trier};
use super::{Failure, exit, inspect, size};
use crate::config::{self, Overrides};
use crate::convert::{self, DiskOptions, Made, Output, RootOptions};
use crate::disk::{Format, Place, Signer};
use crate::plan::slim::Slim;
use crate::sbom::Form;
use crate::source::{self, Image, Opener, Reference, Store};
use crate::{guest, provenance};

pub fn convert(args: &ConvertArgs) -> Result<u8, Failure> {
    let started = Instant::now();
    let target = Target::detect(&args.reference, &args.build)?;
    let mut overrides = args.container.overrides()?;
    if args.dry_run {
        let show = inspect::Show { json: args.json, all: false, quiet: args.quiet };
        return inspect::report(&target, &args.build, &args.source, &overrides, show);
    }
    let outputs = outputs(&args.disk, &target)?;
    let signer = signer(&args.disk)?;
    let trier = args.verify.then(|| Trier::new(&args.trial, &args.container, &outputs));
    let trier = trier.transpose()?;
    // Before anything is fetched.
    guest::kernel().map_err(convert::Error::from)?;
    let store = Store::open_default()?;
    let display = Display::new(args.quiet || args.json);
    let make = |image: &Image, open: Opener<'_>, overrides: &Overrides, slim: Option<&Slim>| {
        let selection = slim.map(|slim| &slim.selection);
        let options = DiskOptions {
            place: args.disk.root.map(Into::into),
            signer: signer.as_ref(),
            root: RootOptions {
                selection,
                open: Some(open),
                limits: target::limits(&args.source),
                compression: args.disk.compress,
                ..RootOptions::default()
            },
            inventory: !args.sbom.is_empty(),
            ..DiskOptions::default()
        };
        let bar = display.layers(image.layers.iter().map(|layer| layer.size).sum());
        let made =
            convert::disk_images(image, overrides, &outputs, &options, &|bytes| bar.inc(bytes));
        display.clear();
        made.map_err(|error| target::conversion_failed(error, image, &store))
    };
    let (image, made, slimmed) = if args.slim {
        let image = target::image(&target, &args.build, &args.source, &store, &display)?;
        args.container.complete(&mut overrides, &store, &image)?;
        display.clear();
        let quiet = args.quiet || args.json;
        let slimmed = trial::slim(args, &image, &overrides, &store, &display, quiet)?;
        let made = make(&image, &source::stored, &overrides, Some(&slimmed.slim))?;
        (image, made, Some(slimmed))
    } else {
        let (source, build) = (&args.source, &args.build);
        target::image_with(&target, build, source, &store, &display, &mut |image, open| {
            args.container.complete(&mut overrides, &store, image)?;
            Ok((image.clone(), make(image, open, &overrides, None)?, None))
        })?
    };
    if let Some(inventory) = &made.inventory {
        for path in &args.sbom {
            inventory.write(Form::of_path(path), path).map_err(cannot_write(path))?;
        }
    }
    if let Some(path) = &args.provenance {
        let uri = match &target {
            Target::Reference(Reference::Registry(name)) => Some(format!("docker://{name}")),
            _ => None,
        };
        provenance::write(&made, uri.as_deref(), path).map_err(cannot_write(path))?;
    }
    for warning in &made.warnings {
        display.say(&format!("warning: {warning}"));
    }
    let seconds = started.elapsed().as_secs_f64();
    if !args.json && !args.quiet {
        print!("{}", as_text(&image, &made, seconds));
        if let Some(slimmed) = &slimmed {
            print!("{}", trial::slim_text(&slimmed.slim));
        }
    }
    let trial = trier.map(|trier| trier.try_files(&made, &display)).transpose()?;
    if args.json {
        let mut value = as_json(&image, &made, seconds);
        if let Some(slimmed) = &slimmed {
            value["slim"] = json!(slimmed.slim);
        }
        if let Some(trial) = &trial {
            value["verified"] = trial::as_json(trial);
        }
        println!("{value:#}");
    } else if let Some(trial) = &trial {
        trial::print(trial, args.quiet);
    }
    Ok(match &trial {
        Some(trial) if trial.failure.is_some() => exit::UNVERIFIED,
        _ => exit::OK,
    })
}

fn cannot_write(path: &Path) -> impl FnOnce(std::io::Error) -> Failure {
    let what = format!("cannot write `{}`", path.display());
    move |error| Failure::io(what, error)
}

/// What is to be made, where.
fn outputs(args: &DiskArgs, target: &Target) -> Result<Vec<Output>, Failure> {
    let mut formats = args.format.clone();
    if formats.is_empty() {
        let named = args.output.as_deref().and_then(Format::of_path);
        formats.push(named.unwrap_or(Format::Raw));
    }
    let mut seen = std::collections::BTreeSet::new();
    formats.retain(|format| seen.insert(*format));
    if let (Some(path), [format]) = (&args.output, formats.as_slice()) {
        return Ok(vec![Output { format: *format, path: path.clone() }]);
    }
    let stem = match &args.output {
        Some(path) => stem(path),
        None => target::default_stem(target)?,
    };
    let path = |format: Format| {
        let mut path = stem.clone().into_os_string();
        path.push(".");
        path.push(format.extension());
        PathBuf::from(path)
    };
    Ok(formats.into_iter().map(|format| Output { format, path: path(format) }).collect())
}

/// A path without the extension of a format.
fn stem(path: &Path) -> PathBuf {
    let Some(format) = Format::of_path(path) else { return path.to_owned() };
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let extension = format.extension().len() + 1;
    // `app.raw` is raw, too, and has as long an extension.
    path.with_file_name(&name[..name.len().saturating_sub(extension)])
}

/// Key and certificate, if the loader is to be signed.
fn signer(args: &DiskArgs) -> Result<Option<Signer>, Failure> {
    match (&args.secure_boot_key, &args.secure_boot_cert) {
        (Some(key), Some(certificate)) => Ok(Some(Signer::load(key, certificate)?)),
        _ => Ok(None),
    }
}

fn as_text(image: &Image, made: &Made, seconds: f64) -> String {
    let kernel = guest::kernel().map_or(0, <[u8]>::len) as u64;
    let layers: u64 = image.layers.iter().map(|layer| layer.size).sum();
    let mut text = String::new();
    let mut line = |name: &str, value: String| text.push_str(&format!("{name:<8} {value}\n"));
    line("image", image.name.clone());
    line("digest", image.manifest.to_string());
    line("layers", format!("{}, {} compressed", image.layers.len(), size::bytes(layers)));
    line(
        "root",
        format!(
            "{}: {} files, {} directories, {} links",
            size::bytes(made.root_len),
            made.stats.files,
            made.stats.directories,
            made.stats.symlinks
        ),
    );
    line("kernel", size::bytes(kernel));
    for (name, value) in runs(&made.record) {
        line(name, value);
    }
    for file in &made.files {
        line("output", format!("{} ({})", file.path.display(), size::bytes(file.len)));
    }
    if made.files.iter().any(|file| file.place == Place::Memory) {
        let need = size::bytes(made.root_len);
        line("memory", format!("the boot code loads the root into it: {need} beside what runs"));
    }
    line("took", format!("{seconds:.1} s"));
    text
}

/// What an image runs, in words.
pub fn runs(record: &Record) -> Vec<(&'static str, String)> {
    let argv = record.argv.iter().map(|arg| String::from_utf8_lossy(arg).into_owned().into());
    let user = &record.user;
    let mut lines = vec![
        ("runs", crate::vmm::arguments::shell(argv)),
        ("in", String::from_utf8_lossy(&record.cwd).into_owned()),
        ("as", format!("user {}, group {}", user.uid, user.gid)),
    ];
    if !record.ports.is_empty() {
        let ports: Vec<String> = record.ports.iter().map(port).collect();
        lines.push(("exposes", ports.join(", ")));
    }
    if !record.volumes.is_empty() {
        let volumes = record.volumes.iter().map(|path| String::from_utf8_lossy(path));
        lines.push(("volumes", volumes.collect::<Vec<_>>().join(", ")));
    }
    if let Syscalls::Only(calls) = &record.syscalls {
        lines.push(("calls", format!("{} system calls, and no others", calls.len())));
    }
    let signal = crate::config::signal_name(record.stop_signal);
    lines.push(("stops", format!("by {signal}, within {} s", record.stop_grace_secs)));
    lines
}

fn port(port: &dock2uni_format::record::Port) -> String {
    format!("{}/{}", port.port, format!("{:?}", port.proto).to_lowercase())
}

fn as_json(image: &Image, made: &Made, seconds: f64) -> serde_json::Value {
    let absolute = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let files: Vec<_> = made
        .files
        .iter()
        .map(|file| {
            json!({
                "path": absolute(&file.path),
                "format": file.format,
                "size": file.len,
                "disk_size": file.disk_size,
                "root": file.place,
            })
        })
        .collect();
    // There is one at least.
    let first = files.first().cloned().unwrap_or_default();
    json!({
        "image": image.name,
        "digest": image.manifest.to_string(),
        "config": image.config_digest.to_string(),
        "layers": image.layers.iter().map(|layer| json!({
            "digest": layer.digest.to_string(),
            "size": layer.size,
        })).collect::<Vec<_>>(),
        "output": first["path"],
        "size": first["size"],
        "files": files,
        "root": {
            "size": made.root_len,
            "files": made.stats.files,
            "directories": made.stats.directories,
            "symlinks": made.stats.symlinks,
        },
        "kernel_size": guest::kernel().map_or(0, <[u8]>::len),
        "seconds": seconds,
        "warnings": made.warnings,
        "runs": record_json(&made.record),
    })
}

/// A boot record as JSON; bytes that are not UTF-8 are replaced.
pub fn record_json(record: &Record) -> serde_json::Value {
    let texts = |list: &[Vec<u8>]| -> Vec<String> {
        list.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect()
    };
    let (v4, v6) = config::described_network(&record.net);
    json!({
        "argv": texts(&record.argv),
        "env": texts(&record.env),
        "cwd": String::from_utf8_lossy(&record.cwd),
        "user": {
            "uid": record.user.uid,
            "gid": record.user.gid,
            "groups": record.user.groups,
        },
        "hostname": record.hostname,
        "network": { "ipv4": v4, "ipv6": v6, "dns": record.net.dns, "search": record.net.search },
        "stop_signal": record.stop_signal,
        "stop_timeout": record.stop_grace_secs,
        "ports": record.ports.iter().map(port).collect::<Vec<_>>(),
        "volumes": texts(&record.volumes),
        "labels": record.labels.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        "syscalls": match &record.syscalls {
            Syscalls::Only(calls) => json!(calls.iter().map(|call| {
                dock2uni_format::syscalls::name((*call).into()).unwrap_or("?")
            }).collect::<Vec<_>>()),
            _ => json!(null),
        },
        "healthcheck": record.healthcheck.as_ref().map(|check| texts(&check.argv)),
        "check_root": record.check_root,
        "ulimits": record.limits.iter().map(crate::config::limit_text).collect::<Vec<_>>(),
        "sysctls": record.settings.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
    })
}
