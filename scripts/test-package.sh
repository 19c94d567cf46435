#!/bin/bash
# Installs the Debian package into an empty Debian, upgrades it, removes and purges it, with the real dpkg, and looks at what is
# there after each step: `make test-package`. Wants root, for chroot.
#
#   test-package.sh PACKAGE      a .deb, as build-deb.sh makes it
#
# The older version is the same package under the number 0.0.9, with another example of the configuration.
set -euo pipefail
umask 022
package=$(realpath "${1:?usage: test-package.sh PACKAGE}")
cd "$(dirname "$0")/.."

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
work=$(mktemp -d "${TMPDIR:-/tmp}/opsctl-package.XXXXXX")
chmod 755 "$work"
. scripts/throwaway-server.sh
# Processes that are not to outlive this: one in there, and one for it to wait for.
living='' silent=
finish() {
    stop_server
    for process in $living $silent; do kill -KILL "$process" 2>/dev/null || true; done
    ! mountpoint -q "$work/chroot/proc" || umount "$work/chroot/proc"
    rm -rf --one-file-system "$work"
}
trap finish EXIT
trap 'exit 143' INT TERM HUP
step=begin

fail() {
    echo "test-package.sh: $step: $*" >&2
    exit 1
}
is() { [ "$1" = "$2" ] || fail "${3:-}: expected \`$2\`, found \`$1\`"; }
absent() { for path in "$@"; do if [ -e "$root$path" ] || [ -L "$root$path" ]; then fail "$path is still there"; fi; done; }
present() { for path in "$@"; do [ -e "$root$path" ] || fail "$path is missing"; done; }
inside() { chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"; }
as_opsctl() { inside_as_opsctl / "$@"; }
# In a directory, as `sudo -u opsctl` leaves one in root's own.
inside_as_opsctl() {
    local directory=$1
    shift
    # shellcheck disable=SC2016  # expanded in there
    inside sh -c 'cd "$1" && shift && exec "$@"' sh "$directory" setpriv --reuid opsctl --regid opsctl --init-groups env HOME=/var/lib/opsctl "$@"
}
# Mode and owners as they are called in there.
owned() { inside stat -c '%a %U:%G' "$1"; }
dpkg_() { inside dpkg --no-pager "$@" >"$work/log" 2>&1 || { cat "$work/log" >&2; fail "dpkg $*"; }; }
# What is in the tree, without what dpkg and useradd keep about everything.
listing() {
    (cd "$root" && find . -xdev \( -path ./var/lib/dpkg -o -path ./var/log/dpkg.log -o -path ./packages -o -path ./var/cache/ldconfig \) \
        -prune -o ! -name 'passwd-' ! -name 'group-' ! -name 'shadow-' ! -name 'gshadow-' ! -name 'subuid*' ! -name 'subgid*' \
        ! -name .pwd.lock -printf '%p %y %m %U:%G\n' | LC_ALL=C sort)
}

step="making 0.0.9"
mkdir "$work/packages"
cp "$package" "$work/packages/new.deb"
dpkg-deb --raw-extract "$package" "$work/older"
sed -i '1,3d' "$work/older/etc/opsctl/opsctl.toml"
sed -i 's/^Version: .*/Version: 0.0.9-1/' "$work/older/DEBIAN/control"
dpkg-deb --root-owner-group -Znone --build "$work/older" "$work/packages/old.deb" >/dev/null
is "$(dpkg-deb --field "$work/packages/new.deb" Version)" "$version-1" "the version"
case $(dpkg-deb --field "$work/packages/new.deb" Depends) in
    *libc6*passwd*) ;;
    *) fail "the package depends on: $(dpkg-deb --field "$work/packages/new.deb" Depends)" ;;
esac

