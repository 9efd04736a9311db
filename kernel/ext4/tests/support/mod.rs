//! A volume in memory, and e2fsprogs as witnesses.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use dock2uni_ext4::*;

pub const NOW: Time = (1_700_000_000, 123_456_789);

/// A disk in memory that remembers what was written since it was last flushed.
#[derive(Clone, Default)]
pub struct Disk(pub Arc<Mutex<State>>);

/// A write, by its place in bytes, or a flush.
pub type Step = Option<(u64, Vec<u8>)>;

#[derive(Default)]
pub struct State {
    pub bytes: Vec<u8>,
    /// Every step, in order.
    pub log: Option<Vec<Step>>,
    /// Writes after which the device fails.
    pub fails_after: Option<usize>,
}

impl Disk {
    pub fn new(bytes: Vec<u8>) -> Disk {
        Disk(Arc::new(Mutex::new(State { bytes, ..State::default() })))
    }

    pub fn zeros(mib: usize) -> Disk {
        Disk::new(vec![0; mib << 20])
    }

    pub fn made(mib: usize) -> Disk {
        let disk = Disk::zeros(mib);
        mkfs(Box::new(disk.clone()), &format()).unwrap();
        disk
    }

    pub fn open(&self) -> Volume {
        Volume::open(Box::new(self.clone()), false, NOW).unwrap()
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().bytes.clone()
    }

    /// Writes the disk to a file.
    pub fn save(&self, path: &Path) {
        std::fs::write(path, &self.0.lock().unwrap().bytes).unwrap();
    }

    /// e2fsck finds nothing.
    #[track_caller]
    pub fn check(&self) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        self.save(&path);
        let (code, text) = run("e2fsck", &["-fn", path.to_str().unwrap()]);
        assert_eq!(code, 0, "{text}");
    }
}

impl Device for Disk {
    fn blocks(&self) -> u64 {
        (self.0.lock().unwrap().bytes.len() / BLOCK) as u64
    }
    fn read_only(&self) -> bool {
        false
    }
    fn read(&self, block: u64, out: &mut [u8]) -> Result<()> {
        let at = block as usize * BLOCK;
        let state = self.0.lock().unwrap();
        out.copy_from_slice(state.bytes.get(at..at + out.len()).ok_or(Error::Io)?);
        Ok(())
    }
    fn write(&self, block: u64, data: &[&[u8]]) -> Result<()> {
        let mut state = self.0.lock().unwrap();
        for (at, data) in (block..).zip(data) {
            if let Some(left) = &mut state.fails_after {
                *left = left.checked_sub(1).ok_or(Error::Io)?;
            }
            assert_eq!(data.len(), BLOCK);
            let at = at as usize * BLOCK;
            state.bytes.get_mut(at..at + BLOCK).ok_or(Error::Io)?.copy_from_slice(data);
            if let Some(log) = &mut state.log {
                log.push(Some((at as u64, data.to_vec())));
            }
        }
        Ok(())
    }
    fn flush(&self) -> Result<()> {
        let mut state = self.0.lock().unwrap();
        if let Some(log) = &mut state.log {
            log.push(None);
        }
        Ok(())
    }
}

pub fn format() -> Format {
    Format {
        uuid: *b"0123456789abcdef",
        hash_seed: *b"fedcba9876543210",
        label: b"test".to_vec(),
        uid: 0,
        gid: 0,
        mode: 0o755,
        now: NOW,
    }
}

/// Runs a program: its status, and all that it printed.
pub fn run(program: &str, args: &[&str]) -> (i32, String) {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new(program).args(args).env("PATH", path).output().unwrap_or_else(|e| {
        panic!("{program} can't be started ({e}); install e2fsprogs");
    });
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}

pub fn new_file(mode: u32) -> NewFile<'static> {
    NewFile { mode, uid: 1000, gid: 1001, device: (0, 0), target: &[] }
}

/// Makes a regular file with contents, as a kernel would: blocks, data, extents.
pub fn write(volume: &mut Volume, disk: &Disk, ino: u32, at: u64, bytes: &[u8]) -> Result<()> {
    assert_eq!(at % BLOCK as u64, 0);
    let mut block = (at / BLOCK as u64) as u32;
    let end = at + bytes.len() as u64;
    let last = end.div_ceil(BLOCK as u64) as u32;
    let mut rest = bytes;
    let mut runs = Vec::new();
    while block < last {
        let mapping = volume.prepare(ino, block, last - block, false)?;
        let start = mapping.start.unwrap();
        for n in 0..mapping.len {
            let mut data = vec![0; BLOCK];
            let len = rest.len().min(BLOCK);
            data[..len].copy_from_slice(&rest[..len]);
            rest = &rest[len..];
            disk.write(start + u64::from(n), &[&data])?;
        }
        runs.push((block, mapping.len));
        block += mapping.len;
    }
    let size = volume.inode(ino)?.size().max(end);
    let change = Attributes { size: Some(size), mtime: Some(NOW), ..Attributes::default() };
    volume.finish(ino, &runs, &change).map(drop)
}

pub fn create(volume: &mut Volume, disk: &Disk, dir: u32, name: &str, bytes: &[u8]) -> u32 {
    let inode = volume.create(dir, Some(name.as_bytes()), &new_file(0o100_644)).unwrap();
    write(volume, disk, inode.ino, 0, bytes).unwrap();
    inode.ino
}

/// Contents of a file.
pub fn read(volume: &mut Volume, disk: &dyn Device, ino: u32) -> Result<Vec<u8>> {
    let size = volume.inode(ino)?.size();
    let mut out = Vec::new();
    let mut block = 0;
    while (out.len() as u64) < size {
        let left = (size - out.len() as u64).div_ceil(BLOCK as u64).min(1 << 20) as u32;
        let mapping = volume.map(ino, block, left)?;
        for n in 0..mapping.len {
            let mut data = vec![0; BLOCK];
            if let Some(start) = mapping.start.filter(|_| mapping.written) {
                disk.read(start + u64::from(n), &mut data)?;
            }
            out.extend(data);
        }
        block += mapping.len.max(1);
    }
    out.truncate(size as usize);
    Ok(out)
}

/// Names of a directory with their inodes.
pub fn names(volume: &mut Volume, dir: u32) -> Result<Vec<(Vec<u8>, u32)>> {
    let inode = volume.inode(dir)?;
    let mut all = Vec::new();
    volume.list(&inode, 0, &mut |ino, _, _, name| {
        all.push((name.to_vec(), ino));
        true
    })?;
    all.retain(|(name, _)| name != b"." && name != b"..");
    Ok(all)
}

/// Numbers that are the same in every run (xorshift).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() >> 11) as usize % end.max(1)
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}
