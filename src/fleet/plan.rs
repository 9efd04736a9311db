//! What will become of each workload, before anything is converted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};

use super::{Error, Image, Inventory, Severity, Workload};
use crate::config::Overrides;
use crate::plan::{self as report, Report};
use crate::source;

/// Version of the plan's form.
pub const VERSION: u32 = 1;
/// Largest plan that is read, in bytes.
const MAX_BYTES: u64 = 256 << 20;

/// Where images come from. Called from several threads.
pub trait Images: Sync {
    /// Brings in an image: its description, and a file that is its root filesystem.
    ///
    /// # Errors
    /// In words.
    fn bring(&self, image: &Image) -> Result<(source::Image, PathBuf), Problem>;

    /// Is told how many of all images have been looked at.
    fn progress(&self, _done: usize, _all: usize) {}
}

/// Why an image could not be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What happened.
    pub text: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// It may be different a little later.
    pub transient: bool,
}

impl Problem {
    /// An image that comes of a Dockerfile which was not to be built.
    pub fn not_built() -> Problem {
        Problem {
            text: "its image is built from a Dockerfile, and was not built".to_owned(),
            hint: Some("`--build` builds it, RUN steps included".to_owned()),
            transient: false,
        }
    }
}

/// Whether a workload will run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Nothing speaks against it.
    Runs,
    /// It will run, and some things will be different.
    RunsWithNotes,
    /// It won't run as a VM.
    WontRun,
    /// Its image could not be looked at.
    Unknown,
}

impl Verdict {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Verdict::Runs => "runs",
            Verdict::RunsWithNotes => "runs with notes",
            Verdict::WontRun => "won't run",
            Verdict::Unknown => "unknown",
        }
    }
}

/// A plan for a fleet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Version of this form.
    pub version: u32,
    /// One item for each workload, in the order of the sources.
    pub items: Vec<Item>,
    /// The images, each once, by reference or build context.
    pub images: BTreeMap<String, Summary>,
    /// Sums.
    pub totals: Totals,
}

impl Plan {
    /// Reads a plan that was written as JSON; `None` if the file is something else.
    ///
    /// # Errors
    /// If it cannot be read, is larger than any plan, or is of another version.
    pub fn read(path: &Path) -> Result<Option<Plan>, Error> {
        if path.extension().is_none_or(|extension| extension != "json") || !path.is_file() {
            return Ok(None);
        }
        let failed = |source| Error::Read { path: path.to_owned(), source };
        let name = path.display().to_string();
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(failed)?;
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(Error::TooLarge { name, limit: MAX_BYTES });
        }
        let Ok(head) = serde_json::from_slice::<Head>(&bytes) else { return Ok(None) };
        if head.version != VERSION {
            return Err(Error::PlanVersion { name, version: head.version });
        }
        serde_json::from_slice(&bytes).map(Some).map_err(|error| Error::Value {
            name,
            place: format!("line {}", error.line()),
            text: format!("the plan is damaged: {error}"),
        })
    }
}

/// What tells a plan from other JSON.
#[derive(Deserialize)]
struct Head {
    version: u32,
    #[serde(rename = "items")]
    _items: Vec<serde::de::IgnoredAny>,
    #[serde(rename = "totals")]
    _totals: serde::de::IgnoredAny,
}

/// What is known about one workload.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Item {
    /// The workload.
    pub workload: Workload,
    /// Digest of its image's manifest.
    pub digest: Option<String>,
    /// Whether it will run.
    pub verdict: Verdict,
    /// Why, worst first.
    pub reasons: Vec<Reason>,
    /// Memory for one VM in MiB: the workload's own limit, or an estimate.
    pub memory_mib: Option<u64>,
    /// The command that it runs.
    pub argv: Vec<String>,
}

/// One reason for a verdict.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Reason {
    /// How much it weighs.
    pub severity: Severity,
    /// What was found.
    pub text: String,
    /// The way out, if there is one.
    pub advice: Option<String>,
}

