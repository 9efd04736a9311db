//! Slimming from end to end: a trace boot of the whole image, the choice ([`plan::slim`]), and a
//! boot of what is left, which must answer as the whole did.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::Path;

use dock2uni_format::record::Root as Place;

use crate::config::Overrides;
use crate::convert::{self, RootOptions};
use crate::erofs::{ReadAt, Reader};
use crate::plan::root::Root;
use crate::plan::slim::{Slim, Wishes, choose};
use crate::plan::{self, Severity, Verdict};
use crate::source::image::Image;
use crate::trial::trace::Trace;
use crate::trial::{self, Settings, Subject, Trial, Waiting};

/// Why an image was not slimmed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The plan.
    #[error(transparent)]
    Plan(#[from] plan::Error),
    /// The slim root.
    #[error(transparent)]
    Convert(#[from] convert::Error),
    /// No machine to try it on.
    #[error(transparent)]
    Trial(#[from] trial::Error),
    /// There is nothing to keep running.
    #[error("the image won't run as it is: {0}")]
    WontRun(String),
    /// A boot without an answer.
    #[error("{what} does not work when it is booted: {failure}")]
    Unanswered {
        /// Which boot.
        what: &'static str,
        /// What went wrong.
        failure: String,
        /// Whether that is that patience ended.
        overdue: bool,
        /// The end of the console.
        console: String,
    },
    /// Files.
    #[error("a temporary file cannot be made")]
    Temporary(#[source] io::Error),
}

impl Error {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Error::Plan(error) => error.hint(),
            Error::Convert(error) => error.hint(),
            Error::Trial(error) => error.hint(),
            Error::WontRun(_) => Some("`dock2uni inspect` says why, and the way out"),
            Error::Unanswered { what, overdue: true, .. } if *what == SLIM => Some(
                "if it is only slow, let it have more `--patience`; if not, name the files that are \
                 missed with `--keep`",
            ),
            Error::Unanswered { what, .. } if *what == SLIM => Some(
                "name the files that are missed with `--keep`, or have a trace made with a probe \
                 that uses them: `dock2uni trace`",
            ),
            Error::Unanswered { overdue: true, .. } => Some(
                "if it is only slow, let it have more `--patience`; `dock2uni run` shows what it does",
            ),
            Error::Unanswered { .. } => {
                Some("only an image that works can be slimmed; `dock2uni run` shows what it does")
            }
            Error::Temporary(_) => {
                Some("set TMPDIR to a directory with room for the image's files")
            }
        }
    }
}

const WHOLE: &str = "the whole image";
/// The boot of what is left, in [`Error::Unanswered`].
pub const SLIM: &str = "the slim image";

/// A choice that was tried.
#[derive(Debug)]
pub struct Slimmed {
    /// The choice.
    pub slim: Slim,
    /// The boot of the slim image.
    pub trial: Trial,
}

/// What goes on meanwhile.
#[derive(Clone, Copy, Debug)]
pub enum News<'a> {
    /// Something begins, in words.
    Begins(&'a str),
    /// A boot waits, told every second.
    Waits(&'a Waiting),
}

/// Finds out what `image` needs, and sees that it runs with that alone.
///
/// `root` is the image's bare root, as [`convert::root_image`] makes it. Without a trace one is
/// made. `tell` is told what goes on.
///
/// # Errors
/// If it can't be found out, or either boot fails.
pub fn slim(
    image: &Image,
    overrides: &Overrides,
    root: &Path,
    trace: Option<Trace>,
    wishes: &Wishes,
    settings: &Settings,
    tell: &dyn Fn(News<'_>),
) -> Result<Slimmed, Error> {
    let file = File::open(root).map_err(Error::Temporary)?;
    let files = Root::open(&file as &dyn ReadAt, 0).map_err(plan::Error::from)?;
    let plan = plan::examine(image, overrides, &files)?;
    let (Some(record), true) = (&plan.record, plan.report.verdict != Verdict::WontRun) else {
        let blockers = plan.report.findings.iter().filter(|f| f.severity == Severity::Blocker);
        let texts: Vec<&str> = blockers.map(|finding| finding.text.as_str()).collect();
        return Err(Error::WontRun(texts.join("; ")));
    };
    let boot = |path: &Path, what, witness, wanted: &BTreeSet<u16>| -> Result<Trial, Error> {
        let file = File::open(path).map_err(Error::Temporary)?;
        let mut record = record.clone();
        let uuid = Reader::open(&file, 0).map_err(plan::Error::from)?.superblock().uuid;
        record.root = Place::Disk { uuid };
        let wanted = settings.wanted.union(wanted).copied().collect();
        let settings = Settings { witness, wanted, ..settings.clone() };
        let watch = |waiting: &Waiting| tell(News::Waits(waiting));
        let trial = trial::run(&Subject::root(path, record)?, &settings, &watch)?;
        match &trial.failure {
            Some(failure) => Err(Error::Unanswered {
                what,
                failure: failure.clone(),
                overdue: trial.overdue,
                console: trial.console.clone(),
            }),
            None => Ok(trial),
        }
    };
    let trace = match trace {
        Some(trace) => trace,
        None => {
            tell(News::Begins("booting the whole image to see what it uses"));
            boot(root, WHOLE, true, &BTreeSet::new())?.trace
        }
    };
    // What answered before must do so again.
    let answered = trace.answered.clone();
    let slim = choose(&plan, &files, &[trace], wishes);
    let dir = tempfile::tempdir_in(&settings.scratch).map_err(Error::Temporary)?;
    let path = dir.path().join("slim.erofs");
    let selection = Some(&slim.selection);
    let options = RootOptions { selection, limits: wishes.limits, ..RootOptions::default() };
    convert::root_image(image, &options, &path, &|_| {})?;
    tell(News::Begins("booting the slim image to see that it works"));
    let trial = boot(&path, SLIM, false, &answered)?;
    Ok(Slimmed { slim, trial })
}
