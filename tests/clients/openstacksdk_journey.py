"""Takes openstacksdk's message proxy through a running server.

Every call of the proxy, for queues, messages, claims and subscriptions, without
Keystone: the library finds the API by the server's versions document.
"""

import itertools
import uuid

import openstack
from keystoneauth1 import noauth
from openstack import exceptions
from openstack.message.v2 import _proxy
from openstack.message.v2.claim import Claim
from openstack.message.v2.message import Message

from journey import BODIES, Journey, exact, in_posts, main, recent, watch
from receiver import Receiver

journey = Journey("openstacksdk")
check = journey.check

called = set()
offered = watch(_proxy.Proxy, called)

# What a queue without settings answers, as far as the library looks.
DEFAULTS = {"default_message_ttl": 3600, "max_messages_post_size": 262144, "description": None}


class OfProject(noauth.NoAuth):
    """No authentication, in a project: the library takes `X-PROJECT-ID` from
    its plugin, and the one for no authentication knows none."""

    def __init__(self, endpoint, project):
        super().__init__(endpoint)
        self.project = project

    def get_project_id(self, session, **kwargs):
        return self.project


def connect(url, project):
    connection = openstack.connect(
        load_yaml_config=False, load_envvars=False, auth_type="none", auth={"endpoint": url}
    )
    connection.session.auth = OfProject(url, project)
    return connection.message


def claimed(proxy, queue, **attrs):
    """A new claim, asked for through a resource that belongs to no connection.

    `create_claim` makes a resource that does, and such a resource loses the
    `location` it needs as soon as an answer has messages in it.
    """
    return Claim.new(queue_name=queue, **attrs).create(proxy)


def post(proxy, queue, *bodies, ttl=600):
    """Posts the bodies, returns the ids."""
    refs = []
    for some in in_posts(bodies):
        refs += proxy.post_message(queue, [{"body": body, "ttl": ttl} for body in some])
    return [ref.rsplit("/", 1)[1] for ref in refs]


def everything(proxy, queue, **query):
    """All bodies that paging gives, cut where it must have gone in a circle."""
    found = itertools.islice(proxy.messages(queue, **query), 60)
    return [message.body for message in found]


def shown(found):
    """A message as the library holds it, or a document as the server sent it."""
    kept = {key: found[key] for key in ("id", "href", "ttl", "body")}
    return {**kept, "age": recent(found["age"])}


def expected(queue, message_id, body, ttl=600, claim_id=None):
    href = f"/v2/queues/{queue}/messages/{message_id}"
    return {
        "id": message_id,
        "href": f"{href}?claim_id={claim_id}" if claim_id else href,
        "ttl": ttl,
        "age": "recent",
        "body": body,
    }


def known_of(queue):
    """A queue as the library holds it."""
    return {
        "name": queue.name,
        "id": queue.id,
        "description": queue.description,
        "default_message_ttl": queue.default_message_ttl,
        "max_messages_post_size": queue.max_messages_post_size,
    }


def refusal(call, *args, **kwargs):
    """The kind and the status of the error that `call` raises, with the words
    of the server."""
    try:
        return call(*args, **kwargs)
    except exceptions.HttpException as error:
        words = error.response.json()
        return (
            type(error).__name__,
            error.response.status_code,
            words["title"],
            words["description"],
        )


def not_found(description):
    return ("NotFoundException", 404, "Not found", description)


def bad(title, description):
    return ("BadRequestException", 400, title, description)


@journey.part
def queues(url, project):
    proxy = connect(url, project)
    check("an empty project", list(proxy.queues()), [])
    made = proxy.create_queue(name="orders")
    check("created", (made.name, made.id), ("orders", "orders"))
    check(
        "read", known_of(proxy.get_queue("orders")), {**DEFAULTS, "name": "orders", "id": "orders"}
    )
    proxy.create_queue(
        name="described",
        description="d\u00e9crite \u2713",
        default_message_ttl=120,
        max_messages_post_size=1000,
    )
    described = {
        "name": "described",
        "id": "described",
        "description": "d\u00e9crite \u2713",
        "default_message_ttl": 120,
        "max_messages_post_size": 1000,
    }
    check("created with settings", known_of(proxy.get_queue("described")), described)
    proxy.create_queue(name="described", default_message_ttl=60)
    check(
        "created again, nothing changed",
        known_of(proxy.get_queue(proxy.get_queue("described"))),
        described,
    )
    # The library has no name for a queue but one among its metadata.
    check(
        "a missing queue shows the defaults",
        known_of(proxy.get_queue("nope")),
        {**DEFAULTS, "name": None, "id": "nope"},
    )
    check("and stays missing", names(proxy), ["described", "orders"])
    check(
        "a bad name",
        refusal(proxy.create_queue, name="two words"),
        bad(
            "Invalid queue identification",
            "The format of the submitted queue name or project id is not valid.",
        ),
    )
    check(
        "a bad setting",
        refusal(proxy.create_queue, name="bad", default_message_ttl=59),
        bad(
            "Invalid API request",
            "_default_message_ttl can not exceed 1209600 seconds, and must be at"
            " least 60 seconds long.",
        ),
    )
    proxy.delete_queue("described")
    proxy.delete_queue(made)
    check("deleted by name and by object", names(proxy), [])
    proxy.delete_queue("described", ignore_missing=False)
    check("deleting again is no error", names(proxy), [])


