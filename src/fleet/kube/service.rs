//! Services: names by which pods are reached, and ports that lead into them.

use serde_json::Value;

use super::Cluster;
use super::pod::Owner;
use crate::fleet::yaml::{self, Place};
use crate::fleet::{Error, PortMap, Reach, Role, Service, ServicePort, Severity, Workload};
use dock2uni_format::record::Proto;

/// Gives the containers of a pod the Services in front of it.
pub fn attach(
    owner: &Owner<'_>,
    cluster: &Cluster<'_>,
    containers: &mut [Workload],
) -> Result<(), Error> {
    for (namespace, service) in &cluster.services {
        if *namespace == owner.namespace && selects(service, owner.labels) {
            one(namespace, service, containers, &owner.place)?;
        }
    }
    Ok(())
}

fn selects(service: &Value, labels: &Value) -> bool {
    match service.pointer("/spec/selector").and_then(Value::as_object) {
        Some(selector) if !selector.is_empty() => {
            selector.iter().all(|(key, value)| labels.get(key) == Some(value))
        }
        _ => false,
    }
}

fn one(
    namespace: &str,
    object: &Value,
    containers: &mut [Workload],
    place: &Place<'_>,
) -> Result<(), Error> {
    let name = super::name(object);
    let place = Place::top(place.name).key(format!("Service {namespace}/{name}")).key("spec");
    let spec = object.get("spec").unwrap_or(&Value::Null);
    let reach = match spec.get("type").and_then(Value::as_str) {
        Some("LoadBalancer") => Reach::Balancer,
        Some("NodePort") => Reach::Node,
        _ => Reach::Inside,
    };
    let headless = spec.get("clusterIP").and_then(Value::as_str) == Some("None");
    let mut found: Vec<(usize, ServicePort)> = Vec::new();
    for item in yaml::list(spec, "ports", &place)? {
        let place = place.key("ports");
        let number = |key: &str| -> Result<Option<u16>, Error> {
            let Some(text) = yaml::opt_text(item, key, &place)? else { return Ok(None) };
            let bad = || place.key(key).error(format!("`{text}` is no port"));
            text.parse().ok().filter(|port| *port > 0).map(Some).ok_or_else(bad)
        };
        let port = number("port")?.ok_or_else(|| place.error("a `port` is expected here"))?;
        let proto = match item.get("protocol").and_then(Value::as_str) {
            Some("UDP") => Proto::Udp,
            Some("SCTP") => continue,
            _ => Proto::Tcp,
        };
        let target = yaml::opt_text(item, "targetPort", &place)?;
        let target = target.unwrap_or_else(|| port.to_string());
        let Some((at, guest)) = serving(containers, &target, proto) else {
            let text = format!("the Service `{name}` leads to a port `{target}` that it has not");
            containers[0].note(Severity::Warning, text);
            continue;
        };
        let node = number("nodePort")?.filter(|_| reach != Reach::Inside);
        found.push((at, ServicePort { port, guest, proto, node }));
    }
    let own_address =
        !headless && found.iter().any(|(at, port)| *at != found[0].0 || port.port != port.guest);
    let service = |ports| {
        let (name, namespace) = (name.clone(), namespace.to_owned());
        Service { name, namespace, headless, own_address, reach, ports }
    };
    if found.is_empty() && headless {
        // It has a name for its pods and no ports.
        if let Some(main) = containers.iter_mut().find(|container| container.role == Role::Main) {
            main.services.push(service(Vec::new()));
        }
    }
    for (at, container) in containers.iter_mut().enumerate() {
        let mine: Vec<ServicePort> =
            found.iter().filter(|(of, _)| *of == at).map(|(_, port)| port.clone()).collect();
        if mine.is_empty() {
            continue;
        }
        for port in &mine {
            expose(container, port, reach);
        }
        container.services.push(service(mine));
    }
    Ok(())
}

/// The container that serves a port by name or number, and the number. A pod with one container serves
/// whatever it is asked for, declared or not.
fn serving(containers: &[Workload], target: &str, proto: Proto) -> Option<(usize, u16)> {
    let running = || containers.iter().enumerate().filter(|(_, one)| one.role != Role::Init);
    for (at, container) in running() {
        let of = |port: &&PortMap| {
            port.proto == proto
                && (port.name.as_deref() == Some(target) || port.guest.to_string() == target)
        };
        if let Some(port) = container.ports.iter().find(of) {
            return Some((at, port.guest));
        }
    }
    let mut main = running().filter(|(_, one)| one.role == Role::Main);
    match (main.next(), main.next(), target.parse()) {
        (Some((at, _)), None, Ok(guest)) if guest > 0 => Some((at, guest)),
        _ => None,
    }
}

/// Declares the port, and from where it is reached.
fn expose(container: &mut Workload, port: &ServicePort, reach: Reach) {
    let outside = match reach {
        Reach::Inside => None,
        Reach::Node => port.node,
        Reach::Balancer => Some(port.port),
    };
    let (guest, proto) = (port.guest, port.proto);
    let same = |known: &&mut PortMap| {
        known.guest == guest && known.proto == proto && !(known.published && reach != Reach::Inside)
    };
    match container.ports.iter_mut().find(same) {
        Some(_) if reach == Reach::Inside => {}
        Some(known) => (known.published, known.host) = (true, outside),
        None => container.ports.push(PortMap {
            host_ip: None,
            host: outside,
            published: reach != Reach::Inside,
            guest,
            proto,
            name: None,
        }),
    }
}
