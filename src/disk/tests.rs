//! Disks as a whole, with the guest code that the tool carries.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use dock2uni_format::record::{Record, Root};

use super::*;
use crate::erofs::ReadAt;

#[test]
fn partition_types_are_distinct() {
    let mut kinds: Vec<_> = Part::ALL.iter().map(|part| part.kind().guid).collect();
    kinds.sort();
    kinds.dedup();
    assert_eq!(kinds.len(), Part::ALL.len());
}

#[test]
fn files_that_are_no_images_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.img");
    for bytes in [vec![], vec![0; 100], vec![0; 1 << 20]] {
        std::fs::write(&path, bytes).unwrap();
        assert!(matches!(Disk::open(&path), Err(Error::Table(_))));
    }
}

/// A disk around a root that is no filesystem, for those who don't look into it.
struct Bench {
    dir: tempfile::TempDir,
    base: File,
    layout: Layout,
}

const ROOT_LEN: u64 = 3 * 4096 + 77;

impl Bench {
    /// `None` in builds without guest code.
    fn new() -> Option<Bench> {
        let Ok(layout) = Layout::new() else {
            eprintln!("SKIPPED: built without a kernel");
            return None;
        };
        let base = tempfile::tempfile().unwrap();
        let root: Vec<u8> = (0..ROOT_LEN).map(|n| (n % 251) as u8 + 1).collect();
        std::os::unix::fs::FileExt::write_all_at(&base, &root, layout.root).unwrap();
        Some(Bench { dir: tempfile::tempdir().unwrap(), base, layout })
    }

    fn record() -> Record {
        Record { argv: vec![b"/bin/true".to_vec()], ..Default::default() }
    }

    fn assemble(&self, options: &Options<'_>) -> Assembly<'_> {
        let root = RootPart { start: self.layout.root, len: ROOT_LEN, uuid: [9; 16], verity: None };
        assemble(&self.base, root, &Bench::record(), options).unwrap()
    }

    fn write(&self, name: &str, options: &Options<'_>) -> PathBuf {
        let path = self.dir.path().join(name);
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        let assembly = self.assemble(options);
        let len = format::write(Format::Raw, &assembly, &file).unwrap();
        assert_eq!((len, len % (1 << 20)), (assembly.size(), 0));
        path
    }
}

const PLAIN: Options<'_> = Options {
    place: Place::Disk,
    granularity: 1 << 20,
    iso: false,
    signer: None,
    provenance: b"{}",
};

fn tool(command: &mut Command) -> Option<String> {
    match command.output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let text = text + &String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{command:?}: {text}");
            Some(text)
        }
        Err(_) => {
            eprintln!("SKIPPED: no {:?}", command.get_program());
            None
        }
    }
}

#[test]
fn what_is_written_is_found_again_and_other_tools_agree() {
    let Some(bench) = Bench::new() else { return };
    let path = bench.write("a.img", &PLAIN);
    let disk = Disk::open(&path).unwrap();
    let record = Record { root: Root::Disk { uuid: [9; 16] }, ..Bench::record() };
    assert_eq!((disk.record().unwrap(), disk.place().unwrap()), (record, Place::Disk));
    let root = disk.extent(Part::Root);
    assert_eq!(root, Extent { start: bench.layout.root, len: 4 * 4096 });
    let mut bytes = [0; 3];
    disk.medium().read_exact_at(&mut bytes, root.start + 250).unwrap();
    assert_eq!(bytes, [251, 1, 2]);

    // Reproducible, and the same when it is completed in place.
    let other = bench.write("b.img", &PLAIN);
    let bytes = std::fs::read(&path).unwrap();
    assert!(bytes == std::fs::read(&other).unwrap());
    let len = bench.assemble(&PLAIN).complete().unwrap();
    let mut completed = vec![0; len as usize];
    std::os::unix::fs::FileExt::read_exact_at(&bench.base, &mut completed, 0).unwrap();
    assert!(bytes == completed);

    if let Some(text) = tool(Command::new("sgdisk").arg("--verify").arg(&path)) {
        assert!(text.contains("No problems found"), "{text}");
    }

    // Cut off, and damaged.
    let file = File::options().write(true).open(&other).unwrap();
    let record = disk.extent(Part::Record);
    std::os::unix::fs::FileExt::write_all_at(&file, &[0xff; 8], record.start).unwrap();
    assert!(matches!(Disk::open(&other).unwrap().record(), Err(Error::Record(_))));
    file.set_len(bench.layout.root).unwrap();
    assert!(matches!(Disk::open(&other), Err(Error::CutOff(_) | Error::Table(_))));
}

/// A header with sound checksums that claims four billion entries, or entries of another size.
#[test]
fn tables_of_another_shape_are_refused_before_they_are_read() {
    let Some(bench) = Bench::new() else { return };
    let path = bench.write("a.img", &PLAIN);
    let good = std::fs::read(&path).unwrap();
    for (field, value) in [(80, u32::MAX), (84, 256), (84, 0)] {
        for header in [512, good.len() - 512] {
            let mut bad = good.clone();
            bad[header + field..header + field + 4].copy_from_slice(&value.to_le_bytes());
            bad[header + 16..header + 20].fill(0);
            let mut crc = flate2::Crc::new();
            crc.update(&bad[header..header + 92]);
            bad[header + 16..header + 20].copy_from_slice(&crc.sum().to_le_bytes());
            std::fs::write(&path, bad).unwrap();
            let error = Disk::open(&path).unwrap_err();
            let text = "the raw file is damaged: its partition table makes no sense";
            assert_eq!(error.to_string(), text);
        }
    }
}

