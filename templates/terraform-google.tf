# Runs {{ name | comment }} on Google Compute Engine. Made by dock2uni.
# The file is what `dock2uni convert --format gce` writes.

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

variable "zone" {
  type    = string
  default = "europe-west1-b"
}

variable "machine_type" {
  type    = string
  default = "e2-small"
}

provider "google" {
  project = var.project
  zone    = var.zone
}

resource "google_storage_bucket" "images" {
  name                        = "${var.project}-{{ cloud_name }}"
  location                    = join("-", slice(split("-", var.zone), 0, 2))
  uniform_bucket_level_access = true
  force_destroy               = true
}

resource "google_storage_bucket_object" "disk" {
  name   = {{ (cloud_name ~ "-" ~ short ~ ".tar.gz") | hcl }}
  bucket = google_storage_bucket.images.name
  source = {{ image | hcl }}
}

resource "google_compute_image" "image" {
  name = {{ (cloud_name ~ "-" ~ short) | hcl }}

  raw_disk {
    source = "https://storage.googleapis.com/${google_storage_bucket.images.name}/${google_storage_bucket_object.disk.name}"
  }

  guest_os_features {
    type = "UEFI_COMPATIBLE"
  }
}

resource "google_compute_instance" "vm" {
  name         = {{ cloud_name | hcl }}
  machine_type = var.machine_type
  tags         = [{{ cloud_name | hcl }}]

  boot_disk {
    initialize_params {
      image = google_compute_image.image.self_link
    }
  }

  network_interface {
    network  = "default"
    # The kernel drives virtio cards.
    nic_type = "VIRTIO_NET"

    access_config {}
  }
}
{%- if ports %}

resource "google_compute_firewall" "ports" {
  name          = {{ cloud_name | hcl }}
  network       = "default"
  target_tags   = [{{ cloud_name | hcl }}]
  source_ranges = ["0.0.0.0/0"]
{%- for port in ports %}

  allow {
    protocol = {{ port.proto | hcl }}
    ports    = [{{ port.guest | string | hcl }}]
  }
{%- endfor %}
}
{%- endif %}

output "address" {
  value = google_compute_instance.vm.network_interface[0].access_config[0].nat_ip
}
