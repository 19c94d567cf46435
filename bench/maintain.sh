#!/usr/bin/env bash
# Measures `opsctl db-maintain` on a throwaway server, and prints Markdown tables: beside VACUUM FULL and vacuumdb with reindexdb while an
# application works on the table, beside `vacuumdb -a -z` where few tables need anything, and with very many tables.
#
#   OPSCTL          the binary                                       default: target/release/opsctl
#   PG_BIN          programs of the server and pgbench               default: the newest below /usr/lib/postgresql
#   BENCH_ROWS      rows of the table under the application          default: 3000000
#   BENCH_TABLES    tables of the second measurement                 default: 2000
#   BENCH_ROUNDS    rounds; medians are printed, VACUUM FULL once      default: 3
#   BENCH_MANY      tables of the third measurement                  default: 50000
#   BENCH_RATE      transactions of the application a second         default: 200
#   BENCH_PG_USER   who runs the server when root runs this          default: postgres
#
# Of the first table three of ten rows were deleted and vacuumed away, and its three indexes are filled to 63 %, so that 30 % of them are waste;
# some more rows are dead. The application reads a row by its key and changes it. Its p99 is of the time while a way is at work; idle is without any.
# In the second measurement one table of twenty has more dead rows than its threshold. In the third there are many tables, each with a
# foreign key without index, and what a plan and a report take, in time and memory, is measured.
set -euo pipefail
export LC_ALL=C
here=$(cd "$(dirname "$0")" && pwd)
OPSCTL=${OPSCTL:-$here/../target/release/opsctl}
PG_BIN=${PG_BIN:-$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)}
rows=${BENCH_ROWS:-3000000}
tables=${BENCH_TABLES:-2000}
rate=${BENCH_RATE:-200}
rounds=${BENCH_ROUNDS:-3}
many=${BENCH_MANY:-50000}
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
"$PG_BIN/createdb" bank
query <<SQL
CREATE TABLE accounts (id bigint, tenant int, code text, balance int DEFAULT 0, filler text) WITH (fillfactor = 90);
INSERT INTO accounts SELECT n, n % 1000, md5(n::text), 0, repeat('x', 60) FROM generate_series(1, $rows * 10 / 7) n;
CREATE UNIQUE INDEX accounts_id ON accounts (id);
CREATE INDEX accounts_tenant ON accounts (tenant, id);
CREATE INDEX accounts_code ON accounts (code);
DELETE FROM accounts WHERE id % 10 < 3;
SQL
query -c "VACUUM (ANALYZE) accounts"
query -c "ALTER TABLE accounts SET (autovacuum_vacuum_scale_factor = 0.01)"
query -c "UPDATE accounts SET balance = 1 WHERE id % 40 = 7"
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

idle() { sleep 10; }
full() { query -c "VACUUM (FULL, ANALYZE) accounts" && query -c "REINDEX TABLE accounts"; }
stock() { "$PG_BIN/vacuumdb" -qz -j 2 -t accounts bank && "$PG_BIN/reindexdb" -q --concurrently -t accounts bank; }
opsctl() { "$OPSCTL" db-maintain --config "$dir/opsctl.toml" --reindex --only accounts --json --quiet >"$dir/report" || die "$(cat "$dir/report")"; }
# The same, and no process helps.
alone() {
    query -c "ALTER ROLE postgres SET max_parallel_maintenance_workers = 0"
    opsctl
    query -c "ALTER ROLE postgres RESET max_parallel_maintenance_workers"
}

