#!/bin/bash
# A throwaway Redis or RabbitMQ for a test, alive as long as its standard input.
#
#   broker.sh redis DIR [SETTING…]     prints `ready PORT`; settings are arguments of redis-server, such as --maxmemory 1mb,
#                                      in which @PORT@ stands for the port
#   broker.sh rabbitmq DIR             prints `ready AMQP_PORT MANAGEMENT_PORT`; its user is opsctl
#
# The programs are those that scripts/install-brokers.sh brings, which is run first. The server listens on 127.0.0.1. At
# the end of standard input, which comes also when the parent was killed, it is killed and DIR removed.
#
#   BROKER_PASSWORD     the password of RabbitMQ's user
set -euo pipefail
umask 022

die() {
    echo "broker.sh: $*" >&2
    exit 1
}

[ $# -ge 2 ] || die "usage: broker.sh redis|rabbitmq DIR [SETTING…]"
kind=$1 dir=$2
shift 2
root=$("$(dirname "$0")/../../../scripts/install-brokers.sh" </dev/null | tail -n 1)
[ -d "$root" ] || die "there are no programs: scripts/install-brokers.sh"

# pause SECONDS: sleeps without a process; nothing is ever written to the pipe, which is open at both ends.
exec {never}<> <(:)
pause() { read -rt "$1" -u "$never" || true; }

daemons=()
stop() {
    for pid in "${daemons[@]}"; do kill -KILL "$pid" 2>/dev/null || true; done
    wait "${daemons[@]}" 2>/dev/null || true
    rm -rf "$dir" || { pause 0.2; rm -rf "$dir"; }
}
trap stop EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# start COMMAND…: a daemon with none of our streams, which the kernel kills when this script is killed.
start() {
    setsid setpriv --pdeathsig KILL "$@" </dev/null >>"$dir/out" 2>&1 {never}>&- &
    daemons+=($!)
}

# ready COMMAND…: waits until it succeeds, for as long as the last daemon lives.
ready() {
    local deadline=$((SECONDS + 60))
    until "$@"; do
        if [ $SECONDS -ge $deadline ] || ! kill -0 "${daemons[-1]}" 2>/dev/null; then
            tail -n 20 "$dir/out" >&2
            die "$kind did not start"
        fi
        pause 0.05
    done
}

# Below the range from which the kernel takes the ports of outgoing connections.
free_port() {
    local port
    while port=$((15000 + (RANDOM * 32768 + RANDOM) % 15000)); do
        (exec {probe}<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    echo "$port"
}

mkdir -p "$dir"
port=$(free_port)
export HOME=$dir LC_ALL=C.UTF-8
case $kind in
    redis)
        libraries=("$root"/usr/lib/*/liblzf.so.1)
        export LD_LIBRARY_PATH=${libraries[0]%/*}
        accepts() { (exec {probe}<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; }
        start "$root/usr/bin/redis-server" --bind 127.0.0.1 --port "$port" --dir "$dir" --save '' "${@//@PORT@/$port}"
        ready accepts
        say="ready $port"
        ;;
    rabbitmq)
        : "${BROKER_PASSWORD:?is not set}"
        management=$(free_port) epmd=$(free_port)
        cat >"$dir/rabbitmq.conf" <<END
listeners.tcp.1 = 127.0.0.1:$port
management.tcp.ip = 127.0.0.1
management.tcp.port = $management
collect_statistics_interval = 250
management.sample_retention_policies.global.minute = 1
management.sample_retention_policies.basic.minute = 1
management.sample_retention_policies.detailed.minute = 1
default_user = opsctl
default_pass = $BROKER_PASSWORD
log.file.level = warning
vm_memory_high_watermark.absolute = 256MB
disk_free_limit.absolute = 1MB
END
        echo '[rabbitmq_management].' >"$dir/enabled_plugins"
        export PATH=$root/usr/lib/erlang/bin:$PATH ERL_EPMD_PORT=$epmd ERL_EPMD_ADDRESS=127.0.0.1
        export RABBITMQ_NODENAME=opsctl-$port@localhost RABBITMQ_DIST_PORT=$(free_port)
        export RABBITMQ_CONFIG_FILE=$dir/rabbitmq.conf RABBITMQ_ENABLED_PLUGINS_FILE=$dir/enabled_plugins
        export RABBITMQ_CONF_ENV_FILE=$dir/none RABBITMQ_ADVANCED_CONFIG_FILE=$dir/none RABBITMQ_PID_FILE=$dir/pid
        export RABBITMQ_MNESIA_BASE=$dir/data RABBITMQ_LOG_BASE=$dir/log RABBITMQ_FEATURE_FLAGS_FILE=$dir/feature_flags
        # What starts it then becomes it, so that it can be killed.
        export RUNNING_UNDER_SYSTEMD=yes
        # Schedulers that have nothing to do should sleep.
        export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-start_epmd false +S 1 +sbwt none +sbwtdcpu none +sbwtdio none"
        # A node that crashes leaves its core where it was started.
        cd "$dir"
        start "$root/usr/lib/erlang/bin/epmd" -port "$epmd" -address 127.0.0.1
        start "$root/rabbitmq/sbin/rabbitmq-server"
        ready curl -sf -o "$dir/answer" -u "opsctl:$BROKER_PASSWORD" "http://127.0.0.1:$management/api/overview"
        say="ready $port $management"
        ;;
    *) die "no such kind: $kind" ;;
esac
trap "" PIPE
echo "$say"
while read -r _; do :; done
