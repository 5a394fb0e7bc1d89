"""Messages: posted, listed, read, deleted and popped."""

import itertools
import json
import uuid

from zaqarclient.queues.v2 import core

from journey import BODIES, exact, recent
from zaqarclient_support import (
    LIMIT_OF_MESSAGES,
    bodies,
    bodies_of,
    check,
    check_refused,
    connect,
    create,
    everything,
    expected,
    ids,
    ids_of_queues,
    is_id,
    journey,
    low,
    post,
    shown,
)

MESSAGE_TTL = (
    400,
    "Invalid API request",
    "The TTL for a message may not exceed 1209600 seconds, and must be at least"
    " 60 seconds long.",
)


@journey.part
def posting(url, project):
    zaqar = connect(url, project)
    queue = zaqar.queue("orders")
    answer = queue.post({"body": {"event": "one"}, "ttl": 300})
    one = answer["resources"][0].rsplit("/", 1)[1]
    check("one message", answer, {"resources": [f"/v2/queues/orders/messages/{one}"]})
    check("by its id", shown(queue.message(one)), expected(queue, one, {"event": "one"}, 300))

    two, three = post(queue, "two", "three")
    check(
        "several keep their order",
        bodies(queue.messages(echo=True)),
        [{"event": "one"}, "two", "three"],
    )
    check("ids differ", len({one, two, three}), 3)
    answer = queue.post([{"body": "four"}])
    four = answer["resources"][0].rsplit("/", 1)[1]
    check("the ttl of the service", shown(queue.message(four)), expected(queue, four, "four", 3600))
    short = create(zaqar, "short", _default_message_ttl=61)
    answer = short.post({"body": None})
    five = answer["resources"][0].rsplit("/", 1)[1]
    check(
        "the ttl of the queue, a null body",
        shown(short.message(five)),
        expected(short, five, None, 61),
    )
    answer = short.post({"body": 0, "ttl": 62, "delay": 5, "priority": 1})
    six = answer["resources"][0].rsplit("/", 1)[1]
    check(
        "its own ttl wins, other fields are dropped",
        shown(short.message(six)),
        expected(short, six, 0, 62),
    )

    wide = zaqar.queue("wide")
    posted = post(wide, *BODIES)
    texts = [exact(body) for body in BODIES]
    check("bodies by id", [exact(wide.message(known).body) for known in posted], texts)
    seen = wide.messages(echo=True).stream()
    check("bodies by listing", [exact(found.body) for found in seen], texts)
    claimed = []
    while len(claimed) < len(BODIES):
        batch = bodies(wide.claim(ttl=60, grace=60, limit=20))
        if not batch:
            break
        claimed += batch
    check("bodies by claim", [exact(body) for body in claimed], texts)
    wide.purge()
    post(wide, *BODIES)
    popped = bodies(wide.pop(20)) + bodies(wide.pop(20))
    check("bodies by pop", [exact(body) for body in popped], texts)

    many = zaqar.queue("many")
    known = post(many, *range(100))
    check("a hundred at once", ids(many.messages(echo=True, limit=20).stream()), known)

    empty = len(json.dumps({"messages": [{"body": "", "ttl": 600}]}))
    large = zaqar.queue("large")
    (whole,) = post(large, "x" * (262144 - empty))
    check("a request of the largest size", len(large.message(whole).body), 262144 - empty)
    check_refused(
        "one byte more",
        (400, "Invalid API request", "Message collection size is too large. Max size 262144"),
        post,
        large,
        "x" * (262145 - empty),
    )
    small = create(zaqar, "small", _max_messages_post_size=empty + 1)
    post(small, "x")
    check_refused(
        "more than the queue takes",
        (
            400,
            "Invalid API request",
            "Message collection size is too large. The max size for current queue is"
            f" {empty + 1}. It is calculated by max size ="
            " min(max_messages_post_size_config: 262144, max_messages_post_size_queue:"
            f" {empty + 1}).",
        ),
        post,
        small,
        "xx",
    )

    refused = zaqar.queue("refused")
    for name, messages, title, description in (
        ("no messages", [], "Invalid API request", "No messages to enqueu."),
        ("no body", {"ttl": 60}, "Invalid request body", 'Missing "body" field.'),
        (
            "a ttl in words",
            {"body": 1, "ttl": "60"},
            "Invalid request body",
            'The value of the "ttl" field must be a int.',
        ),
        (
            "a null ttl",
            {"body": 1, "ttl": None},
            "Invalid request body",
            'The value of the "ttl" field must be a int.',
        ),
        (
            "a huge number",
            {"body": 9223372036854775808},
            "Invalid request body",
            "JSON contains integer that is too large.",
        ),
        (
            "half a character",
            {"body": "\ud800"},
            "Invalid request body",
            "Request body could not be parsed.",
        ),
        (
            "not a number",
            {"body": float("nan")},
            "Invalid request body",
            "Request body could not be parsed.",
        ),
    ):
        check_refused(name, (400, title, description), refused.post, messages)
    for ttl in (59, 1209601, -60):
        check_refused(f"a ttl of {ttl}", MESSAGE_TTL, post, refused, 1, ttl=ttl)
    check_refused(
        "one bad message refuses all",
        MESSAGE_TTL,
        refused.post,
        [{"body": 1, "ttl": 60}, {"body": 2, "ttl": 1}],
    )
    check("a refused post stores nothing", list(refused.messages(echo=True)), [])
    check("nor creates the queue", "refused" in ids_of_queues(zaqar), False)


