#!/bin/bash
# Gets kubernetes-validate, which has the schemas of Kubernetes' API, for the tests; the last line of standard output is its
# path. It asks no cluster.
#
#   OPSCTL_TEST_CACHE    where to keep it (default: /var/cache/opsctl-test for root, else ~/.cache/opsctl-test)
set -euo pipefail
umask 022

version=1.37.0
if [ "$(id -u)" = 0 ]; then cache=${OPSCTL_TEST_CACHE:-/var/cache/opsctl-test}; else cache=${OPSCTL_TEST_CACHE:-$HOME/.cache/opsctl-test}; fi
place=$cache/kubernetes-validate-$version
if [ -x "$place/validate" ]; then
    echo "$place/validate"
    exit
fi
mkdir -p "$cache"
work=$(mktemp -d "$cache/building.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 143' INT TERM HUP
# Beside the system's packages, not among them.
python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore \
    --target "$work/tree/lib" "kubernetes-validate==$version" </dev/null >"$work/log" 2>&1 || {
    tail -n 20 "$work/log" >&2
    echo "install-kubernetes-validate.sh: pip cannot install kubernetes-validate $version" >&2
    exit 1
}
python=$(command -v python3)
cat >"$work/tree/validate" <<END
#!/bin/sh
PYTHONPATH=$place/lib exec $python -m kubernetes_validate "\$@"
END
chmod 755 "$work/tree" "$work/tree/validate"
mv -T "$work/tree" "$place" 2>/dev/null || [ -x "$place/validate" ]
echo "$place/validate"
