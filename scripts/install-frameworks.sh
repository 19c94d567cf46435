#!/bin/bash
# Gets the web frameworks whose tables the tests clean, at versions that are pinned here; the last line of standard output is
# their directory: `python` has Django and its packages, `node_modules` has Express, Auth.js and better-auth.
#
# They are put into a directory and not into the system, and need no root. Laravel and Devise come from Debian: install-deps.sh.
#
#   OPSCTL_TEST_CACHE    where to keep them (default: /var/cache/opsctl-test for root, else ~/.cache/opsctl-test)
set -euo pipefail
umask 022

python=(Django==5.2.19 djangorestframework==3.18.3 djangorestframework-simplejwt==5.5.1 django-axes==8.3.1
    django-oauth-toolkit==3.4.1 'psycopg[binary]==3.3.9')
node=(express-session@1.19.0 connect-pg-simple@10.0.0 pg@8.23.1 @auth/pg-adapter@1.11.3 better-auth@1.7.25)

if [ "$(id -u)" = 0 ]; then cache=${OPSCTL_TEST_CACHE:-/var/cache/opsctl-test}; else cache=${OPSCTL_TEST_CACHE:-$HOME/.cache/opsctl-test}; fi
# Another choice is another directory.
root=$cache/frameworks-$(printf '%s\n' "${python[@]}" "${node[@]}" | sha256sum | cut -c 1-12)
if [ -e "$root/complete" ]; then
    echo "$root"
    exit
fi
mkdir -p "$cache"
work=$(mktemp -d "$cache/building.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 143' INT TERM HUP
chmod 755 "$work"
die() {
    tail -n 20 "$work/log" >&2
    echo "install-frameworks.sh: $*" >&2
    exit 1
}
mkdir "$work/tree"
echo "downloading Django, Express, Auth.js and better-auth" >&2
python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --only-binary=:all: \
    --target "$work/tree/python" "${python[@]}" </dev/null >"$work/log" 2>&1 || die "pip could not install: ${python[*]}"
echo '{ "private": true }' >"$work/tree/package.json"
(cd "$work/tree" && npm install --no-audit --no-fund --no-package-lock --ignore-scripts "${node[@]}") \
    </dev/null >"$work/log" 2>&1 || die "npm could not install: ${node[*]}"
touch "$work/tree/complete"
# Renamed into place, so that whoever comes second finds either nothing or the whole.
mv -T "$work/tree" "$root" 2>/dev/null || [ -e "$root/complete" ] || die "cannot write $root"
echo "$root"