def names(proxy, **query):
    """All names that paging gives, cut where it must have gone in a circle."""
    return [queue.name for queue in itertools.islice(proxy.queues(**query), 60)]


@journey.part
def listing_queues(url, project):
    proxy = connect(url, project)
    wanted = [f"q{number:02}" for number in range(25)]
    for name in reversed(wanted):
        proxy.create_queue(name=name)
    connect(url, project + "-other").create_queue(name="q99")
    check("all by the default page", names(proxy), wanted)
    for limit in (1, 4, 20):
        check(f"all by pages of {limit}", names(proxy, limit=limit), wanted)
    check("after a marker", names(proxy, marker="q19"), wanted[20:])
    check("of another project", names(proxy, project_id=project + "-other"), ["q99"])
    visited = []
    for queue in itertools.islice(proxy.queues(limit=3), 60):
        visited.append(queue.name)
        proxy.delete_queue(queue)
    check("deleting while paging visits each once", visited, wanted)
    check("and leaves none", names(proxy), [])
    check("a limit of 21", refusal_of_listing(proxy.queues(limit=21)), "no queues")


def refusal_of_listing(found):
    """The library does not look at the status of a listing: a refusal has no
    such key in its document."""
    try:
        return list(found)
    except KeyError as error:
        return f"no {error.args[0]}"


@journey.part
def messages(url, project):
    proxy = connect(url, project)
    check("a missing queue", list(proxy.messages("orders")), [])
    refs = proxy.post_message("orders", [{"body": {"event": "one"}, "ttl": 300}])
    (one,) = [ref.rsplit("/", 1)[1] for ref in refs]
    check("posting answers references", refs, [f"/v2/queues/orders/messages/{one}"])
    check("and creates the queue", names(proxy), ["orders"])
    check(
        "read by id",
        shown(proxy.get_message("orders", one)),
        expected("orders", one, {"event": "one"}, 300),
    )
    listed = next(proxy.messages("orders"))
    check("listed", shown(listed), expected("orders", one, {"event": "one"}, 300))
    check(
        "read by object",
        shown(proxy.get_message("orders", listed)),
        expected("orders", one, {"event": "one"}, 300),
    )
    check("deleted", proxy.delete_message("orders", listed), None)
    check(
        "and gone",
        refusal(proxy.get_message, "orders", one),
        not_found(f"Message {one} does not exist in queue orders for project {project}"),
    )
    check(
        "deleting it again is no error",
        proxy.delete_message("orders", one, ignore_missing=False),
        None,
    )
    check(
        "a missing queue has no messages",
        refusal(proxy.get_message, "nope", one),
        not_found(f"Queue nope does not exist for project {project}"),
    )

    known = post(proxy, "wide", *BODIES)
    texts = [exact(body) for body in BODIES]
    found = [proxy.get_message("wide", message_id).body for message_id in known]
    check("bodies by id", [exact(body) for body in found], texts)
    found = everything(proxy, "wide")
    check("bodies by listing", [exact(body) for body in found], texts)

    for name, entries, title, description in (
        ("no messages", [], "Invalid API request", "No messages to enqueu."),
        ("no body", [{"ttl": 60}], "Invalid request body", 'Missing "body" field.'),
        (
            "a ttl too short",
            [{"body": 1, "ttl": 59}],
            "Invalid API request",
            "The TTL for a message may not exceed 1209600 seconds, and must be at"
            " least 60 seconds long.",
        ),
    ):
        # The library does not look at the status of a post either.
        answer = proxy.post(
            "/queues/orders/messages",
            json={"messages": entries},
            headers={"Client-ID": str(uuid.uuid4()), "X-PROJECT-ID": project},
        )
        check(
            f"{name} in a post",
            (answer.status_code, answer.json()),
            (400, {"title": title, "description": description}),
        )
        check(f"{name}, as the library sees it", refusal_of_post(proxy, entries), "no resources")


def refusal_of_post(proxy, entries):
    try:
        return proxy.post_message("orders", entries)
    except KeyError as error:
        return f"no {error.args[0]}"


