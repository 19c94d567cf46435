#!/bin/bash
# Gets promtool, Prometheus' own parser, for the tests; the last line of standard output is its path.
#
# Debian's package would start a server. It is unpacked and not installed, and needs no root.
#
#   OPSCTL_TEST_CACHE    where to keep it (default: /var/cache/opsctl-test for root, else ~/.cache/opsctl-test)
set -euo pipefail
umask 022

if command -v promtool; then exit; fi
if [ "$(id -u)" = 0 ]; then cache=${OPSCTL_TEST_CACHE:-/var/cache/opsctl-test}; else cache=${OPSCTL_TEST_CACHE:-$HOME/.cache/opsctl-test}; fi
promtool=$cache/prometheus/usr/bin/promtool
if [ -x "$promtool" ]; then
    echo "$promtool"
    exit
fi
mkdir -p "$cache"
work=$(mktemp -d "$cache/building.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 143' INT TERM HUP
# apt's own sandbox user could not write here.
download() { (cd "$work" && apt-get -q -o APT::Sandbox::User="$(id -un)" download prometheus) </dev/null >>"$work/log" 2>&1; }
# Lists that are missing or old are the usual reason.
download || { apt-get -q update </dev/null >>"$work/log" 2>&1 && download; } || {
    tail -n 20 "$work/log" >&2
    echo "install-promtool.sh: cannot download the package prometheus (apt-get update, as root?)" >&2
    exit 1
}
chmod 755 "$work"
dpkg-deb -x "$work"/prometheus_*.deb "$work/tree"
mv -T "$work/tree" "$cache/prometheus" 2>/dev/null || [ -x "$promtool" ]
echo "$promtool"
