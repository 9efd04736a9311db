//! Images out of a real registry.

mod common;

use common::layout::{ImageSpec, Layout, tar};
use common::registry::Registry;
use dock2uni::source::image::Compression;

#[test]
fn registry_takes_what_skopeo_pushes() {
    let registry = Registry::start();
    let mut layout = Layout::new();
    let image = layout.image(&ImageSpec {
        layers: vec![(tar(&[("hello", b"hi")]), Compression::Gzip)],
        ..ImageSpec::default()
    });
    layout.name(image.clone(), "one");
    registry.push(layout.path(), "one", "test/one:1");
    let digest = image["digest"].as_str().unwrap();
    assert!(registry.blob_file(&digest["sha256:".len()..]).exists());
}
