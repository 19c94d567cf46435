#!/bin/bash
# Runs a command beside a systemd and a journald of its own, which see nothing of the machine's; needs root.
#
#   systemd.sh DIR PREPARE COMMAND…
#
# DIR is a fresh directory for mounts. PREPARE is a bash script that may use `systemd-run --user` and `systemctl --user`; it
# runs when both are there. Then COMMAND runs in its place, with the same view.
#
# The control groups come first: a systemd moves every process of its own group, so it must be alone in one.
set -euo pipefail

die() { echo "systemd.sh: $*" >&2; exit 1; }

# In a chroot there is no mount at / whose events could be kept apart.
apart=()
unshare --mount true 2>/dev/null || apart=(--propagation unchanged)
case ${SYSTEMD_SH:-} in
    '')
        [ "$(id -u)" = 0 ] || exec sudo -n SYSTEMD_SH= "$0" "$@"
        [ $# -ge 3 ] || die "usage: systemd.sh DIR PREPARE COMMAND…"
        SYSTEMD_SH=mounts exec unshare --mount "${apart[@]}" bash "$0" "$@"
        ;;
    mounts)
        dir=$1
        mkdir "$dir/cgroup"
        mount -t cgroup2 opsctl-test "$dir/cgroup"
        group=$dir/cgroup/opsctl-test-$$
        mkdir "$group"
        # Removed when all in it have ended; what a systemd left in it goes first.
        trap 'find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true' EXIT
        (
            echo "$BASHPID" >"$group/cgroup.procs"
            SYSTEMD_SH=inside exec unshare --cgroup --mount "${apart[@]}" --pid --fork --kill-child --mount-proc bash "$0" "$@"
        )
        exit
        ;;
esac

prepare=$2
shift 2
mkdir -p /sys/fs/cgroup
mount -t cgroup2 opsctl-test /sys/fs/cgroup
mount -t tmpfs opsctl-test /run
mkdir -p /run/systemd/system /run/user/0 /run/log/journal
[ -s /etc/machine-id ] || { head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n' >/run/machine-id; : >>/etc/machine-id; mount --bind /run/machine-id /etc/machine-id; }
export XDG_RUNTIME_DIR=/run/user/0 SYSTEMD_LOG_LEVEL=err container=other
/lib/systemd/systemd-journald </dev/null >&2 &
/lib/systemd/systemd --user </dev/null >&2 &
# is-system-running waits for it, and ends with an error as long as nobody listens.
for _ in {1..200}; do
    [ -S /run/user/0/systemd/private ] && [ -S /run/systemd/journal/stdout ] && break
    read -rt 0.05 < <(sleep 1) || true
done
systemctl --user is-system-running --wait >/dev/null || true
systemctl --user show-environment >/dev/null || die "systemd did not start"
bash -eu -c "$prepare" >&2
exec "$@"
