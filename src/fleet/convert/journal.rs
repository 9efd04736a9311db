//! What a run that was killed leaves for the next one.
//!
//! One line of JSON for each event, appended and brought to disk before anything depends on it. A
//! line that a kill has cut off is the last one, and is dropped. The file's lock keeps a second
//! run out.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use super::super::Image;
use super::super::plan::Problem;
use super::{Error, Made};

/// Name of the file.
const NAME: &str = "journal.jsonl";
/// Largest journal that is read; one that has grown beyond it is begun anew.
const MAX_BYTES: u64 = 64 << 20;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Entry {
    /// A run began.
    Run { dock2uni: String, time: u64 },
    /// A name means this digest until the run is finished, however often it is taken up.
    Pin { image: String, digest: String },
    /// A key's disks are there.
    Made { key: String, reused: bool, attempts: u32 },
    /// A key's disks could not be made.
    Failed { key: String, text: String, attempts: u32 },
    /// The run is finished: the next one looks names up anew.
    Finished { time: u64 },
}

/// The open journal.
pub struct Journal {
    path: PathBuf,
    file: Mutex<File>,
    /// Pins of a run that was not finished.
    pins: BTreeMap<String, String>,
}

impl Journal {
    /// Opens the journal of an output directory and takes up what was not finished.
    pub fn open(out: &Path) -> Result<Journal, Error> {
        let path = out.join(NAME);
        let open = File::options().read(true).append(true).create(true).open(&path);
        let mut file = open.map_err(Error::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Busy(out.to_owned())),
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", &path)(error)),
        }
        let pins = read(&mut file).map_err(Error::io("read", &path))?;
        let journal = Journal { path, file: Mutex::new(file), pins };
        let dock2uni = env!("CARGO_PKG_VERSION").to_owned();
        journal.append(&Entry::Run { dock2uni, time: now() })?;
        Ok(journal)
    }

    /// What a name was pinned to by a run that was not finished.
    pub fn pin(&self, image: &Image) -> Option<String> {
        self.pins.get(&image.to_string()).cloned()
    }

    /// Pins a name. What is built is not pinned: its digest follows from its context.
    pub fn pinned(&self, image: &Image, digest: &str) -> Result<(), Error> {
        let Image::Reference(name) = image else { return Ok(()) };
        if self.pins.get(name).is_some_and(|known| known == digest) {
            return Ok(());
        }
        self.append(&Entry::Pin { image: name.clone(), digest: digest.to_owned() })
    }

    /// A task ended.
    pub fn ended(
        &self,
        key: &str,
        made: &Result<Made, Problem>,
        attempts: u32,
    ) -> Result<(), Error> {
        let key = key.to_owned();
        self.append(&match made {
            Ok(Made { reused, .. }) => Entry::Made { key, reused: *reused, attempts },
            Err(problem) => Entry::Failed { key, text: problem.text.clone(), attempts },
        })
    }

    /// All is done that could be.
    pub fn finish(&self) -> Result<(), Error> {
        self.append(&Entry::Finished { time: now() })
    }

    fn append(&self, entry: &Entry) -> Result<(), Error> {
        // Serialising texts and numbers does not fail.
        let mut line = serde_json::to_vec(entry).unwrap_or_default();
        line.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(|poison| poison.into_inner());
        file.write_all(&line)
            .and_then(|()| file.sync_data())
            .map_err(Error::io("write", &self.path))
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs()
}

/// Reads the pins that still hold, and cuts a line off that is not complete.
fn read(file: &mut File) -> std::io::Result<BTreeMap<String, String>> {
    let mut pins = BTreeMap::new();
    if file.metadata()?.len() > MAX_BYTES {
        file.set_len(0)?;
    }
    file.seek(SeekFrom::Start(0))?;
    let mut reader = BufReader::new(&*file);
    let (mut line, mut whole) = (Vec::new(), 0);
    while reader.read_until(b'\n', &mut line)? > 0 {
        if line.last() != Some(&b'\n') {
            break;
        }
        whole += line.len() as u64;
        // Lines of other versions say nothing.
        match serde_json::from_slice(&line) {
            Ok(Entry::Pin { image, digest }) => drop(pins.insert(image, digest)),
            Ok(Entry::Finished { .. }) => pins.clear(),
            _ => {}
        }
        line.clear();
    }
    file.set_len(whole)?;
    Ok(pins)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(name: &str) -> Image {
        Image::Reference(name.to_owned())
    }

    #[test]
    fn pins_hold_until_the_run_is_finished_and_torn_lines_do_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        assert!(matches!(Journal::open(dir.path()), Err(Error::Busy(_))));
        journal.pinned(&image("a"), "sha256:1").unwrap();
        drop(journal);
        let path = dir.path().join(NAME);
        let mut torn = std::fs::read(&path).unwrap();
        torn.extend(br#"{"pin":{"image":"b","dig"#);
        std::fs::write(&path, &torn).unwrap();

        let journal = Journal::open(dir.path()).unwrap();
        assert_eq!(journal.pin(&image("a")).as_deref(), Some("sha256:1"));
        assert_eq!(journal.pin(&image("b")), None);
        journal.pinned(&image("b"), "sha256:2").unwrap();
        drop(journal);
        let journal = Journal::open(dir.path()).unwrap();
        assert_eq!(journal.pin(&image("b")).as_deref(), Some("sha256:2"));
        journal.finish().unwrap();
        drop(journal);
        let journal = Journal::open(dir.path()).unwrap();
        assert_eq!(journal.pin(&image("a")), None);
        for line in std::fs::read_to_string(&path).unwrap().lines() {
            serde_json::from_str::<Entry>(line).unwrap();
        }
    }
}
