//! How a resolution tells what it is doing.

use std::time::Duration;

use super::digest::Digest;

/// Receives progress. Called from several threads at once.
pub trait Progress: Sync {
    /// A blob of `total` bytes is about to be brought in or checked.
    fn start(&self, digest: &Digest, total: u64) -> Box<dyn Bar>;

    /// Something happened that people may want to know.
    fn note(&self, text: &str) {
        let _ = text;
    }

    /// A request failed and is repeated after `wait`.
    fn retrying(&self, reason: &str, wait: Duration) {
        let _ = (reason, wait);
    }
}

/// Progress of one blob. Dropped without [`Bar::finish`] if the blob failed.
pub trait Bar: Send {
    /// So many more bytes are there.
    fn advance(&mut self, bytes: u64);

    /// The server can't resume, or kept bytes proved wrong: start again from nothing.
    fn restart(&mut self);

    /// The blob is complete and verified.
    fn finish(&mut self, outcome: Outcome);
}

/// How a blob came to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was in the store already.
    Cached,
    /// It was fetched, or copied out of an archive.
    Fetched,
    /// It lies at its source and was verified there.
    InPlace,
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl Progress for Quiet {
    fn start(&self, _: &Digest, _: u64) -> Box<dyn Bar> {
        Box::new(Quiet)
    }
}

impl Bar for Quiet {
    fn advance(&mut self, _: u64) {}
    fn restart(&mut self) {}
    fn finish(&mut self, _: Outcome) {}
}
