//! SPDX 2.3 (ISO/IEC 5962:2021 and later), as JSON.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Component, Inventory, without_nulls};
use crate::source::Digest;

const NONE: &str = "NOASSERTION";
const IMAGE: &str = "SPDXRef-Image";

pub fn document(inventory: &Inventory) -> Value {
    let subject = &inventory.subject;
    let uuid = inventory.uuid("spdx");
    let mut packages = vec![without_nulls(json!({
        "SPDXID": IMAGE,
        "name": subject.name,
        "versionInfo": subject.digest.map(|digest| digest.to_string()),
        "primaryPackagePurpose": "CONTAINER",
        "downloadLocation": NONE,
        "filesAnalyzed": false,
        "licenseConcluded": NONE,
        "licenseDeclared": NONE,
        "copyrightText": NONE,
        "checksums": subject.digest.map(|digest| json!([{
            "algorithm": "SHA256",
            "checksumValue": digest.hex(),
        }])),
    }))];
    packages.extend(inventory.components.iter().map(package));
    let mut relationships = vec![json!({
        "spdxElementId": "SPDXRef-DOCUMENT",
        "relationshipType": "DESCRIBES",
        "relatedSpdxElement": IMAGE,
    })];
    relationships.extend(inventory.components.iter().map(|component| {
        json!({
            "spdxElementId": IMAGE,
            "relationshipType": "CONTAINS",
            "relatedSpdxElement": id(component),
        })
    }));
    json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": subject.name,
        "documentNamespace": format!("https://github.com/dock2uni/dock2uni/spdx/{uuid}"),
        "creationInfo": {
            "created": inventory.created(),
            "creators": [concat!("Tool: dock2uni-", env!("CARGO_PKG_VERSION"))],
        },
        "packages": packages,
        "relationships": relationships,
    })
}

/// Identifiers are of letters, digits, dots and dashes, so package URLs can't be any.
fn id(component: &Component) -> String {
    let hex = Digest(Sha256::digest(&component.purl).into()).hex();
    format!("SPDXRef-{}", &hex[..32])
}

fn package(component: &Component) -> Value {
    let mut about = format!("found in {}", component.locations.join(", "));
    if let Some(source) = &component.source {
        about += &format!("; built from {source}");
    }
    without_nulls(json!({
        "SPDXID": id(component),
        "name": component.name,
        "versionInfo": (!component.version.is_empty()).then_some(&component.version),
        "downloadLocation": NONE,
        "filesAnalyzed": false,
        "licenseConcluded": NONE,
        // Only expressions over SPDX's list may stand here, and records have any text.
        "licenseDeclared": NONE,
        "licenseComments": component.license.as_ref().map(|text| format!("declared as: {text}")),
        "copyrightText": NONE,
        "sourceInfo": about,
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": component.purl,
        }],
    }))
}
