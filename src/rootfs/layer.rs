//! Layers as streams: inflated on worker threads, hashed as they are consumed.
//!
//! Inflating is the slowest step and cannot be split within a layer, so it runs ahead on its own
//! threads; hashing, tar parsing and writing together take less time than it does. Layers are consumed
//! one after the other and the lowest, which comes last, is often the largest: so what is inflated of
//! it ahead of time is what several processors save. Memory bounds it: each layer may have [`QUEUE`]
//! buffers under way, and all of them together [`AHEAD`] more.

use std::{
    io::{self, BufRead, BufReader, Read},
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    thread::Scope,
};

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest as _, Sha256};

use crate::buffer::{self, Buffer};
use crate::source::Opener;
use crate::source::image::{Compression, Digest, Layer};

/// Bytes of a blob that are read at once.
const INPUT: usize = 256 << 10;
/// Buffers of one layer that are on their way, in any case: so the layer that is being consumed never
/// waits for the memory of those that aren't.
const QUEUE: usize = 3;
/// Buffers beyond that, of all layers: 64 MiB.
const AHEAD: usize = (64 << 20) / buffer::CAPACITY;

/// What went wrong under a [`Stream`], as payload of the `io::Error` that it returns.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamFault {
    #[error("cannot read the blob: {0}")]
    Read(io::Error),
    #[error("{0}")]
    Decompress(io::Error),
    #[error("no memory to inflate it to: {0}")]
    Memory(io::Error),
    #[error("more than {0} bytes")]
    Limit(u64),
}

/// The consumer's end of one layer.
pub(crate) struct Stream {
    incoming: Receiver<Result<Buffer, StreamFault>>,
    room: Room,
    buffer: Option<Buffer>,
    at: usize,
    hasher: Sha256,
    /// Bytes that may still come, of how many.
    allowance: u64,
    limit: u64,
    ended: bool,
}

/// The producer's end of one layer.
struct Feed<'a> {
    layer: &'a Layer,
    open: Opener<'a>,
    outgoing: Sender<Result<Buffer, StreamFault>>,
    room: Room,
}

/// What all layers of one image share.
#[derive(Debug)]
struct Budget {
    state: Mutex<Lent>,
    changed: Condvar,
}

#[derive(Debug)]
struct Lent {
    /// Buffers beyond the layers' own that may still be taken.
    ahead: usize,
    /// Buffers under way of each layer; `None` when its consumer is gone.
    of: Vec<Option<usize>>,
    /// Buffers that have come to their end, to be filled again.
    spent: Vec<Buffer>,
}

/// One layer's part in the budget, at either end of its queue.
#[derive(Clone, Debug)]
struct Room {
    budget: Arc<Budget>,
    layer: usize,
}

impl Room {
    fn lock(&self) -> MutexGuard<'_, Lent> {
        // Every change of the numbers is complete by itself.
        self.budget.state.lock().unwrap_or_else(|error| error.into_inner())
    }

    /// Waits until one more buffer may be under way, and returns it, empty; `None` if nobody wants it
    /// any more.
    fn take(&self) -> Option<io::Result<Buffer>> {
        let mut lent = self.lock();
        loop {
            match lent.of[self.layer] {
                None => return None,
                Some(taken) if taken < QUEUE => break,
                Some(_) if lent.ahead > 0 => {
                    lent.ahead -= 1;
                    break;
                }
                Some(_) => {}
            }
            lent = self.budget.changed.wait(lent).unwrap_or_else(|error| error.into_inner());
        }
        lent.of[self.layer] = lent.of[self.layer].map(|taken| taken + 1);
        let spent = lent.spent.pop();
        drop(lent);
        Some(spent.map_or_else(Buffer::new, Ok))
    }

    /// A buffer has come to its end.
    fn give(&self, mut buffer: Buffer) {
        buffer.clear();
        let mut lent = self.lock();
        lent.spent.push(buffer);
        let Some(taken) = lent.of[self.layer].filter(|&taken| taken > 0) else { return };
        lent.of[self.layer] = Some(taken - 1);
        lent.ahead += usize::from(taken > QUEUE);
        drop(lent);
        self.budget.changed.notify_all();
    }

    /// No more buffers are wanted.
    fn close(&self) {
        let mut lent = self.lock();
        let taken = lent.of[self.layer].take().unwrap_or(0);
        lent.ahead += taken.saturating_sub(QUEUE);
        drop(lent);
        self.budget.changed.notify_all();
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.room.close();
    }
}

