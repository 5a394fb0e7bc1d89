"""A native producer and a native consumer, with pika, which knows nothing of Isimud.

    natives.py declare PORT QUEUE TYPE [LIMIT [DEAD]]
    natives.py produce PORT QUEUE FROM TO IDS
    natives.py consume PORT QUEUE
    natives.py publish PORT QUEUE [ID BODY]...
    natives.py take PORT QUEUE COUNT
    natives.py bounce PORT QUEUE COUNT

`declare` makes a queue, with a delivery limit of LIMIT, `none` for none, and dead-letters to the queue DEAD. `produce`
publishes the numbers as JSON; with IDS `uuid` each has a message_id, with `none` it has not. `consume` writes a line of
JSON for each message that it has processed, until its input ends. `publish` publishes bodies, with the message_id before
each unless that is empty. `take` acknowledges so many messages and writes their bodies, a line each; `bounce` takes them,
says so, and gives them back when its input ends.
"""

import json
import sys
import threading
import uuid

import pika


def connect(port):
    parameters = pika.ConnectionParameters("127.0.0.1", int(port), heartbeat=30)
    return pika.BlockingConnection(parameters)


def declare(port, queue, kind, limit="100", dead=None):
    connection = connect(port)
    arguments = {"x-queue-type": kind}
    if kind == "quorum" and limit != "none":
        arguments["x-delivery-limit"] = int(limit)
    if dead:
        connection.channel().queue_declare(dead, durable=True)
        arguments["x-dead-letter-exchange"] = ""
        arguments["x-dead-letter-routing-key"] = dead
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


def publish(port, queue, *pairs):
    connection = connect(port)
    channel = connection.channel()
    channel.confirm_delivery()
    for name, body in zip(pairs[::2], pairs[1::2]):
        properties = pika.BasicProperties(delivery_mode=2, message_id=name or None)
        channel.basic_publish("", queue, body, properties, mandatory=True)
    connection.close()


def take(port, queue, count):
    connection = connect(port)
    channel = connection.channel()
    for _ in range(int(count)):
        method, _, body = channel.basic_get(queue, auto_ack=True)
        if method is None:
            break
        print(body.decode())
    connection.close()


def bounce(port, queue, count):
    connection = connect(port)
    channel = connection.channel()
    tags = [channel.basic_get(queue)[0].delivery_tag for _ in range(int(count))]
    print("held", flush=True)
    sys.stdin.read()
    channel.basic_nack(tags[-1], multiple=True, requeue=True)
    connection.close()


if __name__ == "__main__":
    all_of_them = [declare, produce, consume, publish, take, bounce]
    {one.__name__: one for one in all_of_them}[sys.argv[1]](*sys.argv[2:])
