#!/bin/bash
# Carries out the steps of the Dockerfile's last stage in a chroot and runs opsctl in what comes out, as an engine would, against a
# throwaway PostgreSQL server: `make test-package`. Wants root, for chroot.
#
#   test-image.sh PROGRAM
#
# It begins with the release that this machine has, as --build-arg DEBIAN would, and has the client programs of its major version:
# others come from a repository that a test must not need.
set -euo pipefail
umask 022
program=$(realpath "${1:?usage: test-image.sh PROGRAM}")
cd "$(dirname "$0")/.."

work=$(mktemp -d "${TMPDIR:-/tmp}/opsctl-image.XXXXXX")
chmod 755 "$work"
root=$work/chroot
. scripts/throwaway-server.sh
finish() {
    stop_server
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 143' INT TERM HUP
fail() {
    echo "test-image.sh: $*" >&2
    exit 1
}

# The first stage wants a toolchain: it is only read.
grep -q '^RUN cargo build --locked --release$' Dockerfile || fail "the first stage builds something else"
major=$(basename "$(dirname "$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)")")

tree=$(scripts/install-chroot.sh | tail -n 1)
cp -a --reflink=auto "$tree" "$root"
cp /etc/resolv.conf "$root/etc/resolv.conf"
image=$(scripts/dockerfile_in_chroot.py Dockerfile "$root" --build-arg "POSTGRESQL=$major" \
    --file "/src/target/release/opsctl=$program" 2>"$work/log") || {
    tail -n 30 "$work/log" >&2
    fail "a step of the Dockerfile failed"
}
field() { python3 -c 'import json, sys; image = json.loads(sys.argv[1]); print(eval(sys.argv[2]))' "$image" "$1"; }
user=$(field 'image["user"]')
[ "$user" = 10001:10001 ] || fail "it runs as $user"
mapfile -t variables < <(field '"\n".join(f"{name}={value}" for name, value in image["env"].items())')
workdir=$(field 'image["workdir"]')
entry=$(field '" ".join(image["entrypoint"])')
# Runs the image as an engine does: its user, its variables, its directory, its program.
run() {
    chroot --userspec="$user" "$root" /usr/bin/env -i PATH=/usr/local/bin:/usr/bin:/bin HOME=/tmp "${variables[@]}" "$@"
}
# shellcheck disable=SC2016  # expanded in there
opsctl() { run "DATABASE_URL=$url" sh -c 'cd "$1" && shift && exec "$@"' sh "$workdir" "$entry" "$@"; }

# A server outside, as a container finds one.
start_server "$work"
url="postgresql://postgres@127.0.0.1:$port/postgres"

[ "$(opsctl --version)" = "opsctl $(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)" ] || fail "another version"
case $(run "/usr/lib/postgresql/$major/bin/pg_dump" --version) in
    *" $major."*) ;;
    *) fail "it has no pg_dump of $major" ;;
esac
# The checks of the server; it looks at no host but its own.
opsctl health-check --only connect >"$work/health" 2>&1 || fail "health-check ended with $?: $(cat "$work/health")"
cat "$work/health"
opsctl health-check --only connect --json >"$work/health" || fail "health-check --json ended with $?"
python3 -c 'import json, sys; report = json.load(open(sys.argv[1])); assert report["status"] == "ok" and report["checks"], report' "$work/health"
run psql --quiet "$url" --command 'CREATE TABLE members AS SELECT generate_series(1, 100) AS id' || fail "psql ended with $?"
opsctl backup --repository /tmp/backups --quiet || fail "backup ended with $?"
opsctl verify-backup --repository /tmp/backups --quiet || fail "verify-backup ended with $?"
# Nothing of it may be root's to change, and the state is where the image says.
[ -e "$root/var/lib/opsctl/history.db" ] || fail "there is no history"
[ "$(stat -c %u "$root/var/lib/opsctl/history.db")" = 10001 ] || fail "the history is somebody else's"
status=0
url=postgresql://postgres@127.0.0.1:1/postgres
opsctl health-check --only connect >/dev/null 2>&1 || status=$?
[ "$status" = 2 ] || fail "without a server health-check ended with $status"
echo "the image runs opsctl as user $user: health-check, backup, verify-backup"
