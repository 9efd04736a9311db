//! Layer application, one rule at a time.

use crate::{
    common::layout::noise,
    support::{Lab, LayerTar},
};

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
    assert_eq!(built.root.stats.reread_layers, 0);
}

#[test]
fn whiteouts_spare_files_of_their_own_layer_wherever_they_stand() {
    let lab = Lab::new([
        LayerTar::new().file("a", "low").file("d/x", "low").file("e/x", "low").finish(),
        LayerTar::new()
            .file("a", "high")
            .whiteout(".wh.a")
            .file("d/y", "high")
            .whiteout("d/.wh..wh..opq")
            .whiteout("e/.wh.x")
            .file("e/x", "high")
            .finish(),
    ]);
    let built = lab.build();
    assert_eq!(built.paths(), ["/a", "/d", "/d/y", "/e", "/e/x"]);
    assert_eq!(built.text("/a").as_deref(), Some("high"));
    assert_eq!(built.text("/e/x").as_deref(), Some("high"));
}

#[test]
fn a_whiteout_of_nothing_and_the_metadata_of_aufs_do_nothing() {
    let lab = Lab::new([LayerTar::new()
        .whiteout("no/.wh.such")
        .whiteout("nor/.wh..wh..opq")
        .dir(".wh..wh.plnk/", 0o700)
        .file(".wh..wh.plnk/1.2", "x")
        .file("a", "a")
        .finish()]);
    assert_eq!(lab.build().paths(), ["/a"]);
}

#[test]
fn a_file_over_a_directory_over_a_file() {
    let lab = Lab::new([
        LayerTar::new().dir("p/", 0o755).file("p/a", "bottom").finish(),
        LayerTar::new().file("p", "file").finish(),
        LayerTar::new().dir("p/", 0o700).file("p/b", "top").finish(),
    ]);
    let built = lab.build();
    assert_eq!(built.paths(), ["/p", "/p/b"]);
    // Nothing of the lower layers was written.
    assert_eq!(built.root.stats.hidden_bytes, 6 + 4);
}

#[test]
fn a_directory_over_a_directory_keeps_contents_and_takes_metadata() {
    let lab = Lab::new([
        LayerTar::new().dir("d/", 0o755).file("d/a", "a").finish(),
        LayerTar::new().dir("d/", 0o1777).finish(),
    ]);
    let built = lab.build();
    assert_eq!(built.paths(), ["/d", "/d/a"]);
    assert_eq!(built.node("/d").unwrap().inode.mode, 0o41777);
}

#[test]
fn missing_parents_are_made() {
    let built = Lab::new([LayerTar::new().file("a/b/c/file", "x").finish()]).build();
    assert_eq!(built.paths(), ["/a", "/a/b", "/a/b/c", "/a/b/c/file"]);
    let inode = built.node("/a/b").unwrap().inode;
    assert_eq!((inode.mode, inode.uid, inode.gid), (0o40755, 0, 0));
}

#[test]
fn symbolic_links_in_parents_lead_inside_the_root_only() {
    let lab = Lab::new([
        LayerTar::new()
            .dir("usr/", 0o755)
            .dir("usr/lib/", 0o755)
            .file("usr/lib/keep", "keep")
            .file("usr/lib/old", "old")
            .symlink("lib", "usr/lib")
            .symlink("out", "../../../../etc")
            .symlink("abs", "/etc")
            .finish(),
        LayerTar::new()
            .file("lib/new", "new")
            .whiteout("lib/.wh.old")
            .file("out/escaped", "in")
            .file("abs/absolute", "in")
            .finish(),
    ]);
    let built = lab.build();
    assert_eq!(
        built.paths(),
        [
            "/abs",
            "/etc",
            "/etc/absolute",
            "/etc/escaped",
            "/lib",
            "/out",
            "/usr",
            "/usr/lib",
            "/usr/lib/keep",
            "/usr/lib/new"
        ]
    );
    assert_eq!(built.text("/lib/new").as_deref(), Some("new"));
}

#[test]
fn a_directory_entry_replaces_a_symbolic_link() {
    let lab = Lab::new([
        LayerTar::new().dir("real/", 0o755).file("real/a", "a").symlink("l", "real").finish(),
        LayerTar::new().dir("l/", 0o755).file("l/b", "b").finish(),
    ]);
    assert_eq!(lab.build().paths(), ["/l", "/l/b", "/real", "/real/a"]);
}

#[test]
fn hard_links_share_an_inode_within_and_across_layers() {
    let lab = Lab::new([
        LayerTar::new().file("a", "shared").link("b", "a").finish(),
        LayerTar::new().link("dir/c", "a").finish(),
        LayerTar::new().link("./d", "/b").whiteout(".wh.a").finish(),
    ]);
    let built = lab.build();
    assert_eq!(built.paths(), ["/b", "/d", "/dir", "/dir/c"]);
    let nids = ["/b", "/d", "/dir/c"].map(|path| built.node(path).unwrap().nid);
    assert!(nids.iter().all(|&nid| nid == nids[0]));
    assert_eq!(built.node("/b").unwrap().inode.nlink, 3);
    assert_eq!(built.text("/dir/c").as_deref(), Some("shared"));
}

#[test]
fn data_behind_a_hidden_name_is_found_again() {
    let data = noise(20_000, 3);
    let lab = Lab::new([
        LayerTar::new().file("x", noise(9000, 4)).file("a", &data).link("b", "a").finish(),
        LayerTar::new().file("a", "replaced").finish(),
    ]);
    let built = lab.build();
    assert_eq!(built.root.stats.reread_layers, 1);
    assert!(built.reader().read_file(b"b", 1 << 20).unwrap().unwrap() == data);
    assert_eq!(built.text("a").as_deref(), Some("replaced"));
    assert_eq!(built.node("b").unwrap().inode.nlink, 1);
}

#[test]
fn the_last_of_equal_entries_wins() {
    let lab = Lab::new([LayerTar::new()
        .file("a", "first")
        .file("a", "second")
        .dir("d/", 0o755)
        .file("d/x", "x")
        .file("d", "now a file")
        .finish()]);
    let built = lab.build();
    assert_eq!(built.paths(), ["/a", "/d"]);
    assert_eq!(built.text("a").as_deref(), Some("second"));
}

#[test]
fn the_root_itself_may_be_an_entry() {
    let built = Lab::new([LayerTar::new().dir("./", 0o711).file("./a", "a").finish()]).build();
    assert_eq!(built.node("/").unwrap().inode.mode, 0o40711);
    assert_eq!(built.paths(), ["/a"]);
}

#[test]
fn no_layers_make_an_empty_root() {
    let built = Lab::new([]).build();
    assert!(built.paths().is_empty());
    assert_eq!(built.node("/").unwrap().inode.mode, 0o40755);
    assert_eq!(built.root.verity.blocks, 1);
}
