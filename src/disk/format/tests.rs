//! Every format against a disk that is sparse, odd at its end, and recognisable, and against QEMU
//! as an independent reader; and every reader against damage.

use std::process::Command;

use super::*;

/// 9 MiB: pieces of data at block boundaries of every format, the rest holes.
fn disk() -> Raw {
    let file = tempfile::tempfile().unwrap();
    file.set_len(9 << 20).unwrap();
    let noise: Vec<u8> =
        (0..3 << 16).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 9) as u8).collect();
    for at in [0, (1 << 20) - 512, (4 << 20) + 4096, (9 << 20) - 196_608] {
        file.write_all_at(&noise, at).unwrap();
    }
    file.write_all_at(b"EFI PART", 512).unwrap();
    Raw::new(file).unwrap()
}

fn bytes(disk: &dyn Medium) -> Vec<u8> {
    let mut bytes = vec![0; disk.size() as usize];
    disk.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn written(format: Format) -> tempfile::NamedTempFile {
    let out = tempfile::NamedTempFile::new().unwrap();
    let len = write(format, &disk(), out.as_file()).unwrap();
    assert_eq!(out.as_file().metadata().unwrap().len(), len, "{format}");
    out
}

#[test]
fn what_is_written_is_read_back_whole_and_at_any_place() {
    let plain = bytes(&disk());
    for format in Format::ALL {
        let out = written(format);
        let opened = open(out.reopen().unwrap()).unwrap();
        let raw = matches!(format, Format::Ami | Format::Iso);
        assert_eq!(opened.format, if raw { Format::Raw } else { format });
        assert!(bytes(&*opened.disk) == plain, "{format}");
        for (at, len) in [(0, 1), (65_535, 2), ((1 << 20) - 700, 3000), (plain.len() - 5, 5)] {
            let mut part = vec![0; len];
            opened.disk.read_exact_at(&mut part, at as u64).unwrap();
            assert!(part == plain[at..at + len], "{format} at {at}");
        }
        assert!(opened.disk.read_exact_at(&mut [0; 6], plain.len() as u64 - 5).is_err());
        // The same disk, the same bytes.
        let again = std::fs::read(written(format).path()).unwrap();
        assert!(std::fs::read(out.path()).unwrap() == again, "{format}");
    }
}

#[test]
fn qemu_agrees() {
    if Command::new("qemu-img").arg("--version").output().is_err() {
        eprintln!("SKIPPED: no qemu-img");
        return;
    }
    let run = |args: &[&str]| {
        let output = Command::new("qemu-img").args(args).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), text + &String::from_utf8_lossy(&output.stderr))
    };
    let raw = written(Format::Raw);
    let raw = raw.path().to_str().unwrap();
    for format in Format::ALL.into_iter().filter(|format| *format != Format::Raw) {
        let Some(driver) = format.qemu() else { continue };
        let out = written(format);
        let path = out.path().to_str().unwrap();
        let (code, text) = run(&["compare", "-f", "raw", "-F", driver, raw, path]);
        assert!(code == Some(0) && text.contains("Images are identical"), "{format}: {text}");
        // Other drivers have nothing to check, which qemu-img says by status 63.
        let (code, text) = run(&["check", "-f", driver, path]);
        let none = matches!(driver, "raw" | "vpc");
        assert_eq!(code, Some(if none { 63 } else { 0 }), "{format}: {text}");
    }
    // What others write is read here, compression included.
    let other = tempfile::NamedTempFile::new().unwrap();
    let path = other.path().to_str().unwrap();
    for args in [
        &["qcow2"][..],
        &["qcow2", "-c"],
        &["qcow2", "-c", "-o", "compression_type=zstd"],
        &["qcow2", "-o", "cluster_size=512,compat=0.10"],
        &["vmdk"],
        &["vmdk", "-o", "subformat=streamOptimized"],
        &["vpc"],
        &["vpc", "-o", "subformat=fixed,force_size"],
        &["vhdx"],
        &["vhdx", "-o", "subformat=fixed"],
        &["vdi"],
        &["vdi", "-o", "static=on"],
    ] {
        let (code, text) = run(&[&["convert", "-f", "raw", "-O"], args, &[raw, path]].concat());
        assert_eq!(code, Some(0), "{args:?}: {text}");
        let opened = open(other.reopen().unwrap()).unwrap();
        let (mut found, plain) = (bytes(&*opened.disk), bytes(&disk()));
        // Geometry may round the size up.
        assert!(found.len() >= plain.len(), "{args:?}");
        assert!(is_zero(&found[plain.len()..]), "{args:?}");
        found.truncate(plain.len());
        assert!(found == plain, "{args:?}");
    }
}

