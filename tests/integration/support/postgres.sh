#!/bin/bash
# A throwaway PostgreSQL for a test, alive as long as its standard input.
#
#   postgres.sh BIN_DIR DIR [-c name=value]…
#
# Makes a cluster in DIR/data from the programs in BIN_DIR, starts it on a socket in DIR and on a free port of
# 127.0.0.1, and prints `ready SOCKETDIR PORT`. At the end of its standard input, which comes also when the parent
# was killed, it stops the server and removes DIR. The server's log is DIR/log.
#
# The superuser is `postgres`. Settings stand in postgresql.conf, so a test may stop the server and start it again
# with `pg_ctl -D DIR/data`. PostgreSQL refuses to run as root: for root, DIR belongs to `postgres` or else `nobody`,
# as whom the server runs.
#
#   PGTEST_AUTH         trust (default) or scram-sha-256, for every connection
#   PGTEST_PASSWORD     the superuser's password (default: postgres)
#   PGTEST_ROOM         how much room there is for databases, such as 50M: they lie on a file system of that size
#   PGTEST_STANDBY_OF, PGTEST_STANDBY_PORT
#                       the socket's directory and the port of a server to be a standby of; it is copied with pg_basebackup
#   OPSCTL_TEST_CACHE   where finished initdb results are kept, to be copied
set -euo pipefail
umask 022

die() { echo "postgres.sh: $*" >&2; exit 1; }

