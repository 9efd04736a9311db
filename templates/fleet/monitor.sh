{% if monitor == "Firecracker" %}    rm -f "$run/{{ machine.name }}.sock"
    exec "${FIRECRACKER:-firecracker}" --api-sock "$run/{{ machine.name }}.sock" \
        --config-file {{ (machine.name ~ ".json") | sh }}
{%- else %}    exec "${CLOUD_HYPERVISOR:-cloud-hypervisor}" \
        --kernel {{ (machine.boot ~ "/kernel") | sh }} \
        --initramfs {{ (machine.boot ~ "/record.img") | sh }} \
        --cpus boot={{ machine.cpus }} --memory size={{ machine.memory }}M \
        --disk path={{ (machine.boot ~ "/root.erofs") | sh }},readonly=on
{%- for volume in machine.volumes %} \
            path={{ volume.path | sh }}{{ ",readonly=on" if volume.read_only else "" }}
{%- endfor %}
{%- for share in machine.shares %} \
            path="$run/{{ share.name }}.iso",readonly=on
{%- endfor %} \
        --net {{ ("tap=" ~ machine.tap ~ ",mac=" ~ machine.mac) | sh }} \
        --rng src=/dev/urandom --serial tty --console off
{%- endif %}
