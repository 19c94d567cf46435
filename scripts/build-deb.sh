#!/bin/bash
# Makes the Debian package out of a program that is built already; the last line of standard output is its path.
#
#   build-deb.sh PROGRAM
#
#   OUT        the folder for it (default: target/debian)
#   FAST       if not empty, it is hardly compressed: for tests
#
# cargo-deb, which packs it, is installed below target/ when it is missing. What is packed is what install.sh installs; Cargo.toml
# says where it goes, and packaging/debian/ has the scripts.
set -euo pipefail
umask 022
program=$(realpath "${1:?usage: build-deb.sh PROGRAM}")
cd "$(dirname "$0")/.."

command -v dpkg-shlibdeps >/dev/null || {
    echo "build-deb.sh: dpkg-shlibdeps, which knows the libraries, is missing: apt-get install dpkg-dev" >&2
    exit 1
}
cargo_deb=3.8.0
tools=target/tools/cargo-deb-$cargo_deb
if [ ! -x "$tools/bin/cargo-deb" ]; then
    echo "installing cargo-deb $cargo_deb" >&2
    # Without the libraries for xz, which the system has.
    ${CARGO:-cargo} install --quiet --locked --no-default-features --root "$tools" "cargo-deb@$cargo_deb" >&2
fi

# Cargo.toml names these two places.
rm -rf target/package
DESTDIR=target/package PREFIX=/usr ZSH_DIR=/usr/share/zsh/vendor-completions scripts/install.sh "$program"
# One line is in force: whoever runs opsctl by hand sees the state that the units write.
sed 's/^#state_dir = /state_dir = /' target/package/usr/share/doc/opsctl/opsctl.toml.example |
    install -D -m 640 /dev/stdin target/package/etc/opsctl/opsctl.toml
install -D -m 644 packaging/opsctl.logrotate target/package/etc/logrotate.d/opsctl

out=${OUT:-target/debian}
mkdir -p "$out"
options=(--locked --no-build)
[ -z "${FAST:-}" ] || options+=(--fast --no-strip)
"$tools/bin/cargo-deb" "${options[@]}" --output "$out/" | tail -n 1
