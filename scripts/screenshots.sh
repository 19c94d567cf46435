#!/bin/bash
# Makes the pictures of docs/images/ anew, out of a throwaway server with the sample database of the demo: `make screenshots`.
#
#   screenshots.sh PROGRAM
#
# Wants the programs of a PostgreSQL server, and chromium for the page: install-deps.sh screenshots.
set -euo pipefail
umask 022
program=$(realpath "${1:?usage: screenshots.sh PROGRAM}")
cd "$(dirname "$0")/.."

images=$PWD/docs/images draw=$PWD/scripts/terminal_to_svg.py sample=$PWD/src/demo/sample.sql
work=$(mktemp -d "${TMPDIR:-/tmp}/opsctl-screenshots.XXXXXX")
chmod 755 "$work"
. scripts/throwaway-server.sh
finish() {
    stop_server
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 143' INT TERM HUP

mkdir "$work/ops"
start_server "$work"
url="postgresql://postgres@127.0.0.1:$port"
psql() { "$server/psql" -XqAt -v ON_ERROR_STOP=1 "$@"; }
psql "$url/postgres" -c 'CREATE DATABASE union_office'
psql "$url/union_office" -f "$sample" >/dev/null

# opsctl stands in the PATH, and all that it has is in one directory.
cd "$work/ops"
export PATH="$work/bin:$PATH" HOME=$work/ops
mkdir "$work/bin"
ln -s "$program" "$work/bin/opsctl"
cat >opsctl.toml <<END
state_dir = "state"
[database]
url = "$url/union_office"
[repositories.local]
location = "backups"
[repositories.offsite]
location = "offsite"
[maintain]
END
opsctl backup --quiet
opsctl verify-backup --quiet
opsctl verify-backup --restore-test --repository local --quiet
# Something that is worth a word; and nobody has restored from the other repository.
psql "$url/union_office" -c 'CREATE SEQUENCE receipts AS smallint; SELECT setval('"'receipts'"', 27000)' >/dev/null
psql "$url/union_office" -c 'CREATE TABLE reminders AS SELECT generate_series(1, 200000) AS id, now() AS at' -c 'ANALYZE' \
    -c 'DELETE FROM reminders WHERE id % 2 = 0'
opsctl health-check --quiet >/dev/null 2>&1 || true

here=(--replace "$work/ops/=~/" --replace "127.0.0.1:$port=db.example.com:5432" --replace "$(uname -n)=db1")
mkdir -p "$images"
"$draw" --columns 110 --shown 'opsctl demo' --replace "$work/bin/opsctl=opsctl" --replace "$program=opsctl" "${here[@]}" -- \
    opsctl demo --dir demo >"$images/demo.svg"
"$draw" --columns 100 --shown 'opsctl status' "${here[@]}" -- opsctl status >"$images/status.svg"
"$draw" --columns 146 --shown 'opsctl health-check --verbose' "${here[@]}" --status 2 -- opsctl health-check --verbose \
    >"$images/health-check.svg"

opsctl db-maintain report --format html --out report.html >/dev/null
# A browser that runs as root has to be told so.
chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1100,1000 --screenshot="$images/report.png" \
    "file://$PWD/report.html" >"$work/log" 2>&1 || {
    cat "$work/log" >&2
    exit 1
}
