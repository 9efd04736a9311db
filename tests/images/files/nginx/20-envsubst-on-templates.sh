#!/bin/sh
# Fills templates with variables of the environment.
set -e

me=$(basename "$0")
templates=${NGINX_ENVSUBST_TEMPLATE_DIR:-/etc/nginx/templates}
suffix=${NGINX_ENVSUBST_TEMPLATE_SUFFIX:-.template}
output=${NGINX_ENVSUBST_OUTPUT_DIR:-/etc/nginx/conf.d}
filter=${NGINX_ENVSUBST_FILTER:-}

say() {
    [ -n "${NGINX_ENTRYPOINT_QUIET_LOGS:-}" ] || echo "$me: $*"
}

[ -d "$templates" ] || exit 0
if [ ! -w "$output" ]; then
    say "ERROR: $templates exists, but $output is not writable"
    exit 0
fi

names=$(awk -v filter="$filter" \
    'BEGIN { for (name in ENVIRON) if (name ~ filter) printf "${%s} ", name }' </dev/null)

find "$templates" -follow -type f -name "*$suffix" -print | while read -r template; do
    relative=${template#"$templates/"}
    target=$output/${relative%"$suffix"}
    mkdir -p "$(dirname "$target")"
    say "Running envsubst on $template to $target"
    envsubst "$names" <"$template" >"$target"
done
