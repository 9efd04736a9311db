//! Results in a registry, beside the image: its manifest names the image as its subject (OCI
//! distribution specification, "Referrers"), so registries list it with the image.

use super::{Publisher, Ready};
use crate::artifact::{self, Kind};
use crate::disk::Disk;
use crate::source::{Class, Name, Quiet, Reference};

/// What can stand in a template.
const WORDS: [&str; 4] = ["{registry}", "{repository}", "{tag}", "{digest}"];

pub(super) fn kind(name: &str) -> Result<Kind, String> {
    Ok(match name {
        "disk" => Kind::Disk,
        "container-disk" => Kind::ContainerDisk,
        "kernel-boot" => Kind::KernelBoot,
        "urunc" => Kind::Urunc,
        _ => {
            return Err(format!(
                "`artifact` is `disk`, `container-disk`, `kernel-boot` or `urunc`, not `{name}`"
            ));
        }
    })
}

/// Whether a template gives references.
pub(super) fn check(template: &str) -> Result<(), String> {
    let image: Name = "registry.example:5000/team/app:1".parse().map_err(str::to_owned)?;
    reference(template, &image, "sha256:00").map(|_| ())
}

/// The reference for an image's result. The tag is that of the image, or its digest if it has none.
fn reference(template: &str, image: &Name, digest: &str) -> Result<Name, String> {
    let short: String = digest.trim_start_matches("sha256:").chars().take(12).collect();
    let tag = image.tag.clone().unwrap_or_else(|| short.clone());
    let values = [&image.host, &image.repository, &tag, &short];
    let mut text = template.to_owned();
    for (word, value) in WORDS.iter().zip(values) {
        text = text.replace(word, value);
    }
    let name: Result<Name, _> = text.parse();
    let name = name.map_err(|reason| {
        format!("`{template}` gives `{text}`, which is no reference: {reason}")
    })?;
    // Not the image itself.
    if name.host == image.host && name.repository == image.repository && name.tag == image.tag {
        return Err(format!("`{template}` gives the image's own name; write `{{tag}}-vm`, say"));
    }
    Ok(name)
}

/// Pushes; returns the reference and the manifest's digest.
pub(super) fn publish(
    template: &str,
    kind: Kind,
    publisher: &Publisher<'_>,
    ready: &Ready<'_>,
) -> Result<(String, String), (String, bool)> {
    let name =
        reference(template, ready.image, &ready.outcome.digest).map_err(|why| (why, false))?;
    let file = ready.outcome.files.iter().find(|file| file.kind != "report");
    let file = file.ok_or_else(|| ("the result has no disk".to_owned(), false))?;
    let disk =
        Disk::open(&ready.files.join(&file.name)).map_err(|error| (error.to_string(), false))?;
    let text = |error: artifact::Error| {
        let passes = match &error {
            artifact::Error::Source(error) => error.class() == Class::Network,
            _ => false,
        };
        (format!("{name}: {error}"), passes)
    };
    let mut made = artifact::build(&disk, kind).map_err(text)?;
    // A subject is in the same repository, by the specification.
    let beside = name.host == ready.image.host && name.repository == ready.image.repository;
    if let Some((media_type, size)) = ready.subject.filter(|_| beside) {
        let digest = ready.outcome.digest.parse();
        let digest = digest.map_err(|_| ("the image has no digest".to_owned(), false))?;
        made.set_subject(media_type, &digest, *size);
    }
    let to = Reference::Registry(name.clone());
    artifact::push(&made, &to, publisher.registries, publisher.store, &Quiet).map_err(text)?;
    Ok((name.to_string(), made.digest.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_made_of_the_images_name() {
        let image = |text: &str| text.parse::<Name>().unwrap();
        let of = |template, image: &Name| reference(template, image, "sha256:0123456789abcdef");
        let tagged = image("r.io:5000/team/app:1.2");
        let name = of("{registry}/{repository}:{tag}-vm", &tagged).unwrap();
        assert_eq!(name.to_string(), "r.io:5000/team/app:1.2-vm");
        let name = of("vms.io/{repository}:{digest}", &tagged).unwrap();
        assert_eq!(name.to_string(), "vms.io/team/app:0123456789ab");
        let untagged = image(&format!("r.io/app@sha256:{}", "a".repeat(64)));
        let name = of("{registry}/{repository}:{tag}-vm", &untagged).unwrap();
        assert_eq!(name.to_string(), "r.io/app:0123456789ab-vm");
        assert!(of("{registry}/{repository}:{tag}", &tagged).unwrap_err().contains("own name"));
        assert!(check("no reference").is_err() && check("{repositry}").is_err());
    }
}
