use super::*;

fn volumes() -> (tempfile::TempDir, Volumes) {
    let dir = tempfile::tempdir().unwrap();
    let volumes = Volumes::at(&dir.path().join("deep/volumes"));
    (dir, volumes)
}

#[test]
fn a_volume_is_made_listed_held_and_removed() {
    let (_dir, volumes) = volumes();
    assert!(volumes.list().unwrap().is_empty());
    let made = volumes.create("db", 64 << 20).unwrap();
    assert_eq!(made.size, 64 << 20);
    assert!(made.allocated < 1 << 20, "{} bytes are written", made.allocated);
    assert!(matches!(volumes.create("db", 64 << 20), Err(Error::Exists(_))));
    let held = volumes.hold("db", false).unwrap();
    assert_eq!(held.uuid, made.uuid);
    assert!(volumes.inspect("db").unwrap().in_use);
    assert!(matches!(volumes.hold("db", true), Err(Error::InUse(_))));
    assert!(matches!(volumes.remove("db"), Err(Error::InUse(_))));
    drop(held);
    let (_one, _two) = (volumes.hold("db", true).unwrap(), volumes.hold("db", true).unwrap());
    drop((_one, _two));
    let made = volumes.hold("new", false).unwrap();
    drop(made);
    let names: Vec<String> = volumes.list().unwrap().into_iter().map(|one| one.name).collect();
    assert_eq!(names, ["db", "new"]);
    volumes.remove("db").unwrap();
    assert!(matches!(volumes.remove("db"), Err(Error::NotFound(_))));
}

#[test]
fn sizes_and_files_that_are_no_volumes_are_refused() {
    let (_dir, volumes) = volumes();
    assert!(matches!(volumes.create("small", 4 << 20), Err(Error::Size(_))));
    assert!(matches!(volumes.create("large", 1 << 60), Err(Error::Size(_))));
    volumes.create("x", 8 << 20).unwrap();
    fs::write(volumes.path("x").unwrap(), "text").unwrap();
    assert!(matches!(volumes.hold("x", false), Err(Error::NotAVolume(_))));
}

#[test]
fn specifications() {
    let volume =
        |text: &str| Spec::parse(text).map(|spec| (spec.source, spec.path, spec.read_only));
    assert_eq!(volume("db:/data").unwrap(), (Source::Volume("db".into()), "/data".into(), false));
    assert_eq!(
        volume("./a:/x/../data:ro").unwrap(),
        (Source::Host("./a".into()), "/data".into(), true)
    );
    for text in [
        "/data",
        "db:data",
        "db:/",
        "db:/proc/x",
        "db:/a:rx",
        "a:/b:ro:c",
        "-x:/a",
        "a/b:/c",
        ":/a",
    ] {
        assert!(Spec::parse(text).is_err(), "{text}");
    }
    let of = Spec::of_image_volume("app", "/var/lib/my data").unwrap();
    assert_eq!(of.source, Source::Volume("app-var-lib-my-data".into()));
    assert_eq!(Tmpfs::parse("/run:size=1m").unwrap().options, "size=1m");
    assert!(Tmpfs::parse("run").is_err());
}
