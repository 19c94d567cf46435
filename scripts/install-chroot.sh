#!/bin/bash
# Gets the smallest system of the release that this machine has (Debian or Ubuntu), for tests of the package and of the image; the
# last line of standard output is its directory. What is built here runs there.
#
# Whoever uses it copies it first. debootstrap wants root.
#
#   OPSCTL_TEST_CACHE       where to keep it (default: /var/cache/opsctl-test)
#   OPSCTL_CHROOT_MIRROR    a mirror of the release (default: the first one among apt's sources)
set -euo pipefail
umask 022

die() {
    echo "install-chroot.sh: $*" >&2
    exit 1
}

family=$(. /etc/os-release && echo "$ID") suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
[ -n "$suite" ] || die "this machine does not say which release it has (VERSION_CODENAME in /etc/os-release)"
[ "$(id -u)" = 0 ] || die "debootstrap wants root"
cache=${OPSCTL_TEST_CACHE:-/var/cache/opsctl-test}
place=$cache/chroot-$suite
if [ -e "$place/complete" ]; then
    echo "$place/tree"
    exit
fi
sources=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null || true)
mirror=${OPSCTL_CHROOT_MIRROR:-$(grep -E '^(deb |URIs:)' <<<"$sources" | grep -oE '[a-z+]+://[^] ]*/'"$family"'/?( |$)' | head -n 1 || true)}
mirror=${mirror%% *}
[ -n "$mirror" ] || die "apt has no mirror of $family among its sources: set OPSCTL_CHROOT_MIRROR"
mkdir -p "$cache"
work=$(mktemp -d "$cache/building.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 143' INT TERM HUP
chmod 755 "$work"
echo "downloading $family $suite" >&2
/usr/sbin/debootstrap --variant=minbase --keyring="/usr/share/keyrings/$family-archive-keyring.gpg" \
    "$suite" "$work/tree" "$mirror" </dev/null >"$work/log" 2>&1 || {
    tail -n 20 "$work/log" >&2
    die "debootstrap cannot install $family $suite"
}
rm -f "$work"/tree/var/cache/apt/archives/*.deb
touch "$work/complete"
# Renamed into place, so that whoever comes second finds either nothing or the whole.
mv -T "$work" "$place" 2>/dev/null || [ -e "$place/complete" ]
echo "$place/tree"
