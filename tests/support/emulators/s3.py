"""An S3 of the tests' own: moto, which checks signatures and policies once it is set up.

    s3.py FILE    serves FILE under each of NAMES in the bucket `contexts` until standard input ends

Prints one line of JSON: the endpoint, the key of a user who may read and the key of one who may not.
"""
import json, os, sys

NAMES = ["team/context.tar.gz", "context.tar.gz", "nightly.tar.gz", "app.tar.gz"]
NOT_CHECKED = 1 + len(NAMES) + 2 * 2 + 1 + 1  # the actions below; everything after them needs a key and the right to do it
os.environ["INITIAL_NO_AUTH_ACTION_COUNT"] = str(NOT_CHECKED)
os.environ["AWS_EC2_METADATA_DISABLED"] = "true"

import boto3
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
options = {"endpoint_url": f"http://{host}:{port}", "region_name": "us-east-1", "aws_access_key_id": "setup", "aws_secret_access_key": "setup"}
s3, iam = boto3.client("s3", **options), boto3.client("iam", **options)
with open(sys.argv[1], "rb") as file:
    content = file.read()
s3.create_bucket(Bucket="contexts")
for name in NAMES:
    s3.put_object(Bucket="contexts", Key=name, Body=content)
keys = {}
policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
for user in ("reader", "stranger"):
    iam.create_user(UserName=user)
    key = iam.create_access_key(UserName=user)["AccessKey"]
    keys[user] = {"id": key["AccessKeyId"], "secret": key["SecretAccessKey"]}
iam.put_user_policy(UserName="reader", PolicyName="read", PolicyDocument=json.dumps(policy))
iam.list_users()
print(json.dumps({"endpoint": options["endpoint_url"], **keys}), flush=True)
sys.stdin.read()
server.stop()
