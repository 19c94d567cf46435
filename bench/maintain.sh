#!/usr/bin/env bash
# Measures `opsctl db-maintain` on a throwaway server, and prints Markdown tables: beside VACUUM FULL and vacuumdb with reindexdb while an
# application works on the table, and beside `vacuumdb -a -z` where few tables need anything.
#
#   OPSCTL          the binary                                       default: target/release/opsctl
#   PG_BIN          programs of the server and pgbench               default: the newest below /usr/lib/postgresql
#   BENCH_ROWS      rows of the table under the application          default: 3000000
#   BENCH_TABLES    tables of the second measurement                 default: 2000
#   BENCH_RATE      transactions of the application a second         default: 200
#   BENCH_PG_USER   who runs the server when root runs this          default: postgres
#
# Of the first table three of ten rows were deleted and vacuumed away, so that 30 % of it and of its three indexes are waste, and some more
# rows are dead. The application reads a row by its key and changes it. Its p99 is of the time while a way is at work; idle is without any.
# In the second measurement one table of twenty has more dead rows than its threshold.
set -euo pipefail
export LC_ALL=C
here=$(cd "$(dirname "$0")" && pwd)
OPSCTL=${OPSCTL:-$here/../target/release/opsctl}
PG_BIN=${PG_BIN:-$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)}
rows=${BENCH_ROWS:-3000000}
tables=${BENCH_TABLES:-2000}
rate=${BENCH_RATE:-200}
user=${BENCH_PG_USER:-postgres}

die() { echo "bench: $*" >&2; exit 1; }
say() { echo "bench: $*" >&2; }
[ -x "${PG_BIN:-}/postgres" ] && [ -x "$PG_BIN/pgbench" ] || die "no PostgreSQL server with pgbench in '${PG_BIN:-}'; set PG_BIN"
[ -x "$OPSCTL" ] || die "no opsctl at $OPSCTL: make build"
OPSCTL=$(realpath "$OPSCTL")
dir=$(mktemp -d /tmp/opsctl-bench.XXXXXX)
as_server() {
    if [ "$(id -u)" = 0 ]; then setpriv --reuid="$user" --regid="$user" --clear-groups env HOME=/ "$@"; else "$@"; fi
}
finish() {
    as_server "$PG_BIN/pg_ctl" -D "$dir/data" -m immediate -s stop >/dev/null 2>&1 || true
    rm -rf "$dir"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
[ "$(id -u)" != 0 ] || chown "$user" "$dir"
chmod 755 "$dir"
cd "$dir"
as_server "$PG_BIN/initdb" --username=postgres --auth=trust --no-sync --pgdata "$dir/data" >/dev/null
as_server "$PG_BIN/pg_ctl" -D "$dir/data" -s -w -l "$dir/data/log" \
    -o "-k $dir -c listen_addresses= -c shared_buffers=512MB -c maintenance_work_mem=256MB -c max_wal_size=8GB -c autovacuum=off" start
export PGHOST=$dir PGUSER=postgres PGDATABASE=bank
query() { "$PG_BIN/psql" -XAtqv ON_ERROR_STOP=1 "$@"; }

say "making $rows rows"
"$PG_BIN/createdb" original
query -d original <<SQL
CREATE TABLE accounts (id bigint, tenant int, code text, balance int DEFAULT 0, filler text) WITH (fillfactor = 90);
INSERT INTO accounts SELECT n, n % 1000, md5(n::text), 0, repeat('x', 60) FROM generate_series(1, $rows * 10 / 7) n;
CREATE UNIQUE INDEX accounts_id ON accounts (id);
CREATE INDEX accounts_tenant ON accounts (tenant, id);
CREATE INDEX accounts_code ON accounts (code);
DELETE FROM accounts WHERE id % 10 < 3;
SQL
query -d original -c "VACUUM (ANALYZE) accounts"
query -d original -c "ALTER TABLE accounts SET (autovacuum_vacuum_scale_factor = 0.01)"
query -d original -c "UPDATE accounts SET balance = 1 WHERE id % 40 = 7"
cat >"$dir/application.sql" <<SQL
\set n random(1, $rows / 7) * 10 + 5
SELECT code FROM accounts WHERE id = :n;
UPDATE accounts SET balance = balance + 1 WHERE id = :n;
SQL
cat >"$dir/opsctl.toml" <<TOML
state_dir = "$dir/state"
[database]
url = "postgresql:///bank?host=$dir&user=postgres"
[maintain]
reindex_bloat_percent = 20
probe = "SELECT code FROM accounts WHERE id = 15"
TOML
chmod 600 "$dir/opsctl.toml"

idle() { sleep 20; }
full() { query -c "VACUUM (FULL, ANALYZE) accounts" && query -c "REINDEX TABLE accounts"; }
stock() { "$PG_BIN/vacuumdb" -qz -j 2 -t accounts bank && "$PG_BIN/reindexdb" -q --concurrently -t accounts bank; }
opsctl() { "$OPSCTL" db-maintain --config "$dir/opsctl.toml" --reindex --only accounts --json --quiet >"$dir/report" || die "$(cat "$dir/report")"; }

echo "| way | seconds | p99 of the application, ms | longest, ms | size of the indexes, MB |"
echo "|---|--:|--:|--:|--:|"
for way in idle full stock opsctl; do
    "$PG_BIN/dropdb" --if-exists --force bank 2>/dev/null
    PGDATABASE=postgres "$PG_BIN/createdb" --template=original bank
    query -c "UPDATE accounts SET balance = 1 WHERE id % 40 = 7"
    query -c CHECKPOINT
    query -c "SELECT sum(length(code)) FROM accounts" >/dev/null
    rm -f "$dir"/log.* "$dir/report"
    (cd "$dir" && exec "$PG_BIN/pgbench" -n -f application.sql -c 4 -j 1 -R "$rate" -T 3600 -l --log-prefix=log) >/dev/null 2>&1 &
    application=$!
    sleep 3
    from=$(date +%s.%N)
    "$way" || die "$way failed"
    to=$(date +%s.%N)
    kill "$application" && wait "$application" 2>/dev/null || true
    # pgbench's log: client, number, latency in µs, file, second, microsecond, lag in µs. With a rate, the lag is part of the wait.
    read -r p99 longest <<<"$(cat "$dir"/log.* | awk -v from="$from" -v to="$to" '{ at = $5 + $6 / 1e6; if (at >= from && at <= to + $3 / 1e6) print $3 }' |
        sort -n | awk '{ a[NR] = $1 } END { if (NR) printf "%.1f %.0f", a[int(NR * 0.99 + 0.5)] / 1000, a[NR] / 1000 }')"
    seconds=$(awk -v a="$from" -v b="$to" 'BEGIN { printf "%.1f", b - a }')
    size=$(query -c "SELECT (sum(pg_relation_size(indexrelid)) / 1000000)::int FROM pg_index WHERE indrelid = 'accounts'::regclass")
    echo "| $way | $seconds | $p99 | $longest | $size |"
