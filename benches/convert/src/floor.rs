//! What conversion cannot be faster than on this machine: the largest of inflating and hashing the
//! slowest layer, doing that to all layers on all processors at once, and writing the image. With the
//! same code for inflating and hashing that the converter uses, on blobs that are in memory.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use bench_convert::Result;
use dock2uni::source::digest::Hasher;
use dock2uni::source::image::{Compression, Layer};

/// The three, in wall time of an idle machine.
#[derive(Clone, Copy, Debug)]
pub struct Floor {
    pub slowest: Duration,
    pub all: Duration,
    pub writing: Duration,
}

/// Layers in memory.
pub struct Blobs(Vec<(Compression, Vec<u8>)>);

impl Blobs {
    pub fn read(layers: &[Layer]) -> Result<Blobs> {
        let read = |layer: &Layer| Ok((layer.compression, fs::read(&layer.path)?));
        layers.iter().map(read).collect::<Result<_>>().map(Blobs)
    }
}

impl Floor {
    /// The lesser of both in everything.
    pub fn min(self, other: Floor) -> Floor {
        Floor {
            slowest: self.slowest.min(other.slowest),
            all: self.all.min(other.all),
            writing: self.writing.min(other.writing),
        }
    }

    /// Measures it once; `image` is the image that was made of the layers.
    pub fn measure(Blobs(blobs): &Blobs, image: &Path) -> Result<Floor> {
        let time = |work: &dyn Fn() -> Result<()>| -> Result<Duration> {
            let started = Instant::now();
            work()?;
            Ok(started.elapsed())
        };
        let mut times = Vec::new();
        for (compression, blob) in blobs {
            times.push(time(&|| inflate_and_hash(*compression, blob))?);
        }
        // Processors that share a core are slower together than alone, so all of them work at once:
        // each does everything, which is as often as there are processors.
        let cores = thread::available_parallelism()?.get();
        let all = time(&|| {
            thread::scope(|scope| {
                let work = |first: usize| {
                    let mut blobs = blobs.iter().cycle().skip(first).take(blobs.len());
                    blobs.try_for_each(|(compression, blob)| inflate_and_hash(*compression, blob))
                };
                let threads: Vec<_> = (0..cores).map(|n| scope.spawn(move || work(n))).collect();
                threads.into_iter().try_for_each(|thread| -> Result<()> {
                    thread.join().map_err(|_| "a thread died")?
                })
            })
        })?;
        let bytes = fs::read(image)?;
        let copy = image.with_extension("floor");
        let writing = time(&|| {
            let mut file = File::create(&copy)?;
            file.write_all(&bytes)?;
            Ok(file.sync_all()?)
        })?;
        fs::remove_file(&copy)?;
        Ok(Floor {
            slowest: times.iter().max().copied().unwrap_or_default(),
            all: all / cores as u32,
            writing,
        })
    }

    /// The largest.
    pub fn least(&self) -> Duration {
        self.slowest.max(self.all).max(self.writing)
    }
}

/// Hashes what is stored and what it holds, as anybody must who believes neither.
fn inflate_and_hash(compression: Compression, blob: &[u8]) -> Result<()> {
    let mut hasher = Hasher::new();
    hasher.update(blob);
    std::hint::black_box(hasher.finish());
    let mut plain: Box<dyn Read> = match compression {
        Compression::None => Box::new(blob),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(blob)),
        Compression::Zstd => Box::new(zstd::Decoder::with_buffer(blob)?),
    };
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match plain.read(&mut buffer)? {
            0 => break,
            got => hasher.update(&buffer[..got]),
        }
    }
    std::hint::black_box(hasher.finish());
    Ok(())
}