# one WAY: measures a way on the same table, and prints its figures in a line.
one() {
    local way=$1 application from to size figures
    # 30 % of each index become waste again: a copy of the whole database would keep the disk busy for longer than is measured.
    for index in accounts_id accounts_tenant accounts_code; do
        query -c "ALTER INDEX $index SET (fillfactor = 63)" -c "REINDEX INDEX $index" -c "ALTER INDEX $index SET (fillfactor = 90)"
    done
    query -c "UPDATE accounts SET balance = 1 WHERE id % 40 = 7"
    query -c CHECKPOINT
    query -c "SELECT sum(length(code)) FROM accounts" >/dev/null
    # What was written so far is on the disk, and that has rested, before anything is measured.
    sync
    sleep 6
    rm -rf "$dir/state"
    rm -f "$dir"/log.* "$dir/report"
    (cd "$dir" && exec "$PG_BIN/pgbench" -n -f application.sql -c 4 -j 1 -R "$rate" -T 3600 -l --log-prefix=log) >/dev/null 2>&1 &
    application=$!
    sleep 3
    from=$(date +%s.%N)
    "$way" || die "$way failed"
    to=$(date +%s.%N)
    kill "$application" && wait "$application" 2>/dev/null || true
    # pgbench's log: client, number, latency in µs, file, second, microsecond, lag in µs. With a rate, the lag is part of the wait.
    figures=$(cat "$dir"/log.* | awk -v from="$from" -v to="$to" '{ at = $5 + $6 / 1e6; if (at >= from && at <= to + $3 / 1e6) print $3 }' |
        sort -n | awk '{ a[NR] = $1 } END { if (NR) printf "%.1f %.1f %.0f", a[int(NR * 0.95 + 0.5)] / 1000, a[int(NR * 0.99 + 0.5)] / 1000, a[NR] / 1000 }')
    size=$(query -c "SELECT (sum(pg_relation_size(indexrelid)) / 1000000)::int FROM pg_index WHERE indrelid = 'accounts'::regclass")
    echo "$way $(awk -v a="$from" -v b="$to" 'BEGIN { printf "%.1f", b - a }') $figures $size"
}

for round in $(seq "$rounds"); do
    say "round $round of $rounds"
    for way in idle stock opsctl alone; do one "$way" | tee -a "$dir/figures" >&2; done
done
one full | tee -a "$dir/figures" >&2
# median WAY COLUMN
median() { awk -v way="$1" -v n="$2" '$1 == way { print $n }' "$dir/figures" | sort -n | awk '{ a[NR] = $1 } END { print a[int((NR + 1) / 2)] }'; }
echo "| way | seconds | p95 of the application, ms | p99 | longest | size of the indexes, MB |"
echo "|---|--:|--:|--:|--:|--:|"
for way in idle stock opsctl alone full; do
    echo "| $way | $(median "$way" 2) | $(median "$way" 3) | $(median "$way" 4) | $(median "$way" 5) | $(median "$way" 6) |"
done

say "making $tables tables"
"$PG_BIN/dropdb" --force bank
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

say "making $many tables"
"$PG_BIN/dropdb" --force many_1
"$PG_BIN/dropdb" --force many_2
"$PG_BIN/createdb" many_1
for from in $(seq 1 1000 "$many"); do
    echo "DO \$\$ BEGIN FOR n IN $from..$((from + 999)) LOOP EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY, x int REFERENCES t%s)', n, n); END LOOP; END \$\$;"
done | query -d many_1
query -d many_1 -c ANALYZE -c CHECKPOINT
echo
echo "| with $many tables | seconds | memory, MB | size, kB |"
echo "|---|--:|--:|--:|"
weighed() {
    local name=$1
    shift
    /usr/bin/time -f '%e %M' -o "$dir/time" "$@" >"$dir/out" || die "$* failed"
    [ ! -e "$dir/page" ] || mv "$dir/page" "$dir/out"
    awk -v name="$name" -v size="$(stat -c %s "$dir/out")" '{ printf "| %s | %s | %.0f | %.0f |\n", name, $1, $2 / 1000, size / 1000 }' "$dir/time"
}
weighed "opsctl db-maintain plan" "$OPSCTL" db-maintain plan --config "$dir/opsctl.toml" --json --quiet
weighed "opsctl db-maintain report, text" "$OPSCTL" db-maintain report --config "$dir/opsctl.toml" --quiet
weighed "opsctl db-maintain report, HTML" "$OPSCTL" db-maintain report --config "$dir/opsctl.toml" --format html --out "$dir/page" --quiet