/// The EFI file of an image, fetched by another reader of FAT.
fn loader(bench: &Bench, path: &Path) -> Option<PathBuf> {
    let esp = Disk::open(path).unwrap().extent(Part::Esp);
    let volume = bench.dir.path().join("esp");
    let mut bytes = vec![0; esp.len as usize];
    Disk::open(path).unwrap().medium().read_exact_at(&mut bytes, esp.start).unwrap();
    std::fs::write(&volume, bytes).unwrap();
    let out = bench.dir.path().join("loader.efi");
    let _ = std::fs::remove_file(&out);
    tool(Command::new("fsck.fat").arg("-n").arg("-v").arg(&volume))?;
    tool(Command::new("mcopy").arg("-i").arg(&volume).arg("::/EFI/BOOT/BOOTX64.EFI").arg(&out))?;
    Some(out)
}

#[test]
fn the_system_partition_holds_one_file_with_kernel_and_record() {
    let Some(bench) = Bench::new() else { return };
    let path = bench.write("a.img", &PLAIN);
    let Some(file) = loader(&bench, &path) else { return };
    let bytes = std::fs::read(file).unwrap();
    assert!(bytes.starts_with(crate::guest::EFI.get(..2).unwrap()));
    let kernel = crate::guest::kernel().unwrap();
    let at = bytes.windows(kernel.len()).position(|part| part == kernel).unwrap();
    assert_eq!(at as u64 % SECTOR, 0);
    assert!(bytes[at + kernel.len()..].windows(8).any(|part| part == b"d2uboot\0"));
}

#[test]
fn a_root_in_memory_has_its_record_behind_it() {
    let Some(bench) = Bench::new() else { return };
    let options = Options { place: Place::Memory, granularity: 1 << 30, ..PLAIN };
    let path = bench.write("m.img", &options);
    let disk = Disk::open(&path).unwrap();
    assert_eq!((disk.size, disk.place().unwrap()), (1 << 30, Place::Memory));
    assert_eq!(disk.record().unwrap(), Record { root: Root::Here, ..Bench::record() });
    if let Some(text) = tool(Command::new("sgdisk").arg("--verify").arg(&path)) {
        assert!(text.contains("No problems found"), "{text}");
    }
}

#[test]
fn a_cd_has_both_kinds_of_boot_entries_and_is_a_disk_as_well() {
    let Some(bench) = Bench::new() else { return };
    let options = Options { place: Place::Memory, iso: true, ..PLAIN };
    let path = bench.write("cd.iso", &options);
    assert_eq!(Disk::open(&path).unwrap().place().unwrap(), Place::Memory);
    if let Some(text) = tool(Command::new("sgdisk").arg("--verify").arg(&path)) {
        assert!(text.contains("No problems found"), "{text}");
    }
    let mut xorriso = Command::new("xorriso");
    xorriso.arg("-indev").arg(&path).args(["-report_el_torito", "plain", "-pvd_info"]);
    if let Some(text) = tool(&mut xorriso) {
        for needle in ["BIOS  y   none", "UEFI  y   none", "DOCK2UNI"] {
            assert!(text.contains(needle), "{needle} in {text}");
        }
    }
}

#[test]
fn a_signed_loader_satisfies_sbverify_until_it_is_changed() {
    let Some(bench) = Bench::new() else { return };
    let dir = bench.dir.path();
    let (key, certificate) = (dir.join("key.pem"), dir.join("cert.pem"));
    let made = tool(
        Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=dock2uni test"])
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&certificate),
    );
    if made.is_none() {
        return;
    }
    let signer = Signer::load(&key, &certificate).unwrap();
    let options = Options { signer: Some(&signer), ..PLAIN };
    let (path, again) = (bench.write("s.img", &options), bench.write("t.img", &options));
    assert!(std::fs::read(&path).unwrap() == std::fs::read(again).unwrap());
    let Some(file) = loader(&bench, &path) else { return };
    let verify = || Command::new("sbverify").arg("--cert").arg(&certificate).arg(&file).output();
    let Ok(output) = verify() else {
        eprintln!("SKIPPED: no sbverify");
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("Signature verification OK"), "{output:?}");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    assert!(!verify().unwrap().status.success());

    // What does not belong together is refused before anything is made.
    let other = dir.join("other.pem");
    tool(Command::new("openssl").args(["genrsa", "-out"]).arg(&other).arg("2048"));
    let error = Signer::load(&other, &certificate).unwrap_err().to_string();
    assert_eq!(error, "the Secure Boot certificate cannot be used: it is that of another key");
    let error = Signer::load(&certificate, &certificate).unwrap_err();
    assert!(error.to_string().starts_with("the Secure Boot key cannot be used"), "{error}");
}
