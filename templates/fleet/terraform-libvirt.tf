# Runs {{ fleet | comment }} under libvirt. Made by dock2uni.
# network.sh makes the network's way out and published ports: as root on the host, once.

terraform {
  required_providers {
    libvirt = {
      source  = "dmacvicar/libvirt"
      version = "~> 0.8.0"
    }
  }
}

variable "uri" {
  type    = string
  default = "qemu:///system"
}

variable "pool" {
  type    = string
  default = "default"
}

variable "wait" {
  type        = bool
  default     = true
  description = "Wait for each machine's port before what needs it is made; the network must be reachable from here"
}
{%- if volumes %}

variable "volumes" {
  type        = string
  default     = {{ volumes_dir | hcl }}
  description = "Directory of the volumes on the host"
}
{%- endif %}
{%- if items %}

variable "secrets" {
  type        = string
  default     = {{ ("/etc/dock2uni/" ~ fleet ~ "/secrets") | hcl }}
  description = "Directory on the host, in it{% for machine in machines %}{% for share in machine.shares %} {{ share.name }}/{% for secret in share.secrets %}{{ secret.file }}{{ "" if loop.last else "," }}{% endfor %}{% endfor %}{% endfor %}"
}
{%- endif %}

locals {
  # Each disk once, however many machines have it.
  disks = {
{%- for machine in machines | unique(attribute="file") %}
    {{ machine.reference | hcl }} = {{ machine.disk | hcl }}
{%- endfor %}
  }
}

provider "libvirt" {
  uri = var.uri
}

# Open: the rules of other modes would keep published ports from their machines.
resource "libvirt_network" "fleet" {
  name      = {{ fleet | hcl }}
  mode      = "open"
  bridge    = {{ bridge | hcl }}
  addresses = ["10.0.2.0/24"]
  autostart = true

  dhcp {
    enabled = true
  }

  dns {
    enabled = true
{%- for one in names %}

    hosts {
      hostname = {{ one.name | hcl }}
      ip       = {{ one.address | hcl }}
    }
{%- endfor %}
  }
}

resource "libvirt_volume" "disk" {
  for_each = local.disks

  name   = "{{ fleet }}-${each.key}.qcow2"
  pool   = var.pool
  source = each.value
  format = "qcow2"
}
{%- for machine in machines %}

resource "libvirt_volume" {{ machine.name | hcl }} {
  name           = {{ (fleet ~ "-" ~ machine.name ~ ".qcow2") | hcl }}
  pool           = var.pool
  base_volume_id = libvirt_volume.disk[{{ machine.reference | hcl }}].id
  format         = "qcow2"
}

resource "libvirt_domain" {{ machine.name | hcl }} {
  name      = {{ (fleet ~ "-" ~ machine.name) | hcl }}
  memory    = {{ machine.memory }}
  vcpu      = {{ machine.cpus }}
  machine   = "q35"
  autostart = {{ "false" if machine.restart == "no" else "true" }}

  cpu {
    mode = "host-passthrough"
  }

  disk {
    volume_id = libvirt_volume.{{ machine.name }}.id
  }
{%- for volume in machine.volumes %}

  disk {
    file = "${var.volumes}/{{ volume.volume }}.ext4"
  }
{%- endfor %}
{%- for share in machine.shares %}

  filesystem {
    source     = "${var.secrets}/{{ share.name }}"
    target     = {{ share.tag | hcl }}
    accessmode = "passthrough"
    readonly   = true
  }
{%- endfor %}

  network_interface {
    network_id = libvirt_network.fleet.id
    mac        = {{ machine.mac | hcl }}
    addresses  = [{{ machine.address | hcl }}]
  }

  console {
    type        = "pty"
    target_type = "serial"
    target_port = "0"
  }
{%- if machine.after %}

  depends_on = [
{%- for other in machines if other.service in machine.after and other.service != machine.service %}
    terraform_data.{{ other.name }},
{%- endfor %}
  ]
{%- endif %}
}

# It is there once its port answers.
resource "terraform_data" {{ machine.name | hcl }} {
  triggers_replace = [libvirt_domain.{{ machine.name }}.id]
{%- if machine.probe %}

  provisioner "local-exec" {
    command = var.wait ? "for n in $(seq 120); do nc -z {{ machine.address }} {{ machine.probe.port }} && exit 0; sleep 1; done; exit 1" : "true"
  }
{%- endif %}
}
{%- endfor %}
