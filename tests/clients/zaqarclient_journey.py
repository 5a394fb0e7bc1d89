"""Takes python-zaqarclient through a running server.

Every v2 call of the library for queues, messages, claims, subscriptions and
signed URLs, in its `noauth` mode. Whole answers are compared, as the client hands them over.
"""

from zaqarclient.queues import client as queues_client
from zaqarclient.queues.v2 import api, claim, client, core, iterator, message, queues
from zaqarclient.transport import http

import zaqarclient_queues  # noqa: F401, its parts come first
import zaqarclient_messages  # noqa: F401
import zaqarclient_claims  # noqa: F401
import zaqarclient_subscriptions  # noqa: F401
from journey import main, watch
from zaqarclient_support import (
    bodies,
    check,
    check_refused,
    connect,
    expected,
    ids_of_queues,
    journey,
    low,
    post,
    shown,
)

# What the calls of pools and flavors are named after, and the call that needs
# an administrator.
ELSEWHERE = ("pool", "flavor", "health")

called = {owner: set() for owner in ("Client", "Queue", "Claim", "Message", "core")}
offered = {
    "Client": watch(client.Client, called["Client"]),
    "Queue": watch(queues.Queue, called["Queue"]),
    "Claim": watch(claim.Claim, called["Claim"]),
    "Message": watch(message.Message, called["Message"]),
    "core": watch(core, called["core"]),
}
streamed = set()
watch(iterator._Iterator, streamed)
sent = set()


def send_and_note(transport, request, send=http.HttpTransport.send):
    sent.add(request.operation)
    return send(transport, request)


http.HttpTransport.send = send_and_note


@journey.part
def projects(url, project):
    mine = connect(url, project).queue("orders")
    theirs = connect(url, project + "-other").queue("orders")
    (known,) = post(mine, "mine")
    held = mine.claim(ttl=60, grace=60)
    other = f"{project}-other"
    check("no queue of theirs", ids_of_queues(theirs.client), [])
    check("no message", lambda: list(theirs.messages(echo=True, include_claimed=True)), [])
    check_refused(
        "nor by id",
        (404, "Not found", f"Queue orders does not exist for project {other}"),
        theirs.message,
        known,
    )
    post(theirs, "theirs")
    check_refused(
        "nor by ids",
        (
            404,
            "Not found",
            f"No messages with IDs: ['{known}'] found in the queue orders for project {other}.",
        ),
        theirs.messages,
        known,
    )
    check_refused(
        "nor the claim",
        (404, "Not found", f"Claim {held.id} does not exist in queue orders for project {other}"),
        iter,
        theirs.claim(id=held.id),
    )
    theirs.delete_messages(known)
    low(theirs.client, core.claim_delete, "orders", held.id)
    theirs.purge()
    theirs.delete()
    check(
        "nothing they do reaches mine",
        lambda: [shown(found) for found in mine.messages(echo=True, include_claimed=True)],
        [expected(mine, known, "mine", claim_id=held.id)],
    )
    nameless = queues_client.Client(url, version=2, conf={"auth_opts": {"backend": "noauth"}})
    queue = nameless.queue(project)
    post(queue, "here")
    check("the project the library names itself", bodies(queue.messages(echo=True)), ["here"])
    queue.delete()


@journey.part
def coverage(_url, _project):
    def in_scope(names):
        return sorted(name for name in names if not name.startswith(ELSEWHERE))

    for owner, names in offered.items():
        check(
            f"every call of {owner} was made",
            in_scope(called[owner]),
            in_scope(names),
        )
    check("pages were streamed", sorted(streamed), ["get_iterables", "next", "stream"])
    # Popping has an operation of its own that the library never sends.
    check(
        "every operation was sent",
        sorted(sent - {""}),
        sorted(
            {*in_scope(api.V2.schema), "queue_get_metadata", "queue_set_metadata"} - {"message_pop"}
        ),
    )


if __name__ == "__main__":
    main(journey)