/// One image of the fleet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Summary {
    /// Digest of its manifest.
    pub digest: String,
    /// Operating system, by its own word.
    pub distribution: Option<String>,
    /// Layers as stored, lowest first: digest and bytes.
    pub layers: Vec<(String, u64)>,
    /// Bytes of its root filesystem.
    pub root: u64,
}

/// Sums over a fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Workloads by verdict.
    pub verdicts: BTreeMap<String, usize>,
    /// VMs at once, by replicas.
    pub machines: u64,
    /// Bytes of all images' layers, each image on its own.
    pub layers: u64,
    /// Bytes of the distinct layers among them: what is downloaded.
    pub download: u64,
    /// Bytes of all root filesystems.
    pub roots: u64,
    /// MiB of memory of all VMs at once, as far as it is known.
    pub memory_mib: u64,
}

impl Totals {
    /// Bytes that need not be downloaded because images share layers.
    pub fn saved(&self) -> u64 {
        self.layers.saturating_sub(self.download)
    }
}

/// Looks at every image of `inventory`, `jobs` of them at once, and says what will become of each
/// workload. An image that can't be looked at makes its workloads [`Verdict::Unknown`].
pub fn plan(inventory: &Inventory, images: &dyn Images, jobs: usize) -> Plan {
    let mut by_image: BTreeMap<&Image, Vec<usize>> = BTreeMap::new();
    for (at, workload) in inventory.workloads.iter().enumerate() {
        by_image.entry(&workload.image).or_default().push(at);
    }
    let groups: Vec<(&Image, Vec<usize>)> = by_image.into_iter().collect();
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let found = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, groups.len().max(1)) {
            scope.spawn(|| {
                while let Some((image, members)) = groups.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let workloads: Vec<&Workload> =
                        members.iter().map(|at| &inventory.workloads[*at]).collect();
                    let seen = look(image, &workloads, images);
                    let mut found = found.lock().unwrap_or_else(|poison| poison.into_inner());
                    found.push((*image, members, seen));
                    images.progress(done.fetch_add(1, Ordering::Relaxed) + 1, groups.len());
                }
            });
        }
    });
    let mut items: Vec<Option<Item>> = vec![None; inventory.workloads.len()];
    let mut summaries = BTreeMap::new();
    for (image, members, seen) in found.into_inner().unwrap_or_else(|p| p.into_inner()) {
        let (summary, outcomes) = seen;
        for (at, outcome) in members.iter().zip(outcomes) {
            items[*at] = Some(outcome);
        }
        summaries.extend(summary.map(|summary| (image.to_string(), summary)));
    }
    // Every workload is a member of one group.
    let items: Vec<Item> = items.into_iter().flatten().collect();
    let totals = totals(&items, &summaries);
    Plan { version: VERSION, items, images: summaries, totals }
}

/// What is known about the workloads of one image.
fn look(
    wanted: &Image,
    workloads: &[&Workload],
    images: &dyn Images,
) -> (Option<Summary>, Vec<Item>) {
    let unknown = |problem: &Problem| {
        let item = |workload: &&Workload| {
            let mut item = without_image(workload);
            item.reasons.insert(
                0,
                Reason {
                    severity: Severity::Blocker,
                    text: problem.text.clone(),
                    advice: problem.hint.clone(),
                },
            );
            item
        };
        (None, workloads.iter().map(item).collect())
    };
    let (image, root) = match images.bring(wanted) {
        Ok(found) => found,
        Err(problem) => return unknown(&problem),
    };
    let failed = |error: &dyn std::fmt::Display| Problem {
        text: format!("its root filesystem cannot be read: {error}"),
        hint: None,
        transient: false,
    };
    let file = match File::open(&root) {
        Ok(file) => file,
        Err(error) => return unknown(&failed(&error)),
    };
    let mut distribution = None;
    let mut items: Vec<Item> = Vec::new();
    // Replicas and services that differ in ports or volumes alone have one report.
    let mut known: Vec<(Overrides, Report)> = Vec::new();
    for workload in workloads {
        let overrides = workload.overrides();
        let report = match known.iter().find(|(other, _)| *other == overrides) {
            Some((_, report)) => report.clone(),
            None => match report::report_on(&image, &overrides, &file, 0) {
                Ok(report) => {
                    known.push((overrides, report.clone()));
                    report
                }
                Err(error) => return unknown(&failed(&error)),
            },
        };
        distribution.clone_from(&report.distribution);
        items.push(item(workload, &report));
    }
    let summary = Summary {
        digest: image.manifest.to_string(),
        distribution,
        layers: image.layers.iter().map(|l| (l.digest.to_string(), l.size)).collect(),
        root: file.metadata().map_or(0, |data| data.len()),
    };
    (Some(summary), items)
}

