//! Layers that are read while they arrive.
//!
//! A download writes a layer to a part in the store; whoever wants the layer reads that file behind
//! it and waits where the download has not been. The end of a layer is told only once it has been
//! verified: nobody comes to the end of one that is not what its digest says. It is brought to the disk
//! and named while its readers go on.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use super::digest::Digest;
use super::image::Layer;

/// The layers of one image, on their way.
#[derive(Debug, Default)]
pub(super) struct Arrivals(HashMap<Digest, Arc<Arrival>>);

/// See [`Arrivals::until_end`].
pub(super) struct End<'a>(&'a Arrivals);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// One layer on its way.
#[derive(Debug, Default)]
pub(super) struct Arrival {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    file: Option<Arc<File>>,
    /// Bytes that are there.
    len: u64,
    phase: Phase,
    /// Whether bytes that may have been read were taken back.
    again: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Coming,
    Verified,
    Failed,
}

impl Arrivals {
    pub(super) fn new(digests: impl Iterator<Item = Digest>) -> Self {
        Self(digests.map(|digest| (digest, Arc::default())).collect())
    }

    pub(super) fn get(&self, digest: &Digest) -> Option<&Arc<Arrival>> {
        self.0.get(digest)
    }

    /// Once what this returns is dropped, the readers of all layers that are not there are told that they
    /// won't be: however the download ends, nobody waits for it after that.
    pub(super) fn until_end(&self) -> End<'_> {
        End(self)
    }

    fn end(&self) {
        for arrival in self.0.values() {
            let mut state = arrival.lock();
            if state.phase == Phase::Coming {
                state.phase = Phase::Failed;
            }
            drop(state);
            arrival.changed.notify_all();
        }
    }

    /// Whether bytes of any layer were taken back, so that a reader may have seen wrong ones.
    pub(super) fn any_again(&self) -> bool {
        self.0.values().any(|arrival| arrival.lock().again)
    }

    /// A reader of a layer, or of its file if it is none of these.
    pub(super) fn open(&self, layer: &Layer) -> io::Result<Box<dyn Read + Send>> {
        match self.0.get(&layer.digest) {
            Some(arrival) => Ok(Box::new(Follower { arrival: arrival.clone(), at: 0 })),
            None => Ok(Box::new(File::open(&layer.path)?)),
        }
    }
}

impl Arrival {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change of the state is complete by itself.
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Its bytes go to this file, which has `len` of them.
    pub(super) fn begin(&self, file: File, len: u64) {
        let mut state = self.lock();
        state.again |= len < state.len;
        (state.file, state.len) = (Some(Arc::new(file)), len);
        drop(state);
        self.changed.notify_all();
    }

    /// So many bytes are there now.
    pub(super) fn grown(&self, len: u64) {
        let mut state = self.lock();
        state.again |= len < state.len;
        state.len = len;
        drop(state);
        self.changed.notify_all();
    }

    /// All of it is there, and is what its digest says.
    pub(super) fn verified(&self) {
        self.lock().phase = Phase::Verified;
        self.changed.notify_all();
    }
}

/// Reads a layer behind its download.
struct Follower {
    arrival: Arc<Arrival>,
    at: u64,
}

impl Read for Follower {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut state = self.arrival.lock();
        let (file, there) = loop {
            match (&state.file, state.phase) {
                (_, Phase::Failed) => {
                    return Err(io::Error::other("it did not arrive"));
                }
                (Some(file), _) if state.len > self.at => {
                    break (file.clone(), state.len - self.at);
                }
                (Some(_), Phase::Verified) => return Ok(0),
                _ => {}
            }
            state = self.arrival.changed.wait(state).unwrap_or_else(|e| e.into_inner());
        };
        drop(state);
        let len = usize::try_from(there).map_or(out.len(), |there| there.min(out.len()));
        // Between the lock and here the file may have been cut; nothing is the end of it.
        let got = file.read_at(&mut out[..len], self.at)?;
        if got == 0 && len > 0 {
            return Err(io::Error::other("the download started again"));
        }
        self.at += got as u64;
        Ok(got)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::time::Duration;

    use super::*;

    fn follower() -> (Arrivals, Arc<Arrival>, Follower, File) {
        let digest = Digest::of(b"x");
        let arrivals = Arrivals::new(std::iter::once(digest));
        let arrival = arrivals.get(&digest).unwrap().clone();
        let follower = Follower { arrival: arrival.clone(), at: 0 };
        (arrivals, arrival, follower, tempfile::tempfile().unwrap())
    }

    #[test]
    fn readers_wait_for_bytes_and_for_the_verdict() {
        let (_all, arrival, mut follower, mut file) = follower();
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            follower.read_to_end(&mut bytes).map(|_| bytes)
        });
        arrival.begin(file.try_clone().unwrap(), 0);
        for piece in [&b"one"[..], b"two"] {
            file.write_all(piece).unwrap();
            arrival.grown(file.metadata().unwrap().len());
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(!reader.is_finished());
        arrival.verified();
        assert_eq!(reader.join().unwrap().unwrap(), b"onetwo");
    }

    #[test]
    fn a_layer_that_does_not_arrive_has_no_end() {
        let (all, arrival, mut follower, mut file) = follower();
        file.write_all(b"one").unwrap();
        arrival.begin(file, 3);
        let mut bytes = [0; 8];
        assert_eq!(follower.read(&mut bytes).unwrap(), 3);
        assert!(!all.any_again());
        arrival.grown(0);
        assert!(all.any_again());
        drop(all.until_end());
        assert!(follower.read(&mut bytes).is_err());
    }
}
