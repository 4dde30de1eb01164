"""An S3 of the tests' own: moto, which checks signatures and policies once it is set up.

    s3.py FILE    serves FILE as s3://contexts/team/context.tar.gz until standard input ends

Prints one line of JSON: the endpoint, the key of a user who may read and the key of one who may not.
"""
import json, os, sys

NOT_CHECKED = 9  # the actions below; everything after them needs a key and the right to do it
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
s3.create_bucket(Bucket="contexts")                                              # 1
s3.put_object(Bucket="contexts", Key="team/context.tar.gz", Body=content)        # 2
s3.put_object(Bucket="contexts", Key="context.tar.gz", Body=content)             # 3
keys = {}
policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
for user in ("reader", "stranger"):                                              # 4 to 7
    iam.create_user(UserName=user)
    key = iam.create_access_key(UserName=user)["AccessKey"]
    keys[user] = {"id": key["AccessKeyId"], "secret": key["SecretAccessKey"]}
iam.put_user_policy(UserName="reader", PolicyName="read", PolicyDocument=json.dumps(policy))   # 8
iam.list_users()                                                                 # 9
print(json.dumps({"endpoint": options["endpoint_url"], **keys}), flush=True)
sys.stdin.read()
server.stop()
