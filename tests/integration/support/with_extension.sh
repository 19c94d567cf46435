#!/bin/bash
# Prints the bin directory of a PostgreSQL like the one in BIN_DIR that also offers the extension of the fixtures.
#
#   with_extension.sh BIN_DIR
#
# PostgreSQL looks for extensions beside its own path, and what the distribution installed is not ours to change: hence
# a copy of it, made once per version. What install-postgres.sh unpacked is ours and gets the two files as it is.
#
#   OPSCTL_TEST_CACHE   where the copy is kept
set -euo pipefail
umask 022

bin=$1
extension=$(cd "$(dirname "$0")/../../fixtures/extension" && pwd)
if [ "$(id -u)" = 0 ]; then cache=${OPSCTL_TEST_CACHE:-/var/cache/opsctl-test}; else cache=${OPSCTL_TEST_CACHE:-$HOME/.cache/opsctl-test}; fi
major=$(basename "$(dirname "$bin")")
# Debian's layout, else PostgreSQL's own.
share=$bin/../../../../share/postgresql/$major
[ -d "$share" ] || share=$bin/../share/postgresql
share=$(cd "$share" && pwd)

if [[ $bin == /usr/* ]]; then
    version=$("$bin/postgres" --version)
    version=${version#*) }
    copy=$cache/extended-${version%% *}
    if [ ! -d "$copy" ]; then
        mkdir -p "$cache"
        building=$(mktemp -d "$cache/building.XXXXXX")
        trap 'rm -rf "$building"' EXIT
        chmod 755 "$building"
        mkdir -p "$building"/usr/{lib,share}/postgresql
        cp -a "$(cd "$bin/.." && pwd)" "$building/usr/lib/postgresql/$major"
        rm -rf "$building/usr/lib/postgresql/$major"/lib/{bitcode,llvmjit*}
        cp -aL "$share" "$building/usr/share/postgresql/$major"
        mv -T "$building" "$copy" 2>/dev/null || [ -d "$copy" ]
    fi
    bin=$copy/usr/lib/postgresql/$major/bin
    share=$copy/usr/share/postgresql/$major
fi
for file in "$extension"/opsctl_fixture*; do
    to=$share/extension/${file##*/}
    cmp -s "$file" "$to" || { cp "$file" "$to.$$" && mv "$to.$$" "$to"; }
done
echo "$bin"
