#!/bin/bash
# Makes the database on the first start, and becomes the server.
set -eo pipefail
shopt -s nullglob

say() { printf '%s [%s] [Entrypoint]: %s\n' "$(date --rfc-3339=seconds)" "$1" "$2"; }
note() { say Note "$*"; }
fail() {
    say ERROR "$*" >&2
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

# What the server's configuration says about an option.
config() {
    "$1" --no-defaults --verbose --help 2>/dev/null |
        awk -v name="$2" '$1 == name && /^[^ \t]/ { sub(/^[^ \t]+[ \t]+/, ""); print; exit }'
}

sql() { mariadb --protocol=socket -uroot -hlocalhost --socket="$SOCKET" --comments "$@"; }

# A server without a network, to set things up by.
start_temporary() {
    "$@" --skip-networking --default-time-zone=SYSTEM --socket="$SOCKET" --wsrep_on=OFF \
        --expire-logs-days=0 --loose-innodb_buffer_pool_load_at_startup=0 &
    TEMPORARY=$!
    note 'Waiting for server startup'
    local try
    for try in {300..0}; do
        sql --skip-ssl --database=mysql <<<'SELECT 1' &>/dev/null && break
        kill -0 "$TEMPORARY" 2>/dev/null || fail 'Unable to start server.'
        sleep 0.2
    done
    [ "$try" != 0 ] || fail 'Unable to start server.'
}

quoted() {
    local text=${1//\\/\\\\}
    printf "'%s'" "${text//\'/\\\'}"
}

set_up() {
    file_env MARIADB_ROOT_PASSWORD
    file_env MARIADB_ROOT_HOST %
    file_env MARIADB_DATABASE
    file_env MARIADB_USER
    file_env MARIADB_PASSWORD
    if [ -z "${MARIADB_INITDB_SKIP_TZINFO:-}" ]; then
        mariadb-tzinfo-to-sql --skip-write-binlog /usr/share/zoneinfo 2>/dev/null |
            sql --database=mysql
    fi
    local password root=
    password=$(quoted "$MARIADB_ROOT_PASSWORD")
    if [ "$MARIADB_ROOT_HOST" != localhost ]; then
        root="CREATE USER root@$(quoted "$MARIADB_ROOT_HOST") IDENTIFIED BY $password;
              GRANT ALL ON *.* TO root@$(quoted "$MARIADB_ROOT_HOST") WITH GRANT OPTION;"
    fi
    sql --database=mysql --binary-mode <<END
SET @@SESSION.SQL_LOG_BIN=0;
DROP USER IF EXISTS root@'127.0.0.1', root@'::1';
EXECUTE IMMEDIATE CONCAT('DROP USER IF EXISTS root@\'', @@hostname, '\'');
SET PASSWORD FOR root@localhost = PASSWORD($password);
$root
FLUSH PRIVILEGES;
DROP DATABASE IF EXISTS test;
END
    export MYSQL_PWD=$MARIADB_ROOT_PASSWORD
    if [ -n "$MARIADB_DATABASE" ]; then
        note "Creating database $MARIADB_DATABASE"
        sql --database=mysql <<<"CREATE DATABASE IF NOT EXISTS \`$MARIADB_DATABASE\`;"
    fi
    if [ -n "$MARIADB_USER" ] && [ -n "$MARIADB_PASSWORD" ]; then
        note "Creating user $MARIADB_USER"
        local user
        user="$(quoted "$MARIADB_USER")@'%'"
        sql --database=mysql --binary-mode \
            <<<"CREATE USER $user IDENTIFIED BY $(quoted "$MARIADB_PASSWORD");"
        if [ -n "$MARIADB_DATABASE" ]; then
            sql --database=mysql <<<"GRANT ALL ON \`${MARIADB_DATABASE//_/\\_}\`.* TO $user;"
        fi
    fi
    local file
    for file in /docker-entrypoint-initdb.d/*; do
        note "running $file"
        case "$file" in
        *.sh) if [ -x "$file" ]; then "$file"; else . "$file"; fi ;;
        *.sql) sql ${MARIADB_DATABASE:+--database="$MARIADB_DATABASE"} <"$file" ;;
        *.sql.gz) gunzip -c "$file" | sql ${MARIADB_DATABASE:+--database="$MARIADB_DATABASE"} ;;
        *) note "ignoring $file" ;;
        esac
    done
    unset MYSQL_PWD
}

case "${1:-}" in
-*) set -- mariadbd "$@" ;;
esac

if [ "$1" = mariadbd ] || [ "$1" = mysqld ]; then
    note "Entrypoint script for MariaDB Server ${MARIADB_VERSION:-} started."
    DATADIR=$(config "$1" datadir)
    SOCKET=$(config "$1" socket)
    DATADIR=${DATADIR:-/var/lib/mysql/}
    SOCKET=${SOCKET:-/run/mysqld/mysqld.sock}
    if [ "$(id -u)" = 0 ]; then
        mkdir -p "$DATADIR" "${SOCKET%/*}"
        find "$DATADIR" "${SOCKET%/*}" \! -user mysql -exec chown mysql: '{}' +
        note "Switching to dedicated user 'mysql'"
        exec gosu mysql "${BASH_SOURCE[0]}" "$@"
    fi
    if [ ! -d "$DATADIR/mysql" ]; then
        if [ -z "${MARIADB_ROOT_PASSWORD+set}${MARIADB_ROOT_PASSWORD_FILE:-}" ]; then
            fail 'Database is uninitialized and no root password is given (MARIADB_ROOT_PASSWORD)'
        fi
        note 'Initializing database files'
        mariadb-install-db --datadir="$DATADIR" --rpm --auth-root-authentication-method=normal \
            --skip-test-db --loose-innodb_buffer_pool_load_at_startup=0 \
            --loose-innodb_buffer_pool_dump_at_shutdown=0
        note 'Database files initialized'
        note 'Starting temporary server'
        start_temporary "$@"
        note 'Temporary server started.'
        set_up
        note 'Stopping temporary server'
        kill "$TEMPORARY"
        wait "$TEMPORARY"
        note 'Temporary server stopped'
        note 'MariaDB init process done. Ready for start up.'
    fi
fi

exec "$@"
