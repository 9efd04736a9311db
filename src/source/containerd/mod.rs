//! containerd's image store, read where it lies.
//!
//! Its metadata database names an image's manifest, and its content store is a directory of blobs as
//! an OCI layout has one. Both belong to root as a rule. The layers stay where they are.

mod bolt;

use std::io;
use std::path::{Path, PathBuf};

use self::bolt::Bolt;
pub(super) use self::bolt::Fault;
use super::assemble::{Context, Origin as _, Root, assemble};
use super::digest::Digest;
use super::error::Error;
use super::image::Image;
use super::layout::Layout;
use super::manifest::Blob;
use super::reference::Name;

const DATABASE: &str = "io.containerd.metadata.v1.bolt/meta.db";
const CONTENT: &str = "io.containerd.content.v1.content";
/// How often the database is read again if it changes meanwhile.
const ATTEMPTS: u32 = 20;

/// An image's entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    namespace: String,
    name: String,
    target: Blob,
    media_type: String,
}

/// Brings in the image that containerd calls `wanted`.
pub(super) fn resolve(context: &Context<'_>, wanted: &str, name: String) -> Result<Image, Error> {
    let roots = &context.options.containerd_roots;
    let mut denied = None;
    let mut seen = false;
    for root in roots {
        let database = root.join(DATABASE);
        match entries(&database) {
            Ok(entries) => {
                seen = true;
                if let Some(entry) = choose(context, &entries, wanted)? {
                    return bring(context, root, entry, name);
                }
            }
            Err(Fault::Io(e)) if e.kind() == io::ErrorKind::NotFound => {}
            Err(Fault::Io(e)) if e.kind() == io::ErrorKind::PermissionDenied => {
                denied.get_or_insert(Error::ContainerdDenied {
                    path: database,
                    image: wanted.into(),
                });
            }
            Err(Fault::Io(e)) => return Err(Error::io("read", &database, e)),
            Err(fault) => {
                let what = format!("`{}`", database.display());
                return Err(Error::Malformed { what, reason: fault.to_string() });
            }
        }
    }
    Err(denied.unwrap_or_else(|| Error::NotInContainerd {
        image: wanted.into(),
        roots: if seen { Vec::new() } else { roots.clone() },
    }))
}

fn bring(context: &Context<'_>, root: &Path, entry: &Entry, name: String) -> Result<Image, Error> {
    let content = root.join(CONTENT);
    let place = format!("containerd's store (`{}`)", content.display());
    let layout = Layout::at(context, &content, place);
    let bytes = layout.manifest(&entry.target)?;
    let root =
        Root { digest: entry.target.digest, bytes, media_type: Some(entry.media_type.clone()) };
    assemble(context, &layout, name, root)
}

/// The entry of that name, of the namespace that the user has set or of any.
fn choose<'a>(
    context: &Context<'_>,
    entries: &'a [Entry],
    wanted: &str,
) -> Result<Option<&'a Entry>, Error> {
    let namespace = context.options.containerd_namespace.as_deref();
    let full = wanted.parse::<Name>().ok().map(|name| name.to_string());
    let found = |matches: &dyn Fn(&Entry) -> bool| -> Vec<&'a Entry> {
        let mine = |entry: &&Entry| namespace.is_none_or(|name| entry.namespace == name);
        entries.iter().filter(mine).filter(|entry| matches(entry)).collect()
    };
    // A name that is there as it was written comes before what Docker would make of it.
    let mut all = found(&|entry| entry.name == wanted);
    if all.is_empty() {
        all = found(&|entry| {
            full.as_ref() == Some(&entry.name) || wanted == entry.target.digest.to_string()
        });
    }
    if all.iter().any(|entry| entry.target != all[0].target) {
        let namespaces = all.iter().map(|entry| entry.namespace.clone()).collect();
        return Err(Error::Namespaces { image: wanted.into(), namespaces });
    }
    Ok(all.first().copied())
}

/// All images of all namespaces.
pub(super) fn entries(database: &Path) -> Result<Vec<Entry>, Fault> {
    for _ in 0..ATTEMPTS {
        let bolt = Bolt::open(database)?;
        let entries = read(&bolt);
        // What was read while it changed may be anything.
        if bolt.is_unchanged()? {
            return entries;
        }
    }
    Err(Fault::Malformed("it changes faster than it can be read"))
}

/// `v1`, a namespace, `images`, a name, `target`: see containerd's `metadata/buckets.go`.
fn read(bolt: &Bolt) -> Result<Vec<Entry>, Fault> {
    let mut found = Vec::new();
    let Some(version) = bolt.bucket(&bolt.root(), b"v1")? else { return Ok(found) };
    for namespace in bolt.entries(&version)? {
        let name = String::from_utf8_lossy(&namespace.key).into_owned();
        let Some(bucket) = namespace.bucket()? else { continue };
        let Some(images) = bolt.bucket(&bucket, b"images")? else { continue };
        for image in bolt.entries(&images)? {
            let key = String::from_utf8_lossy(&image.key).into_owned();
            let Some(bucket) = image.bucket()? else { continue };
            let Some(target) = bolt.bucket(&bucket, b"target")? else { continue };
            let fields = bolt.entries(&target)?;
            let field = |name: &[u8]| fields.iter().find(|f| f.key == name).map(|f| &f.value[..]);
            let text = |name: &[u8]| std::str::from_utf8(field(name)?).ok();
            let digest: Option<Digest> = text(b"digest").and_then(|text| text.parse().ok());
            let (Some(digest), Some(size)) = (digest, field(b"size").and_then(varint)) else {
                continue;
            };
            found.push(Entry {
                namespace: name.clone(),
                name: key,
                target: Blob { digest, size },
                media_type: text(b"mediatype").unwrap_or_default().to_owned(),
            });
        }
    }
    Ok(found)
}

/// A number as Go's `binary.PutVarint` writes it; sizes are not negative.
fn varint(bytes: &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for (index, &byte) in bytes.iter().take(10).enumerate() {
        let bits = u64::from(byte & 0x7f);
        value |= bits.checked_shl(7 * index as u32)?;
        if byte & 0x80 == 0 {
            return (value & 1 == 0).then_some(value >> 1);
        }
    }
    None
}

/// Where containerd keeps its files: its own default, those of Kubernetes distributions and of
/// Docker, and the user's.
pub(super) fn roots(data_home: Option<&Path>) -> Vec<PathBuf> {
    let mut roots: Vec<PathBuf> = [
        "/var/lib/containerd",
        "/var/lib/rancher/k3s/agent/containerd",
        "/var/lib/rancher/rke2/agent/containerd",
        "/var/snap/microk8s/common/var/lib/containerd",
        "/var/lib/docker/containerd/daemon",
    ]
    .map(PathBuf::from)
    .into();
    roots.extend(data_home.map(|dir| dir.join("containerd")));
    roots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_go_writes_them() {
        assert_eq!(varint(&[0x00]), Some(0));
        assert_eq!(varint(&[0x02]), Some(1));
        assert_eq!(varint(&[0xac, 0x04]), Some(278));
        assert_eq!(varint(&[0x01]), None);
        assert_eq!(varint(&[0x80]), None);
        assert_eq!(varint(&[0xff; 11]), None);
    }
}