@journey.part
def listing_messages(url, project):
    proxy = connect(url, project)
    known = post(proxy, "orders", *range(25))
    check("all by the default page", everything(proxy, "orders"), list(range(25)))
    for limit in (1, 7, 20):
        check(f"all by pages of {limit}", everything(proxy, "orders", limit=limit), list(range(25)))
    check("after a marker", everything(proxy, "orders", marker=known[9]), list(range(10, 25)))
    check(
        "whole messages",
        [shown(found) for found in itertools.islice(proxy.messages("orders"), 12)],
        [expected("orders", known[body], body) for body in range(12)],
    )
    me = str(uuid.uuid4())
    Message.new(queue_name="orders", client_id=me).post(proxy, [{"body": "mine", "ttl": 600}])
    check("one's own are not shown", everything(proxy, "orders", client_id=me), list(range(25)))
    check(
        "one's own, asked for",
        everything(proxy, "orders", client_id=me, echo=True),
        [*range(25), "mine"],
    )
    check("others see them", everything(proxy, "orders"), [*range(25), "mine"])

    held = claimed(proxy, "orders", ttl=60, grace=60)
    check(
        "claimed messages are left out",
        everything(proxy, "orders", limit=4),
        [*range(10, 25), "mine"],
    )
    check(
        "claimed messages, asked for",
        lambda: everything(proxy, "orders", include_claimed=True, limit=4),
        [*range(25), "mine"],
    )
    proxy.delete_claim("orders", held)

    for limit in (None, 1, 7):
        post(proxy, "gone", *range(25))
        pages = {"limit": limit} if limit else {}
        visited = []
        for found in itertools.islice(proxy.messages("gone", **pages), 60):
            visited.append(found.body)
            proxy.delete_message("gone", found)
        name = f"by pages of {limit}" if limit else "by the default page"
        check(f"deleting {name} visits each once", visited, list(range(25)))
        check(f"deleting {name} leaves none", everything(proxy, "gone"), [])
    known = post(proxy, "gone", *range(25))
    visited = []
    for found in itertools.islice(proxy.messages("gone", limit=5), 60):
        visited.append(found.body)
        if found.body % 2 == 0:
            proxy.delete_message("gone", found)
    check("deleting every other one too", visited, list(range(25)))
    check("and leaves the others", everything(proxy, "gone"), list(range(1, 25, 2)))
    check("a deleted message is a marker", everything(proxy, "gone", marker=known[22]), [23])
    check("a limit of 21", refusal_of_listing(proxy.messages("gone", limit=21)), "no messages")