step=chroot
tree=$(scripts/install-chroot.sh | tail -n 1)
root=$work/chroot
cp -a --reflink=auto "$tree" "$root"
cp -a "$work/packages" "$root/packages"
# A copy would be found at work where there is none.
mount -t proc proc "$root/proc"
before=$(listing)
accounts=$(cat "$root"/etc/{passwd,group})

step="installing 0.0.9"
dpkg_ --install /packages/old.deb
is "$(inside opsctl --version)" "opsctl $version"
is "$(inside getent passwd opsctl | cut -d: -f 6,7)" /var/lib/opsctl:/usr/sbin/nologin "the user"
is "$(owned /etc/opsctl)" '750 root:opsctl' /etc/opsctl
is "$(owned /etc/opsctl/opsctl.toml)" '640 root:opsctl' /etc/opsctl/opsctl.toml
is "$(owned /var/lib/opsctl)" '750 opsctl:opsctl' /var/lib/opsctl
is "$(owned /var/log/opsctl)" '2750 opsctl:adm' /var/log/opsctl
is "$(owned /var/backups/opsctl)" '700 opsctl:opsctl' /var/backups/opsctl
is "$(owned /usr/bin/opsctl)" '755 root:root' /usr/bin/opsctl
present /usr/share/man/man1/opsctl-backup.1.gz /usr/share/man/man5/opsctl.toml.5.gz \
    /usr/share/bash-completion/completions/opsctl /usr/share/zsh/vendor-completions/_opsctl \
    /usr/share/fish/vendor_completions.d/opsctl.fish /usr/share/doc/opsctl/crontab.example
# One line of it is in force; and the user may read it.
is "$(grep -v '^#\|^$' "$root/etc/opsctl/opsctl.toml")" 'state_dir = "/var/lib/opsctl"' "what is in force"
as_opsctl opsctl config check >"$work/log" 2>&1 || { cat "$work/log" >&2; fail "the example is not valid"; }
grep -q /etc/opsctl/opsctl.toml "$work/log" || fail "the example is not what is read: $(cat "$work/log")"
# Also from a directory that is closed to it.
is "$(owned /root)" '700 root:root' /root
inside_as_opsctl /root opsctl config check >"$work/log" 2>&1 || { cat "$work/log" >&2; fail "it does not work from /root"; }
# Nobody else may.
inside setpriv --reuid nobody --regid nogroup --clear-groups cat /etc/opsctl/opsctl.toml >/dev/null 2>&1 && fail "everybody may read it"

step="what doctor says of it"
status=0
as_opsctl env PGHOST=/nowhere opsctl doctor --json >"$work/log" 2>"$work/stderr" || status=$?
is "$status" 3 "doctor without a database"
python3 - "$work/log" <<'END' || fail "see above"
import json, sys

seen = json.load(open(sys.argv[1]))["seen"]
wrong = [one for one in seen if one["area"] in ("configuration", "state", "space") and one["grade"] != "good"]
assert not wrong, wrong
# It finds the units where the package has put them.
assert any("opsctl-backup.timer is there and not enabled" in one["what"] for one in seen), seen
END

step="what the units call"
grep -q '^ExecStart=/usr/bin/opsctl ' "$root/usr/lib/systemd/system/opsctl-backup.service" || fail "the unit calls another program"
systemctl --root="$root" --quiet enable opsctl-backup.timer
[ -L "$root/etc/systemd/system/timers.target.wants/opsctl-backup.timer" ] || fail "the timer is not enabled"

step="a run, which leaves its state"
status=0
as_opsctl env PGHOST=/nowhere opsctl backup >"$work/log" 2>&1 || status=$?
is "$status" 12 "a backup without a database ($(cat "$work/log"))"
present /var/lib/opsctl/history.db

