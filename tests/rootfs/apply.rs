//! Layer application, one rule at a time.

use crate::support::{Lab, LayerTar, noise};

#[test]
fn upper_layers_replace_whiteouts_remove_opaque_clears() {
    let big = noise(300_000, 1);
    let lab = Lab::new([
        LayerTar::new()
            .dir("etc/", 0o755)
            .file("etc/a", "one")
            .file("etc/b", "gone")
            .dir("var/", 0o755)
            .dir("var/log/", 0o755)
            .file("var/log/old", "old")
            .file("big", &big)
            .symlink("link", "etc/a")
            .finish(),
        LayerTar::new()
            .file("etc/a", "two")
            .whiteout("etc/.wh.b")
            .dir("var/log/", 0o700)
            .whiteout("var/log/.wh..wh..opq")
            .file("var/log/new", "new")
            .finish(),
    ]);
    let built = lab.build();
    assert_eq!(
        built.paths(),
        ["/big", "/etc", "/etc/a", "/link", "/var", "/var/log", "/var/log/new"]
    );
    assert_eq!(built.text("/link").as_deref(), Some("two"));
    assert_eq!(built.node("/var/log").unwrap().inode.mode, 0o40700);
    let read = built.reader().read_file(b"/big", 1 << 20).unwrap().unwrap();
    assert!(read == big);
    assert_eq!(built.root.stats.hidden_bytes, 3 + 4 + 3);
    assert_eq!(built.root.stats.files, 3);
}
