# Runs {{ fleet | comment }} on one Nomad client by its QEMU driver. Made by dock2uni.
# 1. There: client.hcl goes into its configuration, and network.sh makes the network as root.
{%- if items %}
# 2. Secrets are items of one Nomad variable, which only this job reads:
#      nomad var put {{ "nomad/jobs/" ~ fleet }} \
{%- for item in items %}
#        {{ item }}=@FILE{{ "" if loop.last else " \\" }}
{%- endfor %}
# 3. nomad job run -var node=CLIENT {{ fleet }}.nomad.hcl
{%- else %}
# 2. nomad job run -var node=CLIENT {{ fleet }}.nomad.hcl
{%- endif %}
# Nomad sees how QEMU ends, not how the application does.

variable "node" {
  type        = string
  description = "Host name of the client with the network and the volumes"
}

variable "disks" {
  type        = string
  default     = {{ disks | hcl }}
  description = "Directory of the disks on the client, or a URL that they are downloaded from"
}
{%- if volumes %}

variable "volumes" {
  type        = string
  default     = {{ volumes_dir | hcl }}
  description = "Directory of the volumes on the client"
}
{%- endif %}

locals {
  remote = can(regex("^[a-z0-9]+://", var.disks))
}

job {{ fleet | hcl }} {
  type = {{ ("batch" if batch else "service") | hcl }}
{%- if timers %}
{%- with timer = machines[0].timer %}

  periodic {
    crons            = [{{ timer.cron | hcl }}]
    time_zone        = {{ timer.time_zone | hcl }}
    prohibit_overlap = true
    enabled          = {{ "false" if timer.suspended else "true" }}
  }
{%- endwith %}
{%- endif %}

  constraint {
    attribute = "${attr.unique.hostname}"
    value     = var.node
  }

  group "vms" {
{%- if published %}
    network {
{%- for one in published %}
      port {{ one.label | hcl }} {
        static = {{ one.host }}
      }
{%- endfor %}
    }
{%- endif %}
{%- for one in published %}

    service {
      name     = {{ (fleet ~ "-" ~ one.service ~ "-" ~ one.guest) | hcl }}
      port     = {{ one.label | hcl }}
      provider = "nomad"
{%- if one.probe and one.probe.port == one.guest and one.proto == "tcp" %}

      check {
        type     = {{ one.probe.kind | hcl }}
{%- if one.probe.kind == "http" %}
        path     = {{ one.probe.path | hcl }}
        protocol = {{ one.probe.scheme | lower | hcl }}
{%- endif %}
        interval = "10s"
        timeout  = "5s"
      }
{%- endif %}
    }
{%- endfor %}
{%- for machine in machines %}

    task {{ machine.name | hcl }} {
      driver       = "qemu"
      kill_timeout = {{ ((machine.grace + 5) ~ "s") | hcl }}
{%- if machine.hook %}

      lifecycle {
        hook    = {{ machine.hook | hcl }}
        sidecar = {{ "true" if machine.long_running else "false" }}
      }
{%- endif %}

      restart {
{%- if machine.restart == "no" %}
        attempts = 0
        mode     = "fail"
{%- else %}
        attempts = 10
        interval = "10m"
        delay    = "5s"
        mode     = "delay"
{%- endif %}
      }

      dynamic "artifact" {
        for_each = local.remote ? ["disk"] : []

        content {
          source      = "${var.disks}/{{ machine.file }}"
          destination = "local/"
        }
      }
{%- for share in machine.shares %}
{%- for secret in share.secrets %}

      template {
        destination = {{ ("secrets/" ~ share.tag ~ "/" ~ secret.file) | hcl }}
        data        = {{ ('{{ with nomadVar "nomad/jobs/' ~ fleet ~ '" }}{{ .' ~ secret.item ~ " }}{{ end }}") | hcl }}
        change_mode = "noop"
      }
{%- endfor %}
{%- endfor %}

      config {
        image_path        = local.remote ? "local/{{ machine.file }}" : "${var.disks}/{{ machine.file }}"
        drive_interface   = "virtio"
        accelerator       = "kvm"
        graceful_shutdown = true

        args = [
          "-machine", "q35", "-nodefaults", "-no-reboot", "-smp", {{ machine.cpus | string | hcl }},
          # What is said on the console is what `nomad alloc logs` shows.
          "-serial", "stdio",
          # Several machines may have one disk; none writes to it.
          "-snapshot",
          "-device", "virtio-rng-pci",
          "-netdev", "tap,id=net,ifname={{ machine.tap }},script=no,downscript=no",
          "-device", "virtio-net-pci,netdev=net,mac={{ machine.mac }}",
{%- for volume in machine.volumes %}
          "-drive", "file=${replace(var.volumes, ",", ",,")}/{{ volume.volume }}.ext4,if=virtio,format=raw,snapshot=off{{ ",readonly=on" if volume.read_only else "" }}",
{%- endfor %}
{%- for share in machine.shares %}
          "-virtfs", "local,path=${NOMAD_SECRETS_DIR}/{{ share.tag }},mount_tag={{ share.tag }},security_model=none,readonly=on",
{%- endfor %}
        ]
      }

      resources {
        cores  = {{ machine.cpus }}
        memory = {{ [machine.memory, 128] | max }}
      }
    }
{%- endfor %}
  }
}
