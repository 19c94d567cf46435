#!/usr/bin/env bash
# Measures opsctl's backup and restore beside what else does it, on a throwaway server, and prints a Markdown table.
#
#   OPSCTL        the binary                                              default: target/release/opsctl
#   PG_BIN        programs of the server and of the stock tools           default: the newest below /usr/lib/postgresql
#   ZSTD_PG_BIN   the same of a major >= 16, for the zstd rows            default: PG_BIN if that is one, else no such rows
#   BENCH_DIR     scratch, 4 GB a server; a built database in it is used again     default: a temporary one, removed at the end
#   RUNS          how often each is measured; medians are printed         default: 3
#   BENCH_EVENTS  rows of the large table                                 default: what dataset.sql says (2.2 GiB in all)
#   BENCH_PG_USER who runs the server when root runs this                 default: postgres
#   BENCH_S3_URL  s3://bucket/prefix: adds a row for opsctl to S3, with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
#                 AWS_ENDPOINT_URL and AWS_REGION as they are. Each run gets a prefix of its own below it.
#   BENCH_S3_SIZE a command that gets such a prefix's URL, prints the bytes below it, and removes them (optional)
#
# Wall time is that of the whole process. CPU is user + system of the client with all its children; the server's is not in
# it. RSS is that of the largest single process. Whatever is not installed is a row that says so; a run that failed is a
# row that says so too, and then this ends with 1.
set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "$0")" && pwd)
OPSCTL=${OPSCTL:-$here/../target/release/opsctl}
PG_BIN=${PG_BIN:-$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)}
ZSTD_PG_BIN=${ZSTD_PG_BIN:-}
RUNS=${RUNS:-3}
user=${BENCH_PG_USER:-postgres}

die() { echo "bench: $*" >&2; exit 1; }
say() { echo "bench: $*" >&2; }
[ -x "${PG_BIN:-}/postgres" ] || die "no PostgreSQL server in '${PG_BIN:-}'; set PG_BIN"
TIME=$(type -P time) || die "GNU time is not installed"
[ "$RUNS" -ge 1 ] 2>/dev/null || die "RUNS must be a number from 1 on"
major() { "$1/postgres" --version | sed -E 's/^[^0-9]*([0-9]+).*/\1/'; }
major=$(major "$PG_BIN")
[ -n "$ZSTD_PG_BIN" ] || { [ "$major" -lt 16 ] || ZSTD_PG_BIN=$PG_BIN; }
[ -z "$ZSTD_PG_BIN" ] || [ -x "$ZSTD_PG_BIN/postgres" ] || { say "no PostgreSQL server in '$ZSTD_PG_BIN': no zstd rows"; ZSTD_PG_BIN=; }
[ -z "$ZSTD_PG_BIN" ] || [ "$(major "$ZSTD_PG_BIN")" -ge 16 ] || { say "ZSTD_PG_BIN is older than 16: no zstd rows"; ZSTD_PG_BIN=; }

if [ -n "${BENCH_DIR:-}" ]; then
    mkdir -p "$BENCH_DIR"; BENCH_DIR=$(cd "$BENCH_DIR" && pwd); remove_bench_dir=false
else
    BENCH_DIR=$(mktemp -d "${TMPDIR:-/tmp}/opsctl-bench.XXXXXX"); remove_bench_dir=true
fi
# A path of the socket must be short, and the server's user has to reach it.
sockets=$(mktemp -d /tmp/opsctl-bench.XXXXXX)
out=$BENCH_DIR/out
results=$BENCH_DIR/results.tsv
started=()

