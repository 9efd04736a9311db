//! Images by reference.

use super::super::Image;
use super::super::plan::Problem;
use super::Images;
use crate::causes;
use crate::pipeline::Watch;
use crate::source::{self, Options, Progress, Quiet, Reference, Store};

/// Brings in what is named by references, and builds nothing.
#[derive(Debug)]
pub struct References<'a> {
    /// How sources are reached.
    pub options: &'a Options,
    /// Where layers are kept.
    pub store: &'a Store,
}

impl References<'_> {
    fn resolve(
        &self,
        image: &Image,
        digest: Option<&str>,
        layers: bool,
        progress: &dyn Progress,
    ) -> Result<source::Image, Problem> {
        let Image::Reference(name) = image else {
            return Err(Problem::not_built());
        };
        let mut reference = Reference::detect(name).map_err(problem)?;
        if let (Reference::Registry(name), Some(digest)) = (&mut reference, digest) {
            name.digest = Some(digest.parse().map_err(|_| Problem {
                text: format!("`{digest}`, which the plan pins it to, is no digest"),
                hint: Some("plan again".to_owned()),
                transient: false,
            })?);
        }
        let options = Options { layers, ..self.options.clone() };
        let found = source::resolve(&reference, &options, self.store, progress).map_err(problem)?;
        check(&found, digest)?;
        Ok(found)
    }
}

/// Files and directories may have changed since they were planned; a registry can't change what a
/// digest names.
pub fn check(found: &source::Image, digest: Option<&str>) -> Result<(), Problem> {
    match digest {
        Some(digest) if found.manifest.to_string() != digest => Err(Problem {
            text: format!("it was {digest} when it was planned, and is {} now", found.manifest),
            hint: Some("plan again".to_owned()),
            transient: false,
        }),
        _ => Ok(()),
    }
}

fn problem(error: source::Error) -> Problem {
    Problem { text: causes::line(&error), hint: error.hint(), transient: error.is_transient() }
}

impl Images for References<'_> {
    fn describe(&self, image: &Image, digest: Option<&str>) -> Result<source::Image, Problem> {
        self.resolve(image, digest, false, &Quiet)
    }

    fn fetch(
        &self,
        image: &Image,
        digest: &str,
        watch: &dyn Watch,
    ) -> Result<source::Image, Problem> {
        // To see it as what it is takes a word more.
        let progress: &dyn Progress = watch;
        self.resolve(image, Some(digest), true, progress)
    }
}
