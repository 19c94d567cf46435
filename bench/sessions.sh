#!/usr/bin/env bash
# Measures `opsctl cleanup-sessions` beside one DELETE and a script like the one it replaces, while an application works on the same
# table, on a throwaway server; prints a Markdown table.
#
#   OPSCTL          the binary                                  default: target/release/opsctl
#   PG_BIN          programs of the server and pgbench          default: the newest below /usr/lib/postgresql
#   BENCH_SESSIONS  rows; four of five are expired              default: 5000000
#   BENCH_RATE      transactions of the application a second    default: 200
#   BENCH_PG_USER   who runs the server when root runs this     default: postgres
#
# The application reads a live session by its token and prolongs it. Its p99 is of the time while a way is at work; idle is without any.
# RSS is that of the client.
set -euo pipefail
export LC_ALL=C
here=$(cd "$(dirname "$0")" && pwd)
OPSCTL=${OPSCTL:-$here/../target/release/opsctl}
PG_BIN=${PG_BIN:-$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)}
rows=${BENCH_SESSIONS:-5000000}
rate=${BENCH_RATE:-200}
user=${BENCH_PG_USER:-postgres}

die() { echo "bench: $*" >&2; exit 1; }
say() { echo "bench: $*" >&2; }
[ -x "${PG_BIN:-}/postgres" ] && [ -x "$PG_BIN/pgbench" ] || die "no PostgreSQL server with pgbench in '${PG_BIN:-}'; set PG_BIN"
[ -x "$OPSCTL" ] || die "no opsctl at $OPSCTL: make build"
OPSCTL=$(realpath "$OPSCTL")
TIME=$(type -P time) || die "GNU time is not installed"
dir=$(mktemp -d /tmp/opsctl-bench.XXXXXX)
as_server() {
    if [ "$(id -u)" = 0 ]; then setpriv --reuid="$user" --regid="$user" --clear-groups env HOME=/ "$@"; else "$@"; fi
}
finish() {
    as_server "$PG_BIN/pg_ctl" -D "$dir/data" -m immediate -s stop >/dev/null 2>&1 || true
    rm -rf "$dir"
}
trap finish EXIT
[ "$(id -u)" != 0 ] || chown "$user" "$dir"
chmod 755 "$dir"
cd "$dir"
as_server "$PG_BIN/initdb" --username=postgres --auth=trust --no-sync --pgdata "$dir/data" >/dev/null
as_server "$PG_BIN/pg_ctl" -D "$dir/data" -s -w -l "$dir/data/log" \
    -o "-k $dir -c listen_addresses= -c shared_buffers=512MB -c max_wal_size=8GB -c autovacuum=off" start
export PGHOST=$dir PGUSER=postgres PGDATABASE=sessions
say "making $rows sessions"
"$PG_BIN/createdb" original
"$PG_BIN/psql" -Xqd original -v ON_ERROR_STOP=1 <<SQL
CREATE TABLE sessions (id bigint GENERATED ALWAYS AS IDENTITY, token text, data text, expires timestamptz);
-- The old ones first, but for those that were prolonged.
INSERT INTO sessions (token, data, expires) SELECT md5(n::text), repeat('x', 100),
    now() + CASE WHEN n % 5 = 0 THEN interval '1 day' ELSE -interval '1 hour' - ($rows - n) * interval '0.1 s' END
    FROM generate_series(1, $rows) n;
ALTER TABLE sessions ADD PRIMARY KEY (id);
CREATE UNIQUE INDEX ON sessions (token);
CREATE INDEX ON sessions (expires);
VACUUM (ANALYZE) sessions;
SQL
cat >"$dir/application.sql" <<SQL
\set n random(1, $rows / 5) * 5
SELECT data FROM sessions WHERE token = md5((:n)::text);
UPDATE sessions SET expires = now() + interval '1 day' WHERE token = md5((:n)::text);
SQL
cat >"$dir/opsctl.toml" <<TOML
state_dir = "$dir/state"
[database]
url = "postgresql:///sessions?host=$dir&user=postgres"
[[sessions.rule]]
table = "sessions"
column = "expires"
kind = "timestamptz"
TOML
chmod 600 "$dir/opsctl.toml"

single() { "$PG_BIN/psql" -Xqc "DELETE FROM sessions WHERE expires < now()"; }
script() { "$PG_BIN/psql" -Xtc "DELETE FROM sessions WHERE expires < NOW() RETURNING id;" | wc -l >/dev/null; }
opsctl() { "$OPSCTL" cleanup-sessions --config "$dir/opsctl.toml" --first-run --json --quiet >"$dir/report"; }
idle() { sleep 20; }
export -f single script opsctl idle
export PG_BIN OPSCTL dir

echo "| way | seconds | longest transaction, s | p99 of the application, ms | client RSS, MiB | left |"
echo "|---|---|---|---|---|---|"
for way in idle single script opsctl; do
    "$PG_BIN/dropdb" --if-exists --force sessions 2>/dev/null
    PGDATABASE=postgres "$PG_BIN/createdb" --template=original sessions
    "$PG_BIN/psql" -Xqc CHECKPOINT
    rm -f "$dir"/log.*
    (cd "$dir" && exec "$PG_BIN/pgbench" -n -f application.sql -c 4 -j 1 -R "$rate" -T 3600 -l --log-prefix=log) >/dev/null 2>&1 &
    application=$!
    sleep 3
    from=$(date +%s.%N)
    "$TIME" -o "$dir/time" -f '%M' bash -c "set -euo pipefail; $way" || die "$way failed"
    to=$(date +%s.%N)
    kill "$application" && wait "$application" 2>/dev/null || true
    # pgbench's log: client, number, latency in µs, file, second, microsecond, lag in µs. With a rate, the lag is part of the wait.
    p99=$(cat "$dir"/log.* | awk -v from="$from" -v to="$to" '{ at = $5 + $6 / 1e6; if (at >= from && at <= to) print $3 }' | sort -n |
        awk '{ a[NR] = $1 } END { if (NR) printf "%.1f", a[int(NR * 0.99 + 0.5)] / 1000 }')
    seconds=$(awk -v a="$from" -v b="$to" 'BEGIN { printf "%.1f", b - a }')
    longest=$seconds
    [ "$way" != opsctl ] || longest=$(grep -o '"longest_seconds": [0-9.]*' "$dir/report" | head -n 1 | awk '{ printf "%.2f", $2 }')
    [ "$way" != idle ] || longest=-
    left=$("$PG_BIN/psql" -XAtc "SELECT count(*) FROM sessions WHERE expires < now()")
    echo "| $way | $seconds | $longest | $p99 | $(awk '{ printf "%.0f", $1 / 1024 }' "$dir/time") | $left |"
done
