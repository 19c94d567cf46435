# shellcheck shell=bash
# A PostgreSQL server of a script's own, on a port of this host, for scripts that source this: `start_server DIR` makes it in an
# empty directory and sets `server` (its programs) and `port`; `stop_server` is for the end.
#
# Anybody on this host may connect to it as its superuser `postgres`, so nothing but a test belongs into it.

server='' port='' server_data=''
as_server=(env LC_ALL=C)
# PostgreSQL refuses to run as root.
[ "$(id -u)" != 0 ] || as_server=(setpriv --reuid postgres --regid postgres --init-groups "${as_server[@]}")

start_server() {
    server=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
    server_data=$1/data
    mkdir -p "$server_data"
    [ "$(id -u)" != 0 ] || chown postgres "$server_data"
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    "${as_server[@]}" "$server/initdb" -D "$server_data" --username=postgres --auth=trust --data-checksums >/dev/null
    "${as_server[@]}" "$server/pg_ctl" -D "$server_data" -l "$server_data/log" -w \
        -o "-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off" start >/dev/null
}

stop_server() {
    [ -z "$server_data" ] || "${as_server[@]}" "$server/pg_ctl" -D "$server_data" -m immediate stop >/dev/null 2>&1 || true
}
