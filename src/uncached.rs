//! Writing past the page cache (`O_DIRECT`, open(2)): large pieces go from our memory to the disk
//! without being copied, and without pages that the system must find, fill, write back and give up
//! again. That is cheaper for files that nobody is about to read, and for those alone.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::OFlags;

/// What addresses in memory and in the file are multiples of: no disk and no filesystem in use asks
/// for more, and those that do refuse.
pub(crate) const ALIGN: usize = 4096;
/// Shorter pieces are as cheap in the page cache.
const SHORTEST: usize = 64 << 10;
/// Files are made longer by so much at a time: who writes beyond the end is alone in the file, and the
/// filesystem notes every new end.
const STRIDE: u64 = 64 << 20;

/// A file that is written past the page cache where that is possible.
#[derive(Debug)]
pub(crate) struct Uncached {
    file: File,
    /// The same file without the page cache, and whether that works.
    direct: Option<File>,
    works: AtomicBool,
    /// The file's length before and now.
    lengths: Mutex<(u64, u64)>,
}

impl Uncached {
    /// Takes a file that is open for writing. `direct` says whether the page cache is to be passed by.
    pub fn new(file: File, direct: bool) -> Uncached {
        // It may have no name. Without /proc, or where the filesystem can't, the page cache serves.
        let again = || {
            let flags = OFlags::DIRECT | OFlags::CLOEXEC;
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            // The same bits with another sign.
            let flags = flags.bits() as i32;
            OpenOptions::new().write(true).custom_flags(flags).open(path).ok()
        };
        let direct = if direct { again() } else { None };
        let works = AtomicBool::new(direct.is_some());
        let len = file.metadata().map_or(0, |meta| meta.len());
        Uncached { works, direct, file, lengths: Mutex::new((len, len)) }
    }

    /// The file itself.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Writes bytes at a place of the file; true if they are on their way to the disk and nowhere else.
    pub fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<bool> {
        if let Some(direct) = &self.direct
            && bytes.len() >= SHORTEST
            && (bytes.as_ptr().addr() | bytes.len()).is_multiple_of(ALIGN)
            && at.is_multiple_of(ALIGN as u64)
            && self.works.load(Ordering::Relaxed)
        {
            self.lengthen(at + bytes.len() as u64);
            match direct.write_all_at(bytes, at) {
                // The filesystem or its disk wants it otherwise; what it took is written again.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    self.works.store(false, Ordering::Relaxed);
                }
                result => return result.map(|()| true),
            }
        }
        self.file.write_all_at(bytes, at).map(|()| false)
    }

    fn lengthen(&self, end: u64) {
        let mut lengths = self.lengths.lock().unwrap_or_else(PoisonError::into_inner);
        if end > lengths.1 {
            lengths.1 = end.next_multiple_of(STRIDE);
            // Then it grows as it is written.
            let _ = self.file.set_len(lengths.1);
        }
    }

    /// Everything has been written. What is written ends at `end`; the file ends there, or where it did
    /// before.
    pub fn finish(&self, end: u64) -> io::Result<()> {
        let (before, _) = *self.lengths.lock().unwrap_or_else(PoisonError::into_inner);
        let len = before.max(end);
        if self.file.metadata()?.len() == len { Ok(()) } else { self.file.set_len(len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::Buffer;

    #[test]
    fn pieces_of_all_kinds_arrive() {
        for direct in [true, false] {
            let file = tempfile::tempfile().unwrap();
            let uncached = Uncached::new(file.try_clone().unwrap(), direct);
            let (long, page) = (SHORTEST as u64, ALIGN as u64);
            for (seed, len, at) in [(1u8, long, 0), (2, long, 5), (3, 700, page), (4, 3 * long, 0)]
            {
                let mut buffer = Buffer::new().unwrap();
                buffer.take(&vec![seed; len as usize]);
                uncached.write_all_at(&buffer, at).unwrap();
                let mut back = vec![0; buffer.len()];
                file.read_exact_at(&mut back, at).unwrap();
                assert!(back == *buffer, "{direct} {seed}");
            }
            uncached.finish(4 * long).unwrap();
            assert_eq!(file.metadata().unwrap().len(), 4 * long);
        }
    }

    #[test]
    fn where_nothing_is_written_past_the_page_cache_it_serves() {
        // procfs opens nothing with O_DIRECT, as tmpfs of older systems and ramfs don't.
        let file = File::options().write(true).open("/proc/self/oom_score_adj").unwrap();
        assert!(Uncached::new(file, true).direct.is_none());
        // A filesystem may as well refuse the writing itself.
        let file = tempfile::tempfile().unwrap();
        // Whatever is no number is EINVAL there, as are pieces that a disk wants otherwise.
        let refuses = File::options().write(true).open("/proc/self/oom_score_adj").unwrap();
        let uncached = Uncached {
            file: file.try_clone().unwrap(),
            direct: Some(refuses),
            works: AtomicBool::new(true),
            lengths: Mutex::new((0, 0)),
        };
        let mut buffer = Buffer::new().unwrap();
        buffer.take(&[b'u'; SHORTEST]);
        for at in [0, SHORTEST as u64] {
            assert!(!uncached.write_all_at(&buffer, at).unwrap());
            assert!(!uncached.works.load(Ordering::Relaxed));
        }
        uncached.finish(2 * SHORTEST as u64).unwrap();
        let mut back = vec![0; 2 * SHORTEST + 1];
        assert_eq!(file.read_at(&mut back, 0).unwrap(), 2 * SHORTEST);
        assert!(back[..2 * SHORTEST].iter().all(|&byte| byte == b'u'));
    }

    #[test]
    fn a_file_that_was_longer_stays_as_long() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        let uncached = Uncached::new(file.try_clone().unwrap(), true);
        let mut buffer = Buffer::new().unwrap();
        buffer.take(&[1; SHORTEST]);
        uncached.write_all_at(&buffer, 0).unwrap();
        uncached.finish(SHORTEST as u64).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 1 << 20);
    }

    #[test]
    fn a_file_that_cannot_be_written_says_so() {
        let file = File::open("/dev/null").unwrap();
        let uncached = Uncached::new(file, false);
        assert!(uncached.write_all_at(&[1; ALIGN], 0).is_err());
    }
}
