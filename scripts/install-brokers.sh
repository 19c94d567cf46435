#!/bin/bash
# Gets what the tests of health-check talk to: Redis, RabbitMQ with its Erlang, and Dramatiq for Python. The last line
# of standard output is the directory that holds them: usr/bin/redis-server, rabbitmq/sbin, python.
#
# Debian's packages would start servers, now and whenever the machine starts. They are unpacked and not installed, and
# need no root. Dramatiq and what it needs come from PyPI, in the versions and with the SHA-256 that stand here.
#
#   OPSCTL_TEST_CACHE    where to keep them (default: /var/cache/opsctl-test for root, else ~/.cache/opsctl-test)
set -euo pipefail
umask 022

die() {
    echo "install-brokers.sh: $*" >&2
    exit 1
}

if [ "$(id -u)" = 0 ]; then cache=${OPSCTL_TEST_CACHE:-/var/cache/opsctl-test}; else cache=${OPSCTL_TEST_CACHE:-$HOME/.cache/opsctl-test}; fi
root=$cache/brokers-1
if [ -d "$root" ]; then
    echo "$root"
    exit
fi
mkdir -p "$cache"
work=$(mktemp -d "$cache/building.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 143' INT TERM HUP
chmod 755 "$work"
mkdir "$work/tree"

# The programs of redis-tools are one: called redis-server, it is the server. lib… are what they are linked with.
packages=(redis-tools libjemalloc2 liblzf1 rabbitmq-server libsctp1
    erlang-{asn1,base,crypto,eldap,inets,mnesia,os-mon,parsetools,public-key,runtime-tools,ssl,syntax-tools,tools,xmerl})
echo "downloading Redis, RabbitMQ and Dramatiq" >&2
# apt's own sandbox user could not write here.
download() { (cd "$work" && apt-get -q -o APT::Sandbox::User="$(id -un)" download "${packages[@]}") </dev/null >>"$work/log" 2>&1; }
# Lists that are missing or old are the usual reason.
download || { apt-get -q update </dev/null >>"$work/log" 2>&1 && download; } || {
    tail -n 20 "$work/log" >&2
    die "cannot download the packages (apt-get update, as root?)"
}
for package in "$work"/*.deb; do dpkg-deb -x "$package" "$work/tree"; done
ln -s redis-check-rdb "$work/tree/usr/bin/redis-server"
rabbitmq=("$work"/tree/usr/lib/rabbitmq/lib/rabbitmq_server-*)
ln -s "${rabbitmq[0]#"$work/tree/"}" "$work/tree/rabbitmq"
# Erlang's scripts know where they were meant to lie.
grep -rlI '/usr/lib/erlang' "$work/tree/usr/lib/erlang/bin" "$work"/tree/usr/lib/erlang/erts-*/bin | xargs sed -i "s|/usr/lib/erlang|$root/usr/lib/erlang|"

cat >"$work/pinned" <<'END'
async-timeout==5.0.1 --hash=sha256:39e3809566ff85354557ec2398b55e096c8364bacac9405a7a1fa429e77fe76c
dramatiq==2.2.1 --hash=sha256:4e2466d07d5a1c4910b49944e5b45704c123b82325384e1319f6d08d94559c46
pika==1.4.4 --hash=sha256:48de960c97a93b55db06b8be4c53eb977c9c8a2754c57cdae9097abcbd70ce04
redis==8.1.0 --hash=sha256:a4fe1aac3d3b3cc791d4b3d5931c5a956045dc951ee74d1c913ee3ac4d2ee9fb
END
python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --only-binary=:all: \
    --require-hashes --target "$work/tree/python" --requirement "$work/pinned" >>"$work/log" 2>&1 || {
    tail -n 20 "$work/log" >&2
    die "cannot install Dramatiq"
}
rm -rf "$work"/tree/{etc,var,lib,usr/share/doc,usr/share/man}
mv -T "$work/tree" "$root" 2>/dev/null || [ -d "$root" ] || die "cannot write $root"
echo "$root"
