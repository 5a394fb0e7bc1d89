"""Native clients of SQS, with boto3, which know nothing of Isimud.

    sqs.py ENDPOINT QUEUE make
    sqs.py ENDPOINT QUEUE produce FIRST COUNT PAUSE
    sqs.py ENDPOINT QUEUE consume LIMIT PAUSE

`produce` sends the numbers as JSON, each with itself in the attribute `number`, in tens, and pauses in between for so many
milliseconds. `consume` deletes what it receives and writes a line for each: the body, and the attribute. It ends after
LIMIT messages, or when its input has ended.
"""

import sys
import threading
import time

import boto3

endpoint, name, what, *rest = sys.argv[1:]
sqs = boto3.client("sqs", endpoint_url=endpoint)


def produce(url, first, count, pause):
    for begin in range(first, first + count, 10):
        numbers = range(begin, min(begin + 10, first + count))
        entries = [
            {
                "Id": str(number),
                "MessageBody": str(number),
                "MessageAttributes": {"number": {"DataType": "Number", "StringValue": str(number)}},
            }
            for number in numbers
        ]
        failed = sqs.send_message_batch(QueueUrl=url, Entries=entries).get("Failed")
        assert not failed, failed
        time.sleep(pause / 1000)


def consume(url, limit, pause):
    ended = threading.Event()

    def watch():
        sys.stdin.read()
        ended.set()

    threading.Thread(target=watch, daemon=True).start()
    while limit > 0 and not ended.is_set():
        answer = sqs.receive_message(
            QueueUrl=url,
            MaxNumberOfMessages=min(limit, 10),
            MessageAttributeNames=["All"],
            VisibilityTimeout=600,
        )
        messages = answer.get("Messages", [])
        for message in messages:
            number = message.get("MessageAttributes", {}).get("number", {}).get("StringValue")
            print(message["Body"], number)
        if messages:
            entries = [{"Id": str(at), "ReceiptHandle": it["ReceiptHandle"]} for at, it in enumerate(messages)]
            failed = sqs.delete_message_batch(QueueUrl=url, Entries=entries).get("Failed")
            assert not failed, failed
        sys.stdout.flush()
        limit -= len(messages)
        time.sleep(pause / 1000)


if what == "make":
    sqs.create_queue(QueueName=name, Attributes={"MessageRetentionPeriod": "1209600"})
else:
    url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
    {"produce": produce, "consume": consume}[what](url, *map(int, rest))
