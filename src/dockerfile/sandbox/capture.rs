//! An overlay's upper directory as a layer: what a command has added, changed and removed.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::super::index::{Kind, Meta};
use super::super::layer::header;
use super::unpack::OPAQUE;

/// Writes the layer of an upper directory whose root had `root`'s metadata before.
///
/// # Errors
/// If it can't be read, or nobody takes it.
pub fn capture(upper: &Path, root: &Meta, out: &mut impl Write) -> io::Result<()> {
    let mut capture = Capture { upper, out, links: HashMap::new(), buffer: vec![0; 256 << 10] };
    let found = fs::symlink_metadata(upper)?;
    let meta = convert(upper, &found)?;
    if (meta.mode, meta.uid, meta.gid) != (root.mode, root.uid, root.gid) {
        capture.out.write_all(&header(b"", &meta, None))?;
    }
    let mut todo = vec![PathBuf::new()];
    while let Some(dir) = todo.pop() {
        let mut names: Vec<_> = fs::read_dir(upper.join(&dir))?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<Result<_, _>>()?;
        names.sort();
        let mut below = Vec::new();
        for name in names {
            let path = dir.join(name);
            if capture.entry(&path)? {
                below.push(path);
            }
        }
        todo.extend(below.into_iter().rev());
    }
    capture.out.write_all(&[0; 1024])?;
    capture.out.flush()
}

struct Capture<'a, W> {
    upper: &'a Path,
    out: &'a mut W,
    /// Files with several names, by device and inode.
    links: HashMap<(u64, u64), PathBuf>,
    buffer: Vec<u8>,
}

impl<W: Write> Capture<'_, W> {
    /// Whether it is a directory, whose contents are to be read.
    fn entry(&mut self, path: &Path) -> io::Result<bool> {
        let host = self.upper.join(path);
        let found = fs::symlink_metadata(&host)?;
        let name = path.as_os_str().as_bytes();
        if found.file_type().is_char_device() && found.rdev() == 0 {
            let file = path.file_name().unwrap_or_default().as_bytes();
            let dir = path.parent().unwrap_or(Path::new("")).as_os_str().as_bytes();
            self.marker(&[dir, [b".wh.", file].concat().as_slice()])?;
            return Ok(false);
        }
        if found.file_type().is_socket() {
            return Ok(false);
        }
        let meta = convert(&host, &found)?;
        if found.nlink() > 1 && !found.is_dir() {
            let inode = (found.dev(), found.ino());
            if let Some(first) = self.links.get(&inode) {
                let target = first.as_os_str().as_bytes();
                self.out.write_all(&header(name, &meta, Some(target)))?;
                return Ok(false);
            }
            self.links.insert(inode, path.to_owned());
        }
        self.out.write_all(&header(name, &meta, None))?;
        match meta.kind {
            Kind::File => self.data(&host, meta.size)?,
            Kind::Directory => {
                let mut value = [0; 8];
                let opaque = rustix::fs::lgetxattr(&host, OPAQUE, &mut value[..]);
                if opaque.is_ok_and(|len| &value[..len] == b"y") {
                    self.marker(&[name, b".wh..wh..opq"])?;
                }
                return Ok(true);
            }
            _ => {}
        }
        Ok(false)
    }

    fn marker(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        let parts: Vec<&[u8]> = parts.iter().copied().filter(|part| !part.is_empty()).collect();
        self.out.write_all(&header(&parts.join(&b'/'), &Meta::file(0, 0, (0, 0)), None))
    }

    fn data(&mut self, host: &Path, size: u64) -> io::Result<()> {
        let mut file = File::open(host)?.take(size);
        let mut done = 0;
        loop {
            match file.read(&mut self.buffer)? {
                0 => break,
                got => {
                    self.out.write_all(&self.buffer[..got])?;
                    done += got as u64;
                }
            }
        }
        if done != size {
            return Err(io::Error::other("a file became shorter while it was read"));
        }
        // Less than a block.
        self.out.write_all(&[0; 512][..(size.wrapping_neg() % 512) as usize])
    }
}

fn convert(host: &Path, found: &Metadata) -> io::Result<Meta> {
    let meta = Meta::of_host(found)
        .ok_or_else(|| io::Error::other("a socket can't be part of an image"))?;
    let (xattrs, target) = match meta.kind {
        Kind::Symlink => (Vec::new(), fs::read_link(host)?.into_os_string().into_encoded_bytes()),
        _ => (xattrs(host)?, Vec::new()),
    };
    Ok(Meta { xattrs, target, ..meta })
}

/// Attributes that belong to the file: not the overlay's own, nor those of this machine's policy.
fn xattrs(host: &Path) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut names = vec![0; 65536];
    let len = match rustix::fs::llistxattr(host, &mut names[..]) {
        Ok(len) => len,
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(error.into()),
    };
    let wanted = |name: &&[u8]| {
        let user = name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
        user || *name == b"security.capability" || name.starts_with(b"system.posix_acl_")
    };
    let mut found = Vec::new();
    for name in names[..len].split(|&b| b == 0).filter(wanted) {
        let mut value = vec![0; 65536];
        let len = rustix::fs::lgetxattr(host, name, &mut value[..])?;
        value.truncate(len);
        found.push((name.to_vec(), value));
    }
    found.sort();
    Ok(found)
}
