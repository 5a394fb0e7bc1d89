"""Fills an estate through the API of the reference implementation, and compares it with a service that took it over.

    zaqar_source.py fill --reference URL,URL --ledger FILE [--queues N --messages M]
    zaqar_source.py compare --reference URL,URL --service URL --ledger FILE

`fill` makes queues and messages of many kinds, claims, releases, renews, deletes and dead-letters, and writes what it
made into a ledger. `compare` asks both services for everything that is in the ledger, message by message, and ends with
1 when they disagree. Needs nothing but Python.
"""

import argparse
import concurrent.futures
import hashlib
import http.client
import json
import sys
import threading
import urllib.parse

ALICE = "3381af92-2b9e-11e3-b191-71861300734c"
BOB = "5b1a0e6c-9a41-4f6e-8d0b-6d9d1d3a3f10"
LATE = 30  # seconds that may pass between asking one service and the other
PROJECTS = 10


class Service:
    """One project's view of a service."""

    def __init__(self, url):
        self.url = urllib.parse.urlsplit(url)
        self.connection = None

    def __call__(self, method, path, body=None, project="p0", client=ALICE, expect=(200, 201, 204)):
        text = None if body is None else json.dumps(body)
        headers = {"Client-ID": client, "X-Project-Id": project, "Content-Type": "application/json"}
        for attempt in (1, 2):
            if self.connection is None:
                self.connection = http.client.HTTPConnection(self.url.hostname, self.url.port, timeout=120)
            try:
                self.connection.request(method, "/v2" + path, text, headers)
                answer = self.connection.getresponse()
                data = answer.read()
                break
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                self.connection.close()
                self.connection = None
                if attempt == 2:
                    raise
        if answer.will_close:
            self.connection.close()
            self.connection = None
        if answer.status not in expect:
            raise AssertionError(f"{method} {path} of {project}: {answer.status} {data[:300]!r}")
        return json.loads(data) if data else None


class Pool:
    """Calls work items in threads, one connection to one of the URLs each."""

    def __init__(self, urls):
        self.urls = urls
        self.local = threading.local()
        self.next = iter(range(1000))
        self.threads = concurrent.futures.ThreadPoolExecutor(max(2, len(urls)))

    def service(self):
        if not hasattr(self.local, "service"):
            self.local.service = Service(self.urls[next(self.next) % len(self.urls)])
        return self.local.service

    def run(self, work, items):
        return list(self.threads.map(work, items))