#[test]
fn the_archives_are_ordinary_ones() {
    let out = written(Format::Gce);
    let stream = flate2::read::GzDecoder::new(out.reopen().unwrap());
    let mut archive = tar::Archive::new(stream);
    let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
    assert_eq!(entry.path().unwrap().to_str(), Some("disk.raw"));
    let mut found = Vec::new();
    entry.read_to_end(&mut found).unwrap();
    assert!(found == bytes(&disk()));

    let out = written(Format::Ova);
    let mut archive = tar::Archive::new(out.reopen().unwrap());
    let mut files = std::collections::BTreeMap::new();
    let mut order = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        order.push(name.clone());
        files.insert(name, bytes);
    }
    assert_eq!(order, ["disk.ovf", "disk.mf", "disk.vmdk"]);
    let manifest = String::from_utf8(files["disk.mf"].clone()).unwrap();
    for name in ["disk.ovf", "disk.vmdk"] {
        use sha2::Digest;
        let hex: String =
            sha2::Sha256::digest(&files[name]).iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(manifest.contains(&format!("SHA256({name})= {hex}\n")), "{manifest}");
    }
    let descriptor = String::from_utf8(files["disk.ovf"].clone()).unwrap();
    assert!(
        descriptor.contains(&format!("ovf:capacity=\"{}\"", 9 << 20)) && !descriptor.contains("{{")
    );
}

/// Flips bits all over the headers and cuts files off: no panic, no endless work, and never more
/// than the file holds.
#[test]
fn damage_is_an_error_or_other_bytes() {
    let raw = |format: &Format| format.qemu() == Some("raw");
    for format in Format::ALL.into_iter().filter(|format| !raw(format)) {
        let good = std::fs::read(written(format).path()).unwrap();
        let mut state = 1u64;
        for round in 0..20 {
            let mut bad = good.clone();
            for _ in 0..3 {
                state =
                    state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1442695040888963407);
                let random = (state >> 24) as usize;
                let area = [512, 4096, 1 << 20, bad.len()][round % 4].min(bad.len());
                let end = bad.len();
                // Both ends: footers are headers, too.
                let at = if round % 3 == 0 { end - 1 - random % area } else { random % area };
                bad[at] ^= 1 << ((state >> 60) % 8);
            }
            if round % 10 == 9 {
                bad.truncate((state >> 30) as usize % bad.len());
            }
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(&bad, 0).unwrap();
            if let Ok(opened) = open(file) {
                let mut buffer = [0; 4096];
                for at in [0, 1 << 20, opened.disk.size().saturating_sub(4096)] {
                    // An error or some bytes; both will do.
                    let _ = opened.disk.read_exact_at(&mut buffer, at);
                }
            }
        }
    }
}

#[test]
fn files_that_need_other_files_are_refused() {
    let mut file = std::fs::read(written(Format::Qcow2).path()).unwrap();
    file[15] = 200; // a backing file's name
    let out = tempfile::tempfile().unwrap();
    out.write_all_at(&file, 0).unwrap();
    let error = open(out).unwrap_err();
    assert_eq!(error.to_string(), "the qcow2 file cannot be read: it has a backing file");
}

#[test]
fn names_and_extensions_find_their_formats() {
    for format in Format::ALL {
        assert_eq!(format.name().parse(), Ok(format));
        let path = format!("dir.img/app.{}", format.extension());
        assert_eq!(Format::of_path(Path::new(&path)), Some(format), "{path}");
    }
    assert_eq!(Format::of_path(Path::new("x.raw")), Some(Format::Raw));
    assert_eq!(Format::of_path(Path::new("x")), None);
    assert!("vmx".parse::<Format>().is_err());
}
