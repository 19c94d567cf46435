#!/usr/bin/env bash
# Runs a command beside a throwaway S3 server, and removes the server when the command ends.
#
#   with-s3.sh COMMAND…
#
# The command finds the server in AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, an empty
# bucket in BENCH_S3_URL, and in BENCH_S3_SIZE a command that prints how many bytes lie below a URL and removes them.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
die() { echo "with-s3.sh: $*" >&2; exit 1; }

# Requests without a body, signed; this header has to be told to curl.
request() {
    curl -sSf --aws-sigv4 "aws:amz:$AWS_REGION:s3" --user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" \
        -H "x-amz-content-sha256: $(printf '' | sha256sum | cut -d ' ' -f 1)" "$@"
}

# size URL: prints the bytes below s3://bench/PREFIX, and removes the objects.
if [ "${1:-}" = size ]; then
    prefix=${2#s3://bench/} total=0
    # Names are the program's own: nothing in them needs escaping, but for the slashes of the prefix in a query.
    while page=$(request "$AWS_ENDPOINT_URL/bench?list-type=2&max-keys=1000&prefix=${prefix//\//%2F}"); do
        mapfile -t keys < <(grep -oE '<Key>[^<]*' <<<"$page" | sed 's/^<Key>//')
        [ ${#keys[@]} -gt 0 ] || break
        total=$((total + $(grep -oE '<Size>[0-9]+' <<<"$page" | sed 's/^<Size>//' | paste -sd +)))
        for key in "${keys[@]}"; do request -X DELETE "$AWS_ENDPOINT_URL/bench/$key" >/dev/null; done
    done
    echo "$total"
    exit
fi
[ $# -gt 0 ] || die "usage: with-s3.sh COMMAND…"

export RGW_ACCESS_KEY=bench RGW_SECRET_KEY=bench-secret-of-a-throwaway-server
dir=$(mktemp -d /tmp/opsctl-bench-s3.XXXXXX)
# The server lives as long as its standard input.
coproc rgw { exec "$here/../tests/integration/support/rgw.sh" "$dir"; }
server=$rgw_PID
finish() {
    exec {rgw[1]}>&-
    wait "$server" 2>/dev/null || true
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
read -r ready url <&"${rgw[0]}" && [ "$ready" = ready ] || die "the S3 server did not start"

export AWS_ACCESS_KEY_ID=$RGW_ACCESS_KEY AWS_SECRET_ACCESS_KEY=$RGW_SECRET_KEY AWS_ENDPOINT_URL=$url AWS_REGION=us-east-1
export BENCH_S3_URL=s3://bench BENCH_S3_SIZE="$here/with-s3.sh size"
request -X PUT "$url/bench" >/dev/null
"$@"
