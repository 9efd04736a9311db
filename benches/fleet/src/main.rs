//! `bench-fleet [--references N] [--images N] [--jobs N] [--seed N] [--dock2uni FILE]`: a registry with
//! many references to few images, converted by `dock2uni convert`, one reference after the other, and by
//! `dock2uni fleet convert`: from nothing, once more when all is there, killed and taken up again. Fails
//! if the runs do not make the same disks, to the byte. See README.md.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use bench_convert::registry::Registry;
use bench_convert::{Result, children_cpu};
use serde_json::Value;

/// Images of other sizes and shapes than these make no difference worth their time.
const LEFT_OUT: [&str; 3] = ["hello-static", "hello-dynamic", "alpine-like"];

struct Args {
    references: usize,
    images: usize,
    jobs: usize,
    seed: u64,
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
    let mut args = Args { references: 200, images: 20, jobs: 2, seed: 1, dock2uni: beside };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--references" => args.references = value()?.parse()?,
            "--images" => args.images = value()?.parse()?,
            "--jobs" => args.jobs = value()?.parse()?,
            "--seed" => args.seed = value()?.parse()?,
            "--dock2uni" => args.dock2uni = value()?.into(),
            _ => {
                return Err("usage: bench-fleet [--references N] [--images N] [--jobs N] \
                            [--seed N] [--dock2uni FILE]"
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

    // The first of them are one of each image: what a fleet has to convert at least.
    let (mut once, mut alone) = (Cost::default(), Cost::default());
    for (nth, reference) in references.iter().enumerate() {
        let (cost, ()) = measured(|| one(args, work, reference))?;
        alone += cost;
        if nth < names.len() {
            once += cost;
        }
    }
    fs::remove_dir_all(work.join("store-alone"))?;

    let (whole, report) = measured(|| fleet(args, work, "whole"))?;
    let (again, _) = measured(|| fleet(args, work, "whole"))?;
    fs::remove_dir_all(work.join("whole-store"))?;
    let (killed, (kills, resumed)) = measured(|| with_kills(args, work, whole.wall))?;
    let same = same_disks(&work.join("whole/disks"), &work.join("killed/disks"))?;

    let count = |report: &Value, key: &str| report[key].as_u64().unwrap_or_default();
    println!(
        "{} references to {} images; layers of {} MB, {} MB of them distinct; disks of {} MB; {} at \
         once\n",
        references.len(),
        names.len(),
        bytes / 1_000_000,
        layers.values().sum::<u64>() / 1_000_000,
        count(&report, "bytes") / 1_000_000,
        args.jobs,
    );
    println!("| | wall s | CPU s | made | reused |\n|---|---|---|---|---|");
    let row = |what: String, cost: Cost, made: u64, reused: u64| {
        let (wall, cpu) = (cost.wall.as_secs_f64(), cost.cpu.as_secs_f64());
        println!("| {what} | {wall:.1} | {cpu:.1} | {made} | {reused} |");
    };
    let (images, all) = (names.len() as u64, references.len() as u64);
    row(format!("`convert`, {images} images, each once"), once, images, 0);
    row(format!("`convert`, {all} references, one by one"), alone, all, 0);
    let (made, reused) = (count(&report, "made"), count(&report, "reused"));
    row("`fleet convert`, from nothing".into(), whole, made, reused);
    row("`fleet convert` when all is there".into(), again, 0, all);
    let (made, reused) = (count(&resumed, "made"), count(&resumed, "reused"));
    row(format!("`fleet convert`, killed {kills} times and taken up"), killed, made, reused);
    println!(
        "\nOne by one takes {:.1} times the wall time of the fleet and {:.1} times its CPU time. {same} \
         disks are the same to the byte after the kills.",
        alone.wall.as_secs_f64() / whole.wall.as_secs_f64(),
        alone.cpu.as_secs_f64() / whole.cpu.as_secs_f64(),
    );
    let failed = count(&report, "failed") + count(&resumed, "failed");
    if failed > 0 {
        return Err(format!("{failed} conversions failed").into());
    }
    Ok(())
}

/// Converts one reference as somebody does who has no fleet.
fn one(args: &Args, work: &Path, reference: &str) -> Result<()> {
    let out = work.join("one.img");
    let status = Command::new(&args.dock2uni)
        .args(["convert", "--quiet", reference, "--output"])
        .arg(&out)
        .env("DOCK2UNI_STORE", work.join("store-alone"))
        .status()?;
    if !status.success() {
        return Err(format!("{reference} cannot be converted").into());
    }
    Ok(fs::remove_file(&out)?)
}

/// Converts the fleet, killed at up to ten moments that follow from the seed. Returns how many of them
/// found it running, and the report of the run that came to its end.
fn with_kills(args: &Args, work: &Path, whole: Duration) -> Result<(u32, Value)> {
    let mut kills = 0;
    // xorshift64 (Marsaglia).
    let mut state = args.seed | 1;
    for _ in 0..10 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let moment = whole.mul_f64(0.02 + 0.28 * (state % 1000) as f64 / 1000.0);
        let mut child = command(args, work, "killed").stdout(Stdio::null()).spawn()?;
        std::thread::sleep(moment);
        let running = child.try_wait()?.is_none();
        child.kill()?;
        child.wait()?;
        if !running {
            break;
        }
        kills += 1;
    }
    Ok((kills, fleet(args, work, "killed")?))
}

/// How many disks two directories have, if those are the same and nothing else is there.
fn same_disks(one: &Path, other: &Path) -> Result<usize> {
    let list = |dir: &Path| -> Result<Vec<std::ffi::OsString>> {
        let mut names = fs::read_dir(dir)?
            .map(|entry| Ok(entry?.file_name()))
            .collect::<std::io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    };
    let names = list(one)?;
    if names != list(other)? {
        return Err("the runs have made other disks".into());
    }
    for name in &names {
        let same =
            Command::new("cmp").arg("-s").arg(one.join(name)).arg(other.join(name)).status()?;
        if !same.success() {
            return Err(format!("{} is another after kills", name.to_string_lossy()).into());
        }
    }
    Ok(names.len())
}

/// What something has cost.
#[derive(Clone, Copy, Default)]
struct Cost {
    wall: Duration,
    cpu: Duration,
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, other: Cost) {
        self.wall += other.wall;
        self.cpu += other.cpu;
    }
}

fn measured<T>(body: impl FnOnce() -> Result<T>) -> Result<(Cost, T)> {
    let (started, before) = (Instant::now(), children_cpu()?);
    let value = body()?;
    Ok((Cost { wall: started.elapsed(), cpu: children_cpu()? - before }, value))
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