@journey.part
def listing_messages(url, project):
    producer = connect(url, project)
    observer = connect(url, project).queue("orders")
    queue = producer.queue("orders")
    check("a missing queue", list(observer.messages()), [])
    check("its document", low(producer, core.message_list, "orders"), {"messages": [], "links": []})
    known = post(queue, *range(25))

    check("a page is ten, oldest first", bodies(observer.messages()), list(range(10)))
    check("a page of twenty", bodies(observer.messages(limit=20)), list(range(20)))
    for limit in (1, 7, 20):
        check(f"all by pages of {limit}", everything(observer, limit=limit), list(range(25)))
    check("all by the default page", everything(observer), list(range(25)))
    check(
        "whole messages",
        [shown(found) for found in observer.messages(limit=2)],
        [expected(queue, known[0], 0), expected(queue, known[1], 1)],
    )
    check("one's own are not shown", list(queue.messages()), [])
    check("one's own, asked for", everything(queue, echo=True), list(range(25)))
    same = connect(url, project, client_uuid=str(uuid.UUID(producer.client_uuid)))
    check("a client id spelt with hyphens is the same", list(same.queue("orders").messages()), [])

    page = low(producer, core.message_list, "orders", limit=3, echo=True)
    path, marker = page["links"][0]["href"].split("marker=")
    check(
        "the link of a page",
        (path, [link["rel"] for link in page["links"]], list(page)),
        (
            "/v2/queues/orders/messages?limit=3&echo=true&include_delayed=true&",
            ["next"],
            ["messages", "links"],
        ),
    )
    following = low(producer, core.message_list, "orders", limit=3, echo=True, marker=marker)
    check("after its marker", bodies_of(following), [3, 4, 5])
    check(
        "a marker comes first in the next link",
        following["links"][0]["href"].split("&", 1)[1],
        "limit=3&echo=true&include_delayed=true",
    )
    check(
        "a message id is a marker", bodies(observer.messages(marker=known[7], limit=3)), [8, 9, 10]
    )
    check("also of the first message", bodies(observer.messages(marker=known[0], limit=2)), [1, 2])

    claimed = queue.claim(ttl=60, grace=60, limit=3)
    check("claimed messages are left out", bodies(observer.messages(limit=2)), [3, 4])
    check(
        "claimed messages, asked for",
        lambda: [shown(found) for found in observer.messages(include_claimed=True, limit=4)],
        [expected(queue, known[body], body, claim_id=claimed.id) for body in range(3)]
        + [expected(queue, known[3], 3)],
    )
    check("and fill no page", bodies(observer.messages()), list(range(3, 13)))
    check(
        "all, claimed too",
        lambda: everything(observer, include_claimed=True, limit=4),
        list(range(25)),
    )
    claimed.delete()

    tail = low(producer, core.message_list, "orders", echo=True, marker=known[23])
    check("the last page", bodies_of(tail), [24])
    link = tail["links"][0]["href"]
    check("its link gives an empty page", producer.follow(link), {"messages": [], "links": []})
    post(queue, "late")
    check("and new messages later", bodies_of(producer.follow(link)), ["late"])

    mixed = producer.queue("mixed")
    post(mixed, *range(15))
    post(observer.client.queue("mixed"), "theirs", "too")
    check("one's own in front fill no page", bodies(mixed.messages()), ["theirs", "too"])

    gone = producer.queue("gone")
    known = post(gone, *range(25))
    visited = []
    for found in itertools.islice(gone.messages(echo=True, limit=5).stream(), 60):
        visited.append(found.body)
        found.delete()
    check("deleting while paging visits each once", visited, list(range(25)))
    check("and leaves none", list(gone.messages(echo=True)), [])
    known = post(gone, *range(25))
    visited = []
    for found in itertools.islice(gone.messages(echo=True, limit=5).stream(), 60):
        visited.append(found.body)
        if found.body % 2 == 0:
            found.delete()
    check("deleting every other one too", visited, list(range(25)))
    check("and leaves the others", everything(gone, echo=True), list(range(1, 25, 2)))
    check("a deleted message is a marker", bodies(gone.messages(echo=True, marker=known[22])), [23])

    for limit in (0, -1, 21):
        check_refused(f"a limit of {limit}", LIMIT_OF_MESSAGES, queue.messages, limit=limit)
    check_refused(
        "a flag that is none",
        (
            400,
            "Invalid parameter",
            'The "echo" parameter is invalid. The value of the parameter must be'
            ' "true" or "false".',
        ),
        queue.messages,
        echo="TRUE",
    )


