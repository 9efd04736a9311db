//! What became of a fleet.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::super::plan::Problem;
use super::{Error, Made, Order, Task};
use crate::atomic::Aside;
use crate::disk::Format;

/// How an order ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Its disks were made.
    Made,
    /// Its disks were there: made by an earlier run, or for another order that is the same.
    Reused,
    /// Its disks could not be made.
    Failed,
    /// It won't run as a VM, and was not converted.
    Refused,
}

/// A disk that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DiskFile {
    /// Relative to the output directory.
    pub path: PathBuf,
    /// How it holds the disk.
    pub format: Format,
    /// Length in bytes.
    pub size: u64,
}

/// What became of one order.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Its name.
    pub name: String,
    /// What was converted.
    pub image: String,
    /// Digest of the manifest.
    pub digest: Option<String>,
    /// How it ended.
    pub status: Status,
    /// Why, if not well.
    pub reason: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// How often it was tried; 0 if it was refused.
    pub attempts: u32,
    /// Key of its disks.
    pub key: Option<String>,
    /// Its disks.
    pub files: Vec<DiskFile>,
    /// What making them took.
    pub seconds: f64,
}

impl Outcome {
    pub(super) fn problem(
        order: &Order,
        status: Status,
        problem: Problem,
        attempts: u32,
    ) -> Outcome {
        Outcome {
            name: order.name.clone(),
            image: order.image.to_string(),
            digest: order.digest.clone(),
            status,
            reason: Some(problem.text),
            hint: problem.hint,
            attempts,
            key: None,
            files: Vec::new(),
            seconds: 0.0,
        }
    }

    /// `nth` is its number among the orders of the task.
    pub(super) fn made(
        order: &Order,
        made: &Made,
        task: &Task<'_>,
        nth: usize,
        seconds: f64,
    ) -> Outcome {
        let reused = made.reused || nth > 0;
        Outcome {
            name: order.name.clone(),
            image: order.image.to_string(),
            digest: Some(task.image.manifest.to_string()),
            status: if reused { Status::Reused } else { Status::Made },
            reason: None,
            hint: None,
            attempts: 1,
            key: Some(task.key.clone()),
            files: made.files.clone(),
            seconds: if reused { 0.0 } else { seconds },
        }
    }

    /// Whether its disks are there.
    pub fn succeeded(&self) -> bool {
        matches!(self.status, Status::Made | Status::Reused)
    }
}

/// What became of all of them.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// In their order.
    pub items: Vec<Outcome>,
    /// Orders whose disks were made now.
    pub made: usize,
    /// Orders whose disks were there.
    pub reused: usize,
    /// Orders that failed.
    pub failed: usize,
    /// Orders that were refused.
    pub refused: usize,
    /// Bytes of all disks, each once.
    pub bytes: u64,
    /// What it took.
    pub seconds: f64,
}

impl Report {
    pub(super) fn new(items: Vec<Outcome>, took: Duration) -> Report {
        let count = |status| items.iter().filter(|item| item.status == status).count();
        let mut files: Vec<&DiskFile> = items.iter().flat_map(|item| &item.files).collect();
        files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        files.dedup();
        Report {
            made: count(Status::Made),
            reused: count(Status::Reused),
            failed: count(Status::Failed),
            refused: count(Status::Refused),
            bytes: files.iter().map(|file| file.size).sum(),
            seconds: took.as_secs_f64(),
            items,
        }
    }

    /// Orders whose disks are there.
    pub fn succeeded(&self) -> usize {
        self.made + self.reused
    }

    pub(super) fn write(&self, out: &Path) -> Result<(), Error> {
        let path = out.join("report.json");
        // Serialising texts and numbers does not fail.
        let text = serde_json::to_vec_pretty(self).unwrap_or_default();
        Aside::beside(&path)
            .and_then(|aside| {
                aside.file().write_all(&text)?;
                aside.publish(&path)
            })
            .map_err(Error::io("write", &path))
    }
}
