//! `compressed [IMAGE...]`: roots of test images as they are and compressed: sizes, and the time that
//! writing takes. `mkfs.erofs`, if it is installed, compresses the same tree for comparison.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use bench_convert::{Result, end, layers};
use dock2uni::erofs::{Compression, Reader};
use dock2uni::rootfs::{self, Options};

/// Rounds of each; the fastest counts.
const ROUNDS: usize = 3;

fn main() -> ExitCode {
    end(run())
}

fn run() -> Result<()> {
    let mut names: Vec<String> = std::env::args().skip(1).collect();
    if names.is_empty() {
        names = test_images::images().map(|(name, _)| name.to_owned()).collect();
    }
    println!("| image | MiB | s | MiB, lz4 | s | of it | mkfs.erofs, MiB |");
    println!("|---|---|---|---|---|---|---|");
    let desk = tempfile::tempdir()?;
    for name in names {
        let layout = match test_images::build(&name) {
            Ok(layout) => layout,
            Err(error) => {
                eprintln!("{name}: {error}");
                continue;
            }
        };
        let out = desk.path().join("root");
        let (plain, plain_time) = best(&layout, None, &out)?;
        let theirs = theirs(&out, desk.path())?.map_or("-".into(), mib);
        let (packed, packed_time) = best(&layout, Some(Compression::Lz4), &out)?;
        println!(
            "| {name} | {} | {:.2} | {} | {:.2} | {} % | {theirs} |",
            mib(plain),
            plain_time.as_secs_f64(),
            mib(packed),
            packed_time.as_secs_f64(),
            packed * 100 / plain.max(1),
        );
    }
    Ok(())
}

fn mib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 20))
}

/// Length of a root without its hash tree, and the least time that it took.
fn best(layout: &Path, compression: Option<Compression>, out: &Path) -> Result<(u64, Duration)> {
    let layers = layers(layout)?;
    let options = Options { compression, ..Options::default() };
    let (mut len, mut time) = (0, Duration::MAX);
    for _ in 0..ROUNDS {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(out)?;
        let started = Instant::now();
        let root = rootfs::build(&layers, &options, &file, 0, &|_| {})?;
        time = time.min(started.elapsed());
        len = u64::from(root.verity.blocks) * 4096;
    }
    Ok((len, time))
}

/// Length of the image that mkfs.erofs makes of the tree in `root`, as dense as it can by LZ4 in
/// clusters of the same size. `None` where it is not installed.
fn theirs(root: &Path, desk: &Path) -> Result<Option<u64>> {
    let (tree, image) = (desk.join("tree"), desk.join("theirs"));
    let quiet = |name: &str| {
        let mut command = Command::new(name);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let extract = format!("--extract={}", tree.display());
    if !quiet("fsck.erofs")
        .arg(extract)
        .arg("--overwrite")
        .arg(root)
        .status()
        .is_ok_and(|s| s.success())
    {
        return Ok(None);
    }
    relink(root, &tree)?;
    let mut make = quiet("mkfs.erofs");
    make.args(["-zlz4", "-C65536", "-Eztailpacking", "-T0"]).arg(&image).arg(&tree);
    let made = make.status()?.success();
    fs::remove_dir_all(&tree)?;
    Ok(if made { Some(image.metadata()?.len()) } else { None })
}

/// Makes hard links of the names that are one file in `root`: fsck.erofs extracts each as a file of
/// its own, and the image that is made of those would have the contents as often.
fn relink(root: &Path, tree: &Path) -> Result<()> {
    let reader = Reader::open(File::open(root)?, 0)?;
    let mut first: HashMap<u64, PathBuf> = HashMap::new();
    let mut stack = vec![(tree.to_owned(), reader.root()?)];
    while let Some((dir, node)) = stack.pop() {
        for entry in reader.read_dir(&node)? {
            let path = dir.join(OsStr::from_bytes(&entry.name));
            let node = reader.node(entry.nid)?;
            if node.is_dir() {
                stack.push((path, node));
            } else if let Some(first) = first.get(&entry.nid) {
                fs::remove_file(&path)?;
                fs::hard_link(first, &path)?;
            } else if node.inode.nlink > 1 {
                first.insert(entry.nid, path);
            }
        }
    }
    Ok(())
}
