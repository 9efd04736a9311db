//! Reading OCI layouts, as far as the benchmark's own images need it, and a registry.

pub mod registry;

use std::{fs, path::Path, process::ExitCode, time::Duration};

use dock2uni::source::image::{Compression, Digest, Layer};
use serde_json::Value;

/// Any error, as a text for a person.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Ends a program: says what went wrong, if anything did.
pub fn end(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Ticks of `/proc/*/stat` in a second: fixed by Linux's ABI.
const TICKS: u64 = 100;

/// The layers of the first image in a layout, lowest first.
pub fn layers(layout: &Path) -> Result<Vec<Layer>> {
    let index = json(&layout.join("index.json"))?;
    let manifest = json(&blob(layout, &index["manifests"][0]["digest"])?)?;
    let config = json(&blob(layout, &manifest["config"]["digest"])?)?;
    let diff_ids = config["rootfs"]["diff_ids"].as_array().ok_or("no diff IDs")?;
    let descriptors = manifest["layers"].as_array().ok_or("no layers")?;
    let mut layers = Vec::new();
    for (descriptor, diff_id) in descriptors.iter().zip(diff_ids) {
        let media_type = descriptor["mediaType"].as_str().unwrap_or_default();
        layers.push(Layer {
            digest: digest(&descriptor["digest"])?,
            size: descriptor["size"].as_u64().ok_or("no size")?,
            diff_id: digest(diff_id)?,
            compression: match media_type.rsplit(['.', '+']).next() {
                Some("gzip") => Compression::Gzip,
                Some("zstd") => Compression::Zstd,
                _ => Compression::None,
            },
            path: blob(layout, &descriptor["digest"])?,
        });
    }
    Ok(layers)
}

fn json(path: &Path) -> Result<Value> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

fn blob(layout: &Path, digest: &Value) -> Result<std::path::PathBuf> {
    let digest = digest.as_str().ok_or("no digest")?;
    Ok(layout.join("blobs").join(digest.replace(':', "/")))
}

fn digest(text: &Value) -> Result<Digest> {
    Ok(text.as_str().ok_or("no digest")?.parse()?)
}

/// CPU time of all children waited for so far.
pub fn children_cpu() -> Result<Duration> {
    // cutime and cstime are fields 16 and 17.
    times("/proc/self/stat", 13)
}

/// CPU time that a running process has used.
pub fn process_cpu(pid: u32) -> Result<Duration> {
    // utime and stime are fields 14 and 15.
    times(&format!("/proc/{pid}/stat"), 11)
}

/// The sum of two fields after the name in parentheses, `skip` fields behind it.
fn times(path: &str, skip: usize) -> Result<Duration> {
    let stat = fs::read_to_string(path)?;
    let rest = stat.rsplit(')').next().unwrap_or_default();
    sum(rest.split_whitespace().skip(skip).take(2))
}

/// CPU time that the machine has spent on anything since it started.
pub fn machine_cpu() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/stat")?;
    // All processors: user, nice, system, idle, iowait, irq, softirq.
    let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1).take(7);
    sum(fields.enumerate().filter(|(index, _)| !matches!(index, 3 | 4)).map(|(_, field)| field))
}

fn sum<'a>(ticks: impl Iterator<Item = &'a str>) -> Result<Duration> {
    let ticks = ticks.map(str::parse::<u64>).sum::<std::result::Result<u64, _>>()?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS))
}
