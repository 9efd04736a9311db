//! `bench-fleet [--references N] [--images N] [--jobs N] [--dock2uni FILE]`: a registry with many
//! references to few images, converted by `dock2uni fleet convert`: from nothing, killed and taken up
//! again, once more when all is there; and by `dock2uni convert`, one image after the other. See
//! README.md.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use bench_convert::Result;
use bench_convert::registry::Registry;
use serde_json::Value;

/// Images of other sizes and shapes than these make no difference worth their time.
const LEFT_OUT: [&str; 3] = ["hello-static", "hello-dynamic", "alpine-like"];

struct Args {
    references: usize,
    images: usize,
    jobs: usize,
    dock2uni: PathBuf,
}

fn main() -> ExitCode {
    match args().and_then(|args| run(&args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn args() -> Result<Args> {
    let beside = std::env::current_exe()?.with_file_name("dock2uni");
    let mut args = Args { references: 200, images: 20, jobs: 2, dock2uni: beside };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--references" => args.references = value()?.parse()?,
            "--images" => args.images = value()?.parse()?,
            "--jobs" => args.jobs = value()?.parse()?,
            "--dock2uni" => args.dock2uni = value()?.into(),
            _ => {
                return Err("usage: bench-fleet [--references N] [--images N] [--jobs N] \
                            [--dock2uni FILE]"
                    .into());
            }
        }
    }
    if !args.dock2uni.exists() {
        return Err("build dock2uni first: cargo build --release".into());
    }
    Ok(args)
}

fn run(args: &Args) -> Result<()> {
    let work = std::env::temp_dir().join(format!("bench-fleet-{}", std::process::id()));
    fs::create_dir_all(&work)?;
    let result = compare(args, &work);
    fs::remove_dir_all(&work)?;
    result
}

fn compare(args: &Args, work: &Path) -> Result<()> {
    let registry = Registry::start(work)?;
    let names: Vec<&str> = test_images::images()
        .map(|(name, _)| name)
        .filter(|name| !LEFT_OUT.contains(name))
        .take(args.images)
        .collect();
    let mut layers = std::collections::BTreeMap::new();
    let mut bytes = 0;
    for name in &names {
        let layout = test_images::build(name)?;
        push(&registry, &layout, name)?;
        for (digest, size) in layers_of(&layout)? {
            bytes += size;
            layers.insert(digest, size);
        }
    }
    let references: Vec<String> = (0..args.references)
        .map(|nth| format!("{}/{}:latest", registry.address, names[nth % names.len()]))
        .collect();
    // A list has each reference once, so the others are services of a Compose file.
    let services: Vec<String> = references
        .iter()
        .enumerate()
        .map(|(nth, reference)| format!("  s{nth}: {{image: '{reference}'}}\n"))
        .collect();
    fs::write(work.join("compose.yaml"), format!("services:\n{}", services.concat()))?;

    let (alone, _) = timed(|| {
        for name in &names {
            let reference = format!("{}/{name}:latest", registry.address);
            let status = Command::new(&args.dock2uni)
                .args(["convert", "--quiet", &reference, "--output"])
                .arg(work.join("one.img"))
                .env("DOCK2UNI_STORE", work.join("store-alone"))
                .status()?;
            if !status.success() {
                return Err(format!("{name} cannot be converted").into());
            }
        }
        Ok(())
    })?;
    fs::remove_dir_all(work.join("store-alone"))?;

    let (whole, report) = timed(|| fleet(args, work, "whole"))?;
    let (again, _) = timed(|| fleet(args, work, "whole"))?;
    fs::remove_dir_all(work.join("whole"))?;
    fs::remove_dir_all(work.join("whole-store"))?;

    let mut kills = 0;
    let (killed, resumed) = timed(|| {
        loop {
            let mut child = command(args, work, "killed").stdout(Stdio::null()).spawn()?;
            std::thread::sleep(whole / 5);
            if kills < 10 && child.try_wait()?.is_none() {
                child.kill()?;
                child.wait()?;
                kills += 1;
            } else {
                child.wait()?;
                return fleet(args, work, "killed");
            }
        }
    })?;
    let count = |report: &Value, key: &str| report[key].as_u64().unwrap_or_default();
    let seconds = |time: Duration| format!("{:.1}", time.as_secs_f64());
    println!(
        "{} references to {} images; layers of {} MB, {} MB of them distinct; disks of {} MB\n",
        references.len(),
        names.len(),
        bytes / 1_000_000,
        layers.values().sum::<u64>() / 1_000_000,
        count(&report, "bytes") / 1_000_000,
    );
    println!("| | seconds | made | reused |\n|---|---|---|---|");
    println!(
        "| `convert`, {} images one by one | {} | {} | |",
        names.len(),
        seconds(alone),
        names.len()
    );
    for (what, time, report) in [
        ("`fleet convert`, from nothing".to_owned(), whole, &report),
        (format!("the same, killed {kills} times"), killed, &resumed),
    ] {
        let (made, reused) = (count(report, "made"), count(report, "reused"));
        println!("| {what} | {} | {made} | {reused} |", seconds(time));
    }
    println!(
        "| `fleet convert` when all is there | {} | 0 | {} |",
        seconds(again),
        references.len()
    );
    let failed = count(&report, "failed") + count(&resumed, "failed");
    if failed > 0 {
        return Err(format!("{failed} conversions failed").into());
    }
    Ok(())
}

fn timed<T>(body: impl FnOnce() -> Result<T>) -> Result<(Duration, T)> {
    let started = Instant::now();
    let value = body()?;
    Ok((started.elapsed(), value))
}

fn command(args: &Args, work: &Path, name: &str) -> Command {
    let mut command = Command::new(&args.dock2uni);
    command
        .args([
            "fleet",
            "convert",
            "--json",
            "compose.yaml",
            "--jobs",
            &args.jobs.to_string(),
            "-o",
        ])
        .arg(work.join(name))
        .current_dir(work)
        .env("DOCK2UNI_STORE", work.join(format!("{name}-store")));
    command
}

fn fleet(args: &Args, work: &Path, name: &str) -> Result<Value> {
    let output = command(args, work, name).output()?;
    Ok(serde_json::from_slice(&output.stdout)
        .map_err(|_| String::from_utf8_lossy(&output.stderr).into_owned())?)
}

fn push(registry: &Registry, layout: &Path, name: &str) -> Result<()> {
    let copy = Command::new("skopeo")
        .args(["copy", "-q", "--dest-tls-verify=false"])
        .arg(format!("oci:{}:latest", layout.display()))
        .arg(format!("docker://{}/{name}:latest", registry.address))
        .status()?;
    if copy.success() { Ok(()) } else { Err("skopeo cannot push the image".into()) }
}

/// Digest and size of each layer of a layout's image.
fn layers_of(layout: &Path) -> Result<Vec<(String, u64)>> {
    let read = |path: PathBuf| -> Result<Value> { Ok(serde_json::from_slice(&fs::read(path)?)?) };
    let index = read(layout.join("index.json"))?;
    let digest = index["manifests"][0]["digest"].as_str().unwrap_or_default();
    let manifest = read(layout.join("blobs").join(digest.replace(':', "/")))?;
    let layers = manifest["layers"].as_array().into_iter().flatten();
    Ok(layers
        .map(|layer| {
            let digest = layer["digest"].as_str().unwrap_or_default().to_owned();
            (digest, layer["size"].as_u64().unwrap_or_default())
        })
        .collect())
}
