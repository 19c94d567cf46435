#!/usr/bin/env bash
# Measures `opsctl archive-audit` beside what scripts use to archive audit rows, on a throwaway server; prints a Markdown table.
#
#   OPSCTL          the binary                                    default: target/release/opsctl
#   PG_BIN          programs of the server                        default: the newest below /usr/lib/postgresql
#   BENCH_ROWS      rows, of one year                             default: 5000000
#   BENCH_ROUNDS    how often; medians are printed                default: 3
#   BENCH_PG_USER   who runs the server when root runs this       default: postgres
#
# Archives go to the directory of the server, on its disk. RSS is that of the largest client. DuckDB and pyarrow write Parquet (zstd) of the CSV
# that psql sends them. opsctl's time has all that it does: evidence with its tree, read back and verified, a signed manifest, Parquet.
set -euo pipefail
export LC_ALL=C
here=$(cd "$(dirname "$0")" && pwd)
OPSCTL=${OPSCTL:-$here/../target/release/opsctl}
PG_BIN=${PG_BIN:-$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)}
rows=${BENCH_ROWS:-5000000}
rounds=${BENCH_ROUNDS:-3}
user=${BENCH_PG_USER:-postgres}

die() { echo "bench: $*" >&2; exit 1; }
say() { echo "bench: $*" >&2; }
[ -x "${PG_BIN:-}/postgres" ] || die "no PostgreSQL server in '${PG_BIN:-}'; set PG_BIN"
[ -x "$OPSCTL" ] || die "no opsctl at $OPSCTL: make build"
OPSCTL=$(realpath "$OPSCTL")
TIME=$(type -P time) || die "GNU time is not installed"
readers=$("$here/../scripts/install-python.sh" readers </dev/null | tail -n 1)
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
export PGHOST=$dir PGUSER=postgres PGDATABASE=postgres PYTHONPATH=$readers PYTHONDONTWRITEBYTECODE=1
say "making $rows rows"
words='the member was dispatched to the contractor after the referral had been approved by the hall and the certificate of the apprentice
was renewed, the address and the phone number of the journeyman were updated because the letter came back, a payment was rejected by the bank and the
invoice was sent once more with a note about the grade, the book and the wage, then the request was closed without an answer from the employer'
"$PG_BIN/psql" -Xqv ON_ERROR_STOP=1 -v words="$words" <<SQL
CREATE TABLE audit_logs (id bigserial PRIMARY KEY, created_at timestamptz NOT NULL, user_id int, action text NOT NULL, entity text,
    entity_id uuid, ip inet, user_agent text, old_values jsonb, new_values jsonb);
INSERT INTO audit_logs (created_at, user_id, action, entity, entity_id, ip, user_agent, old_values, new_values)
SELECT timestamptz '2024-01-01 00:00Z' + n::float8 / $rows * interval '31500000 s', (random() * 5000)::int,
    (array['login', 'update', 'create', 'view', 'delete'])[1 + n % 5], (array['dispatch', 'member', 'invoice'])[1 + n % 3],
    md5((random() * 100000)::int::text)::uuid, inet '10.0.0.0' + (random() * 1000000)::int,
    'Mozilla/5.0 (X11; Linux x86_64) Firefox/' || 100 + n % 30, old,
    old || jsonb_build_object('status', 1 + n % 4, 'note', substr(:'words', (random() * 400)::int, (random() * 60)::int))
FROM generate_series(1, $rows) n, LATERAL (SELECT jsonb_build_object('status', n % 4, 'amount', round((random() * 1000)::numeric, 2),
    'name', (array['James', 'Mary', 'John', 'Linda', 'Robert', 'Susan'])[1 + (random() * 5)::int] || ' ' ||
    (array['Smith', 'Johnson', 'Brown', 'Garcia', 'Miller', 'Davis'])[1 + n % 6]) AS old) o;