as_server() {
    if [ "$(id -u)" = 0 ]; then setpriv --reuid="$user" --regid="$user" --clear-groups env HOME=/ "$@"; else "$@"; fi
}
finish() {
    for data in ${started[@]+"${started[@]}"}; do
        as_server "$(cat "$data/bench.bin")/pg_ctl" -D "$data" -m immediate -s stop >/dev/null 2>&1 || true
    done
    rm -rf "$out" "$sockets" "${repository:-}"
    if $remove_bench_dir; then rm -rf "$BENCH_DIR"; fi
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
chmod 755 "$BENCH_DIR" "$sockets"
[ "$(id -u)" != 0 ] || chown "$user" "$sockets"
mkdir -p "$BENCH_DIR/home"
as_server test -x "$BENCH_DIR" || die "the user $user cannot reach BENCH_DIR '$BENCH_DIR'"
export PGHOST=$sockets PGUSER=postgres PGDATABASE=bench HOME=$BENCH_DIR/home
unset PGSERVICE PGOPTIONS PGSSLMODE XDG_CONFIG_HOME XDG_STATE_HOME XDG_CACHE_HOME

# server BIN PORT: starts one, with the database in it
server() {
    local bin=$1 port=$2 data stamp
    data=$BENCH_DIR/pg$(major "$bin")
    stamp=$(cat "$here/dataset.sql" <(echo "${BENCH_EVENTS:-}") | sha256sum | cut -d ' ' -f 1)
    if [ "$(cat "$data/bench.built" 2>/dev/null)" != "$stamp" ]; then
        rm -rf "$data"
        mkdir "$data"
        [ "$(id -u)" != 0 ] || chown "$user" "$data"
        as_server "$bin/initdb" -D "$data" -U postgres -A trust -E UTF8 --locale=C --no-sync >/dev/null
    fi
    echo "$bin" | as_server tee "$data/bench.bin" >/dev/null
    # As production has it, where that matters to a reader; nothing else that could run beside the measurement.
    as_server tee "$data/postgresql.auto.conf" >/dev/null <<EOF
listen_addresses = ''
unix_socket_directories = '$sockets'
port = $port
shared_buffers = '512MB'
max_connections = 50
max_wal_size = '8GB'
fsync = off
autovacuum = off
EOF
    # (a server that was killed with this script left its pid file: pg_ctl knows)
    as_server "$bin/pg_ctl" -D "$data" -l "$data/bench.log" -s -w start || die "the server did not start: $(tail -n 3 "$data/bench.log")"
    started+=("$data")
    if [ ! -e "$data/bench.built" ]; then
        say "building the database on PostgreSQL $(major "$bin"): a minute or two"
        "$bin/psql" -X -q -p "$port" -d postgres -c 'SET client_min_messages = warning' -c 'DROP DATABASE IF EXISTS bench' -c 'CREATE DATABASE bench'
        "$bin/psql" -X -q -p "$port" -f "$here/dataset.sql" ${BENCH_EVENTS:+-v events="$BENCH_EVENTS"}
        echo "$stamp" | as_server tee "$data/bench.built" >/dev/null
    fi
    # Into the page cache: the main forks and TOAST of this database.
    find "$data/base" -type f -exec cat {} + >/dev/null
}

server "$PG_BIN" 5432
zport=
if [ -n "$ZSTD_PG_BIN" ]; then
    if [ "$(major "$ZSTD_PG_BIN")" = "$major" ]; then zport=5432; else zport=5433; server "$ZSTD_PG_BIN" $zport; fi
fi

# The bare COPY: each of two sessions reads one half of every table.
for half in 1 2; do
    "$PG_BIN/psql" -X -A -t -p 5432 >"$BENCH_DIR/copy$half.sql" <<EOF
SELECT format('COPY (SELECT * FROM ONLY %s WHERE ctid >= %L AND ctid < %L) TO STDOUT;', oid::regclass,
              format('(%s,0)', CASE $half WHEN 1 THEN 0 ELSE relpages / 2 END), format('(%s,0)', CASE $half WHEN 1 THEN relpages / 2 ELSE 4294967295 END))
FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY relpages DESC;
EOF
done

# The contestants: a name, what it needs, and a command line for bash. In it: \$out, the directory to write into.
names=() needs=() commands=() kinds=() servers=()
row() { kinds+=("$1"); names+=("$2"); needs+=("$3"); commands+=("$4"); servers+=("$server"); }
server=5432
url() { echo "postgresql:///bench?host=$sockets&port=$1&user=postgres"; }
opsctl() { # PORT BIN REPOSITORY COMPRESSION
    printf 'PATH=%q:$PATH DATABASE_URL=%q exec %q --quiet backup --repository %s --compression %s --jobs 2' "$2" "$(url "$1")" "$OPSCTL" "$3" "$4"
}
q=$(printf %q "$PG_BIN"); zq=$(printf %q "$ZSTD_PG_BIN")
row peer   "pg_dump -Fd -j2"                  "$PG_BIN/pg_dump"      "exec $q/pg_dump -p 5432 -Fd -j2 -f \"\$out/dump\""
row peer   "pg_dump -Fc"                      "$PG_BIN/pg_dump"      "exec $q/pg_dump -p 5432 -Fc -f \"\$out/dump\""
row peer   "pg_dump -Fc -Z0 | zstd -T2 -3"  zstd                   "set -o pipefail; $q/pg_dump -p 5432 -Fc -Z0 | zstd -q -T2 -3 -o \"\$out/dump.zst\""
row peer   "2 × COPY to nowhere"              "$PG_BIN/psql"         "$q/psql -X -q -v ON_ERROR_STOP=1 -p 5432 -o /dev/null -f $(printf %q "$BENCH_DIR/copy1.sql") & $q/psql -X -q -v ON_ERROR_STOP=1 -p 5432 -o /dev/null -f $(printf %q "$BENCH_DIR/copy2.sql") && wait \$!"
row opsctl "opsctl gzip"                      "$OPSCTL"              "$(opsctl 5432 "$PG_BIN" '"$out"' gzip)"
if [ -n "${BENCH_S3_URL:-}" ]; then
    row s3 "opsctl gzip to S3"                "$OPSCTL"              "$(opsctl 5432 "$PG_BIN" '"$s3"' gzip)"
fi
# The zstd rows: of the same server if it can, else of the other one, with the pipe measured there as well.
on=", PostgreSQL ${ZSTD_PG_BIN:+$(major "$ZSTD_PG_BIN")}"
[ -n "$ZSTD_PG_BIN" ] || on=", PostgreSQL >= 16"
[ "$zport" != 5432 ] || on=
if [ -z "$ZSTD_PG_BIN" ]; then
    row peer   "pg_dump -Fd -j2 -Z zstd:3$on"         /nonexistent           ""
    row opsctl "opsctl zstd:3$on"                     /nonexistent           ""
else
    server=$zport
    [ "$zport" = 5432 ] || row peer "pg_dump -Fc -Z0 | zstd -T2 -3$on" zstd  "set -o pipefail; $zq/pg_dump -p $zport -Fc -Z0 | zstd -q -T2 -3 -o \"\$out/dump.zst\""
    row peer   "pg_dump -Fd -j2 -Z zstd:3$on"         "$ZSTD_PG_BIN/pg_dump" "exec $zq/pg_dump -p $zport -Fd -j2 -Z zstd:3 -f \"\$out/dump\""
    row opsctl "opsctl zstd:3$on"                     "$OPSCTL"              "$(opsctl "$zport" "$ZSTD_PG_BIN" '"$out"' zstd:3)"
fi

# A restore, as a new database each time, of a backup that is taken once.
repository=$BENCH_DIR/repository
server=restore
row peer   "pg_restore -j2 of that backup"    "$PG_BIN/pg_restore"   "$q/createdb -p 5432 -T template0 restored && exec $q/pg_restore -p 5432 -j2 -e -d restored $(printf %q "$repository")/bench/*"
row opsctl "opsctl restore"                   "$OPSCTL"              "PATH=$q:\$PATH DATABASE_URL=$(printf %q "$(url 5432)") exec $(printf %q "$OPSCTL") --quiet restore --repository $(printf %q "$repository") --create restored --jobs 2"
rm -rf "$repository"
if type -P "$OPSCTL" >/dev/null; then
    bash -c "$(opsctl 5432 "$PG_BIN" "$(printf %q "$repository")" gzip)" || die "the backup to be restored was not taken"
fi

installed() { type -P "$1" >/dev/null 2>&1; }
: >"$results"
failed=0
for run in $(seq "$RUNS"); do
    for i in "${!names[@]}"; do
        installed "${needs[$i]}" || continue
        rm -rf "$out"; mkdir "$out"; sync
        export out s3="${BENCH_S3_URL:-}/bench-$$-$run"
        status=0
        "$TIME" -q -o "$BENCH_DIR/time" -f '%e %U %S %M' bash -c "${commands[$i]}" >"$BENCH_DIR/stdout" 2>"$BENCH_DIR/stderr" </dev/null || status=$?
        read -r wall usr sys rss <"$BENCH_DIR/time"
        bytes=-
        case ${kinds[$i]} in
            s3) [ -z "${BENCH_S3_SIZE:-}" ] || bytes=$($BENCH_S3_SIZE "$s3" 2>/dev/null) || bytes=- ;;
            *) bytes=$(find "$out" -type f -printf '%s\n' | awk '{ n += $1 } END { printf "%d", n }') ;;
        esac
        rm -rf "$out"
        [ "${servers[$i]}" != restore ] || "$PG_BIN/psql" -X -q -p 5432 -d postgres -c 'SET client_min_messages = warning' -c 'DROP DATABASE IF EXISTS restored'
        if [ "$status" != 0 ]; then
            failed=1
            say "${names[$i]}: exit status $status: $(tail -n 3 "$BENCH_DIR/stderr" | tr '\n' ' ')"
        fi
        say "run $run of $RUNS: ${names[$i]}: $wall s, exit status $status"
        printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$i" "$status" "$wall" "$(awk "BEGIN { print $usr + $sys }")" "$rss" "$bytes" >>"$results"
    done
