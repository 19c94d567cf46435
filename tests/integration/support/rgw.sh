#!/bin/bash
# A throwaway S3 server for a test, alive as long as its standard input: Ceph's RADOS Gateway with one monitor and one
# OSD that keeps its objects in memory.
#
#   RGW_ACCESS_KEY=… RGW_SECRET_KEY=… rgw.sh DIR [--rgw-setting=value]…
#
# Prints `ready http://127.0.0.1:PORT` when requests are answered. At the end of its standard input, which comes also
# when the parent was killed, it kills its daemons and removes DIR. Their logs are in DIR/log. It has one user, checks
# signatures, knows object lock, and has the storage classes STANDARD_IA, GLACIER and DEEP_ARCHIVE.
#
# It starts in two seconds instead of fifteen because the monitor commits at once (`paxos propose interval`; each of
# the pools that the gateway makes waits for a commit) and because the OSD is in the map that the monitor begins with.
#
#   RGW_MEMORY   how many bytes the objects may take (default 6G; taken as they come)
set -euo pipefail
umask 022

die() {
    echo "rgw.sh: $*" >&2
    exit 1
}

[ $# -ge 1 ] || die "usage: rgw.sh DIR [--rgw-setting=value]…"
: "${RGW_ACCESS_KEY:?is not set}" "${RGW_SECRET_KEY:?is not set}"
for program in ceph-mon ceph-osd radosgw radosgw-admin ceph-authtool monmaptool osdmaptool; do
    command -v "$program" >/dev/null || die "$program is not installed: run scripts/install-deps.sh test"
done
arguments=("$@")
dir=$1
shift
[ ! -e "$dir" ] || [ -z "$(ls -A "$dir")" ] || die "$dir is not empty"
mkdir -p "$dir"
dir=$(cd "$dir" && pwd -P)
# The daemons open sockets there, whose paths have at most 107 characters.
[ ${#dir} -le 80 ] || die "the path of $dir is too long for a socket"

# pause SECONDS: sleeps without a process; nothing is ever written to the pipe, which is open at both ends.
exec {never}<> <(:)
pause() { read -rt "$1" -u "$never" || true; }

daemons=()
stop() {
    for pid in "${daemons[@]}"; do kill -KILL "$pid" 2>/dev/null || true; done
    wait "${daemons[@]}" 2>/dev/null || true
    daemons=()
    rm -rf "$dir" || { pause 0.2; rm -rf "$dir"; }
}
trap stop EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# failed LOG WHAT: tries again with other ports when somebody was faster to take one, else shows the log's end.
failed() {
    if grep -qsE 'Address already in use|unable to bind' "$dir"/log/* && [ "${RGW_ATTEMPT:-1}" -lt 5 ]; then
        stop
        RGW_ATTEMPT=$((${RGW_ATTEMPT:-1} + 1)) exec "$0" "${arguments[@]}"
    fi
    tail -n 20 "$dir/log/$1" >&2 || true
    die "$2"
}

# start NAME COMMAND…: a daemon with none of our streams, which the kernel kills when this script is killed.
start() {
    local name=$1
    shift
    setsid setpriv --pdeathsig KILL "$@" </dev/null >"$dir/log/$name.out" 2>&1 {never}>&- &
    daemons+=($!)
}

# Below the range from which the kernel takes the ports of outgoing connections.
free_port() {
    local port
    while port=$((15000 + (RANDOM * 32768 + RANDOM) % 15000)); do
        (exec {probe}<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    echo "$port"
}

mkdir -p "$dir"/{mon,osd,run,log,rgw}
fsid=$(</proc/sys/kernel/random/uuid)
mon_address="[v2:127.0.0.1:$(free_port)]"
export CEPH_CONF=$dir/ceph.conf
cat >"$CEPH_CONF" <<END
[global]
fsid = $fsid
mon host = $mon_address
public addr = 127.0.0.1
ms bind ipv6 = false
ms bind msgr1 = false
auth cluster required = none
auth service required = none
auth client required = none
auth allow insecure global id reclaim = true
keyring = $dir/keyring
run dir = $dir/run
admin socket = $dir/run/\$name.\$pid.asok
pid file = $dir/run/\$name.pid
crash dir = $dir/log
log file = $dir/log/\$name.log
debug mon = 0/1
debug osd = 0/1
debug rgw = 0/1
debug ms = 0/0

[mon]
mon data = $dir/mon
mon data avail warn = 0
mon data avail crit = 0
mon allow pool size one = true
mon max pg per osd = 1000
mon warn on pool no redundancy = false
paxos propose interval = 0.02
paxos min wait = 0.005
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off

[osd]
osd data = $dir/osd
osd objectstore = memstore
memstore device bytes = ${RGW_MEMORY:-6G}
memstore page set = false

# Without authentication there is no key for the secure mode, which is a client's default.
[client]
ms mon client mode = crc
osd pool default pg num = 1
osd pool default pgp num = 1

[client.rgw]
rgw data = $dir/rgw
rgw dns name = localhost
rgw crypt require ssl = false
rgw thread pool size = 64
END

{
    ceph-authtool --create-keyring "$dir/keyring" --gen-key -n mon. --cap mon 'allow *'
    monmaptool --create --fsid "$fsid" --addv a "$mon_address" "$dir/monmap"
    osdmaptool --createsimple 1 --clobber "$dir/osdmap"
    ceph-mon --mkfs -i a --monmap "$dir/monmap" --osdmap "$dir/osdmap" --keyring "$dir/keyring"
    ceph-osd --mkfs -i 0 --osd-uuid "$(</proc/sys/kernel/random/uuid)" --no-mon-config
} </dev/null >"$dir/log/mkfs" 2>&1 || failed mkfs "cannot make the cluster's files"
start mon.a ceph-mon -f -i a
start osd.0 ceph-osd -f -i 0

# These wait until the monitor and the OSD are there.
admin() {
    timeout 40 radosgw-admin "$@" </dev/null >>"$dir/log/admin" 2>&1 || failed admin "radosgw-admin $1 $2 failed"
}
admin user create --uid test --display-name test --access-key "$RGW_ACCESS_KEY" --secret-key "$RGW_SECRET_KEY"
for class in STANDARD_IA GLACIER DEEP_ARCHIVE; do
    placement=(placement add --placement-id default-placement --storage-class "$class")
    admin zonegroup "${placement[@]}" --rgw-zonegroup default
    admin zone "${placement[@]}" --rgw-zone default --data-pool default.rgw.buckets.data
done

port=$(free_port)
start client.rgw radosgw -f -n client.rgw --rgw-frontends="beast endpoint=127.0.0.1:$port" "$@"
answers() {
    local status
    exec {http}<>"/dev/tcp/127.0.0.1/$port" || return 1
    printf 'GET / HTTP/1.0\r\nHost: localhost\r\n\r\n' >&"$http"
    read -rt 5 -u "$http" status || status=
    exec {http}>&-
    [[ $status == HTTP/*' 200 '* ]]
}
for ((deadline = SECONDS + 15; SECONDS < deadline; )); do
    if answers 2>/dev/null; then
        trap '' PIPE
        echo "ready http://127.0.0.1:$port"
        while read -r _; do :; done
        exit 0
    fi
    kill -0 "${daemons[2]}" 2>/dev/null || break
    pause 0.02
done
failed client.rgw.log "the gateway does not answer"
