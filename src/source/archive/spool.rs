//! Layers on their way from an archive into the store.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use super::{Archive, Stream};
use crate::source::digest::Digest;
use crate::source::error::Error;
use crate::source::progress::{Bar, Outcome};
use crate::source::store::{Slot, Writer};

/// Bytes behind an archive's end that are read so that its writer doesn't fail.
const TRAILER: u64 = 64 << 20;

/// A file's data, wherever it is.
pub(super) enum Data<'s> {
    /// The archive stands before it.
    Stream(&'s mut Stream),
    /// It was small and is in memory.
    Bytes(&'s [u8]),
    /// It is in the store, without a name yet.
    Aside(Writer),
}

impl Archive<'_> {
    /// Sets a file of a stream aside in the store; `head` has been read of it already.
    pub(super) fn set_aside(
        &self,
        name: &str,
        size: u64,
        head: &[u8],
        stream: &mut Stream,
    ) -> Result<Writer, Error> {
        let label = super::docker::digest_in_name(name);
        let label = label.unwrap_or_else(|| Digest::of(name.as_bytes()));
        let mut bar = self.context.progress.start(&label, size);
        let mut writer = self.context.store.import()?;
        writer.write(head)?;
        bar.advance(head.len() as u64);
        self.copy(stream, &mut writer, bar.as_mut())?;
        bar.finish(Outcome::Fetched);
        Ok(writer)
    }

    /// Brings a layer's data into the store, unless it is there: by the digest that it must have,
    /// or the one that it has.
    pub(super) fn keep(
        &self,
        data: Data<'_>,
        digest: Option<Digest>,
        size: u64,
        bar: &mut dyn Bar,
    ) -> Result<(Digest, PathBuf, Outcome), Error> {
        match data {
            Data::Aside(mut writer) => {
                if let Some(digest) = digest {
                    writer.expect(digest, size);
                }
                bar.advance(size);
                let (digest, path) = writer.commit("layer", &self.name())?;
                Ok((digest, path, Outcome::Fetched))
            }
            Data::Stream(stream) => {
                self.fill(digest, size, |writer| self.copy(stream, writer, bar))
            }
            Data::Bytes(bytes) => self.fill(digest, size, |writer| {
                writer.write(bytes)?;
                bar.advance(size);
                Ok(())
            }),
        }
    }

    fn fill(
        &self,
        digest: Option<Digest>,
        size: u64,
        write: impl FnOnce(&mut Writer) -> Result<(), Error>,
    ) -> Result<(Digest, PathBuf, Outcome), Error> {
        let mut writer = match digest {
            None => self.context.store.import()?,
            Some(digest) => match self.context.store.slot(&digest, size, self.context.progress)? {
                Slot::Present(path) => return Ok((digest, path, Outcome::Cached)),
                Slot::Vacant(writer) => writer,
            },
        };
        writer.restart()?;
        write(&mut writer)?;
        let (digest, path) = writer.commit("layer", &self.name())?;
        Ok((digest, path, Outcome::Fetched))
    }

    /// Copies the current entry's data into a writer.
    fn copy(
        &self,
        stream: &mut Stream,
        writer: &mut Writer,
        bar: &mut dyn Bar,
    ) -> Result<(), Error> {
        loop {
            if self.context.cancelled.load(Ordering::Relaxed) {
                return Err(Error::Cancelled);
            }
            let data = stream.data(u64::MAX).map_err(|e| self.fault(e))?;
            let len = data.len();
            if len == 0 {
                return Ok(());
            }
            writer.write(data)?;
            bar.advance(len as u64);
            stream.consume(len);
        }
    }
}

/// Reads what follows an archive, so that whoever writes it isn't told that nobody listens. What is
/// wrong with it is no matter of the image.
pub(super) fn drain(rest: impl Read) {
    let _ = io::copy(&mut rest.take(TRAILER), &mut io::sink());
}

/// A stream that fails once it has yielded more than it may.
pub(super) struct Bounded<R> {
    inner: R,
    left: u64,
    limit: u64,
}

impl<R> Bounded<R> {
    pub(super) fn new(inner: R, limit: u64) -> Self {
        Self { inner, left: limit, limit }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(out)?;
        match self.left.checked_sub(read as u64) {
            Some(left) => {
                self.left = left;
                Ok(read)
            }
            None => Err(io::Error::other(format!(
                "it holds more than {} bytes (`--limit archive-bytes`)",
                self.limit
            ))),
        }
    }
}
