"""Queues: from the service's own documents to a purge."""

import itertools

from zaqarclient import errors as client_errors
from zaqarclient.queues.v2 import core
from zaqarclient.transport import errors

from journey import RESERVED
from zaqarclient_support import (
    bodies,
    check,
    check_error,
    check_refused,
    connect,
    counted,
    create,
    empty_stats,
    ids_of_queues,
    journey,
    low,
    post,
    said,
)

LIMIT_OF_QUEUES = (400, "Invalid API request", "Limit must be at least 1 and no greater than 20.")
BAD_NAME = (
    400,
    "Invalid queue identification",
    "The format of the submitted queue name or project id is not valid.",
)


@journey.part
def service(url, project):
    zaqar = connect(url, project)
    check("ping answers", zaqar.ping(), True)
    check("ping needs a valid client id", connect(url, project, client_uuid="nobody").ping(), False)
    check_refused(
        "a bad client id is named",
        (400, "Wrong UUID value", "Malformed hexadecimal UUID."),
        connect(url, project, client_uuid="nobody").queues,
    )
    check("the transport is HTTP", type(zaqar.transport()).__name__, "HttpTransport")
    check("a reference can be followed", zaqar.follow("/v2/queues"), {"queues": [], "links": []})
    resources = zaqar.homedoc()["resources"]
    relations = {
        name: (entry.get("href-template"), sorted(entry["hints"]["allow"]))
        for name, entry in resources.items()
    }
    base = "/v2/queues/{queue_name}"
    for name, template, allow in (
        ("rel/queues", "/v2/queues{?marker,limit,detailed}", ["GET"]),
        ("rel/queue", base, ["DELETE", "GET", "PATCH", "PUT"]),
        ("rel/queue_stats", f"{base}/stats", ["GET"]),
        ("rel/queue_share", f"{base}/share", ["POST"]),
        ("rel/queue_purge", f"{base}/purge", ["POST"]),
        ("rel/messages", f"{base}/messages{{?marker,limit,echo,include_claimed}}", ["GET"]),
        ("rel/post_messages", f"{base}/messages", ["POST"]),
        ("rel/messages_delete", f"{base}/messages{{?ids,pop}}", ["DELETE"]),
        ("rel/message_delete", f"{base}/messages/{{message_id}}{{?claim}}", ["DELETE"]),
        ("rel/message_get", f"{base}/messages/{{message_id}}", ["GET"]),
        ("rel/claim", f"{base}/claims/{{claim_id}}", ["GET"]),
        ("rel/post_claim", f"{base}/claims{{?limit}}", ["POST"]),
        ("rel/patch_claim", f"{base}/claims/{{claim_id}}", ["PATCH"]),
        ("rel/delete_claim", f"{base}/claims/{{claim_id}}", ["DELETE"]),
        ("rel/subscriptions_get", f"{base}/subscriptions{{?marker,limit}}", ["GET"]),
        ("rel/subscriptions_post", f"{base}/subscriptions", ["POST"]),
        ("rel/subscription", f"{base}/subscriptions/{{subscriptions_id}}", ["DELETE", "GET"]),
        ("rel/subscription_patch", f"{base}/subscriptions/{{subscriptions_id}}", ["PATCH"]),
        ("rel/ping", "/v2/ping", ["GET"]),
    ):
        check(f"home document has {name}", relations.get(name), (template, allow))


