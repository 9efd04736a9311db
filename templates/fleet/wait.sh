# Waits for the port of a machine to answer: ADDRESS PORT NAME.
answers() {
    tries=0
    until nc -z "$1" "$2" 2>/dev/null; do
        tries=$((tries + 1))
        [ $tries -lt 120 ] || { echo "$3 does not answer" >&2; exit 1; }
        sleep 1
    done
}
