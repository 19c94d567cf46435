#!/bin/bash
# A throwaway S3 server that has a Glacier, for a test, alive as long as its standard input: moto, which checks signatures.
#
#   moto.sh PACKAGES      the directory that scripts/install-python.sh says
#
# Prints `ready http://127.0.0.1:PORT KEY SECRET` when requests are answered.
set -euo pipefail
# The first requests make the user, and need not be signed by one.
exec env PYTHONPATH="$1" PYTHONDONTWRITEBYTECODE=1 INITIAL_NO_AUTH_ACTION_COUNT=3 python3 -c '
import json, logging, sys
import boto3
from moto.server import ThreadedMotoServer

logging.disable(logging.CRITICAL)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
endpoint = "http://%s:%s" % server.get_host_and_port()
iam = boto3.client("iam", endpoint_url=endpoint, aws_access_key_id="none", aws_secret_access_key="none", region_name="us-east-1")
iam.create_user(UserName="test")
key = iam.create_access_key(UserName="test")["AccessKey"]
all = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
iam.put_user_policy(UserName="test", PolicyName="all", PolicyDocument=json.dumps(all))
print("ready", endpoint, key["AccessKeyId"], key["SecretAccessKey"], flush=True)
sys.stdin.read()
'