@journey.part
def claims(url, project):
    proxy = connect(url, project)
    none = proxy.create_claim("orders", ttl=60, grace=60)
    check("nothing to claim", (none.id, none.messages), (None, None))
    check("in no queue, which stays missing", names(proxy), [])
    known = post(proxy, "orders", *range(25), ttl=60)

    # The library sends the limit in the body, where no server looks for it.
    mine = claimed(proxy, "orders", ttl=300, grace=100, limit=2)
    check("a claim of ten, whatever its limit", len(mine.messages), 10)
    check(
        "its messages outlive it by the grace",
        [shown(found) for found in mine.messages],
        [expected("orders", known[body], body, 400, mine.id) for body in range(10)],
    )
    check("its location", mine.location, f"/v2/queues/orders/claims/{mine.id}")
    read = proxy.get_claim("orders", mine.id)
    check(
        "read by id",
        (read.id, read.ttl, recent(read.age), [shown(found) for found in read.messages]),
        (mine.id, 300, "recent", [shown(found) for found in mine.messages]),
    )
    check("read by object", proxy.get_claim("orders", read).ttl, 300)

    # Through `create_claim` the library claims, then fails on the answer.
    try:
        proxy.create_claim("orders", ttl=60, grace=60)
    except AttributeError as error:
        check("the library's own failure", str(error), "split")
    check("it claimed nevertheless", everything(proxy, "orders"), list(range(20, 25)))
    rest = claimed(proxy, "orders", ttl=60, grace=60)
    check("the rest", [found["body"] for found in rest.messages], list(range(20, 25)))
    empty = proxy.create_claim("orders", ttl=60, grace=60)
    check("nothing left", (empty.id, empty.messages), (None, None))

    # A renewal carries the claim's id in its body.
    proxy.update_claim("orders", mine.id, ttl=500, grace=60)
    check("renewed by id", proxy.get_claim("orders", mine.id).ttl, 500)
    proxy.update_claim("orders", mine, ttl=600, grace=200)
    renewed = proxy.get_claim("orders", mine.id)
    check("renewed by object", renewed.ttl, 600)
    check("its messages last longer", [found["ttl"] for found in renewed.messages], [800] * 10)
    proxy.update_claim("orders", mine.id, ttl=59)
    check("a renewal too short changes nothing", proxy.get_claim("orders", mine.id).ttl, 600)

    refused = "This message is claimed; it cannot be deleted without a valid claim ID."
    check(
        "deleting without the claim",
        refusal(proxy.delete_message, "orders", known[0]),
        ("ForbiddenException", 403, "Unable to delete", refused),
    )
    check(
        "deleting with another claim",
        refusal(proxy.delete_message, "orders", known[0], claim=rest.id),
        ("ForbiddenException", 403, "Unable to delete", refused),
    )
    nobody = str(uuid.uuid4())
    check(
        "deleting with an unknown claim",
        refusal(proxy.delete_message, "orders", known[0], claim=nobody),
        bad("Unable to delete", "The specified claim does not exist or has expired."),
    )
    check(
        "deleting with the claim's id",
        proxy.delete_message("orders", known[0], claim=mine.id),
        None,
    )
    held = proxy.get_message("orders", known[1])
    check("a claimed message, read", shown(held), expected("orders", known[1], 1, 800, mine.id))
    check("deleting with the claim", proxy.delete_message("orders", held, claim=mine), None)
    check(
        "both have left the claim",
        [found["body"] for found in proxy.get_claim("orders", mine.id).messages],
        list(range(2, 10)),
    )

    proxy.delete_claim("orders", mine.id)
    check("released messages are free", everything(proxy, "orders"), list(range(2, 10)))
    check(
        "a free message with a claim",
        refusal(proxy.delete_message, "orders", known[2], claim=rest.id),
        bad("Unable to delete", "A claim was specified, but the message is not currently claimed."),
    )
    gone = not_found(f"Claim {mine.id} does not exist in queue orders for project {project}")
    check("a released claim is gone", refusal(proxy.get_claim, "orders", mine.id), gone)
    proxy.delete_claim("orders", mine.id, ignore_missing=False)
    proxy.delete_claim("nope", nobody, ignore_missing=False)
    check(
        "releasing it again is no error",
        [found["body"] for found in proxy.get_claim("orders", rest.id).messages],
        list(range(20, 25)),
    )
    check(
        "a ttl too short",
        refusal(proxy.create_claim, "orders", ttl=59, grace=60),
        bad(
            "Invalid API request",
            "The TTL for a claim may not exceed 43200 seconds, and must be at least"
            " 60 seconds long.",
        ),
    )
    again = claimed(proxy, "orders")
    check(
        "a claim of defaults",
        (len(again.messages), proxy.get_claim("orders", again.id).ttl),
        (8, 300),
    )


@journey.part
def projects(url, project):
    mine = connect(url, project)
    theirs = connect(url, project + "-other")
    (known,) = post(mine, "orders", "mine")
    check("no queue of theirs", names(theirs), [])
    check("no message", everything(theirs, "orders"), [])
    check(
        "nor by id",
        refusal(theirs.get_message, "orders", known),
        not_found(f"Queue orders does not exist for project {project}-other"),
    )
    theirs.delete_message("orders", known)
    theirs.delete_queue("orders")
    check("nothing they do reaches mine", everything(mine, "orders"), ["mine"])


@journey.part
def subscriptions(url, project):
    proxy = connect(url, project)
    receiver = Receiver()
    made = proxy.create_subscription(
        "news", subscriber=f"{receiver.url}/in", ttl=600, options={"post_headers": {"X-Own": "1"}}
    )
    found = proxy.get_subscription("news", made.subscription_id)
    check(
        "a subscription is read as it was made",
        (found.subscriber, found.ttl, recent(found.age), found.options, found.source),
        (f"{receiver.url}/in", 600, "recent", {"post_headers": {"X-Own": "1"}}, "news"),
    )
    post(proxy, "news", "told")
    told = [document["body"] for document in receiver.wait_for("/in", 1)]
    check("it is told what is posted", told, ["told"])
    for number in range(12):
        proxy.create_subscription("news", subscriber=f"mailto:{number}@example.com")
    listed = [one.subscriber for one in itertools.islice(proxy.subscriptions("news"), 60)]
    check("all pages are listed", len(set(listed)), 13)
    check("and nothing twice", len(listed), 13)
    check(
        "an unknown subscriber type",
        refusal(proxy.create_subscription, "news", subscriber="ftp://x/"),
        bad(
            "Invalid API request",
            "The subscriber type of subscription must be supported in the list"
            " ['http', 'https', 'mailto', 'trust+http', 'trust+https'].",
        ),
    )
    proxy.delete_subscription("news", made.subscription_id)
    check(
        "what is deleted is not found",
        refusal(proxy.get_subscription, "news", made.subscription_id),
        not_found(f"Subscription {made.subscription_id} does not exist"),
    )


@journey.part
def coverage(_url, _project):
    check(
        "every call was made",
        sorted(called),
        sorted(name for name in offered if not name.startswith("wait_for_")),
    )


if __name__ == "__main__":
    main(journey)
