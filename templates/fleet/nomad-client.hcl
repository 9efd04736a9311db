# For the configuration of the Nomad client that runs {{ fleet | comment }}. Made by dock2uni.
{%- if slowest > 30 %}
client {
  # As long as its applications may take to stop.
  max_kill_timeout = {{ (slowest ~ "s") | hcl }}
}
{%- endif %}

plugin "qemu" {
  config {
    image_paths = [{{ disks | hcl }}]
  }
}