step="upgrading with a configuration that the administrator changed"
echo 'state_dir = "/var/lib/opsctl"    # as we like it' >"$root/etc/opsctl/opsctl.toml"
inside chown opsctl: /etc/opsctl/opsctl.toml
chmod 600 "$root/etc/opsctl/opsctl.toml"
dpkg_ --force-confdef --force-confold --install /packages/new.deb
is "$(cat "$root/etc/opsctl/opsctl.toml")" 'state_dir = "/var/lib/opsctl"    # as we like it' opsctl.toml
is "$(owned /etc/opsctl/opsctl.toml)" '600 opsctl:opsctl' /etc/opsctl/opsctl.toml
present /etc/opsctl/opsctl.toml.dpkg-dist /var/lib/opsctl/history.db
[ -L "$root/etc/systemd/system/timers.target.wants/opsctl-backup.timer" ] || fail "the timer is not enabled any more"
# shellcheck disable=SC2016  # those are dpkg's
is "$(inside dpkg-query --show --showformat '${Version} ${Status}' opsctl)" "$version-1 install ok installed"

step=removing
dpkg_ --remove opsctl
absent /usr/bin/opsctl /usr/share/man/man1/opsctl.1.gz /usr/lib/systemd/system/opsctl-backup.timer
present /etc/opsctl/opsctl.toml /var/lib/opsctl/history.db /var/backups/opsctl

step="purging while a run is at work"
dpkg_ --install /packages/new.deb
# It waits for a server that never answers.
mkfifo "$work/listening"
python3 -c 'import socket, time; s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen(); print(s.getsockname()[1], flush=True); time.sleep(600)' >"$work/listening" 2>/dev/null &
silent=$!
read -r silent_port <"$work/listening"
as_opsctl env PGHOST=127.0.0.1 PGPORT="$silent_port" opsctl backup --timeout 10m >/dev/null 2>&1 &
# shellcheck disable=SC2016  # expanded in there
until living=$(inside sh -c 'for p in /proc/[0-9]*; do [ "$(readlink "$p/exe")" != /usr/bin/opsctl ] || echo "${p#/proc/}"; done') && [ -n "$living" ]; do sleep 0.1; done
inside dpkg --no-pager --purge opsctl >"$work/log" 2>&1 && fail "it is purged"
grep -q "process $living is at work" "$work/log" || fail "it does not say why: $(cat "$work/log")"
# The configuration dpkg has taken away before it asks.
present /var/lib/opsctl/history.db /var/lib/opsctl/locks /var/log/opsctl
kill -KILL "$living" "$silent"
wait 2>/dev/null || true
living='' silent=

step=purging
dpkg_ --purge opsctl
is "$(listing | diff <(echo "$before") - || true)" "" "what is there and was not, or the other way round"
is "$(cat "$root"/etc/{passwd,group})" "$accounts" "the users"

step="purging while a process of the user lives"
dpkg_ --install /packages/new.deb
as_opsctl sleep 600 >/dev/null 2>&1 &
until living=$(pgrep -P $! -x sleep); do sleep 0.1; done
dpkg_ --purge opsctl
grep -q 'the user opsctl stays' "$work/log" || fail "it does not say that the user stays: $(cat "$work/log")"
absent /var/lib/opsctl /etc/opsctl
kill -KILL "$living"
wait 2>/dev/null || true
living=
inside userdel opsctl
is "$(listing | diff <(echo "$before") - || true)" "" "what is there and was not, or the other way round"

step="purging with a user of that name who was there before"
inside useradd --create-home opsctl
account=$(inside getent passwd opsctl)
dpkg_ --install /packages/new.deb
dpkg_ --purge opsctl
is "$(inside getent passwd opsctl)" "$account" "the user"
present /home/opsctl
inside userdel --remove opsctl >/dev/null 2>&1
is "$(cat "$root"/etc/{passwd,group})" "$accounts" "the users"

step="upgrading with the configuration that was installed"
dpkg_ --install /packages/old.deb
dpkg_ --install /packages/new.deb
inside dpkg-deb --fsys-tarfile /packages/new.deb | tar -xO ./etc/opsctl/opsctl.toml | cmp - "$root/etc/opsctl/opsctl.toml" ||
    fail "the configuration is not the new one"