@journey.part
def queue_lifecycle(url, project):
    zaqar = connect(url, project)
    queue = zaqar.queue("orders")
    check("a queue object sends nothing", ids_of_queues(zaqar), [])
    check("its name", queue.name, "orders")
    check("it has no reference yet", queue.href, None)
    check("a missing queue shows the defaults", queue.metadata(), RESERVED)
    check("a missing queue has empty stats", queue.stats, empty_stats())
    # The client asks by HEAD, is refused with 405, and takes it for a yes.
    check("exists says yes, as HEAD is not served", queue.exists(), True)

    queue.ensure_exists()
    check("ensure_exists alone sends nothing", ids_of_queues(zaqar), [])
    queue.ensure_exists(force_create=True)
    check("ensure_exists with force creates", ids_of_queues(zaqar), ["orders"])
    zaqar.queue("orders", force_create=True)
    check("creating again changes nothing", ids_of_queues(zaqar), ["orders"])
    check("an existing queue exists", queue.exists(), True)
    zaqar.queue("late", auto_create=False, force_create=True)
    check("force wins over no auto_create", ids_of_queues(zaqar), ["late", "orders"])

    queue.delete()
    check("delete removes the queue", ids_of_queues(zaqar), ["late"])
    queue.delete()
    check("deleting again is no error", ids_of_queues(zaqar), ["late"])

    longest = "q" * 64
    zaqar.queue(longest, force_create=True)
    check("a name of 64 characters", ids_of_queues(zaqar), ["late", longest])
    check_refused(
        "a name of 65 characters", BAD_NAME, zaqar.queue, longest + "q", force_create=True
    )
    check_refused("a name with a space", BAD_NAME, low, zaqar, core.queue_create, "two words")

    post(queue, "first", "second")
    check("posting creates a queue", ids_of_queues(zaqar), ["late", "orders", longest])
    queue.delete()
    check("a deleted queue has no messages", list(queue.messages(echo=True)), [])
    post(queue, "third")
    check("nor after it came back", bodies(queue.messages(echo=True)), ["third"])


@journey.part
def metadata(url, project):
    zaqar = connect(url, project)
    first = {"team": "billing", "_default_message_ttl": 1800}
    queue = create(zaqar, "orders", **first)
    check("metadata given at creation", queue.metadata(), {**RESERVED, **first})
    low(zaqar, core.queue_create, "orders", metadata={"team": "other"})
    check("creating again keeps it", queue.metadata(force_reload=True), {**RESERVED, **first})
    check("as a dict", queue.metadata_dict, {**RESERVED, **first})
    check("from the lower layer", low(zaqar, core.queue_get, "orders"), {**RESERVED, **first})

    second = {"team": "infra", "rank": 1, "tags": ["a", {"b": None}]}
    check("setting answers with the whole", queue.metadata(second), {**RESERVED, **second})
    check("kept by the object", queue.metadata(), {**RESERVED, **second})
    check("kept by the server", queue.metadata(force_reload=True), {**RESERVED, **second})
    third = {"team": "infra", "rank": 2, "_default_message_ttl": 60}
    queue.metadata(third)
    check(
        "one key changed, one added, one left out",
        queue.metadata(force_reload=True),
        {**RESERVED, **third},
    )
    unicode = {"\u043a\u043b\u044e\u0447": "\u5024 \U0001f600", "a b": "", "\u00e9": []}
    queue.metadata(unicode)
    check(
        "keys and values beyond ASCII", queue.metadata(force_reload=True), {**RESERVED, **unicode}
    )
    # The client adds a key that is shown as null, then removes it again.
    queue.metadata({"_dead_letter_queue": "dead", "_max_claim_count": 3})
    check("operations apply in order", queue.metadata(force_reload=True), dict(RESERVED))
    queue.metadata({"a": 1, "b": 2})
    check("an empty object clears all", queue.metadata({}), RESERVED)
    check("and stays cleared", queue.metadata(force_reload=True), RESERVED)

    changes = [
        {"op": "add", "path": "/metadata/_max_claim_count", "value": 5},
        {"op": "add", "path": "/metadata/a~1b~0c", "value": 1},
        {"op": "replace", "path": "/metadata/a~1b~0c", "value": 2},
    ]
    check(
        "operations from the lower layer",
        low(zaqar, core.queue_update, "orders", changes),
        {**RESERVED, "_max_claim_count": 5, "a/b~c": 2},
    )
    # The library does not escape a key itself.
    low(zaqar, core.queue_update, "orders", [{"op": "remove", "path": "/metadata/a~1b~0c"}])
    before = queue.metadata(force_reload=True)
    check("an operation removes a key", before, {**RESERVED, "_max_claim_count": 5})
    check_refused(
        "replacing a missing key",
        (409, "Resource conflict", "Can't replace non-existent object nope."),
        low,
        zaqar,
        core.queue_update,
        "orders",
        [{"op": "replace", "path": "/metadata/nope", "value": 1}],
    )
    check_refused(
        "removing a missing key",
        (409, "Resource conflict", "Can't remove non-existent object nope."),
        low,
        zaqar,
        core.queue_update,
        "orders",
        [
            {"op": "add", "path": "/metadata/half", "value": "done"},
            {"op": "remove", "path": "/metadata/nope"},
        ],
    )
    check_refused(
        "a value out of bounds",
        (
            400,
            "Invalid request body",
            "_default_message_ttl can not exceed 1209600 seconds, and must be at"
            " least 60 seconds long.",
        ),
        queue.metadata,
        {"_default_message_ttl": 59},
    )
    check("a refused change changes nothing", queue.metadata(force_reload=True), before)
    check_refused(
        "metadata of a missing queue",
        (404, "Not found", f"Queue nope does not exist for project {project}"),
        zaqar.queue("nope").metadata,
        {"a": 1},
    )
    check_refused(
        "a bad value at creation",
        (400, "Invalid API request", "_max_claim_count must be integer."),
        low,
        zaqar,
        core.queue_create,
        "bad",
        metadata={"_max_claim_count": "2"},
    )
    check("a refused queue is not created", ids_of_queues(zaqar), ["orders"])
    for name, function, args in (
        ("queue_get_metadata", core.queue_get_metadata, ()),
        ("queue_set_metadata", core.queue_set_metadata, ({"a": 1},)),
    ):
        check_error(
            f"{name} is no operation of v2",
            client_errors.InvalidOperation,
            f"{name} is not a valid operation",
            low,
            zaqar,
            function,
            "orders",
            *args,
        )