/// A workload and its image's report together.
fn item(workload: &Workload, report: &Report) -> Item {
    let mut reasons: Vec<Reason> = own_reasons(workload);
    // A volume may have the data already whose making would ask for variables.
    let mounted = !workload.mounts.is_empty();
    let blocks = |finding: &report::Finding| {
        finding.severity == report::Severity::Blocker
            && !(mounted && finding.id == report::VARIABLE)
    };
    reasons.extend(report.findings.iter().map(|finding| Reason {
        severity: if blocks(finding) { Severity::Blocker } else { Severity::Warning },
        text: finding.text.clone(),
        advice: finding.advice.clone(),
    }));
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.severity));
    let of_image = match report.verdict {
        report::Verdict::Runs => Verdict::Runs,
        report::Verdict::WontRun if report.findings.iter().any(blocks) => Verdict::WontRun,
        _ => Verdict::RunsWithNotes,
    };
    let limit = workload.resources.memory.map(|bytes| bytes.div_ceil(1 << 20));
    Item {
        digest: Some(report.manifest.clone()),
        verdict: of_image.max(own_verdict(workload)),
        reasons,
        memory_mib: Some(limit.unwrap_or(report.memory.suggested)),
        argv: report.runs.as_ref().map(|runs| runs.argv.clone()).unwrap_or_default(),
        workload: workload.clone(),
    }
}

fn own_reasons(workload: &Workload) -> Vec<Reason> {
    let reason = |note: &super::Note| Reason {
        severity: note.severity,
        text: note.text.clone(),
        advice: None,
    };
    workload.notes.iter().map(reason).collect()
}

fn own_verdict(workload: &Workload) -> Verdict {
    match workload.notes.iter().map(|note| note.severity).max() {
        Some(Severity::Blocker) => Verdict::WontRun,
        Some(Severity::Warning) => Verdict::RunsWithNotes,
        Some(Severity::Info) | None => Verdict::Runs,
    }
}

fn without_image(workload: &Workload) -> Item {
    Item {
        digest: None,
        // What can't work does not depend on the image.
        verdict: match own_verdict(workload) {
            Verdict::WontRun => Verdict::WontRun,
            _ => Verdict::Unknown,
        },
        reasons: own_reasons(workload),
        memory_mib: workload.resources.memory.map(|bytes| bytes.div_ceil(1 << 20)),
        argv: Vec::new(),
        workload: workload.clone(),
    }
}

fn totals(items: &[Item], images: &BTreeMap<String, Summary>) -> Totals {
    let mut totals = Totals::default();
    for verdict in [Verdict::Runs, Verdict::RunsWithNotes, Verdict::WontRun, Verdict::Unknown] {
        let count = items.iter().filter(|item| item.verdict == verdict).count();
        totals.verdicts.insert(verdict.words().to_owned(), count);
    }
    for item in items {
        let count = u64::from(item.workload.replicas);
        totals.machines += count;
        totals.memory_mib += count * item.memory_mib.unwrap_or(0);
    }
    // Two references may be one image.
    let (mut digests, mut layers) = (BTreeSet::new(), BTreeSet::new());
    for summary in images.values() {
        if digests.insert(&summary.digest) {
            totals.roots += summary.root;
        }
        for (digest, size) in &summary.layers {
            totals.layers += size;
            if layers.insert(digest) {
                totals.download += size;
            }
        }
    }
    totals
}
