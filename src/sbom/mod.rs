//! Software bills of materials: what an image consists of, by its own records.
//!
//! [`Inventory::read`] collects the packages of the distribution's database (dpkg, apk, rpm) and
//! those that languages leave records of: npm, Python, Ruby gems, Go and Rust programs. Nothing is
//! guessed from file names or versions in texts: what has left no record is not listed.
//! [`spdx`] and [`cyclonedx`] write the inventory in the two published formats. Both depend on the
//! image alone.

mod cyclonedx;
mod language;
mod os;
mod purl;
mod spdx;

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::Path;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::atomic::Aside;
use crate::erofs::{ReadAt, ReadError};
use crate::plan::packages::{Database, Manager};
use crate::plan::root::{Root, show};
use crate::source::{Digest, Image};

pub use os::Os;
use purl::Purl;

/// Components that are listed. No honest image has more; a hostile one must not fill memory.
const MAX_COMPONENTS: usize = 200_000;
/// Files that are looked at.
const MAX_FILES: usize = 4_000_000;

/// A published format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// SPDX 2.3, JSON (ISO/IEC 5962).
    Spdx,
    /// CycloneDX 1.6, JSON (ECMA-424).
    CycloneDx,
}

impl Form {
    /// By a file's name.
    pub fn of_path(path: &Path) -> Form {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        if name.contains("spdx") { Form::Spdx } else { Form::CycloneDx }
    }
}

/// What an inventory is of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// Its name for people.
    pub name: String,
    /// The manifest's digest, if it is a container image.
    pub digest: Option<Digest>,
    /// When it was made, RFC 3339 in UTC.
    pub created: Option<String>,
}

impl Subject {
    /// A container image.
    pub fn of_image(image: &Image) -> Subject {
        Subject {
            name: image.name.clone(),
            digest: Some(image.manifest),
            created: image.config.created().clone(),
        }
    }
}

/// One package or module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    /// Its identity (package URL specification).
    pub purl: String,
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// The licence as its record has it.
    pub license: Option<String>,
    /// The source package that it was built from, if that has another name.
    pub source: Option<String>,
    /// Where the records that name it are, sorted.
    pub locations: Vec<String>,
}

/// What an image consists of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// What this is of.
    pub subject: Subject,
    /// The distribution.
    pub os: Option<Os>,
    /// All that was found, sorted by [`Component::purl`].
    pub components: Vec<Component>,
}

impl Inventory {
    /// Looks through the EROFS image that starts at byte `start` of `source`.
    ///
    /// # Errors
    /// If it is no EROFS image. Records that are damaged are passed over.
    pub fn read(source: &dyn ReadAt, start: u64, subject: Subject) -> Result<Inventory, ReadError> {
        let root = Root::open(source, start)?;
        let os = Os::read(&root);
        let mut found = Found::default();
        distribution(&root, os.as_ref(), &mut found);
        for (path, node) in root.walk(b"/", MAX_FILES) {
            if node.is_file() {
                language::look(&root, &path, &node, &mut found);
            }
        }
        Ok(Inventory { subject, os, components: found.0.into_values().collect() })
    }

    /// The bill of materials, JSON with a line end.
    pub fn to_text(&self, form: Form) -> String {
        let value = match form {
            Form::Spdx => spdx::document(self),
            Form::CycloneDx => cyclonedx::document(self),
        };
        format!("{value:#}\n")
    }

    /// Writes the bill of materials into a file, which appears whole or not at all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, form: Form, path: &Path) -> io::Result<()> {
        let aside = Aside::beside(path)?;
        aside.file().write_all(self.to_text(form).as_bytes())?;
        aside.publish(path)
    }

    /// A UUID that follows from the contents (RFC 9562, version 8).
    fn uuid(&self, form: &str) -> uuid::Uuid {
        let mut hasher = Sha256::new_with_prefix(form);
        hasher.update(&self.subject.name);
        hasher.update(self.subject.digest.map(|digest| digest.to_string()).unwrap_or_default());
        for component in &self.components {
            hasher.update(&component.purl);
            hasher.update([0]);
        }
        let digest = hasher.finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    }

    /// When the image was made, to the second: the same inventory is the same text.
    fn created(&self) -> String {
        const EPOCH: &str = "1970-01-01T00:00:00Z";
        let Some(text) = &self.subject.created else { return EPOCH.into() };
        let whole = text.split_once('.').map_or_else(
            || text.clone(),
            // `2024-05-01T10:00:00.123456789Z`
            |(whole, _)| format!("{whole}Z"),
        );
        match whole.parse::<der::DateTime>() {
            Ok(time) => time.to_string(),
            Err(_) => EPOCH.into(),
        }
    }
}

/// Components by their identity.
#[derive(Default)]
struct Found(BTreeMap<String, Component>);

impl Found {
    /// Adds a component, or another place of one.
    fn add(&mut self, purl: &Purl<'_>, name: &str, location: &[u8], license: Option<String>) {
        let identity = purl.to_string();
        let location = show(location);
        if name.is_empty() || (self.0.len() >= MAX_COMPONENTS && !self.0.contains_key(&identity)) {
            return;
        }
        let component = self.0.entry(identity).or_insert_with_key(|purl_text| Component {
            purl: purl_text.clone(),
            name: name.to_owned(),
            version: purl.version.to_owned(),
            license: license.filter(|text| !text.trim().is_empty()),
            source: None,
            locations: Vec::new(),
        });
        if let Err(at) = component.locations.binary_search(&location) {
            component.locations.insert(at, location);
        }
    }
}

/// The packages of the distribution's database.
fn distribution(root: &Root<'_>, os: Option<&Os>, found: &mut Found) {
    let Some(database) = Database::read(root) else { return };
    let kind = match database.manager {
        Manager::Dpkg => "deb",
        Manager::Apk => "apk",
        Manager::Rpm => "rpm",
    };
    let namespace = os.map(|os| os.id.clone()).unwrap_or_default();
    let distro = os.and_then(Os::distro);
    let place = database.own.first().cloned().unwrap_or_default();
    for package in &database.packages {
        // The epoch of an rpm is no part of its version.
        let (epoch, version) = match package.version.split_once(':') {
            Some((epoch, version)) if kind == "rpm" => (Some(epoch), version),
            _ => (None, package.version.as_str()),
        };
        let arch = (!package.arch.is_empty()).then_some(package.arch.as_str());
        let purl = Purl {
            kind,
            namespace: &namespace,
            name: &package.name,
            version,
            qualifiers: [("arch", arch), ("distro", distro.as_deref()), ("epoch", epoch)],
        };
        let license = (!package.license.is_empty()).then(|| package.license.clone());
        found.add(&purl, &package.name, &place, license);
        if package.source != package.name
            && let Some(component) = found.0.get_mut(&purl.to_string())
        {
            component.source = Some(package.source.clone());
        }
    }
}

/// A JSON object without the members that are null.
fn without_nulls(mut value: Value) -> Value {
    if let Some(object) = value.as_object_mut() {
        object.retain(|_, member| !member.is_null());
    }
    value
}
