#!/usr/bin/env bash
# Measures `opsctl health-check` beside check_postgres, which asks one question a call, and prints lines of Markdown.
#
#   OPSCTL        the binary                                              default: target/release/opsctl
#   PG_BIN        programs of the server                                  default: the newest below /usr/lib/postgresql
#   RUNS          how often each is measured; medians are printed         default: 11
#   BENCH_PG_USER who runs the server when root runs this                 default: postgres
#
# The server is a throwaway one with a thousand tables, each with a sequence. opsctl asks its whole profile `full` and writes its
# history; of check_postgres there are the actions that ask the same, one after the other, as a monitor calls them.
set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "$0")" && pwd)
OPSCTL=$(realpath "${OPSCTL:-$here/../target/release/opsctl}")
PG_BIN=${PG_BIN:-$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)}
RUNS=${RUNS:-11}
user=${BENCH_PG_USER:-postgres}
die() { echo "health.sh: $*" >&2; exit 1; }
[ -x "${PG_BIN:-}/postgres" ] || die "no PostgreSQL server in '${PG_BIN:-}'; set PG_BIN"
command -v check_postgres >/dev/null || die "check_postgres is not installed: make deps FOR=bench"

dir=$(mktemp -d /tmp/opsctl-bench.XXXXXX)
as_server() {
    if [ "$(id -u)" = 0 ]; then setpriv --reuid="$user" --regid="$user" --clear-groups env HOME=/ "$@"; else "$@"; fi
}
finish() {
    as_server "$PG_BIN/pg_ctl" -D "$dir/pg/data" -m immediate -s stop >/dev/null 2>&1 || true
    rm -rf "$dir"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
chmod 755 "$dir"
mkdir "$dir/pg"
[ "$(id -u)" != 0 ] || chown "$user" "$dir/pg"
as_server "$PG_BIN/initdb" -D "$dir/pg/data" -U postgres -A trust --no-sync >/dev/null
as_server "$PG_BIN/pg_ctl" -D "$dir/pg/data" -s -w -l "$dir/pg/log" \
    -o "-k $dir/pg -c listen_addresses= -c archive_mode=on -c archive_command=true" start
export PATH=$PG_BIN:$PATH PGHOST=$dir/pg PGUSER=postgres PGDATABASE=postgres HOME=$dir
"$PG_BIN/psql" -Xqc "DO \$\$ BEGIN FOR n IN 1..1000 LOOP EXECUTE format('CREATE TABLE t%s (id serial PRIMARY KEY)', n); END LOOP; END \$\$"
printf 'state_dir = "%s/state"\n' "$dir" >"$dir/opsctl.toml"

# What check_postgres can ask of what the profile asks; the limits are such that it has none to complain of.
actions=(
    "connection" "backends" "txn_idle --warning=300" "query_time --warning=300" "locks --warning=1000" "txn_wraparound"
    "prepared_txns --warning=600" "replication_slots --warning=10GB" "archive_ready --warning=1000"
    "sequence" "version --warning=99" "timesync --warning=99"
)
ask_opsctl() { "$OPSCTL" health-check --config "$dir/opsctl.toml" --format nagios ${EXTRA:-} >"$dir/said" || [ $? -le 2 ]; }
ask_check_postgres() {
    local action
    for action in "${actions[@]}"; do
        # Its words do not matter; that it could ask does.
        check_postgres --action=$action >"$dir/said" 2>&1 || [ $? -le 2 ] || die "$action: $(cat "$dir/said")"
    done
}
ask_version() { "$OPSCTL" --version >/dev/null; }

# median COMMAND: seconds
median() {
    local n begin
    for ((n = 0; n < RUNS; n++)); do
        begin=$EPOCHREALTIME
        "$1"
        awk -v a="$begin" -v b="$EPOCHREALTIME" 'BEGIN { print b - a }'
    done | sort -n | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'
}
ask_opsctl
# As if it had been asked every five minutes for as long as all of it is remembered.
python3 - "$dir/state/history.db" <<'END'
import datetime, sqlite3, sys
db = sqlite3.connect(sys.argv[1])
stamp = "%Y-%m-%dT%H:%M:%S.%fZ"
run = list(db.execute("SELECT * FROM run").fetchone())
names = [column[1] for column in db.execute("PRAGMA table_info(run)")]
parts = db.execute("SELECT * FROM part").fetchall()
begun = names.index("begun_at")
now = datetime.datetime.strptime(run[begun], stamp)
for n in range(1, 14 * 288):
    at = now - datetime.timedelta(minutes=5 * n)
    run[0] = at.strftime("%Y%m%dT%H%M%SZ-000000")
    run[begun] = run[names.index("ended_at")] = at.strftime(stamp)
    db.execute("INSERT INTO run VALUES (%s)" % ",".join("?" * len(run)), run)
    for part in parts:
        db.execute("INSERT INTO part VALUES (%s)" % ",".join("?" * len(part)), [run[0], *part[1:]])
db.commit()
END
opsctl=$(median ask_opsctl)
theirs=$(median ask_check_postgres)
version=$(median ask_version)
awk -v opsctl="$opsctl" -v theirs="$theirs" -v version="$version" -v n=${#actions[@]} 'BEGIN {
    printf "| `opsctl health-check`, profile full, with a history of 14 days | %.0f ms |\n", opsctl * 1000
    printf "| check_postgres, %d of the same questions, one by one | %.0f ms, %.1f times as long |\n", n, theirs * 1000, theirs / opsctl
    printf "| `opsctl --version` | %.1f ms |\n", version * 1000
}'
