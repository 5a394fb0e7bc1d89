"""A native producer and a native consumer, with pika, which knows nothing of Isimud.

    natives.py declare PORT QUEUE TYPE
    natives.py produce PORT QUEUE FROM TO IDS
    natives.py consume PORT QUEUE

`produce` publishes the numbers as JSON; with IDS `uuid` each has a message_id, with `none` it has not. `consume` writes a
line of JSON for each message that it has processed, until its input ends.
"""

import json
import sys
import threading
import uuid

import pika


def connect(port):
    parameters = pika.ConnectionParameters("127.0.0.1", int(port), heartbeat=30)
    return pika.BlockingConnection(parameters)


def declare(port, queue, kind):
    connection = connect(port)
    arguments = {"x-queue-type": kind}
    if kind == "quorum":
        arguments["x-delivery-limit"] = 100
    connection.channel().queue_declare(queue, durable=True, arguments=arguments)
    connection.close()


def produce(port, queue, first, last, ids):
    connection = connect(port)
    channel = connection.channel()
    channel.confirm_delivery()
    for number in range(int(first), int(last)):
        properties = pika.BasicProperties(delivery_mode=2, headers={"number": number})
        if ids == "uuid":
            properties.message_id = str(uuid.uuid4())
        channel.basic_publish("", queue, str(number), properties, mandatory=True)
    connection.close()


def consume(port, queue):
    connection = connect(port)
    channel = connection.channel()
    channel.basic_qos(prefetch_count=20)

    def process(channel, method, properties, body):
        seen = {
            "body": body.decode(),
            "message_id": properties.message_id,
            "content_type": properties.content_type,
            "expiration": properties.expiration,
            "timestamp": properties.timestamp,
            "client": (properties.headers or {}).get("isimud-client"),
        }
        channel.basic_ack(method.delivery_tag)
        print(json.dumps(seen), flush=True)

    def stop():
        sys.stdin.read()
        connection.add_callback_threadsafe(channel.stop_consuming)

    threading.Thread(target=stop, daemon=True).start()
    channel.basic_consume(queue, process)
    channel.start_consuming()
    connection.close()


if __name__ == "__main__":
    {"declare": declare, "produce": produce, "consume": consume}[sys.argv[1]](*sys.argv[2:])
