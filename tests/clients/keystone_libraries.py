"""python-zaqarclient and openstacksdk, with tokens of passwords and of application credentials.

What they do in detail is in the journeys without Keystone; here they find the server in the catalogue.
"""

import openstack
from openstack import exceptions
from openstack.message.v2 import _proxy
from openstack.message.v2.claim import Claim
from zaqarclient.queues import client as queues_client
from zaqarclient.transport import errors

from cloud import check, cloud, journey
from journey import recent, watch
from receiver import Receiver

called = set()
offered = watch(_proxy.Proxy, called)


def zaqar_of(session):
    """As services make it: the token and the endpoint are from the session."""
    options = {"region_name": cloud.region, "cacert": cloud.ca}
    return queues_client.Client(version=2, session=session, conf={"auth_opts": {"options": options}})


def sdk_of(session):
    """The message proxy of openstacksdk, which finds the API by the versions document."""
    return openstack.connection.Connection(session=session, region_name=cloud.region).message


def bodies(messages):
    return [found.body for found in messages]


def authentications():
    """The ways of one person to be known: a password, and two application credentials."""
    person = cloud.person("member")
    rule = {"service": "messaging", "method": "GET", "path": "/v2/queues/**"}
    limited = person.application_credential(access_rules=[{**rule, "path": "/v2/queues"}, rule])
    return person, person.session_of(person.application_credential()), person.session_of(limited)


@journey.part
def zaqarclient_finds_the_server_in_the_catalogue(_url, _project):
    person, credential, limited = authentications()
    zaqar = zaqar_of(person.session)
    check("ping", zaqar.ping(), True)
    zaqar.queue("orders", force_create=True)
    with_credential = zaqar_of(credential)
    for number in range(25):
        with_credential.queue("orders", auto_create=False).post({"body": number, "ttl": 300})
    queue = zaqar.queue("orders", auto_create=False)
    check("all pages come", bodies(queue.messages(limit=10, echo=True).stream()), list(range(25)))
    check("a limited credential reads", bodies(zaqar_of(limited).queue("orders").messages(limit=3)), [0, 1, 2])
    refused(errors.UnauthorizedError, "and writes nothing", zaqar_of(limited).queue("orders").post, {"body": 1})

    by_password = {
        "os_username": person.name,
        "os_user_domain_id": person.domain,
        "os_password": person.password,
        "os_project_id": person.project.id,
        "os_auth_url": cloud.auth_url,
        "cacert": cloud.ca,
    }
    named = queues_client.Client(cloud.url, 2, conf={"auth_opts": {"backend": "keystone", "options": by_password}})
    check("the library's own log-in", [one.name for one in named.queues()[0]], ["orders"])
    by_token = {"os_auth_token": "unknown", "cacert": cloud.ca}
    unknown = queues_client.Client(cloud.url, 2, conf={"auth_opts": {"backend": "keystone", "options": by_token}})
    refused(errors.UnauthorizedError, "an unknown token", unknown.queue("orders").messages)
    stranger = zaqar_of(cloud.person("member").session)
    check("another project has nothing of it", list(stranger.queues()[0]), [])
    # The header counts for nothing beside a token.
    forged = {"region_name": cloud.region, "cacert": cloud.ca, "os_project_id": person.project.id}
    forger = queues_client.Client(version=2, session=stranger.session, conf={"auth_opts": {"options": forged}})
    check("whatever it says of its project", list(forger.queues()[0]), [])


def refused(kind, name, call, *args):
    """The call must raise exactly this kind of error."""
    try:
        found = list(call(*args))
    except Exception as error:
        found = type(error).__name__
    check(f"{name} is refused", found, kind.__name__)


