//! Blocks of metadata between the volume's memory and its disk.

use crate::arch::PAGE_SIZE;
use crate::drivers::block::BlockDevice;
use crate::mm::PageRef;
use alloc::sync::Arc;
use alloc::vec::Vec;
use dock2uni_ext4::{BLOCK, Device, Error, Result};

/// Blocks moved at a time.
const BATCH: usize = 64;

/// A disk.
pub struct Disk(pub Arc<dyn BlockDevice>);

fn frames(count: usize) -> Result<Vec<PageRef>> {
    let mut frames = Vec::new();
    frames.try_reserve_exact(count).map_err(|_| Error::NoMemory)?;
    for _ in 0..count {
        frames.push(PageRef::alloc_kernel(false).map_err(|_| Error::NoMemory)?);
    }
    Ok(frames)
}

impl Device for Disk {
    fn blocks(&self) -> u64 {
        self.0.capacity() / BLOCK as u64
    }

    fn read_only(&self) -> bool {
        self.0.read_only()
    }

    fn read(&self, block: u64, out: &mut [u8]) -> Result<()> {
        let mut at = block * BLOCK as u64;
        for part in out.chunks_mut(BATCH * PAGE_SIZE) {
            if at + part.len() as u64 > self.0.capacity() {
                return Err(Error::Io);
            }
            let frames = frames(part.len().div_ceil(PAGE_SIZE))?;
            self.0.read_pages(at, &frames).map_err(|_| Error::Io)?;
            for (bytes, frame) in part.chunks_mut(PAGE_SIZE).zip(&frames) {
                frame.read(0, bytes);
            }
            at += part.len() as u64;
        }
        Ok(())
    }

    fn write(&self, block: u64, data: &[&[u8]]) -> Result<()> {
        let mut at = block * BLOCK as u64;
        for part in data.chunks(BATCH) {
            let frames = frames(part.len())?;
            for (bytes, frame) in part.iter().zip(&frames) {
                frame.write(0, bytes);
            }
            self.0.write_pages(at, &frames).map_err(|_| Error::Io)?;
            at += (part.len() * BLOCK) as u64;
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.0.flush().map_err(|_| Error::Io)
    }
}
