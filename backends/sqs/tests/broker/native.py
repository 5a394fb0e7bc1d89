"""A consumer and producer that knows nothing of Isimud.

    native.py ENDPOINT QUEUE make               makes the queue
    native.py ENDPOINT QUEUE read               prints what there is, and deletes it
    native.py ENDPOINT QUEUE send BODY...       sends bodies, and prints their ids
    native.py ENDPOINT QUEUE send-as ID BODY    sends a body under an id of its own choice
    native.py ENDPOINT QUEUE produce N          sends "native-0" to "native-(N-1)"
    native.py ENDPOINT QUEUE consume N          reads and deletes until nothing comes any more, N at the most
"""

import json
import sys

import boto3

endpoint, name, what, *rest = sys.argv[1:]
sqs = boto3.client("sqs", endpoint_url=endpoint)
if what == "make":
    sqs.create_queue(QueueName=name)
url = sqs.get_queue_url(QueueName=name)["QueueUrl"]


def receive(wait):
    answer = sqs.receive_message(
        QueueUrl=url,
        MaxNumberOfMessages=10,
        MessageAttributeNames=["All"],
        VisibilityTimeout=600,
        WaitTimeSeconds=wait,
    )
    messages = answer.get("Messages", [])
    if messages:
        entries = [{"Id": str(at), "ReceiptHandle": m["ReceiptHandle"]} for at, m in enumerate(messages)]
        failed = sqs.delete_message_batch(QueueUrl=url, Entries=entries).get("Failed")
        assert not failed, failed
    return messages


def show(message):
    stamp = message.get("MessageAttributes", {}).get("isimud", {}).get("StringValue")
    print(json.dumps({"body": message["Body"], "id": message["MessageId"], "stamp": stamp}))


if what == "read":
    while messages := receive(1):
        for message in messages:
            show(message)
elif what == "send":
    for body in rest:
        sent = sqs.send_message(QueueUrl=url, MessageBody=body)
        print(json.dumps({"body": body, "id": sent["MessageId"]}))
elif what == "send-as":
    stamp = {"DataType": "String", "StringValue": json.dumps({"id": rest[0]})}
    sent = sqs.send_message(QueueUrl=url, MessageBody=rest[1], MessageAttributes={"isimud": stamp})
    print(json.dumps({"body": rest[1], "id": sent["MessageId"]}))
elif what == "produce":
    count = int(rest[0])
    for first in range(0, count, 10):
        entries = [{"Id": str(at), "MessageBody": f"native-{at}"} for at in range(first, min(first + 10, count))]
        failed = sqs.send_message_batch(QueueUrl=url, Entries=entries).get("Failed")
        assert not failed, failed
elif what == "consume":
    left, idle = int(rest[0]), 0
    while left > 0 and idle < 3:
        messages = receive(2)
        idle = 0 if messages else idle + 1
        left -= len(messages)
        for message in messages:
            show(message)