[ $# -ge 2 ] || die "usage: postgres.sh BIN_DIR DIR [-c name=value]…"
bin=$1 dir=$2
shift 2
auth=${PGTEST_AUTH:-trust}
[ "$auth" != scram ] || auth=scram-sha-256
password=${PGTEST_PASSWORD:-postgres}
[ -x "$bin/postgres" ] || die "no postgres in $bin"
case $dir in /*) ;; *) dir=$PWD/$dir ;; esac
# A socket's path has at most 107 characters.
[ ${#dir} -le 90 ] || die "the path of $dir is too long for a socket"
[ ! -e "$dir" ] || [ -z "$(ls -A "$dir")" ] || die "$dir is not empty"

# A file system of its own, which only this process and its children see.
if [ -n "${PGTEST_ROOM:-}" ] && [ -z "${PGTEST_INSIDE:-}" ]; then
    if [ "$(id -u)" = 0 ]; then apart=(); else apart=(--user --map-current-user --keep-caps); fi
    # In a chroot there is no mount at / whose events could be kept apart.
    unshare "${apart[@]}" --mount true 2>/dev/null || apart+=(--propagation unchanged)
    PGTEST_INSIDE=yes exec unshare "${apart[@]}" --mount bash "$0" "$bin" "$dir" "$@"
fi

if [ "$(id -u)" = 0 ]; then
    cache=${OPSCTL_TEST_CACHE:-/var/cache/opsctl-test}
    user=postgres
    id "$user" >/dev/null 2>&1 || user=nobody
    as_user=(setpriv --reuid="$user" --regid="$(id -g "$user")" --clear-groups)
else
    cache=${OPSCTL_TEST_CACHE:-$HOME/.cache/opsctl-test}
    user=$(id -un)
    as_user=()
fi
unset PGDATA PGHOST PGHOSTADDR PGPORT PGUSER PGPASSWORD PGPASSFILE PGSERVICE PGSERVICEFILE PGOPTIONS PGDATABASE
export LC_ALL=C

# pause SECONDS: sleeps without a process; the pipe never has anything to read.
exec {never}<> <(:)
pause() { read -rt "$1" -u "$never" || true; }

server=
clean_up() {
    trap '' INT TERM HUP
    local pid=$server _
    # A test may have restarted the server, so its own file knows better which process it is.
    if [ -f "$dir/data/postmaster.pid" ]; then read -r pid <"$dir/data/postmaster.pid" || true; fi
    if [ -n "$pid" ] && [ "$(readlink "/proc/$pid/cwd" 2>/dev/null)" = "$dir/data" ]; then
        kill -CONT "$pid" 2>/dev/null || true
        kill -QUIT "$pid" 2>/dev/null || true
        for _ in {1..500}; do
            kill -0 "$pid" 2>/dev/null || break
            pause 0.01
        done
        kill -KILL "$pid" 2>/dev/null || true
    fi
    [ -z "$building" ] || rm -rf "$building"
    [ -z "${PGTEST_ROOM:-}" ] || umount -l "$dir/data/base" 2>/dev/null || true
    rm -rf "$dir" || { pause 0.2; rm -rf "$dir"; }
}
building=
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

mkdir -p "$dir"
dir=$(cd "$dir" && pwd -P)
: >"$dir/log"
chown -R "$user": "$dir"
chmod 755 "$dir"
"${as_user[@]}" test -x "$dir" || die "user $user cannot enter $dir: a folder above it is closed to others"
"${as_user[@]}" test -x "$bin/postgres" || die "user $user cannot run $bin/postgres"

# The result of initdb, made once per version, user and password, and renamed into place, so that whoever comes
# second finds either nothing or the whole.
version=$("$bin/postgres" --version)
key=$(printf '%s\n' "$bin" "$version" "$user" "$password" | sha256sum)
version=${version#*) }
template=$cache/initdb/${version%% *}-${key:0:16}
if [ ! -d "$template" ]; then
    mkdir -p "$cache/initdb"
    find "$cache/initdb" -maxdepth 1 -name 'building.*' -mmin +60 -exec rm -rf {} +
    building=$(mktemp -d "$cache/initdb/building.XXXXXX")
    chown "$user": "$building"
    chmod 755 "$cache" "$cache/initdb"
    (umask 077; printf '%s\n' "$password" >"$building/password"; chown "$user": "$building/password")
    "${as_user[@]}" "$bin/initdb" --pgdata="$building/data" --username=postgres --pwfile="$building/password" \
        --auth=trust --encoding=UTF8 --locale=C --no-sync --no-instructions </dev/null >"$building/log" 2>&1 ||
        { cat "$building/log" >&2; die "initdb failed"; }
    mv -T "$building/data" "$template" 2>/dev/null || [ -d "$template" ] || die "cannot write $template"
    rm -rf "$building"
    building=
fi
if [ -n "${PGTEST_STANDBY_OF:-}" ]; then
    "${as_user[@]}" "$bin/pg_basebackup" -h "$PGTEST_STANDBY_OF" -p "${PGTEST_STANDBY_PORT:?}" -U postgres -D "$dir/data" \
        --checkpoint=fast --no-sync || die "pg_basebackup failed"
    touch "$dir/data/standby.signal"
    chown "$user": "$dir/data/standby.signal"
else
    cp -a --reflink=auto "$template" "$dir/data"
fi
if [ -n "${PGTEST_ROOM:-}" ]; then
    mv "$dir/data/base" "$dir/base"
    mkdir -m 700 "$dir/data/base"
    mount -t tmpfs -o "size=$PGTEST_ROOM" opsctl-test "$dir/data/base"
    cp -a "$dir/base/." "$dir/data/base"
    chown "$user": "$dir/data/base"
fi

cat >"$dir/data/pg_hba.conf" <<END
local all         all              $auth
host  all         all 127.0.0.1/32 $auth
local replication all              $auth
host  replication all 127.0.0.1/32 $auth
END
{
    cat <<END
listen_addresses = '127.0.0.1'
unix_socket_directories = '$dir'
max_connections = 100
shared_buffers = 16MB
fsync = off
full_page_writes = off
synchronous_commit = off
autovacuum = off
timezone = 'UTC'
log_timezone = 'UTC'
END
    while [ $# -gt 0 ]; do
        case $1 in
            -c) shift; setting=${1:?-c without name=value} ;;
            *) setting=$1 ;;
        esac
        shift
        case $setting in *=*) ;; *) die "not a setting: $setting" ;; esac
        value=${setting#*=}
        printf "%s = '%s'\n" "${setting%%=*}" "${value//\'/\'\'}"
    done
} >>"$dir/data/postgresql.conf"

# Below the range from which the kernel takes the ports of outgoing connections.
for attempt in {1..20}; do
    port=$((15000 + (RANDOM * 32768 + RANDOM) % 15000))
    echo "port = $port" >>"$dir/data/postgresql.conf"
    # When this script is killed the kernel ends the server too.
    setsid "${as_user[@]}" setpriv --pdeathsig QUIT "$bin/postgres" -D "$dir/data" </dev/null >>"$dir/log" 2>&1 &
    server=$!
    deadline=$((SECONDS + 30))
    while kill -0 "$server" 2>/dev/null; do
        # The eighth line of the file says `ready` when connections are accepted.
        mapfile -t lines 2>/dev/null <"$dir/data/postmaster.pid" || lines=()
        if [[ ${lines[7]:-} == ready* ]]; then
            trap "" PIPE
            echo "ready $dir $port"
            while read -r _; do :; done
            exit 0
        fi
        [ $SECONDS -lt $deadline ] || break 2
        pause 0.01
    done
    grep -q 'Address already in use' "$dir/log" || break
done
tail -n 20 "$dir/log" >&2
die "the server did not start ($attempt attempts)"
