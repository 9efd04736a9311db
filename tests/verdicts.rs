//! A few rows of the table that `benches/verdict` prints of all test images: what `inspect` says meets
//! what an image does.

mod common;

#[path = "../benches/verdict/src/table.rs"]
mod table;

use std::path::Path;

use common::layout::{ImageSpec, Layout, borrowed, programs, tar};
use common::vm::can_boot;
use dock2uni::source::Compression;
use serde_json::json;

use table::{Case, look};

#[test]
fn what_is_said_of_images_is_what_they_do() {
    if !can_boot() {
        return;
    }
    let desk = tempfile::tempdir().unwrap();
    let whole = programs(&["/bin/true", "busybox"]);
    // The same program without its libraries.
    let alone: Vec<_> =
        whole.iter().filter(|(path, _)| path.starts_with("bin/")).cloned().collect();
    let layouts = [whole, alone].map(|files| {
        let mut layout = Layout::new();
        let layers = vec![(tar(&borrowed(&files)), Compression::Gzip)];
        let config = json!({"Cmd": ["/bin/true"]});
        let image = layout.image(&ImageSpec { layers, config, ..ImageSpec::default() });
        layout.name(image, "one");
        layout
    });
    let [whole, alone] = [0, 1].map(|at: usize| layouts[at].path().display().to_string());
    let dock2uni = Path::new(env!("CARGO_BIN_EXE_dock2uni"));
    for (case, predicted, works) in [
        (Case::new("as it is", whole.clone()), "runs", true),
        (Case::new("without its libraries", alone.clone()), "wont-run", false),
        (Case::new("another program", alone).command(&["busybox", "true"]), "runs", true),
        (Case::new("no such user", whole).options(&["--user", "somebody"]), "wont-run", false),
    ] {
        let case = case.machine(&["--accel", "tcg"]);
        let row = look(dock2uni, &case, desk.path()).unwrap();
        assert_eq!((row.predicted.as_str(), row.worked), (predicted, works), "{row:?}");
        assert!(row.right() && row.findings.is_empty() == (predicted == "runs"), "{row:?}");
        assert!(table::table(&[row]).contains(&format!("| {} | {predicted} |", case.name)));
    }
}
