# Runs {{ name | comment }} on Nomad by its QEMU driver. Made by dock2uni.
job {{ name | hcl }} {
  type = "service"

  group "vm" {
    network {
{%- for port in ports %}
      port {{ port.label | hcl }} {
        static = {{ port.host }}
      }
{%- endfor %}
    }
{% for port in ports %}
    service {
      name     = {{ (k8s_name ~ "-" ~ port.guest) | hcl }}
      port     = {{ port.label | hcl }}
      provider = "nomad"
    }
{% endfor %}
    task "vm" {
      driver       = "qemu"
      kill_timeout = {{ ((grace + 5) ~ "s") | hcl }}

      config {
        image_path        = {{ image | hcl }}
        drive_interface   = "virtio"
        accelerator       = "kvm"
        graceful_shutdown = true
        args              = ["-machine", "q35", "-nodefaults", "-no-reboot", "-display", "none"]
{%- if ports %}

        port_map {
{%- for port in ports %}
          {{ port.label }} = {{ port.guest }}
{%- endfor %}
        }
{%- endif %}
      }

      resources {
        cores  = {{ cpus }}
        memory = {{ memory }}
      }
    }
  }
}