@journey.part
def delayed_messages(url, project):
    zaqar = connect(url, project)
    queue = create(zaqar, "orders", _default_message_delay=600)
    answer = queue.post([{"body": "later", "ttl": 900}, {"body": "now", "ttl": 900, "delay": 0}])
    later = answer["resources"][0].rsplit("/", 1)[1]
    check("a delayed message is left out", bodies(queue.messages(echo=True)), ["now"])
    check(
        "a delayed message, asked for",
        bodies(queue.messages(echo=True, include_delayed=True)),
        ["later", "now"],
    )
    check("it can be read", shown(queue.message(later)), expected(queue, later, "later", 900))
    check("it is not claimed", bodies(queue.claim(ttl=60, grace=60)), ["now"])
    check("it is not popped", list(queue.pop(5)), [])
    check_refused(
        "a delay out of bounds",
        (
            400,
            "Invalid API request",
            "The Delay TTL for a message may not exceed 900 seconds,and must be at"
            " least 0 seconds long.",
        ),
        queue.post,
        {"body": 1, "ttl": 60, "delay": 901},
    )


@journey.part
def messages_by_id(url, project):
    zaqar = connect(url, project)
    queue = zaqar.queue("orders")
    known = post(queue, *range(21))
    check(
        "in the order asked",
        [shown(found) for found in queue.messages(known[4], known[1], known[2])],
        [expected(queue, known[body], body) for body in (4, 1, 2)],
    )
    check("one", bodies(queue.messages(known[3])), [3])
    check("twenty", ids(queue.messages(*known[:20])), known[:20])
    nobody = str(uuid.uuid4())
    check("unknown ones are skipped", bodies(queue.messages(nobody, known[0], "x")), [0])
    check(
        "the document has no links",
        list(low(zaqar, core.message_get_many, "orders", (known[0],))),
        ["messages"],
    )
    claimed = queue.claim(ttl=60, grace=60, limit=1)
    check(
        "claimed ones are shown",
        [shown(found) for found in queue.messages(known[0])],
        [expected(queue, known[0], 0, claim_id=claimed.id)],
    )
    check(
        "also one alone",
        shown(queue.message(known[0])),
        expected(queue, known[0], 0, claim_id=claimed.id),
    )
    check_refused(
        "none found",
        (
            404,
            "Not found",
            f"No messages with IDs: ['{nobody}', 'x'] found in the queue orders for"
            f" project {project}.",
        ),
        queue.messages,
        nobody,
        "x",
    )
    check_refused("twenty-one", LIMIT_OF_MESSAGES, queue.messages, *known)
    check_refused(
        "an unknown id",
        (
            404,
            "Not found",
            f"Message {nobody} does not exist in queue orders for project {project}",
        ),
        queue.message,
        nobody,
    )
    check_refused(
        "a missing queue",
        (404, "Not found", f"Queue nope does not exist for project {project}"),
        zaqar.queue("nope").message,
        known[0],
    )


