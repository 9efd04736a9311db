//! `dock2uni fleet export`: disks and volumes that find each other.

use std::fs;
use std::path::Path;

use dock2uni::disk::Disk;
use dock2uni::volume::Volumes;
use dock2uni_format::record::MountKind;

use crate::common::vm::{can_boot, dock2uni};

const COMPOSE: &str = r#"
services:
  db:
    image: "oci:LAYOUT:latest"
    command: sh -c 'cat /etc/app.conf; echo kept >> /data/file'
    ports: ["5432"]
    volumes: ["data:/data"]
    tmpfs: /scratch
    configs: [{source: settings, target: /etc/app.conf}]
volumes: {data: {}}
configs: {settings: {content: "mode = fast"}}
"#;

#[test]
fn a_disk_names_its_volume_and_has_its_files() {
    if !can_boot() {
        return;
    }
    let layout = test_images::build("busybox").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let compose = COMPOSE.replace("LAYOUT", &layout.display().to_string());
    fs::write(dir.path().join("compose.yaml"), compose).unwrap();
    let export = |target: &str, out: &str| {
        let output = dock2uni()
            .args([
                "fleet",
                "export",
                "compose.yaml",
                "--project",
                "shop",
                "--to",
                target,
                "-o",
                out,
            ])
            .current_dir(dir.path())
            .env("DOCK2UNI_STORE", dir.path().join("store"))
            .output()
            .unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, errors) = export("libvirt", "vms");
    assert_eq!(code, 0, "{errors}");
    let out = dir.path().join("vms");
    let disk = Disk::open(&fs::read_link(out.join("db.qcow2")).map(|to| out.join(to)).unwrap());
    let disk = disk.unwrap();
    let record = disk.record().unwrap();
    assert_eq!(record.hostname, "db");
    let volume = Volumes::at(&out.join("volumes")).inspect("shop_data").unwrap();
    let mounted: Vec<_> =
        record.mounts.iter().map(|mount| (&mount.path[..], &mount.kind)).collect();
    let [(b"/data", MountKind::Volume { uuid }), (b"/scratch", MountKind::Tmpfs { .. })] =
        mounted[..]
    else {
        panic!("{mounted:?}");
    };
    assert_eq!(*uuid, volume.uuid);
    let conf = disk.root().unwrap().read_file(b"/etc/app.conf", 100).unwrap();
    assert_eq!(conf.as_deref(), Some(b"mode = fast".as_slice()));
    let domain = fs::read_to_string(out.join("db.xml")).unwrap();
    assert!(domain.contains("shop_data.ext4") && domain.contains(".qcow2"), "{domain}");

    // What the volume holds by then stays.
    let file = out.join("volumes/shop_data.ext4");
    let before = inode(&file);
    assert_eq!(export("libvirt", "vms").0, 0);
    assert_eq!(inode(&file), before);

    let (code, errors) = export("kubevirt", "k8s");
    assert_eq!(code, 2, "{errors}");
    assert!(errors.contains("--registry"), "{errors}");
    let (code, errors) = export("firecracker", "fc");
    assert_eq!(code, 0, "{errors}");
    let config = fs::read_to_string(dir.path().join("fc/db.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    for path in
        ["/boot-source/kernel_image_path", "/drives/0/path_on_host", "/drives/1/path_on_host"]
    {
        let path = config.pointer(path).unwrap().as_str().unwrap();
        assert!(Path::new(path).is_file(), "{path}");
    }
}

fn inode(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    path.metadata().unwrap().ino()
}
