"""What a native producer says in attributes, and what a native consumer finds there.

    headers.py ENDPOINT QUEUE send    sends messages with attributes of all kinds, and prints them
    headers.py ENDPOINT QUEUE read    prints what there is, and deletes it
"""

import json
import sys

import boto3

endpoint, name, what = sys.argv[1:]
sqs = boto3.client("sqs", endpoint_url=endpoint)
url = sqs.get_queue_url(QueueName=name)["QueueUrl"]

MESSAGES = [
    ('{"a": 1}', {
        "task": ("String", "proj.tasks.add"),
        "retries": ("Number", "3"),
        "share": ("Number", "1.5"),
        "price": ("Number", "1.50"),
        "long": ("Number", "12345678901234567890"),
        "labelled": ("Number.int", "7"),
        "json": ("String.json", '{"b": "é"}'),
        "bytes": ("Binary", b"\x00\xff"),
        "image": ("Binary.png", b"\x89PNG"),
        "reply_to": ("String", "an attribute of the application"),
    }),
    ("plain", {}),
]


def attribute(kind, value):
    field = "BinaryValue" if kind.startswith("Binary") else "StringValue"
    return {"DataType": kind, field: value}


def show(body, attributes):
    shown = {}
    for name, value in attributes.items():
        if name != "isimud":
            data = value.get("StringValue")
            shown[name] = [value["DataType"], data if data is not None else {"bytes": value["BinaryValue"].hex()}]
    print(json.dumps({"body": body, "attributes": shown}))


if what == "send":
    for body, attributes in MESSAGES:
        attributes = {name: attribute(*value) for name, value in attributes.items()}
        sqs.send_message(QueueUrl=url, MessageBody=body, MessageAttributes=attributes)
        show(body, attributes)
else:
    while True:
        answer = sqs.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], WaitTimeSeconds=1
        )
        if not answer.get("Messages"):
            break
        for message in answer["Messages"]:
            show(message["Body"], message.get("MessageAttributes", {}))
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
