//! Whether RUN would work here, found out by trying.

use std::path::PathBuf;

use super::cancel::Cancel;
use super::error::Error;
use super::index::Meta;
use super::sandbox::{self, Job, Overlay, Run};
use crate::source::Store;

/// Which users commands of RUN can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Users {
    /// All that an image has.
    All,
    /// Root alone, which is this machine's user.
    One,
}

/// Enters all namespaces, mounts what a command of RUN sees, and stops short of the command. That
/// happens beside the store, where builds do it: not every filesystem can be part of an overlay.
/// `program` starts the sandbox, see [`Options::sandbox`](super::Options::sandbox).
///
/// # Errors
/// [`Error::Sandbox`] with what this machine lacks.
pub fn probe(program: &[PathBuf], store: &Store) -> Result<Users, Error> {
    /// What a shell's status is for a command that isn't there.
    const NOT_FOUND: Option<i32> = Some(127);
    let dir = tempfile::tempdir_in(store.root())
        .map_err(|error| Error::io("create", store.root(), error))?;
    let root = Overlay {
        dir: dir.path().join("root"),
        lowers: Vec::new(),
        stubs: ["proc", "sys", "dev"]
            .map(|name| sandbox::Stub { path: name.into(), meta: Meta::directory(0o755, (0, 0)) })
            .into(),
        root: Meta::directory(0o755, (0, 0)),
    };
    let run = Run {
        root,
        mounts: Vec::new(),
        // Whatever is started has been set up before.
        argv: vec!["/nothing".into()],
        env: Vec::new(),
        cwd: "/".into(),
        user: String::new(),
        host_network: true,
    };
    let job = Job { run: Some(run), ..Job::default() };
    let file = dir.path().join("job.json");
    let done = sandbox::perform(program, &job, &file, &Cancel::default(), None, &|_| {});
    // Directories of an overlay may be another user's; what is in them is nothing.
    let _ = super::clean::remove(vec![dir.path().to_owned()], program);
    match done?.0.code {
        NOT_FOUND if sandbox::many() => Ok(Users::All),
        NOT_FOUND => Ok(Users::One),
        code => Err(Error::Sandbox {
            reason: format!("a command of RUN would not start (status {code:?})"),
            hint: None,
        }),
    }
}
