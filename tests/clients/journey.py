"""What the journeys share: checks with names, parts that fail alone, and a
count of the library's calls.

A journey drives a running server through a published client library. Each
part works in a project of its own, so whole answers can be compared whatever
else the server holds. `tests/journeys.rs` runs them; by hand:

    $(scripts/clients-venv) tests/clients/zaqarclient_journey.py --url http://127.0.0.1:8888

With `--trace` every request and answer is printed.
"""

import argparse
import faulthandler
import functools
import json
import os
import sys
import traceback
import types
import uuid

import requests

# A server that stops answering ends the journey with a stack trace.
PATIENCE_SECS = 240

# Messages of one post, at the most. A store may promise the order of posts alone, and not that inside of one.
POST_SIZE = int(os.environ.get("JOURNEY_POST_SIZE", "1000"))


def in_posts(bodies):
    """The bodies of each post, of which there is one at least."""
    return [bodies[at : at + POST_SIZE] for at in range(0, max(len(bodies), 1), POST_SIZE)]


# What `GET /v2/queues/{queue}` shows for a queue without settings.
RESERVED = {
    "_max_messages_post_size": 262144,
    "_default_message_ttl": 3600,
    "_default_message_delay": 0,
    "_dead_letter_queue": None,
    "_dead_letter_queue_messages_ttl": None,
    "_max_claim_count": None,
    "_enable_encrypt_messages": False,
}

# Bodies that a careless layer between client and disk would change.
BODIES = [
    None,
    True,
    False,
    0,
    -1,
    9223372036854775807,
    -9223372036854775808,
    0.1,
    1.0,
    -2.5e-7,
    "",
    " ",
    "null",
    "ascii",
    "\u540d\u524d \u0438\u043c\u044f \u05e9\u05dd \u0627\u0633\u0645",
    "e\u0301 is not \u00e9",
    "\U0001f600 \U0010ffff",
    'quote " backslash \\ slash / tab \t line \n bell \u0007 end \u0000',
    "separators \u2028 \u2029, mark \ufeff",
    [],
    {},
    [[], {}, [None, [True, [1, ["deep"]]]]],
    {"z": 1, "a": {"\u03c9": [1, 2.5, "\U0001f680"], "": None}, "m": "{braces}"},
    {"claim_id": "not this", "href": "?a=b", "messages": [{"body": 1}]},
]


def exact(value):
    """The JSON text of a body: `True`, `1` and `1.0` differ, and so does the
    order of keys."""
    return json.dumps(value)


def canonical(value):
    """One text for one value, whatever the order of keys."""
    return json.dumps(value, default=repr, sort_keys=True)


def recent(age):
    """`recent` for an age of a few seconds, which no check can know exactly;
    any other value unchanged."""
    whole = isinstance(age, int) and not isinstance(age, bool)
    return "recent" if whole and 0 <= age <= PATIENCE_SECS else age


def watch(owner, called):
    """Notes in the set `called` each public function, method and property of
    `owner` (a class or a module) that is used from now on; returns all their
    names."""

    def noting(name, function):
        @functools.wraps(function)
        def noted(*args, **kwargs):
            called.add(name)
            return function(*args, **kwargs)

        return noted

    names = set()
    for name, value in list(vars(owner).items()):
        if name.startswith("_"):
            continue
        if isinstance(value, types.FunctionType):
            setattr(owner, name, noting(name, value))
        elif isinstance(value, property):
            setattr(owner, name, property(noting(name, value.fget)))
        else:
            continue
        names.add(name)
    return names


class Journey:
    def __init__(self, library):
        self.library = library
        self.parts = []
        self.part_name = ""
        self.passed = 0
        self.failed = 0

    def part(self, function):
        """Adds a part, named by the function; parts run in order of writing."""
        self.parts.append(function)
        return function

    def check(self, name, actual, expected):
        """Compares whole results. A function is called for the actual one, so
        that its failure fails this check and not the whole part."""
        if callable(actual):
            try:
                actual = actual()
            except Exception as error:
                actual = error
        same = canonical(actual) == canonical(expected)
        self._note(same, name, f"expected {expected!r}\n     but got {actual!r}")

    def check_error(self, name, kind, text, call, *args, **kwargs):
        """`call` must raise exactly `kind`, and say `text`."""
        try:
            answer = call(*args, **kwargs)
        except Exception as error:
            same = type(error) is kind and str(error) == text
            got = f"{type(error).__name__}: {error}"
        else:
            same, got = False, f"the answer {answer!r}"
        self._note(same, name, f"expected {kind.__name__}: {text}\n     but got {got}")

    def run(self):
        """Runs every part and returns the exit code."""
        args = self._arguments()
        if args.trace:
            trace_requests()
        faulthandler.dump_traceback_later(PATIENCE_SECS, exit=True)
        for part in self.parts:
            self.part_name = part.__name__.replace("_", " ")
            try:
                part(args.url.rstrip("/"), f"journey-{uuid.uuid4()}")
            except Exception:
                self._note(False, "runs to its end", traceback.format_exc())
        print(f"{self.passed} passed, {self.failed} failed")
        return 1 if self.failed else 0

    def _arguments(self):
        parser = argparse.ArgumentParser(
            description=f"Takes {self.library} through a running server."
        )
        parser.add_argument("--url", required=True, help="the server's root")
        parser.add_argument("--trace", action="store_true", help="print each request and answer")
        return parser.parse_args()

    def _note(self, good, name, why):
        if good:
            self.passed += 1
            print(f"ok     {self.part_name}: {name}")
        else:
            self.failed += 1
            print(f"FAILED {self.part_name}: {name}\n     {why}")


def trace_requests():
    """Prints what goes over the wire, for whoever looks into a failure."""
    send = requests.Session.send

    @functools.wraps(send)
    def traced(session, request, **kwargs):
        answer = send(session, request, **kwargs)
        print(f"> {request.method} {request.url} {dict(request.headers)}")
        print(f"> {request.body!r}")
        print(f"< {answer.status_code} {dict(answer.headers)}")
        print(f"< {answer.text}", flush=True)
        return answer

    requests.Session.send = traced


def main(journey):
    sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    sys.exit(journey.run())