done

# median ROW FIELD: of the runs of this row that succeeded; "-" if there is none
median() {
    awk -F '\t' -v i="$1" -v f="$2" '$1 == i && $2 == 0 && $f != "-" { print $f }' "$results" | sort -n |
        awk '{ a[NR] = $1 } END { if (NR == 0) print "-"; else if (NR % 2) print a[(NR + 1) / 2]; else print (a[NR / 2] + a[NR / 2 + 1]) / 2 }'
}
show() { if [ "$1" = - ]; then echo "–"; else awk "BEGIN { printf \"$2\", $1 }"; fi; }
cpu=$(sed -nE 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
line() { local cell; for cell in "$@"; do printf '| %s ' "${cell//|/\\|}"; done; echo '|'; }

"$PG_BIN/psql" -X -A -t -F ' ' -p 5432 -c "SELECT round(pg_database_size('bench') / 1024.0 ^ 3, 2), (SELECT round(sum(pg_table_size(oid)) / 1024.0 ^ 3, 2) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace), (SELECT round(reltuples::numeric / 1e6, 1) FROM pg_class WHERE oid = 'events'::regclass)" >"$BENCH_DIR/size"
read -r dbsize tables events <"$BENCH_DIR/size"
echo "# Benchmark of $(date -u +%Y-%m-%d)"
echo
echo "- Machine: $(nproc) cores, ${cpu:-unknown CPU}, $(awk '/^MemTotal/ { printf "%.0f", $2 / 1048576 }' /proc/meminfo) GiB of memory"
echo "- $("$PG_BIN/postgres" --version)$([ "${zport:-5432}" = 5432 ] || echo "; for zstd $("$ZSTD_PG_BIN/postgres" --version)")"
opsctl_version=$(if installed "$OPSCTL"; then "$OPSCTL" --version 2>/dev/null | head -n 1 || true; fi)
echo "- ${opsctl_version:-opsctl: version not known}; $(installed zstd && zstd --version | tr -d '*' | sed 's/^ *//; s/ *$//; s/, by .*//' || echo "zstd is not installed")"
echo "- Database: $dbsize GiB, $tables GiB of it tables with TOAST, $events million rows in the largest; all in the page cache"
echo "- Runs: $RUNS of each, in turn; medians. CPU is the client's, its children included. RSS is that of its largest process."
echo
line "" "wall, s" "CPU, s" "peak RSS, MiB" "written, MB"
line "---" "--:" "--:" "--:" "--:"
for i in "${!names[@]}"; do
    if ! installed "${needs[$i]}"; then line "${names[$i]}" "not installed" "" "" ""; continue; fi
    if [ "$(median "$i" 3)" = - ]; then line "${names[$i]}" "failed" "" "" ""; continue; fi
    note=
    bad=$(awk -F '\t' -v i="$i" '$1 == i && $2 != 0' "$results" | wc -l)
    [ "$bad" = 0 ] || note=" ($bad of $RUNS failed)"
    line "${names[$i]}$note" "$(show "$(median "$i" 3)" %.1f)" "$(show "$(median "$i" 4)" %.1f)" "$(show "$(median "$i" 5)/1024" %.0f)" \
        "$(m=$(median "$i" 6); if [ "$m" = 0 ] || [ "$m" = - ]; then echo "–"; else show "$m/1000000" %.0f; fi)"
done
echo
echo "opsctl / peer on the same server, below 1 where opsctl needs less:"
echo
line "" "peer" "wall" "CPU" "written"
line "---" "---" "--:" "--:" "--:"
ratio() { if [ "$1" = - ] || [ "$2" = - ] || awk "BEGIN { exit !($2 == 0 || $1 == 0) }"; then echo "–"; else awk "BEGIN { printf \"%.2f\", $1 / $2 }"; fi; }
for i in "${!names[@]}"; do
    [ "${kinds[$i]}" != peer ] && installed "${needs[$i]}" && [ "$(median "$i" 3)" != - ] || continue
    for j in "${!names[@]}"; do
        [ "${kinds[$j]}" = peer ] && [ "${servers[$j]}" = "${servers[$i]}" ] && installed "${needs[$j]}" && [ "$(median "$j" 3)" != - ] || continue
        line "${names[$i]}" "${names[$j]}" "$(ratio "$(median "$i" 3)" "$(median "$j" 3)")" "$(ratio "$(median "$i" 4)" "$(median "$j" 4)")" "$(ratio "$(median "$i" 6)" "$(median "$j" 6)")"
    done
done
exit "$failed"
