# Makes a disk of a directory with secrets, in memory and for root alone: LABEL NAME FILE...
secrets() {
    label=$1 from={{ ("/etc/dock2uni/" ~ fleet ~ "/secrets") | sh }}/$2 disk=$run/$2.iso
    shift 2
    for file; do
        [ -r "$from/$file" ] || { echo "the secret $from/$file is missing" >&2; exit 1; }
    done
    for make in xorrisofs genisoimage mkisofs; do
        ! command -v "$make" >/dev/null || break
    done
    rm -f "$disk"
    (umask 077 && "$make" -quiet -f -R -V "$label" -o "$disk" "$from")
}
{%- for machine in machines %}
{%- for share in machine.shares %}
secrets {{ share.tag }} {{ share.name | sh }}{% for secret in share.secrets %} {{ secret.file | sh }}{% endfor %}
{%- endfor %}
{%- endfor %}
