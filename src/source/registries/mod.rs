//! The machine's configuration of registries (containers-registries.conf(5)): where a name's image
//! is to be had, and from which mirrors.
//!
//! Podman, buildah and skopeo read the same files. A name without a registry means Docker Hub unless
//! the configuration knows an alias for it or registries to search; there is nobody to be asked
//! which, so where the configuration wants that, it is an error that lists them.

mod file;

use std::collections::BTreeMap;

pub use self::file::Files;
use super::assemble::{Context, Root};
use super::error::{Class, Error};
use super::image::Image;
use super::reference::Name;
use super::registry::{Attached, Registry};
use std::sync::atomic::Ordering;

/// All files, merged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Registries {
    /// By prefix.
    entries: BTreeMap<String, Entry>,
    search: Vec<String>,
    mode: ShortNames,
    /// Full names without tags by short names.
    aliases: BTreeMap<String, String>,
}

/// What is configured for all names that start with a prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Entry {
    /// What stands in the prefix's place; nothing if it stays.
    location: String,
    insecure: bool,
    blocked: bool,
    mirrors: Vec<Mirror>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Mirror {
    location: String,
    insecure: bool,
    pull: Pull,
}

/// Which references a mirror is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Pull {
    #[default]
    All,
    DigestOnly,
    TagOnly,
}

/// What becomes of a name without a registry if there are several to search.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum ShortNames {
    /// All are tried.
    #[default]
    Permissive,
    /// Somebody must choose.
    Enforcing,
    /// All are tried, and nobody is asked.
    Disabled,
}

/// A place that may have an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub name: Name,
    /// HTTPS without trust, or plain HTTP, will do.
    pub insecure: bool,
    pub mirror: bool,
}

impl Registries {
    /// What a name may stand for, best first; one with a registry for itself.
    fn candidates(&self, name: &Name) -> Result<Vec<Name>, Error> {
        let Some(short) = &name.short else { return Ok(vec![name.clone()]) };
        if let Some(full) = self.aliases.get(short) {
            return Ok(vec![with_selector(full, name)?]);
        }
        let full = |host: &String| with_selector(&format!("{host}/{short}"), name);
        let found: Vec<Name> = self.search.iter().map(full).collect::<Result<_, _>>()?;
        match (found.len(), self.mode) {
            (0, _) => Ok(vec![name.clone()]),
            (1, _) | (_, ShortNames::Permissive | ShortNames::Disabled) => Ok(found),
            (_, ShortNames::Enforcing) => Err(Error::ShortName {
                name: short.clone(),
                candidates: found.iter().map(Name::to_string).collect(),
            }),
        }
    }

    /// Where a full name's image is to be had, in order: mirrors first.
    pub(super) fn places(&self, name: &Name) -> Result<Vec<Place>, Error> {
        let own = |insecure| Place { name: name.clone(), insecure, mirror: false };
        let Some((prefix, entry)) = self.find(name) else { return Ok(vec![own(false)]) };
        if entry.blocked {
            let (image, prefix) = (name.to_string(), prefix.to_owned());
            return Err(Error::Blocked { image, prefix });
        }
        let mut places = Vec::new();
        for mirror in &entry.mirrors {
            let wanted = match mirror.pull {
                Pull::All => true,
                Pull::DigestOnly => name.digest.is_some(),
                Pull::TagOnly => name.digest.is_none(),
            };
            if wanted {
                let name = replaced(name, prefix, &mirror.location)?;
                places.push(Place { name, insecure: mirror.insecure, mirror: true });
            }
        }
        if entry.location.is_empty() {
            places.push(own(entry.insecure));
        } else {
            let name = replaced(name, prefix, &entry.location)?;
            places.push(Place { name, insecure: entry.insecure, mirror: false });
        }
        Ok(places)
    }

    /// The entry with the longest prefix that the name starts with.
    fn find(&self, name: &Name) -> Option<(&str, &Entry)> {
        let matching = self.entries.iter().filter(|(prefix, _)| covers(prefix, name).is_some());
        matching.max_by_key(|(prefix, _)| prefix.len()).map(|(prefix, entry)| (&prefix[..], entry))
    }
}

