
      {
        path    = {{ ("/etc/systemd/system/" ~ cloud_name ~ ".service") | hcl }}
        content = join("\n", [
{%- for line in unit %}
          {{ line | hcl }},
{%- endfor %}
          "",
        ])
      },
      {
        path = {{ ("/etc/systemd/system/" ~ cloud_name ~ ".service.d/cloud.conf") | hcl }}
        content = join("\n", [
          "[Unit]",
          "Requires={{ cloud_name }}-image.service",
          "After={{ cloud_name }}-image.service",
          "[Service]",
          "AmbientCapabilities=CAP_NET_BIND_SERVICE",
          "# What the host may do is no concern of the VM's: it would ask here for the host's rights.",
          "IPAddressDeny=169.254.169.254 fd00:ec2::254",
          "",
        ])
      },
      {
        path = {{ ("/etc/systemd/system/" ~ cloud_name ~ "-image.service") | hcl }}
        content = join("\n", [
          "[Unit]",
          "Description=Disk image of {{ cloud_name }}",
          "Wants=network-online.target",
          "After=network-online.target",
          "[Service]",
          "Type=oneshot",
          "RemainAfterExit=yes",
          "# Rights take a while until they are known everywhere.",
          "ExecStart=/bin/sh -c 'until /usr/local/sbin/{{ cloud_name }}-image; do sleep 10; done'",
          "TimeoutStartSec=infinity",
          "",
        ])
      },
