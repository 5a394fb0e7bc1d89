"""How the parts speak to python-zaqarclient, and what they expect of it."""

import itertools
import re

from zaqarclient.queues import client as queues_client
from zaqarclient.queues.v2 import core
from zaqarclient.transport import errors

from journey import Journey, in_posts, recent

journey = Journey("python-zaqarclient")
check = journey.check
check_error = journey.check_error

KINDS = {
    400: errors.MalformedRequest,
    403: errors.ForbiddenError,
    404: errors.ResourceNotFound,
    409: errors.ConflictError,
}

LIMIT_OF_MESSAGES = (
    400,
    "Invalid API request",
    "Limit must be at least 1 and may not be greater than 20.",
)


def connect(url, project, **conf):
    conf["auth_opts"] = {"backend": "noauth", "options": {"os_project_id": project}}
    return queues_client.Client(url, version=2, conf=conf)


def low(zaqar, function, *args, **kwargs):
    """Calls a function of the library's lower layer."""
    request, transport = zaqar._request_and_transport()
    return function(transport, request, *args, **kwargs)


def create(zaqar, name, **metadata):
    low(zaqar, core.queue_create, name, metadata=metadata)
    return zaqar.queue(name, auto_create=False)


def post(queue, *bodies, ttl=600):
    """Posts the bodies, returns the ids."""
    refs = []
    for some in in_posts(bodies):
        refs += queue.post([{"body": body, "ttl": ttl} for body in some])["resources"]
    return [ref.rsplit("/", 1)[1] for ref in refs]


def bodies(messages):
    return [found.body for found in messages]


def ids(messages):
    return [found.id for found in messages]


def everything(queue, **params):
    """All bodies that paging gives, cut where it must have gone in a circle."""
    return bodies(itertools.islice(queue.messages(**params).stream(), 60))


def bodies_of(page):
    return [found["body"] for found in page["messages"]]


def shown(found):
    """A message as the client holds it."""
    return {
        "id": found.id,
        "href": found.href,
        "ttl": found.ttl,
        "age": recent(found.age),
        "body": found.body,
        "claim_id": found.claim_id,
        "claim_count": found.claim_count,
        "checksum": found.checksum,
    }


def expected(queue, message_id, body, ttl=600, claim_id=None):
    href = f"/v2/queues/{queue.name}/messages/{message_id}"
    return {
        "id": message_id,
        "href": f"{href}?claim_id={claim_id}" if claim_id else href,
        "ttl": ttl,
        "age": "recent",
        "body": body,
        "claim_id": claim_id,
        "claim_count": 0,
        "checksum": None,
    }


def ids_of_queues(zaqar):
    found, _ = zaqar.queues(limit=20)
    return [queue.name for queue in found]


def check_refused(name, words, call, *args, **kwargs):
    """`call` must raise the error of the status, with the server's words."""
    status, title, description = words
    check_error(name, KINDS[status], said(status, title, description), call, *args, **kwargs)


def said(status, title, description):
    return (
        f"Error response from Zaqar. Code: {status}. Title: {title}."
        f" Description: {description}."
    )


def is_id(text):
    """An id that can stand in a reference as it is."""
    return isinstance(text, str) and re.fullmatch("[0-9A-Za-z_.-]+", text) is not None


def empty_stats():
    return {"messages": {"claimed": 0, "free": 0, "total": 0}}


def counted(found):
    """Stats with what no check can know exactly, age and date, set aside."""
    messages = found["messages"]
    for end in ("oldest", "newest"):
        if end in messages:
            created = messages[end].get("created") or ""
            shape = "".join("0" if letter.isdigit() else letter for letter in created)
            messages[end]["created"] = shape
            messages[end]["age"] = recent(messages[end].get("age"))
    return found
