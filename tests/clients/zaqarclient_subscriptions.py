"""python-zaqarclient: subscriptions, what they are sent, and signed URLs."""

from zaqarclient.queues import client as queues_client
from zaqarclient.queues.v2 import core
from zaqarclient.transport import errors

from journey import recent
from receiver import Receiver
from zaqarclient_support import (
    bodies,
    check,
    check_error,
    check_refused,
    connect,
    journey,
    low,
    post,
)


def as_told(found):
    return {
        "id": found.id,
        "queue": found.queue_name,
        "subscriber": found.subscriber,
        "ttl": found.ttl,
        "age": recent(found.age),
        "options": found.options,
        "confirmed": found.confirmed,
    }


@journey.part
def subscriptions(url, project):
    zaqar = connect(url, project)
    receiver = Receiver()
    options = {"post_headers": {"X-Own": "yes"}}
    made = zaqar.subscription("news", subscriber=f"{receiver.url}/in", ttl=600, options=options)
    wanted = {
        "id": made.id,
        "queue": "news",
        "subscriber": f"{receiver.url}/in",
        "ttl": 600,
        "age": "recent",
        "options": options,
        "confirmed": False,
    }
    check("a subscription is made and read", as_told(made), wanted)
    found = zaqar.subscription("news", id=made.id)
    check("it is found by its id", as_told(found), wanted)
    again = zaqar.subscription("news", subscriber=f"{receiver.url}/in", ttl=60)
    check("the same subscriber is the same subscription", as_told(again), wanted)

    queue = zaqar.queue("news", auto_create=False)
    post(queue, {"n": 1}, {"n": 2})
    told = [
        {"ttl": 600, "body": {"n": n}, "Message_Type": "Notification", "queue_name": "news"}
        for n in (1, 2)
    ]
    check("it is told what is posted", receiver.wait_for("/in", 2), told)
    check("with its own header", {headers.get("x-own") for _, headers, _ in receiver.got}, {"yes"})

    made.update({"subscriber": f"{receiver.url}/there", "ttl": 1000, "options": {}})
    moved = zaqar.subscription("news", id=made.id)
    wanted.update(subscriber=f"{receiver.url}/there", ttl=1000, options={})
    check("it is changed", as_told(moved), wanted)
    post(queue, "moved")
    check(
        "and told at its new address",
        [document["body"] for document in receiver.wait_for("/there", 1)],
        ["moved"],
    )

    others = [zaqar.subscription("news", subscriber=f"mailto:{n}@example.com").id for n in range(3)]
    listed = list(zaqar.subscriptions("news", limit=20))
    check("all are listed", sorted(one.id for one in listed), sorted([made.id, *others]))
    check("a queue lists them, too", len(list(queue.subscriptions())), 4)
    first = low(zaqar, core.subscription_list, "news", limit=1)["subscriptions"]
    second = low(zaqar, core.subscription_list, "news", limit=1, marker=first[0]["id"])["subscriptions"]
    check("pages follow one another", first[0]["id"] < second[0]["id"], True)

    check_refused(
        "a subscriber of an unknown kind",
        (
            400,
            "Invalid API request",
            "The subscriber type of subscription must be supported in the list"
            " ['http', 'https', 'mailto', 'trust+http', 'trust+https'].",
        ),
        zaqar.subscription,
        "news",
        subscriber="ftp://example.com/",
    )
    for one in (*others, made.id):
        zaqar.subscription("news", id=one, auto_create=False).delete()
    check("all are deleted", list(zaqar.subscriptions("news")), [])
    check_refused(
        "what is deleted is not found",
        (404, "Not found", f"Subscription {made.id} does not exist"),
        zaqar.subscription,
        "news",
        id=made.id,
    )


@journey.part
def signed_urls(url, project):
    owner = connect(url, project).queue("shared")
    (known,) = post(owner, "for a guest")
    shared = owner.signed_url(paths=["messages"], ttl_seconds=600, methods=["GET", "POST"])
    check("paths are whole", shared["paths"], ["/v2/queues/shared/messages"])
    check("and the project is named", shared["project"], project)

    def guest(**changed):
        signed = {
            "signature": shared["signature"],
            "expires": shared["expires"],
            "methods": shared["methods"],
            "paths": shared["paths"],
            "os_project_id": project,
            **changed,
        }
        auth = {"backend": "signed-url", "options": signed}
        client = queues_client.Client(url, version=2, conf={"auth_opts": auth})
        return client.queue("shared", auto_create=False)

    check("a guest reads", bodies(guest().messages(echo=True)), ["for a guest"])
    check("and one message", guest().message(known).body, "for a guest")
    post(guest(), "from a guest")
    check("and posts", bodies(owner.messages(echo=True)), ["for a guest", "from a guest"])
    hidden = (
        "Error response from Zaqar. Code: 404. Title: 404 Not Found."
        ' Text: {"title": "404 Not Found"}.'
    )
    check_error("but may not delete", errors.ResourceNotFound, hidden, guest().delete_messages, known)
    check_error("nor claim", errors.ResourceNotFound, hidden, lambda: list(guest().claim(ttl=60, grace=60)))
    check_error("nor read anything else", errors.ResourceNotFound, hidden, guest().metadata)
    forged = guest(methods=["DELETE", "GET", "POST"])
    check_error(
        "nor with more than was signed",
        errors.ResourceNotFound,
        hidden,
        forged.delete_messages,
        known,
    )
    check_refused(
        "an unknown part cannot be signed",
        (400, "Invalid API request", "Invalid paths: {'stats'}"),
        owner.signed_url,
        paths=["stats"],
    )
    owner.delete()
