# Runs {{ fleet | comment }} on Google Compute Engine: a network of its own, a machine for each instance,
# and a load balancer for what is published. Made by dock2uni.

terraform {
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 5.0"
    }
  }
}

variable "project" {
  type = string
}

variable "region" {
  type    = string
  default = "europe-west1"
}

variable "zone" {
  type    = string
  default = "europe-west1-b"
}

variable "machine_types" {
  type = map(string)
  default = {
{%- for machine in machines %}
    {{ machine.name | hcl }} = {{ machine.google_type | hcl }}
{%- endfor %}
  }
}

locals {
  # Each disk once, however many machines have it.
  disks = {
{%- for machine in machines | unique(attribute="file") %}
    {{ machine.reference | hcl }} = {{ machine.disk | hcl }}
{%- endfor %}
  }
}

provider "google" {
  project = var.project
  region  = var.region
  zone    = var.zone
}

resource "google_compute_network" "fleet" {
  name                    = {{ fleet | hcl }}
  auto_create_subnetworks = false
}

resource "google_compute_subnetwork" "fleet" {
  name          = {{ fleet | hcl }}
  network       = google_compute_network.fleet.id
  ip_cidr_range = "10.0.2.0/24"
}

# The way out: no machine has an address of the internet.
resource "google_compute_router" "fleet" {
  name    = {{ fleet | hcl }}
  network = google_compute_network.fleet.id
}

resource "google_compute_router_nat" "fleet" {
  name                               = {{ fleet | hcl }}
  router                             = google_compute_router.fleet.name
  nat_ip_allocate_option             = "AUTO_ONLY"
  source_subnetwork_ip_ranges_to_nat = "ALL_SUBNETWORKS_ALL_IP_RANGES"
}

resource "google_compute_firewall" "inside" {
  name          = {{ (fleet ~ "-inside") | hcl }}
  network       = google_compute_network.fleet.id
  source_ranges = [google_compute_subnetwork.fleet.ip_cidr_range]

  allow {
    protocol = "all"
  }
}
{%- if published %}

# From Google's proxies and health checks.
resource "google_compute_firewall" "published" {
  name          = {{ (fleet ~ "-published") | hcl }}
  network       = google_compute_network.fleet.id
  source_ranges = ["130.211.0.0/22", "35.191.0.0/16"]
  target_tags   = [{{ (fleet ~ "-published") | hcl }}]

  allow {
    protocol = "tcp"
    ports    = [{% for one in published | unique(attribute="guest") %}{{ one.guest | string | hcl }}{{ "" if loop.last else ", " }}{% endfor %}]
  }
}
{%- endif %}

resource "google_storage_bucket" "disks" {
  name                        = "${var.project}-{{ fleet }}-disks"
  location                    = var.region
  uniform_bucket_level_access = true
  force_destroy               = true
}

resource "google_storage_bucket_object" "disk" {
  for_each = local.disks

  name   = "${each.key}.tar.gz"
  bucket = google_storage_bucket.disks.name
  source = each.value
}

resource "google_compute_image" "disk" {
  for_each = local.disks

  name = "{{ fleet }}-${substr(each.key, 0, 12)}"

  raw_disk {
    source = "https://storage.googleapis.com/${google_storage_bucket.disks.name}/${google_storage_bucket_object.disk[each.key].name}"
  }

  guest_os_features {
    type = "UEFI_COMPATIBLE"
  }
}
{%- for machine in machines %}

resource "google_compute_instance" {{ machine.name | hcl }} {
  name         = {{ (fleet ~ "-" ~ machine.name) | hcl }}
  machine_type = var.machine_types[{{ machine.name | hcl }}]
  tags         = [{{ (fleet ~ ("-published" if machine.published else "")) | hcl }}]

  allow_stopping_for_update = true

  boot_disk {
    initialize_params {
      image = google_compute_image.disk[{{ machine.reference | hcl }}].self_link
    }
  }

  network_interface {
    subnetwork = google_compute_subnetwork.fleet.id
    # By it the others know the machine.
    network_ip = {{ machine.address | hcl }}
    # The kernel drives virtio cards.
    nic_type = "VIRTIO_NET"
  }

  scheduling {
    automatic_restart = {{ "false" if machine.restart == "no" else "true" }}
  }

  metadata = {
    serial-port-logging-enable = "true"
  }
{%- if machine.after %}

  depends_on = [
{%- for other in machines if other.service in machine.after and other.service != machine.service %}
    google_compute_instance.{{ other.name }},
{%- endfor %}
  ]
{%- endif %}
}
{%- endfor %}
{%- for service, ports in published | groupby("service") %}

resource "google_compute_instance_group" {{ service | hcl }} {
  name = {{ (fleet ~ "-" ~ service) | hcl }}
  instances = [
{%- for machine in machines if machine.service == service %}
    google_compute_instance.{{ machine.name }}.self_link,
{%- endfor %}
  ]
{%- for one in ports | unique(attribute="guest") %}

  named_port {
    name = {{ ("tcp-" ~ one.guest) | hcl }}
    port = {{ one.guest }}
  }
{%- endfor %}
}
{%- for one in ports %}
{%- set name = fleet ~ "-" ~ service ~ "-" ~ one.host %}
{%- set id = service ~ "-" ~ one.host %}

resource "google_compute_health_check" {{ id | hcl }} {
  name = {{ name | hcl }}
{%- if one.probe and one.probe.kind == "http" and one.probe.port == one.guest %}

  {{ one.probe.scheme | lower }}_health_check {
    port         = {{ one.guest }}
    request_path = {{ one.probe.path | hcl }}
  }
{%- else %}

  tcp_health_check {
    port = {{ one.guest }}
  }
{%- endif %}
}

resource "google_compute_backend_service" {{ id | hcl }} {
  name                  = {{ name | hcl }}
  protocol              = "TCP"
  port_name             = {{ ("tcp-" ~ one.guest) | hcl }}
  load_balancing_scheme = "EXTERNAL_MANAGED"
  health_checks         = [google_compute_health_check.{{ id }}.id]

  backend {
    group          = google_compute_instance_group.{{ service }}.id
    balancing_mode = "UTILIZATION"
  }
}

resource "google_compute_target_tcp_proxy" {{ id | hcl }} {
  name            = {{ name | hcl }}
  backend_service = google_compute_backend_service.{{ id }}.id
}

resource "google_compute_global_forwarding_rule" {{ id | hcl }} {
  name                  = {{ name | hcl }}
  target                = google_compute_target_tcp_proxy.{{ id }}.id
  port_range            = {{ one.host | string | hcl }}
  load_balancing_scheme = "EXTERNAL_MANAGED"
}
{%- endfor %}
{%- endfor %}
{%- if published %}

output "published" {
  value = {
{%- for one in published %}
    {{ (one.service ~ ":" ~ one.host) | hcl }} = google_compute_global_forwarding_rule.{{ one.service }}-{{ one.host }}.ip_address
{%- endfor %}
  }
}
{%- endif %}
