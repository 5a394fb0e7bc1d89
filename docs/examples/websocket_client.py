#!/usr/bin/env python3
"""Subscribes to a queue over WebSocket, posts to it, and prints what is pushed.

    pip install websocket-client
    docs/examples/websocket_client.py ws://127.0.0.1:8888/ PROJECT QUEUE [TOKEN]

With a token of Keystone it authenticates first. It works off what is pushed with acks: a message is deleted when it was
handled, and comes again, here or elsewhere, if it was not.
"""

import json
import sys
import uuid

import websocket


class Client:
    """A socket of one project. Answers come in the order of the requests; what is pushed comes in between."""

    def __init__(self, url, project):
        self.socket = websocket.create_connection(url, timeout=20)
        self.headers = {"Client-ID": str(uuid.uuid4()), "X-Project-ID": project}
        self.pushed = []

    def ask(self, action, body=None, **headers):
        """Sends a request and returns the status and the document of its answer."""
        request = {"action": action, "headers": {**self.headers, **headers}, "body": body or {}}
        self.socket.send(json.dumps(request))
        while True:
            document = json.loads(self.socket.recv())
            if "request" in document:
                return document["headers"]["status"], document["body"]
            self.pushed.append(document)

    def receive(self):
        """Waits for the next message that is pushed."""
        return self.pushed.pop(0) if self.pushed else json.loads(self.socket.recv())


def main(url, project, queue, token=None):
    client = Client(url, project)
    if token:
        status, body = client.ask("authenticate", **{"X-Auth-Token": token})
        if status != 200:
            sys.exit(f"authentication failed: {status} {body}")
    ack = {"limit": 5, "ttl": 300, "grace": 60}
    status, body = client.ask("subscription_create", {"queue_name": queue, "options": {"_ack": ack}})
    if status != 201:
        sys.exit(f"cannot subscribe: {status} {body}")
    messages = [{"ttl": 300, "body": {"number": number}} for number in range(3)]
    client.ask("message_post", {"queue_name": queue, "messages": messages})
    for _ in messages:
        message = client.receive()
        print("received", message["body"])
        held = {"message_id": message["message_id"], "claim_id": message["claim_id"]}
        status, body = client.ask("message_delete", {"queue_name": queue, **held})
        print("deleted", status)
    client.socket.close()


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(*sys.argv[1:5])
