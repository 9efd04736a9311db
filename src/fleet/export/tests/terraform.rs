//! Terraform's files, against what its providers know.
//!
//! `terraform validate` takes the providers themselves. [`KNOWN`] has what of their schemas is used:
//! hashicorp/google 6 and dmacvicar/libvirt 0.8.

use std::collections::BTreeSet;

use hcl::{Block, Body, Expression, Structure};

use super::*;

/// Attributes and blocks by path; `!` marks those that must be there, `*` stands for any.
const KNOWN: &[(&str, &str)] = &[
    ("", "terraform variable locals provider resource output"),
    ("terraform", "!required_providers"),
    ("terraform.required_providers", "*"),
    ("variable", "!type default description"),
    ("locals", "*"),
    ("output", "!value"),
    ("provider.google", "!project region zone"),
    ("provider.libvirt", "!uri"),
    ("google_compute_network", "!name auto_create_subnetworks"),
    ("google_compute_subnetwork", "!name !network !ip_cidr_range"),
    ("google_compute_router", "!name !network"),
    (
        "google_compute_router_nat",
        "!name !router !source_subnetwork_ip_ranges_to_nat nat_ip_allocate_option",
    ),
    ("google_compute_firewall", "!name !network source_ranges target_tags allow"),
    ("google_compute_firewall.allow", "!protocol ports"),
    ("google_storage_bucket", "!name !location uniform_bucket_level_access force_destroy"),
    ("google_storage_bucket_object", "for_each !name !bucket source"),
    ("google_compute_image", "for_each !name raw_disk guest_os_features"),
    ("google_compute_image.raw_disk", "!source"),
    ("google_compute_image.guest_os_features", "!type"),
    (
        "google_compute_instance",
        "!name !machine_type !boot_disk !network_interface tags allow_stopping_for_update scheduling \
         metadata depends_on",
    ),
    ("google_compute_instance.boot_disk", "initialize_params"),
    ("google_compute_instance.boot_disk.initialize_params", "image"),
    ("google_compute_instance.network_interface", "subnetwork network_ip nic_type"),
    ("google_compute_instance.scheduling", "automatic_restart"),
    ("google_compute_instance_group", "!name instances named_port"),
    ("google_compute_instance_group.named_port", "!name !port"),
    ("google_compute_health_check", "!name tcp_health_check http_health_check https_health_check"),
    ("google_compute_health_check.tcp_health_check", "port"),
    ("google_compute_health_check.http_health_check", "port request_path"),
    ("google_compute_health_check.https_health_check", "port request_path"),
    (
        "google_compute_backend_service",
        "!name protocol port_name load_balancing_scheme health_checks backend",
    ),
    ("google_compute_backend_service.backend", "!group balancing_mode"),
    ("google_compute_target_tcp_proxy", "!name !backend_service"),
    ("google_compute_global_forwarding_rule", "!name !target port_range load_balancing_scheme"),
    ("libvirt_network", "!name mode bridge addresses autostart dhcp dns"),
    ("libvirt_network.dhcp", "enabled"),
    ("libvirt_network.dns", "enabled hosts"),
    ("libvirt_network.dns.hosts", "hostname ip"),
    ("libvirt_volume", "for_each !name pool source format base_volume_id"),
    (
        "libvirt_domain",
        "!name memory vcpu machine autostart cpu disk filesystem network_interface console depends_on",
    ),
    ("libvirt_domain.cpu", "!mode"),
    ("libvirt_domain.disk", "volume_id file"),
    ("libvirt_domain.filesystem", "!source !target accessmode readonly"),
    ("libvirt_domain.network_interface", "network_id mac addresses"),
    ("libvirt_domain.console", "!type !target_port target_type"),
    ("terraform_data", "triggers_replace provisioner"),
    ("terraform_data.provisioner", "!command"),
];

fn known(body: &Body, path: &str) {
    let (_, allowed) = KNOWN.iter().find(|(known, _)| *known == path).expect(path);
    let allowed: Vec<&str> = allowed.split_whitespace().collect();
    let mut there = BTreeSet::new();
    for structure in body {
        let name = match structure {
            Structure::Attribute(attribute) => attribute.key.as_str(),
            Structure::Block(block) => {
                let kind = block.identifier.as_str();
                let inner = match (path, kind) {
                    ("", "resource") => label(block, 0).to_owned(),
                    ("", "provider") => format!("provider.{}", label(block, 0)),
                    ("", kind) => kind.to_owned(),
                    (path, kind) => format!("{path}.{kind}"),
                };
                known(&block.body, &inner);
                kind
            }
        };
        let fits = |known: &&str| *known == "*" || known.trim_start_matches('!') == name;
        assert!(allowed.iter().any(fits), "`{name}` is not known in `{path}`");
        there.insert(name);
    }
    for must in allowed.iter().filter_map(|known| known.strip_prefix('!')) {
        assert!(there.contains(must), "`{path}` has no `{must}`");
    }
}

fn label(block: &Block, nth: usize) -> &str {
    block.labels.get(nth).map_or("", |label| label.as_str())
}

fn resources<'a>(body: &'a Body, kind: &str) -> Vec<&'a Block> {
    body.blocks()
        .filter(|block| block.identifier.as_str() == "resource" && label(block, 0) == kind)
        .collect()
}

fn expression<'a>(body: &'a Body, key: &str) -> &'a Expression {
    let found = body.attributes().find(|attribute| attribute.key.as_str() == key);
    &found.unwrap_or_else(|| panic!("{key}: {body:#?}")).expr
}