@journey.part
def deleting_messages(url, project):
    zaqar = connect(url, project)
    queue = zaqar.queue("orders")
    known = post(queue, *range(30))
    queue.message(known[0]).delete()
    check_refused(
        "a deleted message is gone",
        (
            404,
            "Not found",
            f"Message {known[0]} does not exist in queue orders for project {project}",
        ),
        queue.message,
        known[0],
    )
    check("deleting it again", low(zaqar, core.message_delete, "orders", known[0]), None)
    check("deleting what never was", low(zaqar, core.message_delete, "orders", "x"), None)
    check("in no queue", low(zaqar, core.message_delete, "nope", known[1]), None)
    queue.delete_messages(known[1])
    queue.delete_messages(known[2], known[3], str(uuid.uuid4()))
    check("several by id", everything(queue, echo=True), list(range(4, 30)))
    queue.delete_messages(*known[4:24])
    check("twenty by id", everything(queue, echo=True), list(range(24, 30)))

    claimed = queue.claim(ttl=60, grace=60, limit=4)
    refused = (
        403,
        "Unable to delete",
        "This message is claimed; it cannot be deleted without a valid claim ID.",
    )
    unknown = (400, "Unable to delete", "The specified claim does not exist or has expired.")
    check_refused(
        "a claimed message without its claim",
        refused,
        low,
        zaqar,
        core.message_delete,
        "orders",
        known[24],
    )
    other = queue.claim(ttl=60, grace=60, limit=1)
    check_refused(
        "with another claim",
        refused,
        low,
        zaqar,
        core.message_delete,
        "orders",
        known[24],
        other.id,
    )
    check_refused(
        "with an unknown claim",
        unknown,
        low,
        zaqar,
        core.message_delete,
        "orders",
        known[24],
        str(uuid.uuid4()),
    )
    check_refused(
        "a free message with a claim",
        (
            400,
            "Unable to delete",
            "A claim was specified, but the message is not currently claimed.",
        ),
        low,
        zaqar,
        core.message_delete,
        "orders",
        known[29],
        claimed.id,
    )
    for found in claimed:
        if found.body < 26:
            found.delete()
    check(
        "with its claim",
        lambda: everything(queue, echo=True, include_claimed=True),
        [26, 27, 28, 29],
    )
    check("it has left the claim", bodies(queue.claim(id=claimed.id)), [26, 27])
    queue.delete_messages(known[26], known[29])
    check(
        "by ids, claimed ones too",
        lambda: everything(queue, echo=True, include_claimed=True),
        [27, 28],
    )
    check_refused(
        "no ids",
        (
            400,
            "Invalid API request",
            'The request should have either "ids" or "pop" parameter in the request,'
            " to be able to delete.",
        ),
        queue.delete_messages,
    )
    check_refused(
        "twenty-one ids",
        (
            400,
            "Invalid API request",
            "ids parameter should have at least 1 and not greater than 20 values.",
        ),
        queue.delete_messages,
        *known[:21],
    )


@journey.part
def popping(url, project):
    zaqar = connect(url, project)
    queue = zaqar.queue("orders")
    check("a missing queue", list(queue.pop()), [])
    known = post(queue, *range(30))
    (first,) = queue.pop()
    check(
        "one, the oldest",
        (first.id, first.href, first.ttl, recent(first.age), first.body)
        + (first.claim_count, first.checksum),
        (known[0], None, 600, "recent", 0, 0, None),
    )
    document = low(zaqar, core.message_pop, "orders", 1)
    entry = document["messages"][0]
    check(
        "its document",
        (
            list(document),
            {**entry, "age": recent(entry["age"]), "claim_id": is_id(entry["claim_id"])},
        ),
        (
            ["messages"],
            {
                "id": known[1],
                "age": "recent",
                "ttl": 600,
                "body": 1,
                "claim_id": True,
                "claim_count": 0,
            },
        ),
    )
    check("several, in order", bodies(queue.pop(3)), [2, 3, 4])
    claimed = queue.claim(ttl=60, grace=60, limit=2)
    check("claimed ones stay", bodies(queue.pop(20)), list(range(7, 27)))
    check("what there is", bodies(queue.pop(20)), [27, 28, 29])
    check("nothing left", list(queue.pop(20)), [])
    check("but the claimed", lambda: everything(queue, echo=True, include_claimed=True), [5, 6])
    claimed.delete()
    check("which are free later", bodies(queue.pop(20)), [5, 6])
    for count in (0, -1, 21):
        check_refused(
            f"popping {count}",
            (
                400,
                "Invalid API request",
                "Pop value must be at least 1 and may not be greater than 20.",
            ),
            queue.pop,
            count,
        )
