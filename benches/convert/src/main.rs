//! `bench-convert [--image NAME] [--runs N]`: one image from one registry through both pipelines,
//! in turn, CPU and wall time and peak memory of each. See README.md.

mod floor;
mod measure;

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use bench_convert::Result;
use bench_convert::registry::Registry;
use floor::{Blobs, Floor};
use measure::{Cost, Measure as _};

struct Args {
    image: String,
    runs: usize,
    dock2uni: PathBuf,
}

fn main() -> ExitCode {
    match args().and_then(|args| run(&args)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("the targets were not reached");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn args() -> Result<Args> {
    let beside = std::env::current_exe()?.with_file_name("dock2uni");
    let mut args = Args { image: "nginx".to_owned(), runs: 5, dock2uni: beside };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--image" => args.image = value()?,
            "--runs" => args.runs = value()?.parse()?,
            "--dock2uni" => args.dock2uni = value()?.into(),
            _ => {
                return Err(
                    "usage: bench-convert [--image NAME] [--runs N] [--dock2uni FILE]".into()
                );
            }
        }
    }
    if !args.dock2uni.exists() {
        return Err("build dock2uni first: cargo build --release".into());
    }
    Ok(args)
}

/// Runs everything; true if the targets were reached.
fn run(args: &Args) -> Result<bool> {
    let layout = test_images::build(&args.image)?;
    let work = std::env::temp_dir().join(format!("bench-convert-{}", std::process::id()));
    fs::create_dir_all(&work)?;
    let result = compare(args, &layout, &work);
    fs::remove_dir_all(&work)?;
    result
}

fn compare(args: &Args, layout: &Path, work: &Path) -> Result<bool> {
    let registry = Registry::start(work)?;
    let reference = format!("{}/{}:latest", registry.address, args.image);
    let copy = Command::new("skopeo")
        .args(["copy", "-q", "--dest-tls-verify=false"])
        .arg(format!("oci:{}:latest", layout.display()))
        .arg(format!("docker://{reference}"))
        .status()?;
    if !copy.success() {
        return Err("skopeo cannot push the image".into());
    }
    let blobs = Blobs::read(&bench_convert::layers(layout)?)?;
    let mut best: [Option<Vec<Cost>>; 2] = [None, None];
    let mut floor: Option<Floor> = None;
    let mut served = Duration::ZERO;
    let image = work.join("image.img");
    for round in 0..args.runs {
        // In turn, so that both see the machine in the same moods.
        for (side, best) in best.iter_mut().enumerate() {
            let dir = work.join(format!("run{side}"));
            fs::create_dir_all(&dir)?;
            let costs = match side {
                0 => peers(&reference, &dir)?,
                _ => {
                    let before = registry.cpu()?;
                    let ours = ours(&args.dock2uni, &reference, &dir)?;
                    served += registry.cpu()? - before;
                    vec![ours]
                }
            };
            if side == 1 {
                fs::rename(dir.join("out.img"), &image)?;
            }
            fs::remove_dir_all(&dir)?;
            eprintln!("round {}: {}", round + 1, total(&costs));
            if best.as_ref().is_none_or(|best| total(&costs).wall < total(best).wall) {
                *best = Some(costs);
            }
        }
        // In turn as well, and with the same machine.
        let now = Floor::measure(&blobs, &image)?;
        floor = Some(floor.map_or(now, |before| before.min(now)));
    }
    let ([Some(peers), Some(ours)], Some(floor)) = (best, floor) else {
        return Err("--runs is 0".into());
    };
    let again = warm(args, &reference, work)?;
    let served = served / args.runs as u32;
    let reached = report(&peers, &total(&ours), &again, &floor);
    println!(
        "meanwhile the registry took {:.2} s of CPU time (mean), and all there was on the machine, ours \
         included, {:.2} s",
        served.as_secs_f64(),
        total(&ours).busy.as_secs_f64(),
    );
    Ok(reached)
}

