//! One image layer out of a few files.

use std::fs::File;
use std::io::{self, BufWriter, Write};

use flate2::{Compression, GzBuilder};

use super::{Blob, IMAGE_LAYER, copy_file};
use crate::disk::format::archive;
use crate::source::Digest;
use crate::source::digest::Hasher;

/// A file of a layer, with the directories it is in.
pub(super) struct Member {
    /// Without a leading slash.
    pub path: &'static str,
    pub mode: u32,
    /// User and group.
    pub owner: u32,
    pub file: File,
}

/// A layer.
pub(super) struct Layer {
    pub blob: Blob,
    /// Digest of the archive before it was compressed.
    pub diff_id: Digest,
}

impl Layer {
    /// Writes a compressed archive that depends on nothing but its members.
    pub fn write(members: impl IntoIterator<Item = Member>) -> io::Result<Layer> {
        let file = tempfile::tempfile()?;
        let gzip = GzBuilder::new().mtime(0).operating_system(255);
        let gzip = gzip.write(BufWriter::new(file), Compression::new(6));
        let mut out = Hashed { hasher: Hasher::new(), out: gzip };
        let mut made = Vec::new();
        for Member { path, mode, owner, file } in members {
            if let Some((dir, _)) = path.rsplit_once('/')
                && !made.contains(&dir)
            {
                archive::directory(&mut out, dir, 0o755)?;
                made.push(dir);
            }
            let len = file.metadata()?.len();
            archive::start(&mut out, path, len, mode, owner)?;
            copy_file(&file, &mut out)?;
            archive::end(&mut out, len)?;
        }
        archive::finish(&mut out)?;
        let Hashed { hasher, out } = out;
        let file = out.finish()?.into_inner().map_err(|error| error.into_error())?;
        Ok(Layer { blob: Blob::new(IMAGE_LAYER, file)?, diff_id: hasher.finish() })
    }
}

struct Hashed<W> {
    hasher: Hasher,
    out: W,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.out.write(bytes)?;
        self.hasher.update(&bytes[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
