#!/bin/bash
# Installs opsctl and what belongs to it, or removes it again: `make install`, `make uninstall` and `make deb` call it.
#
#   install.sh PROGRAM     PROGRAM is the built opsctl, which makes its own man pages and completions
#   install.sh --remove
#
#   PREFIX     below which everything goes (default: /usr/local)
#   DESTDIR    what stands before all places, for packages (default: none)
#   ZSH_DIR    where zsh looks for completions (default: PREFIX/share/zsh/site-functions)
#
# It writes nothing outside of PREFIX and touches neither configuration nor state: the example is copied from where it lies.
set -euo pipefail
umask 022
cd "$(dirname "$0")/.."

prefix=${PREFIX:-/usr/local} destdir=${DESTDIR:-}
bin=$prefix/bin man=$prefix/share/man doc=$prefix/share/doc/opsctl units=$prefix/lib/systemd/system
bash=$prefix/share/bash-completion/completions/opsctl
fish=$prefix/share/fish/vendor_completions.d/opsctl.fish
zsh=${ZSH_DIR:-$prefix/share/zsh/site-functions}/_opsctl

if [ "${1:-}" = --remove ]; then
    rm -f "$destdir$bin/opsctl" "$destdir$bash" "$destdir$zsh" "$destdir$fish"
    rm -f "$destdir$man"/man1/opsctl{,-*}.1 "$destdir$man/man5/opsctl.toml.5"
    for unit in packaging/systemd/*; do rm -f "$destdir$units/${unit##*/}"; done
    rm -rf "${destdir}${doc:?}"
    exit
fi
program=${1:?usage: install.sh PROGRAM|--remove}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$program" generate man --out "$work/man" --quiet
for shell in bash zsh fish; do "$program" generate completions "$shell" >"$work/$shell"; done
# What it shows must be in force nowhere until somebody decides so.
sed 's/^[^#]/#&/' src/config/example.toml >"$work/opsctl.toml"

put() { install -D -m 644 "$1" "$destdir$2"; }
install -D -m 755 "$program" "$destdir$bin/opsctl"
for page in "$work"/man/*; do put "$page" "$man/man${page##*.}/${page##*/}"; done
put "$work/bash" "$bash"
put "$work/zsh" "$zsh"
put "$work/fish" "$fish"
put "$work/opsctl.toml" "$doc/opsctl.toml.example"
put crontab.example "$doc/crontab.example"
put README.md "$doc/README.md"
for document in docs/*.md docs/*.json; do put "$document" "$doc/$document"; done
for file in contrib/*; do put "$file" "$doc/$file"; done
for unit in packaging/systemd/*; do
    sed "s|/usr/local/bin/opsctl|$bin/opsctl|" "$unit" >"$work/unit"
    put "$work/unit" "$units/${unit##*/}"
done