done

say "making $tables tables"
"$PG_BIN/dropdb" --force bank
"$PG_BIN/dropdb" --force original
for n in 1 2; do
    "$PG_BIN/createdb" "many_$n"
    seq "$tables" | awk '{ print "CREATE TABLE t" $1 " (id int PRIMARY KEY, x text); INSERT INTO t" $1 " SELECT n, repeat(\47x\47, 100) FROM generate_series(1, 2000) n;" }' |
        query -d "many_$n" -1
    "$PG_BIN/vacuumdb" -qz -j 2 "many_$n"
    seq 1 20 "$tables" | awk '{ print "UPDATE t" $1 " SET x = \47y\47 WHERE id <= 1000;" }' | query -d "many_$n" -1
done
query -d postgres -c CHECKPOINT
sed -i 's/bank/many_1/; /^probe/d' "$dir/opsctl.toml"
echo
echo "| way | seconds for $tables tables, of which one in twenty needs something |"
echo "|---|--:|"
measure() {
    local from=$1 to
    shift
    from=$(date +%s.%N)
    "$@" || die "$* failed"
    to=$(date +%s.%N)
    awk -v a="$from" -v b="$to" 'BEGIN { printf "%.2f", b - a }'
}
maintain() { "$OPSCTL" db-maintain --config "$dir/opsctl.toml" --json --quiet >"$dir/report"; }
plan() { "$OPSCTL" db-maintain plan --config "$dir/opsctl.toml" --json --quiet >"$dir/plan"; }
# The other database stays as it is: both have the same to do.
everything() { "$PG_BIN/vacuumdb" -qz many_2; }
echo "| opsctl db-maintain plan | $(measure 0 plan) |"
echo "| opsctl db-maintain | $(measure 0 maintain) |"
echo "| vacuumdb -z | $(measure 0 everything) |"
say "$(grep -E '"(vacuumed|analyzed|failed|left)"' "$dir/report" | tr -d ' \n')"