@journey.part
def zaqarclient_in_all_its_kinds(_url, _project):
    zaqar = zaqar_of(cloud.person("member").session)
    queue = zaqar.queue("kinds", force_create=True)
    queue.metadata(new_meta={"owner": "us", "_default_message_ttl": 300})
    check("metadata", queue.metadata(force_reload=True)["owner"], "us")
    refs = queue.post([{"body": {"n": n}, "ttl": 300} for n in range(3)])["resources"]
    ids = [ref.rsplit("/", 1)[1] for ref in refs]
    check("a message", queue.message(ids[1]).body, {"n": 1})
    check("messages by ids", bodies(queue.messages(*ids[:2])), [{"n": 0}, {"n": 1}])
    claim = queue.claim(ttl=60, grace=60, limit=2)
    held = list(claim)
    check("a claim", bodies(held), [{"n": 0}, {"n": 1}])
    claim.update(ttl=120, grace=60)
    check("is renewed", queue.claim(id=claim.id).ttl, 120)
    held[0].delete()
    claim.delete()
    check("and released", bodies(queue.pop(count=5)), [{"n": 1}, {"n": 2}])
    check("stats", queue.stats["messages"]["total"], 0)

    receiver = Receiver()
    made = zaqar.subscription("kinds", subscriber=f"{receiver.url}/in", ttl=600, options={})
    queue.post({"body": "told"})
    check("a subscription", [one["body"] for one in receiver.wait_for("/in", 1)], ["told"])
    made.update({"ttl": 900})
    check("is changed", [(one.id, one.ttl) for one in zaqar.subscriptions("kinds")], [(made.id, 900)])
    made.delete()
    check("and deleted", list(zaqar.subscriptions("kinds")), [])
    queue.purge()
    check("a purge", bodies(queue.messages(echo=True)), [])
    queue.delete()
    check("no queue is left", list(zaqar.queues()[0]), [])


@journey.part
def openstacksdk_finds_the_server_in_the_catalogue(_url, _project):
    person, credential, limited = authentications()
    sdk = sdk_of(person.session)
    check("a queue", sdk.create_queue(name="orders").name, "orders")
    by_credential = sdk_of(credential)
    for start in range(0, 25, 5):
        batch = [{"body": number, "ttl": 300} for number in range(start, start + 5)]
        by_credential.post_message("orders", batch)
    check("all pages come", bodies(sdk.messages("orders", limit=10, echo=True)), list(range(25)))
    check("a limited credential reads", bodies(sdk_of(limited).messages("orders", limit=3))[:3], [0, 1, 2])
    check("and creates nothing", refusal_of(sdk_of(limited).create_queue, name="more"), 401)
    stranger = sdk_of(cloud.person("member").session)
    check("another project has nothing of it", list(stranger.queues()), [])


def refusal_of(call, **asked):
    try:
        return call(**asked)
    except exceptions.HttpException as error:
        return error.status_code


@journey.part
def openstacksdk_in_all_its_kinds(_url, _project):
    sdk = sdk_of(cloud.person("member").session)
    sdk.create_queue(name="kinds", default_message_ttl=120)
    check("a queue is read", sdk.get_queue("kinds").default_message_ttl, 120)
    check("and listed", [queue.name for queue in sdk.queues()], ["kinds"])
    refs = sdk.post_message("kinds", [{"body": {"n": n}, "ttl": 300} for n in range(3)])
    ids = [ref.rsplit("/", 1)[1] for ref in refs]
    check("a message", sdk.get_message("kinds", ids[1]).body, {"n": 1})
    # What the proxy makes loses what it needs as soon as an answer has messages in it.
    claim = Claim.new(queue_name="kinds", ttl=60, grace=60).create(sdk)
    check("a claim", [found["body"] for found in claim.messages], [{"n": 0}, {"n": 1}, {"n": 2}])
    sdk.update_claim("kinds", claim.id, ttl=120, grace=60)
    found = sdk.get_claim("kinds", claim.id)
    check("is renewed", (found.ttl, recent(found.age)), (120, "recent"))
    sdk.delete_message("kinds", claim.messages[0]["id"], claim=claim.id)
    sdk.delete_claim("kinds", claim.id)
    check("and released", bodies(sdk.messages("kinds", echo=True)), [{"n": 1}, {"n": 2}])
    check("a queue without messages has no claim", sdk.create_claim("empty", ttl=60, grace=60).id, None)

    receiver = Receiver()
    made = sdk.create_subscription("kinds", subscriber=f"{receiver.url}/in", ttl=600)
    sdk.post_message("kinds", [{"body": "told"}])
    check("a subscription", [one["body"] for one in receiver.wait_for("/in", 1)], ["told"])
    found = sdk.get_subscription("kinds", made.subscription_id)
    check("is read", (found.subscriber, found.ttl), (f"{receiver.url}/in", 600))
    check("and listed", [one.id for one in sdk.subscriptions("kinds")], [made.subscription_id])
    sdk.delete_subscription("kinds", made.subscription_id)
    check("and deleted", list(sdk.subscriptions("kinds")), [])
    sdk.delete_queue("kinds")
    check("no queue is left", [queue.name for queue in sdk.queues() if queue.name == "kinds"], [])
    waits = {name for name in offered if name.startswith("wait_for_")}
    check("every call was made", sorted(called), sorted(offered - waits))