CREATE INDEX ON audit_logs (created_at);
VACUUM (ANALYZE) audit_logs;
SQL
ssh-keygen -q -t ed25519 -N '' -f "$dir/key"
cat >"$dir/opsctl.toml" <<TOML
state_dir = "$dir/state"
[database]
url = "postgresql:///postgres?host=$dir&user=postgres"
[[audit]]
table = "audit_logs"
time_column = "created_at"
location = "$dir/out/archive"
signing_key = "$dir/key"
TOML
sed 's/^signing_key/parquet = false\n&/' "$dir/opsctl.toml" >"$dir/evidence.toml"
chmod 600 "$dir"/*.toml
cat >"$dir/parquet.py" <<'PYTHON'
import sys
if sys.argv[1] == "duckdb":
    import duckdb
    duckdb.sql("COPY (FROM read_csv('/dev/stdin', header = true)) TO 'out/rows.parquet' (FORMAT parquet, COMPRESSION zstd)")
else:
    import pyarrow.csv, pyarrow.parquet
    with pyarrow.csv.open_csv(sys.stdin.buffer) as rows, pyarrow.parquet.ParquetWriter("out/rows.parquet", rows.schema, compression="zstd") as to:
        for batch in rows:
            to.write_batch(batch)
PYTHON

csv() { "$PG_BIN/psql" -Xqc "\\copy (SELECT * FROM audit_logs WHERE created_at < '2025-01-01') TO STDOUT WITH (FORMAT csv, HEADER)"; }
gzip_csv() { csv | gzip -6 >out/rows.csv.gz; }
zstd_copy() { "$PG_BIN/psql" -Xqc "COPY (SELECT * FROM audit_logs WHERE created_at < '2025-01-01') TO STDOUT" | zstd -q -o out/rows.zst; }
duckdb() { csv | python3 parquet.py duckdb; }
pyarrow() { csv | python3 parquet.py pyarrow; }
opsctl() { "$OPSCTL" archive-audit --config "$dir/opsctl.toml" --quiet --json >"$dir/report"; }
evidence() { "$OPSCTL" archive-audit --config "$dir/evidence.toml" --quiet --json >"$dir/report"; }
export -f csv gzip_csv zstd_copy duckdb pyarrow opsctl evidence
export PG_BIN OPSCTL dir

ways="gzip_csv zstd_copy duckdb pyarrow evidence opsctl"
for round in $(seq "$rounds"); do
    for way in $ways; do
        rm -rf "$dir/out" "$dir/state" && mkdir "$dir/out"
        "$TIME" -o "$dir/time" -f '%e %M' bash -c "set -euo pipefail; $way" || die "$way failed"
        bytes=$(find out -name 'rows*' -type f -printf '%s\n' | awk '{ s += $1 } END { print s }')
        parquet=$(find out -name '*.parquet' -type f -printf '%s\n' | awk '{ s += $1 } END { print s + 0 }')
        echo "$way $(cat "$dir/time") $bytes $parquet" >>"$dir/figures"
        say "round $round: $(tail -n 1 "$dir/figures")"
    done
done
[ "$(grep -o '"rows": [0-9]*' "$dir/report" | head -n 1 | cut -d' ' -f2)" = "$rows" ] || die "opsctl did not archive all rows"
median() { awk -v way="$1" -v n="$2" '$1 == way { print $n }' "$dir/figures" | sort -n | awk '{ a[NR] = $1 } END { print a[int((NR + 1) / 2)] }'; }
base=$(median gzip_csv 2)
echo "| way | seconds | / \`\\copy csv \\| gzip -6\` | rows/s | RSS, MiB | rows, MB | Parquet, MB |"
echo "|---|--:|--:|--:|--:|--:|--:|"
for way in $ways; do
    case $way in
        gzip_csv) name='`\copy … csv \| gzip -6`' ;;
        zstd_copy) name='`COPY … \| zstd`' ;;
        duckdb) name='`\copy … csv`, DuckDB' ;;
        pyarrow) name='`\copy … csv`, pyarrow' ;;
        evidence) name='opsctl, `parquet = false`' ;;
        opsctl) name='opsctl, both' ;;
    esac
    awk -v name="$name" -v s="$(median $way 2)" -v base="$base" -v rows="$rows" -v rss="$(median $way 3)" -v b="$(median $way 4)" -v p="$(median $way 5)" \
        'BEGIN { printf "| %s | %.1f | %.2f | %d | %d | %.0f | %.0f |\n", name, s, s / base, rows / s, rss / 1024, (name ~ /DuckDB|pyarrow/ ? 0 : b) / 1e6, (name ~ /DuckDB|pyarrow/ ? b : p) / 1e6 }'
done
