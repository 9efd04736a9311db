#!/bin/bash
# Makes the database cluster on the first start, and becomes the server.
set -eo pipefail
shopt -s nullglob

fail() {
    echo "error: $*" >&2
    exit 1
}

# Takes variable $1, or the content of the file that $1_FILE names, or the default $2.
file_env() {
    local name=$1 file=$1_FILE
    if [ -n "${!name:-}" ] && [ -n "${!file:-}" ]; then
        fail "both $name and $file are set"
    fi
    local value=${!name:-${2:-}}
    [ -z "${!file:-}" ] || value=$(<"${!file}")
    export "$name"="$value"
    unset "$file"
}

make_directories() {
    local user
    user=$(id -u)
    mkdir -p "$PGDATA" /var/run/postgresql
    chmod 00700 "$PGDATA" || :
    chmod 03775 /var/run/postgresql || :
    if [ "$user" = 0 ]; then
        find "$PGDATA" \! -user postgres -exec chown postgres '{}' +
        find /var/run/postgresql \! -user postgres -exec chown postgres '{}' +
    fi
}

make_cluster() {
    [ -n "$POSTGRES_PASSWORD" ] || [ "$POSTGRES_HOST_AUTH_METHOD" = trust ] ||
        fail 'Database is uninitialized and superuser password is not specified.
       Set POSTGRES_PASSWORD to a non-empty value, or POSTGRES_HOST_AUTH_METHOD to trust.'
    eval 'initdb --username="$POSTGRES_USER" --pwfile=<(printf "%s\n" "$POSTGRES_PASSWORD") \
        '"${POSTGRES_INITDB_ARGS:-}"
    local auth=${POSTGRES_HOST_AUTH_METHOD:-$(postgres -C password_encryption)}
    printf '\nhost all all all %s\n' "$auth" >>"$PGDATA/pg_hba.conf"
}

sql() {
    psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --no-password --no-psqlrc \
        ${POSTGRES_DB:+--dbname "$POSTGRES_DB"} "$@"
}

set_up() {
    local options=
    [ $# = 0 ] || options=$(printf '%q ' "$@")
    PGUSER=$POSTGRES_USER pg_ctl -D "$PGDATA" \
        -o "$options-c listen_addresses='' -p ${PGPORT:-5432}" -w start
    if [ "$POSTGRES_DB" != postgres ]; then
        POSTGRES_DB='' sql --dbname postgres --set db="$POSTGRES_DB" \
            <<<'CREATE DATABASE :"db";'
    fi
    local file
    for file in /docker-entrypoint-initdb.d/*; do
        echo "$0: running $file"
        case "$file" in
        *.sh) if [ -x "$file" ]; then "$file"; else . "$file"; fi ;;
        *.sql) sql -f "$file" ;;
        *.sql.gz) gunzip -c "$file" | sql ;;
        *) echo "$0: ignoring $file" ;;
        esac
    done
    PGUSER=$POSTGRES_USER pg_ctl -D "$PGDATA" -m fast -w stop
}

case "${1:-}" in
-*) set -- postgres "$@" ;;
esac

if [ "$1" = postgres ]; then
    file_env POSTGRES_PASSWORD
    file_env POSTGRES_USER postgres
    file_env POSTGRES_DB "$POSTGRES_USER"
    : "${POSTGRES_HOST_AUTH_METHOD:=}"
    make_directories
    if [ "$(id -u)" = 0 ]; then
        exec gosu postgres "${BASH_SOURCE[0]}" "$@"
    fi
    if [ ! -s "$PGDATA/PG_VERSION" ]; then
        # What a cluster makes and holds is nobody else's business.
        make_cluster
        shift
        export PGPASSWORD=${PGPASSWORD:-$POSTGRES_PASSWORD}
        set_up "$@"
        unset PGPASSWORD
        set -- postgres "$@"
        printf '\nPostgreSQL init process complete; ready for start up.\n\n'
    else
        printf '\nPostgreSQL Database directory appears to contain a database; Skipping initialization\n\n'
    fi
fi

exec "$@"