def counts(queues, messages):
    """How many messages each queue gets: some none, some many."""
    weights = [(i * 37) % 101 for i in range(queues)]
    total = sum(weights) or 1
    shares = [messages * weight // total for weight in weights]
    shares[-1] += messages - sum(shares)
    return shares


def name_of(i):
    kinds = ["queue-{}", "svc.mail.{}", "A_{}", "q{}.messages.old", "{}"]
    return kinds[i % len(kinds)].format(i)


def metadata_of(i):
    metadata = {"number": i, "note": "Schlüssel 🗝", "nested": {"a": [1, 2.5, None, True]}}
    if i % 10 == 1:
        metadata["_default_message_ttl"] = 86400
    if i % 10 == 2:
        metadata["_default_message_delay"] = 900
    if i % 10 == 3:
        metadata["_enable_encrypt_messages"] = True
    if i % 10 == 4:
        metadata["_max_claim_count"] = 2
        metadata["_dead_letter_queue"] = f"dead-{i}"
    return {} if i % 10 == 9 else metadata


def body_of(i, n):
    kind = n % 8
    if kind == 0:
        return {"event": "BackupStarted", "queue": i, "n": n}
    if kind == 1:
        return f"text {i}/{n} äöü 漢字 \" \\ \n \u0001"
    if kind == 2:
        return n
    if kind == 3:
        return [n, -n, n / 7, 1e300, True, False, None, {"": []}]
    if kind == 4:
        return {"deep": {"er": [{"n": n}] * 3}, "big": 2**63 - 1 - n, "z": 1, "a": 2}
    if kind == 5:
        return "x" * (n % 700)
    if kind == 6:
        return {"é": n * 1.5, "k": None, "long": [n] * 40}
    return {"n": n, "blob": hashlib.sha256(b"%d %d" % (i, n)).hexdigest() * (n % 9)}


def fill_queue(service, i, count):
    project, queue = f"p{i % PROJECTS}", name_of(i)
    path = "/queues/" + queue
    metadata = metadata_of(i)
    service("PUT", path, metadata, project)
    ids = []
    while len(ids) < count:
        batch = []
        for n in range(len(ids), min(count, len(ids) + 200)):
            message = {"body": body_of(i, n)}
            if n % 3:
                message["ttl"] = 3600 + n * 60
            if "_default_message_delay" in metadata and n % 2:
                message["delay"] = 0 if n % 4 == 1 else 900 - n % 100
            batch.append(message)
        made = service("POST", path + "/messages", {"messages": batch}, project, ALICE if len(ids) % 400 else BOB)
        ids += [href.rsplit("/", 1)[1] for href in made["resources"]]
    record = {"i": i, "project": project, "queue": queue, "metadata": metadata, "ids": ids, "claims": [], "dead": []}
    if count > 60 and "_default_message_delay" not in metadata:
        use(service, record)
    return record


def claim(service, record, limit, ttl):
    claimed = service(
        "POST", f"/queues/{record['queue']}/claims?limit={limit}", {"ttl": ttl, "grace": 300}, record["project"], BOB
    )
    found = claimed["messages"]
    href = urllib.parse.urlsplit(found[0]["href"])
    ids = [urllib.parse.urlsplit(message["href"]).path.rsplit("/", 1)[1] for message in found]
    return urllib.parse.parse_qs(href.query)["claim_id"][0], ids


def use(service, record):
    """Works on a queue as clients do."""
    path, project, i = "/queues/" + record["queue"], record["project"], record["i"]
    if i % 10 == 4:
        # Claimed twice in vain; the third claim moves them, and takes those behind them.
        for _ in range(2):
            held, ids = claim(service, record, 5, 600)
            service("DELETE", f"{path}/claims/{held}", project=project)
        service("POST", f"{path}/claims?limit=5", {"ttl": 43200, "grace": 300}, project)
        dead = {"i": i, "project": project, "queue": f"dead-{i}", "metadata": None, "ids": ids, "claims": [], "dead": []}
        record["ids"] = [name for name in record["ids"] if name not in ids]
        record["dead"] = [dead]
        return
    if i % 2:
        return
    held, ids = claim(service, record, 7, 43200)
    gone = ids[2]
    service("DELETE", f"{path}/messages/{gone}?claim_id={held}", project=project)
    record["ids"].remove(gone)
    record["claims"].append(held)
    held, _ = claim(service, record, 10, 3600)
    service("PATCH", f"{path}/claims/{held}", {"ttl": 40000, "grace": 100}, project)
    record["claims"].append(held)
    for name in record["ids"][25:60:5]:
        service("DELETE", f"{path}/messages/{name}", project=project)
        record["ids"].remove(name)


def fill(options):
    pool = Pool(options.reference.split(","))
    shares = counts(options.queues, options.messages)
    work = lambda i: fill_queue(pool.service(), i, shares[i])
    records = pool.run(work, range(options.queues))
    records += [dead for record in records for dead in record["dead"]]
    with open(options.ledger, "w", encoding="utf-8") as file:
        json.dump(records, file)
    claims = sum(len(record["claims"]) for record in records)
    messages = sum(len(record["ids"]) for record in records)
    print(f"filled: {messages} messages in {len(records)} queues, {claims} claims")


def text_id(message):
    return urllib.parse.urlsplit(message["href"]).path.rsplit("/", 1)[1]


def all_of(service, record, query, limit=400):
    """A listing to its end."""
    path = f"/queues/{record['queue']}/messages?limit={limit}&{query}"
    found = []
    while path:
        page = service("GET", path, project=record["project"])
        if not page or not page["messages"]:
            return found
        found += page["messages"]
        path = page["links"][0]["href"].removeprefix("/v2")
    return found


class Differences:
    def __init__(self, record):
        self.record, self.found = record, []

    def check(self, what, ours, theirs):
        if ours != theirs:
            where = f"{self.record['project']}/{self.record['queue']}"
            self.found.append(f"{where}: {what}: {str(ours)[:300]} instead of {str(theirs)[:300]}")

    def near(self, what, ours, theirs):
        if not theirs - 2 <= ours <= theirs + LATE:
            self.check(what, ours, theirs)


def compare_messages(reference, service, record, differ):
    """Every message by its id, and all of them in their order. Returns how many."""
    path, project, ids = f"/queues/{record['queue']}/messages", record["project"], record["ids"]
    theirs = {}
    for at in range(0, len(ids), 500):
        found = reference("GET", f"{path}?ids={','.join(ids[at:at + 500])}", project=project)
        theirs.update((text_id(message), message) for message in found["messages"])
    differ.check("messages of the reference", sorted(theirs), sorted(ids))
    everything = "include_claimed=true&include_delayed=true&echo=true"
    ours = all_of(service, record, everything)
    differ.check("messages in order", [text_id(message) for message in ours], ids)
    is_encrypted = (record["metadata"] or {}).get("_enable_encrypt_messages")
    for message in ours:
        name = text_id(message)
        other = theirs.get(name)
        if other is None:
            continue
        differ.check(f"body of {name}", message["body"], other["body"])
        differ.check(f"href of {name}", message["href"], other["href"])
        differ.check(f"ttl of {name}", message["ttl"], other["ttl"])
        differ.near(f"age of {name}", message["age"], other["age"])
        if is_encrypted:
            # The reference's is that of the ciphertext.
            text = json.dumps(message["body"]).encode()
            differ.check(f"checksum of {name}", message["checksum"], "MD5:" + hashlib.md5(text).hexdigest())
        else:
            differ.check(f"checksum of {name}", message["checksum"], other["checksum"])
    if record["i"] % 3:
        return len(ours)
    # What is claimed, delayed, or from oneself. The reference cuts its pages before it looks, so it is given one.
    query = ("echo=true", "echo=false", "echo=true&include_delayed=true")[record["i"] // 10 % 3]
    free = [text_id(message) for message in all_of(reference, record, query, 5000)]
    same = [text_id(message) for message in all_of(service, record, query)]
    differ.check(f"listing with {query}", same, free)
    return len(ours)


def compare_queue(reference, service, record):
    differ = Differences(record)
    path, project = "/queues/" + record["queue"], record["project"]
    if record["metadata"] is None:
        # The reference keeps dead letters out of reach until somebody makes their queue.
        reference("PUT", path, {}, project)
    else:
        differ.check("metadata", service("GET", path, project=project), reference("GET", path, project=project))
    messages = compare_messages(reference, service, record, differ)
    ours, theirs = (api("GET", path + "/stats", project=project)["messages"] for api in (service, reference))
    for key in ("free", "claimed", "total"):
        # The reference counts a claim's messages by a number that goes wrong with dead letters.
        if not record["dead"] and record["metadata"] is not None:
            differ.check(key, ours[key], theirs[key])
    for name in record["claims"]:
        ours, theirs = (api("GET", f"{path}/claims/{name}", project=project) for api in (service, reference))
        differ.check(f"ttl of claim {name}", ours["ttl"], theirs["ttl"])
        differ.near(f"age of claim {name}", ours["age"], theirs["age"])
        named = [sorted(text_id(message) for message in claim["messages"]) for claim in (ours, theirs)]
        differ.check(f"messages of claim {name}", *named)
    return messages, differ.found


def compare(options):
    with open(options.ledger, encoding="utf-8") as file:
        records = json.load(file)
    references, services = Pool(options.reference.split(",")), Pool([options.service])
    compared = references.run(
        lambda record: compare_queue(references.service(), services.service(), record), records
    )
    differences = [line for _, lines in compared for line in lines]
    listed = {}
    for project in sorted({record["project"] for record in records}):
        listed[project] = names_of(Service(options.service), project)
    for record in records:
        if record["queue"] not in listed[record["project"]]:
            differences.append(f"{record['project']}/{record['queue']} is not listed")
    queues = sum(len(names) for names in listed.values())
    if queues != len(records):
        differences.append(f"{queues} queues are listed, there are {len(records)}")
    for line in differences[:40]:
        print(line)
    messages = sum(count for count, _ in compared)
    print(f"compared: {messages} messages in {len(records)} queues, {len(differences)} differences")
    sys.exit(1 if differences else 0)


def names_of(service, project):
    path, names = "/queues?limit=20", []
    while path:
        page = service("GET", path, project=project)
        if not page or not page["queues"]:
            return names
        names += [queue["name"] for queue in page["queues"]]
        path = page["links"][0]["href"].removeprefix("/v2")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["fill", "compare"])
    parser.add_argument("--reference", required=True)
    parser.add_argument("--service")
    parser.add_argument("--ledger", required=True)
    parser.add_argument("--queues", type=int, default=500)
    parser.add_argument("--messages", type=int, default=100_000)
    options = parser.parse_args()
    fill(options) if options.what == "fill" else compare(options)


if __name__ == "__main__":
    main()