@journey.part
def listing_queues(url, project):
    zaqar = connect(url, project)
    check("an empty project", listed(zaqar), ([], None))
    # Without queues there is no count in the answer.
    check("its count", listed(zaqar, with_count=True), ([], None))
    names = [f"q{number:02}" for number in range(25)]
    for name in reversed(names):
        if name in ("q03", "q14"):
            create(zaqar, name, team="billing", rank=7)
        else:
            zaqar.queue(name, force_create=True)
    connect(url, project + "-other").queue("q99", force_create=True)

    check("a page is ten, by name", listed(zaqar), (names[:10], None))
    check("a page of twenty", listed(zaqar, limit=20), (names[:20], None))
    check("after a marker", listed(zaqar, marker="q09", limit=3), (names[10:13], None))
    check("after the first queue", listed(zaqar, marker="q00", limit=2), (names[1:3], None))
    check("after a name that is not there", listed(zaqar, marker="q095"), (names[10:20], None))
    check("after the last", listed(zaqar, marker="q24"), ([], None))
    check("counted", listed(zaqar, with_count=True, limit=1), (names[:1], 25))
    check("not counted", listed(zaqar, with_count=False, limit=1), (names[:1], None))
    for limit in (1, 4, 20):
        check(f"all by pages of {limit}", streamed_names(zaqar, limit=limit), names)
    check("all by the default page", streamed_names(zaqar), names)
    check("by a part of the name", listed(zaqar, name="2"), ([n for n in names if "2" in n], None))
    check(
        "by a part of the name, in pages", streamed_names(zaqar, name="q1", limit=3), names[10:20]
    )
    check("by a name that is not there", listed(zaqar, name="{none} &"), ([], None))
    check("by metadata", listed(zaqar, team="billing"), (["q03", "q14"], None))
    check("by a number in metadata", listed(zaqar, rank=7), (["q03", "q14"], None))
    check("by other metadata", listed(zaqar, team="other"), ([], None))

    found, _ = zaqar.queues(detailed=True, limit=4)
    check(
        "detailed",
        [(queue.name, queue.href, queue.metadata()) for queue in found],
        [
            ("q00", "/v2/queues/q00", RESERVED),
            ("q01", "/v2/queues/q01", RESERVED),
            ("q02", "/v2/queues/q02", RESERVED),
            ("q03", "/v2/queues/q03", {**RESERVED, "team": "billing", "rank": 7}),
        ],
    )
    check(
        "the document of a page",
        low(zaqar, core.queue_list, limit=2, detailed=False, with_count=True),
        {
            "queues": [
                {"name": "q00", "href": "/v2/queues/q00"},
                {"name": "q01", "href": "/v2/queues/q01"},
            ],
            "links": [
                {
                    "rel": "next",
                    "href": "/v2/queues?limit=2&detailed=false&with_count=true&marker=q01",
                }
            ],
            "count": 25,
        },
    )
    for limit in (0, -1, 21):
        check_refused(f"a limit of {limit}", LIMIT_OF_QUEUES, zaqar.queues, limit=limit)
    check_refused(
        "a limit that is no number",
        (
            400,
            "Invalid parameter",
            'The "limit" parameter is invalid. The value must be an integer.',
        ),
        zaqar.queues,
        limit="ten",
    )
    check_refused(
        "a flag that is none",
        (
            400,
            "Invalid parameter",
            'The "detailed" parameter is invalid. The value of the parameter must'
            ' be "true" or "false".',
        ),
        zaqar.queues,
        detailed="perhaps",
    )


