//! Layers that several images have, inflated once.
//!
//! Inflating is most of the work of a conversion. A layer that two roots or more are to be made of
//! is kept as a plain tar stream while they are, and removed after the last. Its diff ID is checked
//! each time it is read, as ever.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::atomic::Aside;
use crate::rootfs;
use crate::source::{Compression, Digest, Image, Layer, Store};
use crate::{erofs, pipeline, roots};

/// The layers, and where their streams are.
pub struct Shared {
    dir: PathBuf,
    /// How many tasks may still need each, by diff ID. Images whose roots are there need none.
    users: Mutex<BTreeMap<Digest, usize>>,
}

impl Shared {
    /// Finds the layers that several of `images` have. What an earlier run has left in `dir` and
    /// nobody needs is removed.
    pub fn new<'a>(
        dir: &Path,
        images: impl Iterator<Item = &'a Image>,
        compression: Option<erofs::Compression>,
        store: &Store,
    ) -> io::Result<Shared> {
        fs::create_dir_all(dir)?;
        let mut users: BTreeMap<Digest, usize> = BTreeMap::new();
        let mut roots: BTreeMap<Digest, BTreeSet<Vec<Digest>>> = BTreeMap::new();
        for image in images {
            if pipeline::has_root(image, compression, store) {
                continue;
            }
            let root: Vec<Digest> = image.layers.iter().map(|layer| layer.diff_id).collect();
            for layer in distinct(image) {
                *users.entry(layer.diff_id).or_default() += 1;
                roots.entry(layer.diff_id).or_default().insert(root.clone());
            }
        }
        // Tasks that differ in options alone have one root, which is made once.
        users.retain(|diff_id, _| roots.get(diff_id).is_some_and(|roots| roots.len() > 1));
        let shared = Shared { dir: dir.to_owned(), users: Mutex::new(users) };
        shared.tidy()?;
        Ok(shared)
    }

    fn tidy(&self) -> io::Result<()> {
        let users = self.users.lock().unwrap_or_else(|poison| poison.into_inner());
        let wanted: BTreeSet<PathBuf> = users.keys().map(|id| self.path(id)).collect();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if !wanted.contains(&path) {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    fn path(&self, diff_id: &Digest) -> PathBuf {
        self.dir.join(format!("{}.tar", diff_id.hex()))
    }

    /// Puts plain streams in the place of an image's compressed layers that others have as well.
    pub fn substitute(&self, image: &mut Image) -> Result<(), rootfs::Error> {
        for layer in &mut image.layers {
            let wanted = {
                let users = self.users.lock().unwrap_or_else(|poison| poison.into_inner());
                users.contains_key(&layer.diff_id)
            };
            if !wanted || layer.compression == Compression::None {
                continue;
            }
            let path = self.path(&layer.diff_id);
            let size = self.inflated(layer, &path)?;
            layer.compression = Compression::None;
            (layer.path, layer.size) = (path, size);
        }
        Ok(())
    }

    /// Makes the stream of a layer if it isn't there, and returns its length.
    fn inflated(&self, layer: &Layer, path: &Path) -> Result<u64, rootfs::Error> {
        // One thread makes it; the others wait for it.
        let _lock = roots::lock(path, &|| ()).map_err(rootfs::Error::Write)?;
        if let Ok(meta) = path.metadata() {
            return Ok(meta.len());
        }
        let aside = Aside::beside(path).map_err(rootfs::Error::Write)?;
        let mut out = BufWriter::with_capacity(1 << 20, aside.file());
        rootfs::inflate(layer, &mut out)?;
        out.flush().map_err(rootfs::Error::Write)?;
        drop(out);
        let len = aside.file().metadata().map_err(rootfs::Error::Write)?.len();
        aside.publish(path).map_err(rootfs::Error::Write)?;
        Ok(len)
    }

    /// Gives up the streams of an image, which may be damaged. Returns whether there were any.
    pub fn forget(&self, image: &Image) -> bool {
        let mut users = self.users.lock().unwrap_or_else(|poison| poison.into_inner());
        let mut any = false;
        for layer in distinct(image) {
            any |= users.remove(&layer.diff_id).is_some();
            // Whoever has it open reads on.
            let _ = fs::remove_file(self.path(&layer.diff_id));
        }
        any
    }

    /// An image's root is made, or never will be.
    pub fn done_with(&self, image: &Image) {
        let mut users = self.users.lock().unwrap_or_else(|poison| poison.into_inner());
        for layer in distinct(image) {
            let Some(count) = users.get_mut(&layer.diff_id) else { continue };
            *count = count.saturating_sub(1);
            if *count == 0 {
                users.remove(&layer.diff_id);
                let path = self.path(&layer.diff_id);
                // What can't be removed now is removed by the next run.
                let _ = fs::remove_file(path.with_extension("lock"));
                let _ = fs::remove_file(path);
            }
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Only if it is empty; what is in it belongs to tasks that did not end.
        let _ = fs::remove_dir(&self.dir);
    }
}

/// Its layers, each once.
fn distinct(image: &Image) -> impl Iterator<Item = &Layer> {
    let mut seen = BTreeSet::new();
    image.layers.iter().filter(move |layer| seen.insert(layer.diff_id))
}
