{%- for machine in machines %}
    ip link del {{ machine.tap }} 2>/dev/null || :
{%- endfor %}
    ip link del {{ bridge }} 2>/dev/null || :
    nft delete table ip {{ table }} 2>/dev/null || :
