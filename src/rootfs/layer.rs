//! Layers as streams: inflated on worker threads, hashed as they are consumed.
//!
//! Inflating is the slowest step and cannot be split within a layer, so it runs ahead on its own
//! threads; hashing, tar parsing and writing together take less time than it does. Buffers go
//! round, so memory is bounded by the queues: about 2 MiB a worker.

use std::{
    io::{self, BufRead, BufReader, Read},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, Receiver, Sender, SyncSender},
    },
    thread::Scope,
};

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest as _, Sha256};

use crate::source::Opener;
use crate::source::image::{Compression, Digest, Layer};

const BUFFER: usize = 256 << 10;
const QUEUE: usize = 8;

/// What went wrong under a [`Stream`], as payload of the `io::Error` that it returns.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamFault {
    #[error("cannot read the blob: {0}")]
    Read(io::Error),
    #[error("{0}")]
    Decompress(io::Error),
    #[error("more than {0} bytes")]
    Limit(u64),
}

/// The consumer's end of one layer.
pub(crate) struct Stream {
    incoming: Receiver<Result<Vec<u8>, StreamFault>>,
    spent: Sender<Vec<u8>>,
    buffer: Vec<u8>,
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
    outgoing: SyncSender<Result<Vec<u8>, StreamFault>>,
    spent: Receiver<Vec<u8>>,
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
    let (mut streams, mut feeds) = (Vec::new(), Vec::new());
    for layer in layers {
        let (outgoing, incoming) = mpsc::sync_channel(QUEUE);
        let (spent_in, spent) = mpsc::channel();
        feeds.push(Mutex::new(Some(Feed { layer, open, outgoing, spent })));
        streams.push(Stream::new(incoming, spent_in));
    }
    let shared = std::sync::Arc::new((feeds, AtomicUsize::new(0)));
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
    fn new(incoming: Receiver<Result<Vec<u8>, StreamFault>>, spent: Sender<Vec<u8>>) -> Stream {
        Stream {
            incoming,
            spent,
            buffer: Vec::new(),
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
        if self.at == self.buffer.len() && !self.ended {
            let spent = std::mem::take(&mut self.buffer);
            self.at = 0;
            // The worker may be done with the layer; then the buffer is simply freed.
            let _ = self.spent.send(spent);
            match self.incoming.recv() {
                Ok(Ok(buffer)) => self.buffer = buffer,
                Ok(Err(fault)) => {
                    self.ended = true;
                    return Err(io::Error::other(fault));
                }
                // The worker has sent everything.
                Err(mpsc::RecvError) => self.ended = true,
            }
            self.hasher.update(&self.buffer);
            self.allowance = self
                .allowance
                .checked_sub(self.buffer.len() as u64)
                .ok_or_else(|| io::Error::other(StreamFault::Limit(self.limit)))?;
        }
        Ok(&self.buffer[self.at..])
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
        let mut input = BufReader::with_capacity(BUFFER, counted);
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
            let mut buffer = self.spent.try_recv().unwrap_or_default();
            buffer.resize(BUFFER, 0);
            let mut filled = 0;
            let mut ended = false;
            while filled < BUFFER && !ended {
                match reader.read(&mut buffer[filled..]) {
                    Ok(0) => ended = true,
                    Ok(got) => filled += got,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if error.get_ref().is_some_and(|e| e.is::<BlobError>()) => {
                        return Err(StreamFault::Read(error));
                    }
                    Err(error) => return Err(StreamFault::Decompress(error)),
                }
            }
            buffer.truncate(filled);
            if filled > 0 && self.outgoing.send(Ok(buffer)).is_err() {
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
