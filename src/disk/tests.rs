//! The image writer, with a kernel and boot code made up for the purpose where there are none.

use super::*;

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

/// Needs the guest code: `D2U_KERNEL=none` builds have nothing to write.
#[test]
fn what_is_written_is_found_again_and_other_tools_agree() {
    let Ok(layout) = Layout::new() else {
        eprintln!("skipped: built without a kernel");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str| {
        let path = dir.path().join(name);
        let file =
            std::fs::File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        let root = vec![7; 3 * 4096];
        std::os::unix::fs::FileExt::write_all_at(&file, &root, layout.root).unwrap();
        let record = dock2uni_format::record::Record {
            argv: vec![b"/bin/true".to_vec()],
            ..Default::default()
        };
        let container = dock2uni_format::record::trailer(&record, 0, [0; 32]);
        let len = finish(&file, layout, root.len() as u64, &container).unwrap();
        assert_eq!(file.metadata().unwrap().len(), len);
        (path, record)
    };
    let (path, record) = write("a.img");
    let disk = Disk::open(&path).unwrap();
    assert_eq!(disk.record().unwrap(), record);
    assert_eq!(disk.extent(Part::Root), read::Extent { start: layout.root, len: 3 * 4096 });
    let kernel = disk.extent(Part::Kernel);
    let mut bytes = vec![0; crate::guest::kernel().unwrap().len()];
    std::os::unix::fs::FileExt::read_exact_at(disk.file(), &mut bytes, kernel.start).unwrap();
    assert_eq!(bytes, crate::guest::kernel().unwrap());

    // Reproducible.
    let (other, _) = write("b.img");
    assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(&other).unwrap());

    // An independent reader of the format.
    match std::process::Command::new("sgdisk").arg("--verify").arg(&path).output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.contains("No problems found"), "{text}");
        }
        Err(_) => eprintln!("skipped: no sgdisk"),
    }

    // Cut off, and damaged.
    let file = std::fs::File::options().write(true).open(&other).unwrap();
    let record = disk.extent(Part::Record);
    std::os::unix::fs::FileExt::write_all_at(&file, &[0xff; 8], record.start).unwrap();
    assert!(matches!(Disk::open(&other).unwrap().record(), Err(Error::Record(_))));
    file.set_len(layout.root).unwrap();
    assert!(matches!(Disk::open(&other), Err(Error::CutOff(_) | Error::Table(_))));
}
