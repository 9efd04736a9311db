//! Images of a fleet, as every command brings them in.

use std::path::PathBuf;

use super::super::args::{BuildArgs, BuildNetwork, SourceArgs};
use super::super::progress::Display;
use super::super::target::{self, Target};
use super::super::{Failure, roots};
use crate::fleet::Image;
use crate::fleet::convert::{self, References};
use crate::fleet::plan::{self, Problem};
use crate::pipeline::Watch;
use crate::source::{self, Options, Reference, Store};

/// Images by reference, and Dockerfiles if they are to be built.
pub struct FromStore<'a> {
    /// Dockerfiles are built.
    pub build: bool,
    pub source: &'a SourceArgs,
    pub store: &'a Store,
    pub display: &'a Display,
}

impl FromStore<'_> {
    fn built(&self, image: &Image) -> Result<(Target, BuildArgs), Problem> {
        let mut build = BuildArgs::default();
        let target = match image {
            Image::Reference(reference) => {
                let reference = Reference::detect(reference);
                Target::Reference(reference.map_err(|e| Failure::from(e).into_problem())?)
            }
            Image::Build(_) if !self.build => {
                return Err(Problem::not_built());
            }
            Image::Build(wanted) => {
                let file = wanted.dockerfile.as_ref();
                build.file = file.map(|file| wanted.context.join(file));
                build.inline.clone_from(&wanted.inline);
                build.target.clone_from(&wanted.target);
                build.build_arg.clone_from(&wanted.args);
                build.build_context.clone_from(&wanted.contexts);
                build.secret.clone_from(&wanted.secrets);
                build.ssh.clone_from(&wanted.ssh);
                build.no_cache = wanted.no_cache;
                if wanted.offline {
                    build.build_network = BuildNetwork::None;
                }
                Target::Context(wanted.context.clone())
            }
        };
        Ok((target, build))
    }

    fn options(&self) -> Result<Options, Problem> {
        target::options(self.source).map_err(Failure::into_problem)
    }

    fn build(&self, image: &Image) -> Result<source::Image, Problem> {
        let (target, build) = self.built(image)?;
        target::image(&target, &build, self.source, self.store, self.display)
            .map_err(Failure::into_problem)
    }
}

impl plan::Images for FromStore<'_> {
    fn bring(&self, image: &Image) -> Result<(source::Image, PathBuf), Problem> {
        let (target, build) = self.built(image)?;
        roots::resolve(&target, &build, self.source, self.store, self.display)
            .map_err(Failure::into_problem)
    }

    fn progress(&self, done: usize, all: usize) {
        self.display.say(&format!("looked at {done} of {all} images"));
    }
}

impl convert::Images for FromStore<'_> {
    fn describe(&self, image: &Image, digest: Option<&str>) -> Result<source::Image, Problem> {
        if let Image::Build(_) = image {
            return self.build(image);
        }
        References { options: &self.options()?, store: self.store }.describe(image, digest)
    }

    fn fetch(
        &self,
        image: &Image,
        digest: &str,
        watch: &dyn Watch,
    ) -> Result<source::Image, Problem> {
        if let Image::Build(_) = image {
            return self.build(image);
        }
        References { options: &self.options()?, store: self.store }.fetch(image, digest, watch)
    }
}
