//! What machines are called, and Services that lead to them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::super::up::net::translate;
use super::super::{Kind, Reach, Workload, name};
use super::{Error, Exposed, Machine, wrong};

/// What others call a machine. In Kubernetes nothing but Services and pods has names.
pub fn names(workload: &Workload, name: &str, service: &str, number: u32) -> Vec<String> {
    let mut all = match name::of_kubernetes(workload) {
        true => Vec::new(),
        false => vec![name.to_owned(), service.to_owned()],
    };
    all.extend(workload.hostname.clone());
    let attachments = workload.networks.iter().flatten();
    all.extend(attachments.flat_map(|attachment| attachment.aliases.clone()));
    for direct in workload.services.iter().filter(|service| !service.own_address) {
        all.extend(direct.names());
        if workload.kind == Kind::StatefulSet {
            let pod = format!("{service}-{}", number - 1);
            all.extend(direct.names().map(|name| format!("{pod}.{name}")));
        }
    }
    let mut seen = BTreeSet::new();
    all.retain(|name| seen.insert(name.clone()));
    all
}

/// Its Services; those with addresses of their own get them later.
pub fn exposed(workload: &Workload) -> Vec<Exposed> {
    let all = workload.services.iter().map(|service| Exposed {
        name: service.name.clone(),
        names: service.names().into(),
        own_address: service.own_address,
        address: None,
        reach: match service.reach {
            Reach::Inside => "ClusterIP",
            Reach::Node => "NodePort",
            Reach::Balancer => "LoadBalancer",
        },
        headless: service.headless,
        ports: service.ports.clone(),
    });
    all.collect()
}

/// Gives Services whose ports are not their machines' addresses of their own.
pub fn virtual_addresses(workloads: &[Workload], machines: &mut [Machine]) -> Result<(), Error> {
    let mut known: Vec<String> = Vec::new();
    for machine in machines {
        for service in &mut machine.services {
            if !service.own_address {
                continue;
            }
            // Its namespace is part of it.
            let full = &service.names[2];
            let number = known.iter().position(|name| name == full).unwrap_or(known.len());
            if number >= translate::MAX {
                let text = format!("{number} Services have ports of their own");
                return Err(wrong(&workloads[0], text, "export parts of the fleet"));
            }
            if number == known.len() {
                known.push(full.clone());
            }
            service.address = Some(translate::address(number).to_string());
        }
    }
    Ok(())
}

/// A Service has one kind of machines behind it: KubeVirt's are found by a label.
pub fn one_service_each(
    workload: &Workload,
    machines: &[Machine],
    new: &Machine,
) -> Result<(), Error> {
    for service in &new.services {
        let other = machines.iter().find(|machine| {
            machine.service != new.service
                && machine.services.iter().any(|known| known.name == service.name)
        });
        if let Some(other) = other {
            return Err(wrong(
                workload,
                format!("the Service `{}` leads to `{}` as well", service.name, other.title),
                "give each of them a Service of its own",
            ));
        }
    }
    Ok(())
}

/// Names and addresses of all others.
pub fn hosts(machines: &[Machine], of: &Machine) -> Vec<(String, IpAddr)> {
    let mut all = Vec::new();
    for other in machines.iter().filter(|other| other.name != of.name) {
        // It was made from an address.
        let Ok(address) = other.address.parse() else { continue };
        all.extend(other.names.iter().map(|name| (name.clone(), address)));
    }
    all
}