/// Starts inflating `layers` in the given order and returns their streams, to be consumed in the
/// same order. `progress` is told of compressed bytes as they are read.
pub(crate) fn start<'scope, 'env: 'scope>(
    scope: &'scope Scope<'scope, 'env>,
    layers: impl Iterator<Item = &'env Layer>,
    threads: usize,
    open: Opener<'env>,
    progress: &'env (dyn Fn(u64) + Sync),
) -> io::Result<Vec<Stream>> {
    let layers: Vec<_> = layers.collect();
    let lent = Lent { ahead: AHEAD, of: vec![Some(0); layers.len()], spent: Vec::new() };
    let budget = Arc::new(Budget { state: Mutex::new(lent), changed: Condvar::new() });
    let (mut streams, mut feeds) = (Vec::new(), Vec::new());
    for (number, layer) in layers.into_iter().enumerate() {
        let (outgoing, incoming) = mpsc::channel();
        let room = Room { budget: budget.clone(), layer: number };
        let far = room.clone();
        feeds.push(Mutex::new(Some(Feed { layer, open, outgoing, room: far })));
        streams.push(Stream::new(incoming, room));
    }
    let shared = Arc::new((feeds, AtomicUsize::new(0)));
    for _ in 0..threads.clamp(1, streams.len().max(1)) {
        let shared = shared.clone();
        std::thread::Builder::new().name("inflate".into()).spawn_scoped(scope, move || {
            let (feeds, next) = &*shared;
            // Layers are taken in order, so the one that the consumer waits for is always taken.
            while let Some(feed) = feeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                let feed = feed.lock().ok().and_then(|mut feed| feed.take());
                if let Some(feed) = feed {
                    feed.run(progress);
                }
            }
        })?;
    }
    Ok(streams)
}

impl Stream {
    fn new(incoming: Receiver<Result<Buffer, StreamFault>>, room: Room) -> Stream {
        Stream {
            incoming,
            room,
            buffer: None,
            at: 0,
            hasher: Sha256::new(),
            allowance: u64::MAX,
            limit: u64::MAX,
            ended: false,
        }
    }

    /// Bounds the bytes that the stream may yield to `left` of a total of `limit`.
    pub fn allow(&mut self, left: u64, limit: u64) {
        (self.allowance, self.limit) = (left, limit);
    }

    fn filled(&self) -> &[u8] {
        self.buffer.as_deref().unwrap_or_default()
    }

    /// Bytes of the bound that are left.
    pub fn allowance(&self) -> u64 {
        self.allowance
    }

    /// Reads what is left and returns the digest of the whole stream.
    pub fn finish(&mut self) -> io::Result<Digest> {
        loop {
            let len = self.fill_buf()?.len();
            if len == 0 {
                return Ok(Digest(self.hasher.finalize_reset().into()));
            }
            self.consume(len);
        }
    }
}

impl BufRead for Stream {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.filled().len() && !self.ended {
            self.at = 0;
            if let Some(spent) = self.buffer.take() {
                self.room.give(spent);
            }
            match self.incoming.recv() {
                Ok(Ok(buffer)) => self.buffer = Some(buffer),
                Ok(Err(fault)) => {
                    self.ended = true;
                    return Err(io::Error::other(fault));
                }
                // The worker has sent everything.
                Err(mpsc::RecvError) => self.ended = true,
            }
            let bytes = self.buffer.as_deref().unwrap_or_default();
            self.hasher.update(bytes);
            self.allowance = self
                .allowance
                .checked_sub(bytes.len() as u64)
                .ok_or_else(|| io::Error::other(StreamFault::Limit(self.limit)))?;
        }
        Ok(&self.filled()[self.at..])
    }

    fn consume(&mut self, len: usize) {
        self.at += len;
    }
}

