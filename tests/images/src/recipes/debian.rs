use std::path::Path;

use serde_json::json;

use super::{PATH, Recipe};
use crate::{Result, debian, layout};

pub const RECIPE: Recipe = Recipe {
    name: "debian",
    about: "shaped like debian:bookworm-slim, the base of all images made of packages",
    version: 1,
    make,
};

fn make(dir: &Path) -> Result<()> {
    let (layer, _) = debian::base()?;
    layout::write(dir, &[("debian", layer)], json!({ "Env": [PATH], "Cmd": ["bash"] }))
}