/// How much of the name's text (without a tag that was not written) the prefix covers.
fn covers(prefix: &str, name: &Name) -> Option<usize> {
    let text = name.to_string();
    if let Some(domain) = prefix.strip_prefix('*') {
        // `*.example.com`: any host below it, and nothing else.
        let host = name.host.split(':').next().unwrap_or(&name.host);
        let below = host.strip_suffix(domain).is_some_and(|rest| !rest.is_empty());
        return below.then_some(name.host.len());
    }
    let rest = text.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with(['/', ':', '@'])).then_some(prefix.len())
}

/// The name with `location` in the place of what the prefix covers.
fn replaced(name: &Name, prefix: &str, location: &str) -> Result<Name, Error> {
    let text = name.to_string();
    let covered = covers(prefix, name).unwrap_or_default();
    let text = format!("{location}{}", &text[covered..]);
    let parsed: Result<Name, _> = text.parse();
    parsed.map_err(|reason| Error::Reference { text, reason })
}

/// A full name without tag and digest, with those of another.
fn with_selector(full: &str, name: &Name) -> Result<Name, Error> {
    let parsed: Result<Name, _> = full.parse();
    let mut parsed = parsed.map_err(|reason| Error::Reference { text: full.to_owned(), reason })?;
    (parsed.tag, parsed.digest, parsed.short) = (name.tag.clone(), name.digest, None);
    Ok(parsed)
}

/// An image that a place has.
pub(super) struct Attempt<'a> {
    pub registry: &'a Registry<'a>,
    /// The image's full name.
    pub name: String,
    pub root: Root,
}