impl Read for Stream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let len = bytes.len().min(out.len());
        out[..len].copy_from_slice(&bytes[..len]);
        self.consume(len);
        Ok(len)
    }
}

impl Feed<'_> {
    fn run(self, progress: &(dyn Fn(u64) + Sync)) {
        // The consumer is gone if sending fails; nobody needs the error then.
        if let Err(fault) = self.pump(progress) {
            let _ = self.outgoing.send(Err(fault));
        }
    }

    fn pump(&self, progress: &(dyn Fn(u64) + Sync)) -> Result<(), StreamFault> {
        let file = (self.open)(self.layer).map_err(StreamFault::Read)?;
        let counted = Counted { file, progress };
        let mut input = BufReader::with_capacity(INPUT, counted);
        match self.layer.compression {
            Compression::None => self.copy(&mut input),
            Compression::Gzip => self.copy(&mut MultiGzDecoder::new(input)),
            Compression::Zstd => {
                let decoder = zstd::stream::read::Decoder::with_buffer(input);
                self.copy(&mut decoder.map_err(StreamFault::Decompress)?)
            }
        }
    }

    fn copy(&self, reader: &mut dyn Read) -> Result<(), StreamFault> {
        loop {
            let Some(buffer) = self.room.take() else { return Ok(()) };
            let mut buffer = buffer.map_err(StreamFault::Memory)?;
            let mut ended = false;
            while !ended && !buffer.room().is_empty() {
                match reader.read(buffer.room()) {
                    Ok(0) => ended = true,
                    Ok(got) => buffer.fill(got),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if error.get_ref().is_some_and(|e| e.is::<BlobError>()) => {
                        return Err(StreamFault::Read(error));
                    }
                    Err(error) => return Err(StreamFault::Decompress(error)),
                }
            }
            if buffer.is_empty() {
                self.room.give(buffer);
            } else if self.outgoing.send(Ok(buffer)).is_err() {
                return Ok(());
            }
            if ended {
                return Ok(());
            }
        }
    }
}

/// Tells an error of the blob's file from one of the decoder above it.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct BlobError(io::Error);

struct Counted<'a> {
    file: Box<dyn Read + Send>,
    progress: &'a (dyn Fn(u64) + Sync),
}

impl Read for Counted<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self.file.read(out) {
            Ok(got) => {
                (self.progress)(got as u64);
                Ok(got)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => Err(io::Error::new(error.kind(), BlobError(error))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rooms(ahead: usize) -> [Room; 2] {
        let lent = Lent { ahead, of: vec![Some(0); 2], spent: Vec::new() };
        let budget = Arc::new(Budget { state: Mutex::new(lent), changed: Condvar::new() });
        [0, 1].map(|layer| Room { budget: budget.clone(), layer })
    }

    #[test]
    fn one_layer_cannot_take_what_is_anothers() {
        let [first, second] = rooms(3);
        for _ in 0..QUEUE + 3 {
            assert!(second.take().is_some());
        }
        assert_eq!(second.lock().ahead, 0);
        for _ in 0..QUEUE {
            assert!(first.take().is_some());
        }
        // The next one waits until a buffer comes back, whichever layer's it is.
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| first.take());
            second.give(Buffer::new().unwrap());
            assert!(waits.join().unwrap().is_some());
        });
        assert_eq!(first.lock().of, [Some(QUEUE + 1), Some(QUEUE + 2)]);
        second.close();
        assert_eq!(first.lock().ahead, 2);
        assert!(second.take().is_none(), "nobody reads it");
        second.give(Buffer::new().unwrap());
        first.give(Buffer::new().unwrap());
        assert_eq!(first.lock().ahead, 3);
        assert_eq!(first.lock().of[0], Some(QUEUE));
    }

    #[test]
    fn a_worker_that_waits_is_told_of_the_end() {
        let [first, _] = rooms(0);
        while first.lock().of[0] != Some(QUEUE) {
            assert!(first.take().is_some());
        }
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| first.take());
            first.close();
            assert!(waits.join().unwrap().is_none());
        });
    }
}
