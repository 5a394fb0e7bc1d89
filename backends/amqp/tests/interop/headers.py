"""What a native producer says beside bodies, and what a native consumer finds, with pika.

    headers.py PORT QUEUE publish    publishes messages with all kinds of headers and properties, and prints them
    headers.py PORT QUEUE get        takes everything that there is, and prints it
"""

import datetime
import json
import sys

import pika

PROPERTIES = ["content_type", "content_encoding", "correlation_id", "reply_to", "type", "priority", "app_id", "timestamp"]

# As Celery publishes a task: its name stands in the headers alone.
CELERY = pika.BasicProperties(
    content_type="application/json",
    content_encoding="utf-8",
    correlation_id="3f1c",
    reply_to="f2b8",
    delivery_mode=2,
    priority=4,
    headers={
        "lang": "py", "task": "proj.tasks.add", "id": "3f1c", "shadow": None, "eta": None, "retries": 0,
        "timelimit": [None, 30], "root_id": "3f1c", "argsrepr": "(1, 2)", "origin": "gen1@host",
        "ignore_result": False, "stamps": {},
    },
)

# Bytes in the body and in nested headers.
BINARY = pika.BasicProperties(
    content_type="application/x-python-serialize",
    content_encoding="binary",
    type="pickle",
    app_id="shop",
    message_id="order 1",
    timestamp=1700000000,
    delivery_mode=2,
    headers={
        "bytes": b"\x00\xff", "big": 2**40, "least": -(2**31), "when": datetime.datetime(2024, 1, 2, 3, 4, 5),
        "nested": {"a": [1, {"b": b"\xff"}, "é"], "empty": {}}, "x-mine": "kept", "unicode": "ü🦀",
    },
)

TEXT = pika.BasicProperties(content_type="text/plain", delivery_mode=2)


def shown(value):
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, datetime.datetime):
        return {"time": value.replace(tzinfo=None).isoformat()}
    if isinstance(value, list):
        return [shown(one) for one in value]
    if isinstance(value, dict):
        return {name: shown(one) for name, one in value.items()}
    return value


def show(properties, body):
    headers = properties.headers or {}
    print(json.dumps({
        "body": body.hex(),
        "properties": {name: getattr(properties, name) for name in PROPERTIES},
        "headers": {name: shown(value) for name, value in headers.items() if not name.startswith("isimud-")},
        "own": sorted(name for name in headers if name.startswith("isimud-")),
    }))


port, queue, what = sys.argv[1:]
connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", int(port)))
channel = connection.channel()
if what == "publish":
    channel.confirm_delivery()
    for properties, body in [(CELERY, b"[[1, 2], {}, {}]"), (BINARY, b"\x80\x04\x95"), (TEXT, b"hello")]:
        channel.basic_publish("", queue, body, properties, mandatory=True)
        show(properties, body)
else:
    while True:
        method, properties, body = channel.basic_get(queue, auto_ack=True)
        if method is None:
            break
        show(properties, body)
connection.close()