/// Every reference to a resource leads to one that is there.
fn references_hold(text: &str, body: &Body) {
    let there: BTreeSet<String> = body
        .blocks()
        .filter(|block| block.identifier.as_str() == "resource")
        .map(|block| format!("{}.{}", label(block, 0), label(block, 1)))
        .collect();
    let separate = |c: char| !(c.is_ascii_alphanumeric() || "_-.".contains(c));
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        for word in line.split(separate) {
            let mut parts = word.split('.');
            let (Some(kind), Some(name)) = (parts.next(), parts.next()) else { continue };
            let ours = ["google_", "libvirt_", "terraform_data"];
            if ours.iter().any(|prefix| kind.starts_with(prefix)) {
                assert!(there.contains(&format!("{kind}.{name}")), "{line}: {there:?}");
            }
        }
    }
}

fn main_tf(target: Target, secrets: &str) -> (Vec<Rendered>, Body) {
    checked(machines_for(target, secrets).unwrap())
}

/// What is rendered of them, and its `main.tf`, which must read well.
fn checked((mut machines, settings): (Vec<Machine>, Settings)) -> (Vec<Rendered>, Body) {
    for (nth, machine) in machines.iter_mut().enumerate() {
        machine.reference = format!("{nth:032x}");
        machine.google_type = "e2-micro".into();
    }
    let all = render::render(&machines, &settings).unwrap();
    let text = file(&all, "main.tf");
    let body: Body = hcl::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    known(&body, "");
    references_hold(text, &body);
    // `-check` would ask for its alignment as well, which is not a matter of being right.
    accepted("main.tf", text, &["terraform", "fmt", "-write=false"]);
    (all, body)
}

/// What of the fleet Google has a counterpart for.
fn without_volumes(text: &str) -> String {
    text.replace("    volumes: [\"data:/var/lib/db\"]\n", "")
}

#[test]
fn libvirt_gets_resources_that_wait_for_each_other() {
    let (all, body) = main_tf(Target::TerraformLibvirt, "    secrets: [password]\n");
    let domains = resources(&body, "libvirt_domain");
    let names: Vec<&str> = domains.iter().map(|domain| label(domain, 1)).collect();
    assert_eq!(names, ["db", "app", "web-1", "web-2"]);
    let needs = |nth: usize| expression(&domains[nth].body, "depends_on").to_string();
    assert!(needs(1).contains("terraform_data.db"), "{}", needs(1));
    assert!(needs(2).contains("terraform_data.app"), "{}", needs(2));
    let files: Vec<&Block> = domains[0]
        .body
        .blocks()
        .filter(|block| matches!(block.identifier.as_str(), "disk" | "filesystem"))
        .collect();
    assert_eq!(files.len(), 3);
    assert_eq!(expression(&files[1].body, "file").to_string(), "\"${var.volumes}/shop_data.ext4\"");
    assert_eq!(expression(&files[2].body, "source").to_string(), "\"${var.secrets}/db\"");
    let network = file(&all, "network.sh");
    accepted("network.sh", network, &["sh", "-n"]);
    assert_eq!(network.matches("tcp dport 8080 dnat to numgen").count(), 2, "{network}");
    // The password is neither here nor there.
    assert!(!all.iter().any(|file| file.text.contains("./password")));
}

#[test]
fn google_gets_a_network_machines_and_a_balancer() {
    let (_, body) = checked(google("").unwrap());
    assert_eq!(resources(&body, "google_compute_instance").len(), 4);
    // Two ports of one service: one group, two proxies with their checks.
    assert_eq!(resources(&body, "google_compute_instance_group").len(), 1);
    let rules = resources(&body, "google_compute_global_forwarding_rule");
    let ports: Vec<String> =
        rules.iter().map(|rule| expression(&rule.body, "port_range").to_string()).collect();
    assert_eq!(ports, ["\"8080\"", "\"8443\""]);
    let web = &resources(&body, "google_compute_instance")[2].body;
    assert!(expression(web, "depends_on").to_string().contains("google_compute_instance.app"));
}

fn google(more: &str) -> Result<(Vec<Machine>, Settings), Error> {
    fleet(Target::TerraformGoogle, &without_volumes(&COMPOSE.replace("SECRETS", more)))
}

#[test]
fn google_machines_know_each_other_by_their_disks() {
    let compose = without_volumes(&COMPOSE.replace("SECRETS", ""));
    let (workloads, settings) = workloads_of(Target::TerraformGoogle, &compose);
    let (machines, orders) = machine::machines(&workloads, &settings).unwrap();
    let app = orders.iter().find(|order| order.name == "app").unwrap();
    let of = |name: &str| {
        let found = app.overrides.network.hosts.iter().filter(|(known, _)| known == name);
        found.map(|(_, address)| address.to_string()).collect::<Vec<_>>()
    };
    let address = |name: &str| {
        let machine = machines.iter().find(|machine| machine.name == name);
        machine.map(|machine| machine.address.clone()).unwrap()
    };
    assert_eq!(of("db"), [address("db")]);
    assert_eq!(of("web"), [address("web-1"), address("web-2")]);
    assert!(of("app").is_empty());
}

#[test]
fn what_google_lacks_is_refused_by_name() {
    let error = fleet(Target::TerraformGoogle, &COMPOSE.replace("SECRETS", "")).err().unwrap();
    assert!(error.to_string().contains("`db`: a volume is mounted at"), "{error}");
    let udp = without_volumes(&COMPOSE.replace("SECRETS", "")).replace("8443:443", "53:53/udp");
    let error = fleet(Target::TerraformGoogle, &udp).err().unwrap();
    assert!(error.to_string().contains("port 53 of UDP"), "{error}");
    let error = google("    secrets: [password]\n").err().unwrap();
    assert!(error.to_string().contains("the secret `password`"), "{error}");
}