is "$(owned /etc/opsctl/opsctl.toml)" '640 root:opsctl' /etc/opsctl/opsctl.toml
absent /etc/opsctl/opsctl.toml.dpkg-dist /etc/opsctl/opsctl.toml.dpkg-old
# An administrator's change of its owner is not changed back.
inside chgrp root /etc/opsctl/opsctl.toml
dpkg_ --install /packages/new.deb
is "$(owned /etc/opsctl/opsctl.toml)" '640 root:root' /etc/opsctl/opsctl.toml
inside chgrp opsctl /etc/opsctl/opsctl.toml

step="setting it up by the lines of docs/faq.md"
cp /etc/resolv.conf "$root/etc/resolv.conf"
{ inside apt-get -q update && inside apt-get -qy --no-install-recommends install postgresql-client; } >"$work/log" 2>&1 || {
    tail -n 20 "$work/log" >&2
    fail "the client programs cannot be installed"
}
start_server "$work"
url=postgresql://postgres@127.0.0.1:$port/members
"$server/psql" -XqAt "${url%/members}/postgres" -c 'CREATE DATABASE members'
"$server/psql" -XqAt "$url" -c 'CREATE TABLE members AS SELECT generate_series(1, 100) AS id'
mapfile -t lines < <(sed -n '/^## The Debian package$/,$p' docs/faq.md | sed '1,/^```sh$/d;/^```$/,$d')
[ ${#lines[@]} -ge 3 ] || fail "docs/faq.md has no such lines"
for line in "${lines[@]}"; do
    case $line in
        # As root does it, from its own directory; there is no server in here to restore into.
        'sudo -u opsctl '*)
            read -ra words <<<"${line#sudo -u opsctl }"
            inside_as_opsctl /root "${words[@]}" --url "$url" --no-restore-test
            ;;
        # There is no systemd in here, but it can be told from outside.
        'systemctl enable --now '*)
            read -ra words <<<"${line#systemctl enable --now }"
            systemctl --root="$root" --quiet enable "${words[@]}"
            ;;
        *) inside sh -ec "$line" ;;
    esac >"$work/log" 2>&1 || { cat "$work/log" >&2; fail "$line"; }
done
is "$(owned /etc/opsctl/opsctl.toml)" '640 root:opsctl' /etc/opsctl/opsctl.toml
inside_as_opsctl /root opsctl verify-backup >"$work/log" 2>&1 || { cat "$work/log" >&2; fail "verify-backup"; }
inside_as_opsctl /root opsctl doctor --skip programs --json >"$work/log" 2>"$work/stderr" || true
python3 - "$work/log" <<'END' || fail "doctor: see above"
import json, sys

seen = json.load(open(sys.argv[1]))["seen"]
wrong = [one for one in seen if one["grade"] == "bad"]
assert not wrong, wrong
END

step="purging with backups"
as_opsctl sh -ec 'mkdir /var/lib/opsctl/backups; echo two >/var/lib/opsctl/backups/two'
before=$(cd "$root/var/backups/opsctl" && find . -type f -exec sha256sum {} + | sort)
[[ $before == *manifest.json* ]] || fail "there is no backup: $before"
dpkg_ --purge opsctl
grep -q 'not empty' "$work/log" || fail "it does not say what stays: $(cat "$work/log")"
is "$(cd "$root/var/backups/opsctl" && find . -type f -exec sha256sum {} + | sort)" "$before" "backups"
is "$(owned /var/backups/opsctl)" '700 opsctl:opsctl' "their directory"
is "$(cat "$root/var/lib/opsctl/backups/two")" two "a backup in the state directory"
absent /var/lib/opsctl/history.db /var/lib/opsctl/locks /var/log/opsctl /etc/opsctl
echo "the package installs, upgrades, removes and purges cleanly"
