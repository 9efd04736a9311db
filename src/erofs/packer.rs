//! Compresses files on all processors, and gives them back in the order in which they came.
//!
//! Files are cut into segments, small ones are handed over together. What is handed over and when it is
//! taken back follows from the contents' lengths alone, so the image does not depend on how many
//! threads there are, or which is the fastest.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use super::encoder::Encoder;
use super::packing::{Done, Segment, pack};
use crate::rootfs::tree::InodeId;

/// Bytes that are compressed together; a large file has many such.
pub(super) const SEGMENT: usize = 2 << 20;
/// Small files are handed over when there are so many bytes of them, or so many of them.
const BATCH: usize = 256 << 10;
const BATCH_FILES: usize = 256;
/// Bytes that have been handed over and not taken back. As many again may be what came of them.
const BACKLOG: usize = 16 << 20;

/// Whose contents a segment has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub inode: InodeId,
    /// Bytes of the whole file.
    pub size: u64,
    /// Bytes that its extended attributes take.
    pub xattrs: usize,
    /// Whether the file ends with it.
    pub last: bool,
}

/// A segment that has been compressed.
pub(super) type Finished = (Head, Done);

/// Segments on their way.
pub(super) struct Packer {
    crew: Crew,
    heads: Vec<Head>,
    segments: Vec<Segment>,
    /// Bytes in these segments.
    gathered: usize,
    queue: VecDeque<Waiting>,
    /// Bytes in the queue.
    queued: usize,
}

/// Segments that are being compressed.
struct Waiting {
    heads: Vec<Head>,
    bytes: usize,
    done: Receiver<Vec<Done>>,
}

impl Packer {
    pub fn new() -> Packer {
        let (heads, segments, queue) = (Vec::new(), Vec::new(), VecDeque::new());
        Packer { crew: Crew::new(), heads, segments, gathered: 0, queue, queued: 0 }
    }

    /// Takes a segment.
    pub fn add(&mut self, head: Head, segment: Segment) {
        self.gathered += segment.bytes.len();
        self.heads.push(head);
        self.segments.push(segment);
        if self.gathered >= BATCH || self.heads.len() >= BATCH_FILES {
            self.dispatch();
        }
    }

    /// Segments that are to be taken back now, in order. `all` waits for the last of them.
    pub fn ready(&mut self, all: bool) -> io::Result<Option<Vec<Finished>>> {
        if all && !self.heads.is_empty() {
            self.dispatch();
        }
        if !all && self.queued <= BACKLOG {
            return Ok(None);
        }
        let Some(Waiting { heads, bytes, done }) = self.queue.pop_front() else { return Ok(None) };
        self.queued -= bytes;
        let done = done.recv().map_err(|_| io::Error::other("a thread died"))?;
        Ok(Some(heads.into_iter().zip(done).collect()))
    }

    fn dispatch(&mut self) {
        let bytes = std::mem::take(&mut self.gathered);
        let (heads, segments) =
            (std::mem::take(&mut self.heads), std::mem::take(&mut self.segments));
        let done = self.crew.give(segments);
        self.queued += bytes;
        self.queue.push_back(Waiting { heads, bytes, done });
    }
}

/// Segments, and where to bring what comes of them.
type Job = (Vec<Segment>, mpsc::Sender<Vec<Done>>);

/// The threads.
struct Crew {
    shared: Arc<(Mutex<Jobs>, Condvar)>,
    threads: Vec<JoinHandle<()>>,
    /// For a system that has no threads to give.
    own: Option<Encoder>,
}

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    ended: bool,
}

impl Crew {
    fn new() -> Crew {
        let shared: Arc<(Mutex<Jobs>, Condvar)> = Arc::default();
        let count = thread::available_parallelism().map_or(1, usize::from);
        let spawn = |_| {
            let shared = shared.clone();
            thread::Builder::new().name("compress".into()).spawn(move || work(&shared)).ok()
        };
        let threads: Vec<_> = (0..count).map_while(spawn).collect();
        let own = threads.is_empty().then(Encoder::new);
        Crew { shared, threads, own }
    }

    fn give(&mut self, segments: Vec<Segment>) -> Receiver<Vec<Done>> {
        let (to, done) = mpsc::channel();
        if let Some(encoder) = &mut self.own {
            // The other end is right here.
            let _ = to.send(segments.into_iter().map(|s| pack(s, encoder)).collect());
            return done;
        }
        let (jobs, changed) = &*self.shared;
        jobs.lock().unwrap_or_else(PoisonError::into_inner).waiting.push_back((segments, to));
        changed.notify_one();
        done
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        let (jobs, changed) = &*self.shared;
        let mut state = jobs.lock().unwrap_or_else(PoisonError::into_inner);
        state.ended = true;
        state.waiting.clear();
        drop(state);
        changed.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn work((jobs, changed): &(Mutex<Jobs>, Condvar)) {
    let mut encoder = Encoder::new();
    loop {
        let mut state = jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let (segments, to) = loop {
            match state.waiting.pop_front() {
                Some(job) => break job,
                None if state.ended => return,
                None => state = changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        };
        drop(state);
        let done = segments.into_iter().map(|segment| pack(segment, &mut encoder)).collect();
        // Nobody wants it if the image is given up.
        let _ = to.send(done);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rootfs::tree::InodeId;

    #[test]
    fn segments_come_back_in_order_and_only_when_too_many_are_out() {
        let mut packer = Packer::new();
        let mut back = Vec::new();
        let head = |n: usize| Head { inode: InodeId(n as u32), size: 0, xattrs: 0, last: true };
        for n in 0..1200 {
            let len = n * 7919 % 90_000;
            packer.add(head(n), Segment { bytes: vec![n as u8; len], room: Some(100) });
            while let Some(done) = packer.ready(false).unwrap() {
                assert!(packer.queued + 2 * BATCH > BACKLOG);
                back.extend(done);
            }
            assert!(packer.queued <= BACKLOG && packer.gathered < BATCH);
        }
        assert!(back.len() < 1100);
        while let Some(done) = packer.ready(true).unwrap() {
            back.extend(done);
        }
        assert_eq!(back.len(), 1200);
        for (n, (head, done)) in back.iter().enumerate() {
            assert_eq!((head.inode.0 as usize, done.bytes.len()), (n, n * 7919 % 90_000));
        }
    }
}
