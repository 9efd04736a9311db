//! Many names, long files, and less memory than files.
//!
//! What was recorded with larger numbers is in `benches/conformance.md`; to do it again:
//! `cargo test --release --test volumes -- --ignored strain --nocapture`.

use super::common::vm::can_boot;
use super::{Lab, clean, debugfs};
use std::time::Duration;

/// A run that says how it went in a line that starts with `end`; returns that line.
fn run(lab: &Lab, options: &[&str], words: &[&str], end: &str) -> String {
    let mut vm = super::Vm::start(&mut lab.command(options, words));
    let code = vm.wait(Duration::from_secs(1800));
    let line = vm.seen.iter().find(|line| line.starts_with(end)).cloned();
    let line = line.unwrap_or_else(|| panic!("no `{end}`:\n{}", vm.text()));
    println!("{line}");
    assert_eq!(code, 0, "{}", vm.text());
    line
}

/// Directories with so many names, in memory and on a volume. Half of them stay on the volume.
fn directories(count: usize) {
    if !can_boot() {
        return;
    }
    let lab = Lab::new();
    lab.create("v", 256);
    let count_word = count.to_string();
    let words = |dir| ["--directory", dir, &count_word];
    run(&lab, &["-m", "512m", "--cpus", "2"], &words("/tmp"), "directory: ");
    run(&lab, &["-m", "512m", "--cpus", "2", "-v", "v:/data"], &words("/data"), "directory: ");
    let disk = lab.file("v");
    clean(&disk);
    // An index of hashes, as Linux makes it.
    let tree = debugfs(&disk, "htree_dump /large");
    assert!(tree.contains("Hash Version: 1"), "{tree}");
    // Names have a dash; removed ones are listed without an inode.
    let names = debugfs(&disk, "ls -p /large");
    let there = names.lines().filter(|line| line.starts_with('/') && !line.starts_with("/0/"));
    let there = there.filter(|line| line.contains('-'));
    assert_eq!(there.count(), count / 2);
}

#[test]
fn directories_of_many_names_stay_fast_and_whole() {
    directories(8000);
}

#[test]
#[ignore = "takes minutes"]
fn strain_directories_of_100_000_names() {
    directories(100_000);
}

/// A sparse file of so many MiB, and so many that are written.
fn large_files(sparse: u64, real: u64) {
    if !can_boot() {
        return;
    }
    let lab = Lab::new();
    lab.create("v", real + real / 8 + 64);
    let (sparse, real) = (sparse.to_string(), real.to_string());
    let words = ["--large-file", "/data", &sparse, &real];
    run(&lab, &["-m", "256m", "--cpus", "2", "-v", "v:/data"], &words, "large file: ");
    clean(&lab.file("v"));
}

#[test]
fn large_files_keep_what_is_written() {
    large_files(5000, 24);
}

#[test]
#[ignore = "writes 2 GiB"]
fn strain_a_file_of_2_gib() {
    large_files(16_000, 2048);
}

/// A machine with so many MiB of memory, and a file in its image that is larger by half.
fn pressure(memory: usize) {
    if !can_boot() {
        return;
    }
    let big: Vec<u8> = (0..memory as u64 * 256 * 3 / 2)
        .flat_map(|page| {
            let mut bytes = vec![page as u8; 4096];
            bytes[..8].copy_from_slice(&page.to_le_bytes());
            bytes[4088..].copy_from_slice(&(!page).to_le_bytes());
            bytes
        })
        .collect();
    let lab = Lab::with(&big);
    lab.create("v", 2 * memory as u64);
    for cpus in ["1", "2"] {
        let memory = format!("{memory}m");
        let options = ["-m", &memory, "--cpus", cpus, "-v", "v:/data"];
        let mut vm = super::Vm::start(&mut lab.command(&options, &["--pressure", "/big", "/data"]));
        let code = vm.wait(Duration::from_secs(900));
        let text = vm.text();
        assert!(code == 0 && text.contains("pressure: "), "{text}");
        println!("{text}");
        // One victim, and its name and usage.
        let killed: Vec<&str> = text.lines().filter(|l| l.contains("out of memory")).collect();
        assert_eq!(killed.len(), 1, "{text}");
        assert!(killed[0].contains("(greedy), which uses "), "{text}");
        clean(&lab.file("v"));
    }
}

#[test]
fn clean_pages_make_room_for_a_programs_own() {
    pressure(40);
}

#[test]
#[ignore = "takes minutes"]
fn strain_200_mb_of_files_in_96_mib_of_memory() {
    pressure(128);
}
