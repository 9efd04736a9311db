//! Container images for tests, benches and the demo, shaped like the ones in public registries
//! but made from Debian packages, without a container runtime and without root.
//!
//! [`build`] returns an OCI layout directory; it is made once and kept in the cache
//! (`$DOCK2UNI_TEST_CACHE`, else `target/test-images` of the workspace). Raising a recipe's
//! version makes it anew, raising [`VERSION`] everything.

mod debian;
mod layer;
mod layout;
mod recipes;

use std::{
    env,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

/// Part of every cache path: raised when what all recipes share changes.
const VERSION: u32 = 3;

/// Result of image building: the error is a text for a person.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The images there are: name, what it is.
pub fn images() -> impl Iterator<Item = (&'static str, &'static str)> {
    recipes::ALL.iter().map(|recipe| (recipe.name, recipe.about))
}

/// Makes an image, or finds it in the cache; returns its OCI layout directory. The image's
/// reference in the layout is `latest`.
pub fn build(name: &str) -> Result<PathBuf> {
    let recipe = recipes::ALL.iter().find(|recipe| recipe.name == name);
    let recipe = recipe.ok_or_else(|| format!("no test image is called `{name}`"))?;
    let cache = cache_dir()?;
    let done = cache.join(format!("{name}-{VERSION}.{}", recipe.version));
    // Tests run in parallel; one of them does the work.
    let lock = File::create(cache.join(format!("{name}.lock")))?;
    lock.lock()?;
    if done.is_dir() {
        return Ok(done);
    }
    let part = cache.join(format!("{name}.part"));
    remove(&part)?;
    (recipe.make)(&part)?;
    fs::rename(&part, &done)?;
    Ok(done)
}

/// The cache directory, made if need be.
pub fn cache_dir() -> Result<PathBuf> {
    let dir = match env::var_os("DOCK2UNI_TEST_CACHE") {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/test-images"),
    };
    fs::create_dir_all(&dir)?;
    Ok(dir.canonicalize()?)
}

fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