/// The same image once more with a store that has its layers: what a second image costs that shares
/// them all.
fn warm(args: &Args, reference: &str, work: &Path) -> Result<Cost> {
    let dir = work.join("warm");
    fs::create_dir_all(&dir)?;
    ours(&args.dock2uni, reference, &dir)?;
    let mut best: Option<Cost> = None;
    for _ in 0..args.runs {
        let cost = ours(&args.dock2uni, reference, &dir)?;
        if best.is_none_or(|best| cost.wall < best.wall) {
            best = Some(cost);
        }
    }
    fs::remove_dir_all(&dir)?;
    best.ok_or_else(|| "--runs is 0".into())
}

/// The three steps by the tools that there are.
fn peers(reference: &str, dir: &Path) -> Result<Vec<Cost>> {
    let oci = OsString::from(format!("oci:{}:latest", dir.join("oci").display()));
    let copy = Command::new("skopeo")
        .args(["copy", "-q", "--src-tls-verify=false"])
        .arg(format!("docker://{reference}"))
        .arg(oci)
        .measure("skopeo copy")?;
    let unpack = Command::new("umoci")
        .args(["unpack", "--image"])
        .arg(format!("{}:latest", dir.join("oci").display()))
        .arg(dir.join("bundle"))
        .measure("umoci unpack")?;
    let make = Command::new("mkfs.erofs")
        .arg("--quiet")
        .arg(dir.join("root.erofs"))
        .arg(dir.join("bundle/rootfs"))
        .measure("mkfs.erofs")?;
    Ok(vec![copy, unpack, make])
}

/// All of it by us, the bootable image included, from an empty store.
fn ours(dock2uni: &Path, reference: &str, dir: &Path) -> Result<Cost> {
    Command::new(dock2uni)
        .args(["convert", "--quiet", reference, "--output"])
        .arg(dir.join("out.img"))
        .env("DOCK2UNI_STORE", dir.join("store"))
        .measure("dock2uni convert")
}

fn total(costs: &[Cost]) -> Cost {
    Cost {
        name: "together",
        cpu: costs.iter().map(|cost| cost.cpu).sum(),
        wall: costs.iter().map(|cost| cost.wall).sum(),
        peak: costs.iter().map(|cost| cost.peak).max().unwrap_or(0),
        busy: costs.iter().map(|cost| cost.busy).sum(),
    }
}

/// Prints a table and tells whether the targets were reached.
fn report(peers: &[Cost], ours: &Cost, again: &Cost, floor: &Floor) -> bool {
    let all = total(peers);
    println!("| | CPU s | wall s | peak MiB |\n|---|---|---|---|");
    let own = [
        Cost { name: "dock2uni convert", ..*ours },
        Cost { name: "dock2uni convert, layers in the store", ..*again },
    ];
    for cost in peers.iter().chain([&all]).chain(&own) {
        let (cpu, wall) = (cost.cpu.as_secs_f64(), cost.wall.as_secs_f64());
        println!("| {} | {cpu:.2} | {wall:.2} | {} |", cost.name, cost.peak >> 20);
    }
    let cpu = ours.cpu.as_secs_f64() / all.cpu.as_secs_f64();
    let wall = ours.wall.as_secs_f64() / all.wall.as_secs_f64();
    println!("\nCPU {cpu:.2} of theirs, wall {wall:.2} of theirs");
    let ratio = ours.wall.as_secs_f64() / floor.least().as_secs_f64();
    println!(
        "floor {:.2} s (slowest layer {:.2}, all layers on all processors {:.2}, writing {:.2}); \
         dock2uni convert takes {ratio:.2} times that, {:.2} with the layers in the store",
        floor.least().as_secs_f64(),
        floor.slowest.as_secs_f64(),
        floor.all.as_secs_f64(),
        floor.writing.as_secs_f64(),
        again.wall.as_secs_f64() / floor.least().as_secs_f64(),
    );
    cpu <= 0.25 && wall <= 0.25 && ratio <= 1.3 && ours.peak < 200 << 20
}
