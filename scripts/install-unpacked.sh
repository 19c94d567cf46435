#!/bin/bash
# Gets a program for the tests out of its package; the last line of standard output is its path.
#
#   install-unpacked.sh promtool|prometheus-pushgateway|nginx|pgbouncer
#
# Debian's packages would start servers. They are unpacked and not installed, and need no root.
#
#   OPSCTL_TEST_CACHE    where to keep it (default: /var/cache/opsctl-test for root, else ~/.cache/opsctl-test)
set -euo pipefail
umask 022

program=${1:-}
case $program in
    promtool) package=prometheus folder=usr/bin ;;
    prometheus-pushgateway) package=$program folder=usr/bin ;;
    nginx) package=nginx folder=usr/sbin ;;
    # Its library that others do not need comes along.
    pgbouncer) package=pgbouncer folder=. library='libc-?ares2[a-z0-9]*' ;;
    *)
        echo "usage: install-unpacked.sh promtool|prometheus-pushgateway|nginx|pgbouncer" >&2
        exit 2
        ;;
esac
PATH=$PATH:/usr/sbin
if command -v "$program"; then exit; fi
if [ "$(id -u)" = 0 ]; then cache=${OPSCTL_TEST_CACHE:-/var/cache/opsctl-test}; else cache=${OPSCTL_TEST_CACHE:-$HOME/.cache/opsctl-test}; fi
path=$cache/$package/$folder/$program
if [ -x "$path" ]; then
    echo "$path"
    exit
fi
mkdir -p "$cache"
work=$(mktemp -d "$cache/building.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 143' INT TERM HUP
# apt's own sandbox user could not write here.
download() {
    local also=()
    [ -z "${library:-}" ] || mapfile -t also < <(apt-cache depends "$package" | grep -oE "$library")
    (cd "$work" && apt-get -q -o APT::Sandbox::User="$(id -un)" download "$package" "${also[@]}") </dev/null >>"$work/log" 2>&1
}
# Lists that are missing or old are the usual reason.
download || { apt-get -q update </dev/null >>"$work/log" 2>&1 && download; } || {
    tail -n 20 "$work/log" >&2
    echo "install-unpacked.sh: cannot download the package $package (apt-get update, as root?)" >&2
    exit 1
}
chmod 755 "$work"
for file in "$work"/*.deb; do dpkg-deb -x "$file" "$work/tree"; done
if [ -n "${library:-}" ]; then
    # The name that is printed is a script that finds the library.
    cat >"$work/tree/$program" <<END
#!/bin/sh
tree=\$(dirname "\$0")
LD_LIBRARY_PATH=\$(echo "\$tree"/usr/lib/*-linux-gnu) exec "\$tree/usr/sbin/$program" "\$@"
END
    chmod 755 "$work/tree/$program"
fi
mv -T "$work/tree" "$cache/$package" 2>/dev/null || [ -x "$path" ]
echo "$path"
