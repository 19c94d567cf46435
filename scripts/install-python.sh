#!/bin/bash
# Gets programs in Python for the tests, at versions that are pinned here; the last line of standard output is their directory, for
# PYTHONPATH.
#
#   install-python.sh readers      what reads Parquet besides opsctl: DuckDB, pyarrow, and Spark, which wants a Java runtime: install-deps.sh
#   install-python.sh moto         an S3 server that has a Glacier
#
#   OPSCTL_TEST_CACHE    where to keep them (default: /var/cache/opsctl-test for root, else ~/.cache/opsctl-test)
set -euo pipefail
umask 022

what=${1:-}
case $what in
    readers) packages=(duckdb==2.0.1 pyarrow==26.0.1 pyspark==4.3.0) ;;
    moto) packages=("moto[s3]==5.2.5" flask==3.1.3 flask-cors==6.0.2) ;;
    *)
        echo "usage: install-python.sh readers|moto" >&2
        exit 2
        ;;
esac
if [ "$(id -u)" = 0 ]; then cache=${OPSCTL_TEST_CACHE:-/var/cache/opsctl-test}; else cache=${OPSCTL_TEST_CACHE:-$HOME/.cache/opsctl-test}; fi
# Another choice is another directory.
place=$cache/$what-$(printf '%s\n' "${packages[@]}" | sha256sum | cut -c 1-12)
if [ -e "$place/complete" ]; then
    echo "$place"
    exit
fi
mkdir -p "$cache"
work=$(mktemp -d "$cache/building.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 143' INT TERM HUP
chmod 755 "$work"
echo "downloading ${packages[*]}" >&2
# pyspark is only there as source, which setuptools makes a package of.
python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target "$work/tree" "${packages[@]}" \
    </dev/null >"$work/log" 2>&1 || {
    tail -n 20 "$work/log" >&2
    echo "install-python.sh: pip cannot install ${packages[*]}" >&2
    exit 1
}
touch "$work/tree/complete"
# Renamed into place, so that whoever comes second finds either nothing or the whole.
mv -T "$work/tree" "$place" 2>/dev/null || [ -e "$place/complete" ]
echo "$place"