/// Brings in, by `bring`, what a name in a registry stands for, from the first place that has it.
pub(super) fn resolve(
    context: &Context<'_>,
    wanted: &Name,
    bring: &mut dyn FnMut(Attempt<'_>) -> Result<Image, Error>,
) -> Result<Image, Error> {
    let registries = context.options.registries.load()?;
    let mut failed: Vec<(Name, Error)> = Vec::new();
    let mut tried = Vec::new();
    for candidate in registries.candidates(wanted)? {
        for place in registries.places(&candidate)? {
            tried.push((candidate.clone(), place));
        }
    }
    for (candidate, place) in tried {
        if let Some((before, error)) = failed.last() {
            context.progress.note(&format!("{before}: {error}; trying {}", place.name));
        }
        // An attempt that failed has told its downloads to stop.
        context.cancelled.store(false, Ordering::Relaxed);
        let registry = Registry::new(context, &place.name, place.insecure);
        let name = candidate.to_string();
        let result =
            registry.root().and_then(|root| bring(Attempt { registry: &registry, name, root }));
        match result {
            Ok(image) => return Ok(image),
            Err(error) if elsewhere(&error) => failed.push((place.name, error)),
            Err(error) => return Err(error),
        }
    }
    let Some((_, last)) = failed.pop() else {
        // `places` gives one at least.
        return Err(Error::TagUnknown { image: wanted.to_string() });
    };
    if failed.is_empty() {
        return Err(last);
    }
    let others: Vec<String> =
        failed.iter().map(|(name, error)| format!("{name}: {error}")).collect();
    let (image, others, last) = (wanted.to_string(), others.join("; "), Box::new(last));
    Err(Error::Nowhere { image, others, last })
}

/// What a name in a registry stands for and the signatures of it, from the first place that has
/// any.
pub(super) fn attached(context: &Context<'_>, wanted: &Name) -> Result<Attached, Error> {
    let registries = context.options.registries.load()?;
    let (mut unsigned, mut failed) = (None, None);
    for candidate in registries.candidates(wanted)? {
        for place in registries.places(&candidate)? {
            match Registry::new(context, &place.name, place.insecure).attached() {
                Ok(attached) if attached.is_empty() => _ = unsigned.get_or_insert(attached),
                Ok(attached) => return Ok(attached),
                Err(error) if elsewhere(&error) => _ = failed.get_or_insert(error),
                Err(error) => return Err(error),
            }
        }
    }
    let unknown = || Error::TagUnknown { image: wanted.to_string() };
    unsigned.ok_or_else(|| failed.unwrap_or_else(unknown))
}

/// Whether another place may do better.
fn elsewhere(error: &Error) -> bool {
    matches!(error.class(), Class::NotFound | Class::Auth | Class::Network | Class::Corrupt)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registries(text: &str) -> Registries {
        let mut all = Registries::default();
        file::merge(&mut all, text).unwrap();
        all
    }

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn places(registries: &Registries, text: &str) -> Vec<String> {
        let show = |place: Place| {
            let flags = [(place.mirror, " mirror"), (place.insecure, " insecure")];
            let flags = flags.into_iter().filter(|(set, _)| *set).map(|(_, word)| word);
            format!("{}{}", place.name, flags.collect::<String>())
        };
        registries.places(&name(text)).unwrap().into_iter().map(show).collect()
    }

    #[test]
    fn mirrors_come_first_and_the_longest_prefix_counts() {
        let all = registries(
            r#"
            [[registry]]
            location = "docker.io"
            [[registry.mirror]]
            location = "mirror.lan:5000/hub"
            insecure = true
            [[registry.mirror]]
            location = "digests.lan"
            pull-from-mirror = "digest-only"

            [[registry]]
            prefix = "docker.io/library"
            location = "base.lan/images"

            [[registry]]
            prefix = "*.corp.example"
            location = "proxy.lan/corp"
            insecure = true

            [[registry]]
            prefix = "r.io/a:dev"
            location = "r.io/b:dev"
            "#,
        );
        assert_eq!(
            places(&all, "team/app:1"),
            ["mirror.lan:5000/hub/team/app:1 mirror insecure", "docker.io/team/app:1"]
        );
        let digest = format!("@sha256:{}", "0a".repeat(32));
        assert_eq!(
            places(&all, &format!("team/app{digest}"))[1],
            format!("digests.lan/team/app{digest} mirror")
        );
        assert_eq!(places(&all, "nginx"), ["base.lan/images/nginx:latest"]);
        assert_eq!(places(&all, "a.corp.example:5/x/y"), ["proxy.lan/corp/x/y:latest insecure"]);
        assert_eq!(places(&all, "corp.example/x"), ["corp.example/x:latest"]);
        assert_eq!(places(&all, "docker.iox.example/y"), ["docker.iox.example/y:latest"]);
        assert_eq!(places(&all, "r.io/a:dev"), ["r.io/b:dev"]);
        assert_eq!(places(&all, "r.io/a:develop"), ["r.io/a:develop"]);
    }

    #[test]
    fn blocked_registries_are_refused() {
        let all = registries("[[registry]]\nprefix = \"bad.io/x\"\nblocked = true\n");
        let error = all.places(&name("bad.io/x/y")).unwrap_err();
        assert!(matches!(&error, Error::Blocked { prefix, .. } if prefix == "bad.io/x"), "{error}");
        assert!(all.places(&name("bad.io/y")).is_ok());
    }

    #[test]
    fn short_names_are_aliases_or_searched_for() {
        let candidates = |text: &str, short: &str| -> Result<Vec<String>, Error> {
            let found = registries(text).candidates(&name(short))?;
            Ok(found.iter().map(Name::to_string).collect())
        };
        let alias = "[aliases]\nfedora = \"registry.fedoraproject.org/fedora\"\n";
        assert_eq!(
            candidates(alias, "fedora:40").unwrap(),
            ["registry.fedoraproject.org/fedora:40"]
        );
        assert_eq!(candidates(alias, "nginx").unwrap(), ["docker.io/library/nginx:latest"]);
        let one = "unqualified-search-registries = [\"r.io\"]\nshort-name-mode = \"enforcing\"\n";
        assert_eq!(candidates(one, "nginx").unwrap(), ["r.io/nginx:latest"]);
        assert_eq!(candidates(one, "docker.io/nginx").unwrap(), ["docker.io/library/nginx:latest"]);
        let two = "unqualified-search-registries = [\"r.io\", \"docker.io\"]\n";
        let both = ["r.io/nginx:1", "docker.io/library/nginx:1"];
        assert_eq!(candidates(two, "nginx:1").unwrap(), both);
        let error = candidates(&format!("{two}short-name-mode = \"enforcing\"\n"), "nginx:1");
        let error = error.unwrap_err();
        assert!(error.hint().unwrap().contains(both[1]), "{error}");
    }
}
