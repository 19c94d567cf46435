#!/bin/bash
# Installs the programs that opsctl's demo, tests, benchmarks or pictures need, on Debian and Ubuntu.
#
#   install-deps.sh demo|test|bench|screenshots
#
# Asks nothing, and does nothing when everything is there. Installing PostgreSQL neither creates nor starts a cluster.
set -euo pipefail

die() {
    echo "install-deps.sh: $*" >&2
    exit 1
}

# Each line: a package, and a program or file by which to know that it is there.
demo='postgresql              /usr/lib/postgresql/*/bin/initdb
      postgresql-client       psql
      postgresql-contrib      /usr/share/postgresql/*/extension/amcheck.control'
test='radosgw                 radosgw
      ceph-mon                ceph-mon
      ceph-osd                ceph-osd
      ceph-common             radosgw-admin
      age                     age
      awscli                  aws
      python3-pip             pip3
      python3-jsonschema      /usr/lib/python3/dist-packages/jsonschema/__init__.py
      python3-aiosmtpd        /usr/lib/python3/dist-packages/aiosmtpd
      zstd                    zstd
      strace                  strace
      faketime                faketime
      man-db                  man
      mandoc                  mandoc
      bsdutils                script
      zsh                     zsh
      fish                    fish
      openssl                 openssl
      curl                    curl
      openssh-client          ssh-keygen
      cron                    cron
      systemd                 /lib/systemd/systemd-journald
      debootstrap             debootstrap
      dpkg-dev                dpkg-shlibdeps
      nodejs                  node
      npm                     npm
      php-cli                 php
      php-pgsql               /usr/share/php*/pgsql/pdo_pgsql.ini
      php-laravel-framework   /usr/share/php/Illuminate/autoload.php
      default-jre-headless    java
      ruby                    ruby
      ruby-activerecord       /usr/share/rubygems-integration/all/specifications/activerecord-[0-9]*
      ruby-pg                 /usr/share/rubygems-integration/*/specifications/pg-[0-9]*
      ruby-devise             /usr/share/rubygems-integration/all/specifications/devise-[0-9]*
      debian-archive-keyring  /usr/share/keyrings/debian-archive-keyring.gpg'
bench='time                   /usr/bin/time
      zstd                    zstd
      pigz                    pigz
      check-postgres          check_postgres'

screenshots='chromium           chromium
             fonts-dejavu-core  /usr/share/fonts/truetype/dejavu/DejaVuSansMono.ttf
             python3            python3'

case ${1:-} in
    demo) wanted=$demo ;;
    test) wanted=$demo$'\n'$test ;;
    bench) wanted=$demo$'\n'$test$'\n'$bench ;;
    screenshots) wanted=$demo$'\n'$screenshots ;;
    *) die "usage: install-deps.sh demo|test|bench|screenshots" ;;
esac
# Debian keeps daemons there, which is not in everyone's PATH.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

missing=() pip=()
command -v cc >/dev/null || missing+=(gcc libc6-dev)
while read -r package sign; do
    case $sign in
        /*) compgen -G "$sign" >/dev/null || missing+=("$package") ;;
        *) command -v "$sign" >/dev/null || missing+=("$package") ;;
    esac
done <<<"$wanted"
[ ${#missing[@]} -gt 0 ] || exit 0

command -v apt-get >/dev/null || die "missing and not to be had without apt-get: ${missing[*]}"
as_root=()
if [ "$(id -u)" != 0 ]; then
    sudo -n true 2>/dev/null || die "run as root (sudo asks for a password or is missing): apt-get install --no-install-recommends ${missing[*]}"
    as_root=(sudo -n)
fi
echo "installing ${missing[*]}" >&2

# The server package creates a cluster unless postgresql-common's configuration, which includes this, says otherwise.
setting=/etc/postgresql-common/createcluster.d/opsctl-install-deps.conf
remove_setting() {
    "${as_root[@]}" rm -f "$setting"
    "${as_root[@]}" rmdir --ignore-fail-on-non-empty "${setting%/*}"
}
trap remove_setting EXIT
trap 'exit 143' HUP INT TERM
"${as_root[@]}" mkdir -p "${setting%/*}"
echo 'create_main_cluster = false' | "${as_root[@]}" tee "$setting" >/dev/null

apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive LC_ALL=C apt-get -q -y)
{
    "${apt[@]}" update
    # Ubuntu 24.04 has no such package.
    if [[ " ${missing[*]} " == *' awscli '* ]] && ! apt-cache show awscli >/dev/null 2>&1; then
        missing=("${missing[@]/#awscli/python3-pip}")
        pip=("${as_root[@]}" python3 -m pip install --quiet --break-system-packages --root-user-action=ignore awscli)
    fi
    "${apt[@]}" install --no-install-recommends "${missing[@]}"
    [ ${#pip[@]} = 0 ] || "${pip[@]}"
} </dev/null >&2 || die "apt-get could not install: ${missing[*]}"
