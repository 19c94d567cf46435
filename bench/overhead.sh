#!/usr/bin/env bash
# Measures what opsctl's history, locks and metrics cost a run, on a throwaway server, and prints a line of Markdown.
#
#   OPSCTL        the binary                                              default: target/release/opsctl
#   PG_BIN        programs of the server                                  default: the newest below /usr/lib/postgresql
#   RUNS          how often it is measured; the median and the worst are printed      default: 50
#   BENCH_PG_USER who runs the server when root runs this                 default: postgres
#
# Each run is a backup of a tiny database with a history, a lock on the host and one in the server, a file of metrics, and a
# channel for notifications; with -v it says how long all that took.
set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "$0")" && pwd)
OPSCTL=$(realpath "${OPSCTL:-$here/../target/release/opsctl}")
PG_BIN=${PG_BIN:-$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)}
RUNS=${RUNS:-50}
user=${BENCH_PG_USER:-postgres}
[ -x "${PG_BIN:-}/postgres" ] || { echo "overhead.sh: no PostgreSQL server in '${PG_BIN:-}'; set PG_BIN" >&2; exit 1; }

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
mkdir "$dir/pg" "$dir/metrics"
[ "$(id -u)" != 0 ] || chown "$user" "$dir/pg"
as_server "$PG_BIN/initdb" -D "$dir/pg/data" -U postgres -A trust --no-sync >/dev/null
as_server "$PG_BIN/pg_ctl" -D "$dir/pg/data" -s -w -l "$dir/pg/log" -o "-k $dir/pg -c listen_addresses=" start
cat >"$dir/opsctl.toml" <<END
state_dir = "$dir/state"
[database]
url = "host=$dir/pg user=postgres dbname=postgres"
[repository]
location = "$dir/backups"
retention = { keep_last = 2 }
[metrics]
textfile_dir = "$dir/metrics"
[notify.channels.nobody]
webhook = "http://127.0.0.1:9/"
END
chmod 600 "$dir/opsctl.toml"

figures=()
for ((n = 0; n < RUNS; n++)); do
    said=$("$OPSCTL" backup -v --config "$dir/opsctl.toml" 2>&1 >/dev/null) || { echo "$said" >&2; exit 1; }
    figures+=("$(sed -n 's/.*history, locks and metrics took \([0-9.]*\) ms.*/\1/p' <<<"$said")")
done
printf '%s\n' "${figures[@]}" | sort -n | awk -v runs="$RUNS" '
    { all[NR] = $1 }
    END { if (NR != runs) exit 1; printf "| history, locks and metrics of a run | median %.1f ms | worst of %d: %.1f ms |\n", all[int((NR + 1) / 2)], NR, all[NR] }'
