"""Claims: made, found, renewed, released, and what becomes of their messages."""

import os
import uuid

from zaqarclient.queues.v2 import core

from journey import recent
from zaqarclient_support import (
    LIMIT_OF_MESSAGES,
    bodies,
    bodies_of,
    check,
    check_refused,
    connect,
    create,
    expected,
    ids,
    ids_of_queues,
    is_id,
    journey,
    low,
    post,
    shown,
)

CLAIM_TTL = (
    400,
    "Invalid API request",
    "The TTL for a claim may not exceed 43200 seconds, and must be at least 60 seconds long.",
)
CLAIM_GRACE = (
    400,
    "Invalid API request",
    "The grace for a claim may not exceed 43200 seconds, and must be at least 60 seconds long.",
)


@journey.part
def claims(url, project):
    zaqar = connect(url, project)
    queue = zaqar.queue("orders")
    nothing = queue.claim(ttl=60, grace=60)
    check("a missing queue", (nothing.id, list(nothing)), (None, []))
    check("is not created", ids_of_queues(zaqar), [])
    known = post(queue, *range(30), ttl=60)

    mine = queue.claim(ttl=300, grace=100, limit=3)
    check("a claim has an id", is_id(mine.id), True)
    check(
        "its messages outlive it by the grace",
        [shown(found) for found in mine],
        [expected(queue, known[body], body, 400, mine.id) for body in range(3)],
    )
    check("its ttl", mine.ttl, 300)
    check("its age", recent(mine.age), "recent")
    document = low(zaqar, core.claim_get, "orders", mine.id)
    check(
        "its document",
        {**document, "age": recent(document["age"]), "messages": bodies_of(document)},
        {
            "age": "recent",
            "ttl": 300,
            "messages": [0, 1, 2],
            "href": f"/v2/queues/orders/claims/{mine.id}",
        },
    )
    again = queue.claim(id=mine.id)
    check(
        "found again by its id",
        [shown(found) for found in again],
        [expected(queue, known[body], body, 400, mine.id) for body in range(3)],
    )
    check("its ttl, found again", queue.claim(id=mine.id).ttl, 300)
    check(
        "as text", repr(queue.claim(id=mine.id)).rsplit(" ", 1)[0], f"<Claim id:{mine.id} ttl:300"
    )

    theirs = connect(url, project).queue("orders").claim(ttl=60, grace=60)
    check("ten by default, none of mine", bodies(theirs), list(range(3, 13)))
    third = queue.claim(ttl=60, grace=60, limit=20)
    check("as many as there are", bodies(third), list(range(13, 30)))
    check("nothing left", list(queue.claim(ttl=60, grace=60)), [])

    check("renewing answers nothing", mine.update(ttl=500, grace=60), None)
    check("the new ttl", queue.claim(id=mine.id).ttl, 500)
    check("kept by the object", mine.ttl, 500)
    check("extends the messages", [found.ttl for found in queue.claim(id=mine.id)], [560] * 3)
    mine.update(ttl=60)
    check(
        "a shorter renewal leaves the messages alone",
        (queue.claim(id=mine.id).ttl, queue.message(known[0]).ttl),
        (60, 560),
    )
    mine.update()
    check("renewing without a ttl", queue.claim(id=mine.id).ttl, 300)
    mine.update(grace=200)
    check("renewing by a grace alone", queue.claim(id=mine.id).ttl, 300)

    for found in queue.claim(id=mine.id):
        if found.body == 1:
            found.delete()
    check("a deleted message leaves it", bodies(queue.claim(id=mine.id)), [0, 2])
    theirs.delete()
    mine.delete()
    check(
        "released messages stand where they stood",
        bodies(queue.messages(echo=True, limit=20)),
        [0] + list(range(2, 13)),
    )
    last = queue.claim(ttl=60, grace=60, limit=4)
    # A broker that ends lives by itself gets a copy of what a claim lets live longer, and that stands at the end.
    copies = os.environ.get("JOURNEY_COPIES") == "1"
    first, then = ([3, 4, 5, 6], [0, 2]) if copies else ([0, 2, 3, 4], [5, 6])
    check("and are claimed again first", bodies(last), first)
    check("releasing again is no error", low(zaqar, core.claim_delete, "orders", mine.id), None)
    check("nor in no queue", low(zaqar, core.claim_delete, "nope", mine.id), None)
    for found in queue.claim(id=last.id):
        found.delete()
    last.delete()
    check(
        "deleted by their claim, they stay away", bodies(queue.messages(echo=True, limit=2)), then
    )

    nobody = str(uuid.uuid4())
    for name, place, claim_id in (
        ("a released claim", queue, mine.id),
        ("an unknown claim", queue, nobody),
        ("an odd claim id", queue, "x"),
        ("a claim of another queue", zaqar.queue("other", force_create=True), third.id),
    ):
        missing = (
            404,
            "Not found",
            f"Claim {claim_id} does not exist in queue {place.name} for project {project}",
        )
        check_refused(f"{name} is not found", missing, iter, place.claim(id=claim_id))
        check_refused(
            f"{name} cannot be renewed", missing, place.claim(id=claim_id).update, ttl=60, grace=60
        )
    check("all this left the third alone", bodies(queue.claim(id=third.id)), list(range(13, 30)))

    # Without a value the client sends null, which is no number.
    not_int = 'The value of the "{}" field must be a int.'
    for name, params, text in (
        ("no ttl", {"grace": 60}, (400, "Invalid request body", not_int.format("ttl"))),
        ("no grace", {"ttl": 60}, (400, "Invalid request body", not_int.format("grace"))),
        (
            "a ttl in words",
            {"ttl": "60", "grace": 60},
            (400, "Invalid request body", not_int.format("ttl")),
        ),
        ("a ttl too short", {"ttl": 59, "grace": 60}, CLAIM_TTL),
        ("a ttl too long", {"ttl": 43201, "grace": 60}, CLAIM_TTL),
        ("a grace too short", {"ttl": 60, "grace": 59}, CLAIM_GRACE),
        ("a grace too long", {"ttl": 60, "grace": 43201}, CLAIM_GRACE),
        ("a limit of 0", {"ttl": 60, "grace": 60, "limit": 0}, LIMIT_OF_MESSAGES),
        ("a limit of 21", {"ttl": 60, "grace": 60, "limit": 21}, LIMIT_OF_MESSAGES),
    ):
        check_refused(name, text, queue.claim, **params)
    check_refused(
        "a renewal too short", CLAIM_TTL, queue.claim(id=third.id).update, ttl=59, grace=60
    )
    check_refused(
        "a renewal with too long a grace",
        CLAIM_GRACE,
        queue.claim(id=third.id).update,
        ttl=60,
        grace=43201,
    )
    answer = low(zaqar, core.claim_create, "orders")
    rest = [*range(7, 13), 0, 2] if copies else list(range(5, 13))
    check("the lower layer's defaults", bodies_of(answer), rest)
    made = answer["messages"][0]["href"].split("=")[-1]
    check("a ttl of the service", low(zaqar, core.claim_get, "orders", made)["ttl"], 300)


@journey.part
def dead_letters(url, project):
    zaqar = connect(url, project)
    dead = zaqar.queue("dead", force_create=True)
    queue = create(
        zaqar,
        "orders",
        _max_claim_count=2,
        _dead_letter_queue="dead",
        _dead_letter_queue_messages_ttl=7200,
    )
    known = post(queue, "poison", "pill")
    for turn in ("first", "second"):
        held = queue.claim(ttl=60, grace=60)
        check(f"the {turn} claim delivers", ids(held), known)
        held.delete()
    check("the third does not", list(queue.claim(ttl=60, grace=60)), [])
    check("the queue is empty", lambda: list(queue.messages(echo=True, include_claimed=True)), [])
    check(
        "its messages are in the dead letter queue",
        [shown(found) for found in dead.messages(echo=True)],
        [expected(dead, known[0], "poison", 7200), expected(dead, known[1], "pill", 7200)],
    )
    check("free to be claimed", ids(dead.claim(ttl=60, grace=60)), known)
