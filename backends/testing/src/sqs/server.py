"""moto's SQS on a port of its own, fit for tests that do many things at once.

What it adds to moto_server, and why:

* One lock around every request. moto's queues are plain lists without one, and two requests at once can lose a message
  or deliver it twice, which no SQS does by that. A long poll lets go of the lock while it waits.
* Speed: moto counts the whole queue several times for each message that it sends or receives, walks over it twice for
  each that it deletes, and computes again and again what never changes.
* A clock for each test, which it may set forward: POST /-/clock {"corner": "x", "millis": N} is for queues whose names
  begin with "x-".
* Shorter waits for tests that wait for nothing: POST /-/waits {"corner": "x", "factor": 0.1}.
* A count of the requests of each access key, by action: GET /-/requests?login=KEY.
* Connections are kept, as by SQS itself.
* It ends when its standard input does, and so with the process that started it, however that ends.

    python server.py PORT [CERTIFICATE KEY]     with TLS where these files are named
"""

import copy
import functools
import io
import json
import os
import re
import secrets
import sys
import threading
import time
from collections import Counter, deque
from urllib.parse import parse_qs

from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from moto.sqs import models
from werkzeug.serving import run_simple


class Turns:
    """A lock that is had in the order in which it was asked for: nobody waits for ever."""

    def __init__(self):
        self.inner = threading.Lock()
        self.had = False
        self.line = deque()

    def acquire(self):
        with self.inner:
            if not self.had:
                self.had = True
                return
            turn = threading.Lock()
            turn.acquire()
            self.line.append(turn)
        turn.acquire()

    def release(self):
        with self.inner:
            if self.line:
                self.line.popleft().release()
            else:
                self.had = False

    def __enter__(self):
        self.acquire()

    def __exit__(self, *_):
        self.release()


LOCK = Turns()
AHEAD = Counter()
WAITS = {}
REQUESTS = {}
CURRENT = threading.local()


def look_at_the_clock():
    CURRENT.now = time.time() * 1000 + AHEAD[CURRENT.corner]
    CURRENT.counted = {}


# moto asks for every message of a queue what time it is.
models.unix_time_millis = lambda: CURRENT.now
models.unix_time = lambda: CURRENT.now / 1000


def once_a_request(name):
    count = getattr(models.Queue, name).fget

    def counted(self):
        key = (name, id(self))
        if key not in CURRENT.counted:
            CURRENT.counted[key] = count(self)
        return CURRENT.counted[key]

    setattr(models.Queue, name, property(counted))


# What is the same each time.
models.camelcase_to_underscores = functools.cache(models.camelcase_to_underscores)
DomainDispatcherApplication.get_backend_for_host = functools.cache(DomainDispatcherApplication.get_backend_for_host)

# Two hundred random choices for one handle, and a copy of all that a message has, where one attribute is replaced.
models.generate_receipt_handle = lambda: secrets.token_hex(92)
models.deepcopy = copy.copy


def visible(self):
    return (it for it in self._messages if CURRENT.now > it.visible_at and CURRENT.now >= it.delayed_until)


models.Queue.messages = property(visible)
models.Queue.approximate_number_of_messages = property(lambda self: sum(1 for _ in visible(self)))

for counts in ("", "_delayed", "_not_visible"):
    once_a_request("approximate_number_of_messages" + counts)

all_attributes = models.Queue.attributes.fget


def attributes(self):
    # A send asks for all of them, for each of its messages, and reads this one.
    if not CURRENT.action.startswith("SendMessage"):
        return all_attributes(self)
    return {"ContentBasedDeduplication": str(bool(self.fifo_queue and self.content_based_deduplication)).lower()}


models.Queue.attributes = property(attributes)


def is_retained(self, queue_name, message):
    # This asked for all of them, too.
    return message.sent_timestamp + self.get_queue(queue_name).message_retention_period * 1000 > CURRENT.now


models.SQSBackend.is_message_valid_based_on_retention_period = is_retained

groups = models.Queue.pending_message_groups.fget
models.Queue.pending_message_groups = property(lambda self: groups(self) if self.fifo_queue else set())

receive_at_once = models.SQSBackend.receive_message


def let_go(queue):
    # moto holds a group for messages that are visible again, until it comes by each of them.
    if queue.fifo_queue:
        queue._pending_messages = {message for message in queue._pending_messages if not message.visible}


def receive_message(self, queue_name, count, wait_seconds_timeout, *others, **named):
    factor = WAITS.get(CURRENT.corner, 1)
    until = time.time() + int(wait_seconds_timeout or 0) * factor
    while True:
        let_go(self.get_queue(queue_name))
        got = receive_at_once(self, queue_name, count, 0, *others, **named)
        if got or time.time() >= until:
            return got
        LOCK.release()
        try:
            time.sleep(min(0.1, max(0.0, until - time.time())))
        finally:
            LOCK.acquire()
        look_at_the_clock()


models.SQSBackend.receive_message = receive_message


def delete_message(self, handle):
    if handle in self.deleted_messages:
        return
    for at, message in enumerate(self._messages):
        if handle == message.receipt_handle or handle in message._old_receipt_handles:
            break
    else:
        raise models.ReceiptHandleIsInvalid()
    del self._messages[at]
    self.pending_messages.discard(message)
    self.deleted_messages.update(message.all_receipt_handles)


models.Queue.delete_message = delete_message


def login_of(environ):
    found = re.search(r"Credential=([^/]+)/", environ.get("HTTP_AUTHORIZATION", ""))
    return found.group(1) if found else None


def corner_of(body):
    found = re.search(rb'"Queue(?:Url|Name|NamePrefix)":\s*"(?:[^"]*/)?([^"/-]+)-', body)
    return found.group(1).decode() if found else None


class Application:
    def __init__(self):
        self.moto = DomainDispatcherApplication(create_backend_app)

    def __call__(self, environ, start_response):
        path = environ["PATH_INFO"]
        if path.startswith("/-/"):
            return self.told(path, environ, start_response)
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        with LOCK:
            CURRENT.corner = corner_of(body)
            look_at_the_clock()
            CURRENT.action = environ.get("HTTP_X_AMZ_TARGET", "?").rpartition(".")[2]
            REQUESTS.setdefault(login_of(environ), Counter())[CURRENT.action] += 1
            # The answer is made here, and not while it is sent.
            return list(self.moto(environ, start_response))

    def told(self, path, environ, start_response):
        answer = {}
        with LOCK:
            if path == "/-/clock":
                told = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
                AHEAD[told["corner"]] += told["millis"]
            elif path == "/-/waits":
                told = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
                WAITS[told["corner"]] = told["factor"]
            elif path == "/-/requests":
                login = parse_qs(environ["QUERY_STRING"])["login"][0]
                answer = REQUESTS.get(login, {})
        body = json.dumps(answer).encode()
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]


class Handler(MotoRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, *_):
        pass


def end_with_the_parent():
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=end_with_the_parent, daemon=True).start()
    run_simple(
        "127.0.0.1",
        int(sys.argv[1]),
        Application(),
        threaded=True,
        request_handler=Handler,
        ssl_context=tuple(sys.argv[2:4]) or None,
    )
