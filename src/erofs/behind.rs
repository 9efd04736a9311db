//! Writing behind: full buffers are hashed and written by threads of their own, so that whoever fills
//! them goes on.
//!
//! A block is hashed here while it is in the processor's cache, for the hash tree that follows the
//! image; the tree needs to read only what was changed afterwards.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use dock2uni_format::erofs::BLOCK;

use super::verity::{Leaves, hash_blocks};
use crate::atomic;
use crate::buffer::Buffer;
use crate::uncached::Uncached;

/// Buffers that wait for a thread.
const QUEUE: usize = 4;
/// One hashes while the other is in the system.
const THREADS: usize = 2;
/// When so much has been written the system is asked to bring it to the disk.
const AHEAD: u64 = 16 << 20;

/// Bytes for a place in the image.
struct Job {
    position: u64,
    bytes: Buffer,
    /// Somebody is about to read them.
    soon: bool,
}

/// Writes buffers to a region of a file, in any order.
pub(super) struct Behind {
    shared: Arc<Shared>,
    jobs: Option<SyncSender<Job>>,
    /// Buffers that have been written, to be filled again.
    spent: Receiver<Buffer>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    file: Uncached,
    /// Where the image starts in the file.
    start: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Buffers that are not written yet.
    pending: usize,
    failed: Option<io::Error>,
    leaves: Leaves,
}

impl Behind {
    /// A writer to the image that starts at byte `start` of the file, by the page cache or past it.
    pub fn new(file: &File, start: u64, direct: bool) -> io::Result<Behind> {
        let (state, changed) = (Mutex::default(), Condvar::new());
        let file = Uncached::new(file.try_clone()?, direct);
        let shared = Arc::new(Shared { file, start, state, changed });
        let (jobs, queue) = sync_channel::<Job>(QUEUE);
        let (spent_in, spent) = channel();
        let queue = Arc::new(Mutex::new(queue));
        let spawn = |_| {
            let (shared, queue, spent) = (shared.clone(), queue.clone(), spent_in.clone());
            let work = move || shared.work(&queue, &spent);
            // Without threads the caller's own does it.
            thread::Builder::new().name("write".into()).spawn(work).ok()
        };
        let threads = (0..THREADS).map_while(spawn).collect();
        Ok(Behind { shared, jobs: Some(jobs), spent, threads })
    }

    /// An empty buffer.
    pub fn spent(&self) -> io::Result<Buffer> {
        self.spent.try_recv().map_or_else(|_| Buffer::new(), Ok)
    }

    /// Takes bytes for a place in the image. `soon` keeps them in the page cache. An error may be that of
    /// bytes that were taken before.
    pub fn write(&self, position: u64, bytes: Buffer, soon: bool) -> io::Result<()> {
        let job = Job { position, bytes, soon };
        match &self.jobs {
            Some(jobs) if !self.threads.is_empty() => {
                let mut state = self.shared.lock();
                if let Some(error) = state.failed.take() {
                    return Err(error);
                }
                state.pending += 1;
                drop(state);
                jobs.send(job).map_err(|_| io::Error::other("a thread died"))
            }
            _ => self.shared.write(&job),
        }
    }

    /// Waits until everything that was taken has been written.
    pub fn drain(&self) -> io::Result<()> {
        let mut state = self.shared.lock();
        while state.pending > 0 && state.failed.is_none() {
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.failed.take().map_or(Ok(()), Err)
    }

    /// Overwrites what has been taken.
    pub fn patch(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        self.drain()?;
        self.shared.file.file().write_all_at(bytes, self.shared.start + position)?;
        let blocks =
            position / BLOCK as u64..(position + bytes.len() as u64).div_ceil(BLOCK as u64);
        self.shared.lock().leaves.forget(blocks);
        Ok(())
    }

    /// Waits for the end, gives the file its length for an image of `len` bytes, and returns the hashes
    /// that are known.
    pub fn finish(self, len: u64) -> io::Result<Leaves> {
        self.drain()?;
        self.shared.file.finish(self.shared.start + len)?;
        Ok(std::mem::take(&mut self.shared.lock().leaves))
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        // The threads end when no more jobs can come.
        self.jobs = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change of the state is complete by itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, queue: &Mutex<Receiver<Job>>, spent: &Sender<Buffer>) {
        loop {
            let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(mut job) = job else { return };
            let failed = self.write(&job).err();
            let mut state = self.lock();
            state.pending -= 1;
            if state.failed.is_none() {
                state.failed = failed;
            }
            drop(state);
            self.changed.notify_all();
            job.bytes.clear();
            // Nobody wants it any more when the writer is gone.
            let _ = spent.send(job.bytes);
        }
    }

    fn write(&self, job: &Job) -> io::Result<()> {
        let Job { position, bytes, soon } = job;
        let first = position.next_multiple_of(BLOCK as u64);
        // A buffer's length at most.
        let skip = bytes.len().min((first - position) as usize);
        let (blocks, _) = bytes[skip..].as_chunks::<BLOCK>();
        if Leaves::wants(first / BLOCK as u64) {
            let digests = hash_blocks(blocks);
            self.lock().leaves.put(first / BLOCK as u64, &digests);
        }
        let at = self.start + position;
        if *soon {
            return self.file.file().write_all_at(bytes, at);
        }
        if self.file.write_all_at(bytes, at)? {
            return Ok(());
        }
        let end = position + bytes.len() as u64;
        if end / AHEAD > position / AHEAD {
            // Another thread's bytes in there may come later; those wait for the final sync.
            let from = self.start + (end - end % AHEAD) - AHEAD;
            atomic::push(self.file.file(), from, AHEAD);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(bytes: &[u8]) -> Buffer {
        let mut buffer = Buffer::new().unwrap();
        buffer.take(bytes);
        buffer
    }

    #[test]
    fn bytes_arrive_and_hashes_are_those_of_the_blocks() {
        for direct in [false, true] {
            let file = tempfile::tempfile().unwrap();
            let behind = Behind::new(&file, 512, direct).unwrap();
            let block = |n: u64| buffer(&[n as u8; BLOCK]);
            for n in 0..40 {
                behind.write(n * BLOCK as u64, block(n), n % 2 == 0).unwrap();
            }
            // Half a block, and the rest of it with another: neither is hashed as one.
            let at = 40 * BLOCK as u64;
            behind.write(at, buffer(&[1; 100]), false).unwrap();
            behind.write(at + 100, buffer(&[1; BLOCK - 100 + BLOCK]), false).unwrap();
            behind.patch(7 * BLOCK as u64 + 4090, &[9; 10]).unwrap();
            let leaves = behind.finish(42 * BLOCK as u64).unwrap();
            for n in 0..42 {
                let mut bytes = [[0; BLOCK]];
                file.read_exact_at(&mut bytes[0], 512 + n * BLOCK as u64).unwrap();
                let known = !matches!(n, 7 | 8 | 40);
                assert_eq!(leaves.get(n).copied(), known.then(|| hash_blocks(&bytes)[0]), "{n}");
            }
            assert_eq!(leaves.get(42), None);
        }
    }

    #[test]
    fn a_failure_is_told_sooner_or_later() {
        // Not writable.
        let file = File::open("/dev/null").unwrap();
        let behind = Behind::new(&file, 0, false).unwrap();
        let first = behind.write(0, buffer(&[0; BLOCK]), false);
        assert!(first.is_err() || behind.drain().is_err());
    }
}