def listed(zaqar, **params):
    found, count = zaqar.queues(**params)
    return [queue.name for queue in found], count


def streamed_names(zaqar, **params):
    """All names that paging gives, cut where it must have gone in a circle."""
    found, _ = zaqar.queues(**params)
    return [queue.name for queue in itertools.islice(found.stream(), 60)]


@journey.part
def stats(url, project):
    zaqar = connect(url, project)
    queue = zaqar.queue("orders", force_create=True)
    check("an empty queue", queue.stats, empty_stats())
    known = post(queue, *range(5))
    check("all free", counted(queue.stats), tally(0, 5, queue, known[0], known[4]))
    held = queue.claim(ttl=60, grace=60, limit=2)
    check("two claimed", counted(queue.stats), tally(2, 3, queue, known[0], known[4]))
    next(iter(held)).delete()
    check("one of them deleted", counted(queue.stats), tally(1, 3, queue, known[1], known[4]))
    held.delete()
    check("the other released", counted(queue.stats), tally(0, 4, queue, known[1], known[4]))
    queue.delete_messages(*known)
    check("all deleted", queue.stats, empty_stats())


def tally(claimed, free, queue, oldest, newest):
    def end(message_id):
        return {
            "age": "recent",
            "created": "0000-00-00T00:00:00Z",
            "href": f"/v2/queues/{queue.name}/messages/{message_id}",
        }

    return {
        "messages": {
            "claimed": claimed,
            "free": free,
            "total": claimed + free,
            "oldest": end(oldest),
            "newest": end(newest),
        }
    }


@journey.part
def purging(url, project):
    zaqar = connect(url, project)
    check("a missing queue", zaqar.queue("nope").purge(), None)
    queue = create(zaqar, "orders", team="billing")
    post(queue, *range(12))
    queue.claim(ttl=60, grace=60, limit=3)
    queue.purge(resource_types=["subscriptions"])
    check("subscriptions alone", counted(queue.stats)["messages"]["total"], 12)
    queue.purge(resource_types=["messages"])
    check("messages, claimed ones too", queue.stats, empty_stats())
    check("nothing is listed", lambda: list(queue.messages(echo=True, include_claimed=True)), [])
    post(queue, *range(3))
    queue.purge(resource_types=["messages", "subscriptions"])
    check("both", queue.stats, empty_stats())
    post(queue, *range(3))
    queue.purge()
    check("everything", queue.stats, empty_stats())
    check("metadata stays", queue.metadata(), {**RESERVED, "team": "billing"})
    # The server may name the two in either order.
    words = "Resource types must be a sub set of {{'{}', '{}'}}."
    either = [
        said(400, "Invalid API request", words.format(*pair))
        for pair in (("messages", "subscriptions"), ("subscriptions", "messages"))
    ]
    try:
        answer = queue.purge(resource_types=["claims"])
    except errors.MalformedRequest as error:
        answer = str(error)
    check("what is no resource", answer if answer not in either else "refused", "refused")
