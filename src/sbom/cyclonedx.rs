//! CycloneDX 1.6 (ECMA-424).

use serde_json::{Value, json};

use super::{Component, Inventory, Os, without_nulls};

pub fn document(inventory: &Inventory) -> Value {
    let subject = &inventory.subject;
    let main = subject.digest.map_or_else(|| "image".into(), |digest| digest.to_string());
    let mut components: Vec<Value> = inventory.os.iter().map(os).collect();
    components.extend(inventory.components.iter().map(component));
    let references: Vec<&Value> =
        components.iter().map(|component| &component["bom-ref"]).collect();
    json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": format!("urn:uuid:{}", inventory.uuid("cyclonedx")),
        "version": 1,
        "metadata": {
            "timestamp": inventory.created(),
            "tools": { "components": [{
                "type": "application",
                "name": "dock2uni",
                "version": env!("CARGO_PKG_VERSION"),
            }] },
            "component": without_nulls(json!({
                "type": "container",
                "bom-ref": main,
                "name": subject.name,
                "version": subject.digest.map(|digest| digest.to_string()),
            })),
        },
        // That the image consists of them is all that is known.
        "dependencies": [{ "ref": main, "dependsOn": references }],
        "components": components,
    })
}

fn os(os: &Os) -> Value {
    without_nulls(json!({
        "type": "operating-system",
        "bom-ref": format!("os:{}", os.distro().unwrap_or_else(|| os.id.clone())),
        "name": os.id,
        "version": (!os.version.is_empty()).then_some(&os.version),
        "description": (!os.pretty.is_empty()).then_some(&os.pretty),
    }))
}

fn component(component: &Component) -> Value {
    let mut properties: Vec<Value> = component
        .locations
        .iter()
        .map(|path| json!({ "name": "dock2uni:location", "value": path }))
        .collect();
    if let Some(source) = &component.source {
        properties.push(json!({ "name": "dock2uni:source", "value": source }));
    }
    without_nulls(json!({
        "type": "library",
        "bom-ref": component.purl,
        "name": component.name,
        "version": (!component.version.is_empty()).then_some(&component.version),
        "purl": component.purl,
        // By name: records have many texts that are no identifiers of SPDX's list.
        "licenses": component.license.as_ref().map(|name| json!([{ "license": { "name": name } }])),
        "properties": properties,
    }))
}
