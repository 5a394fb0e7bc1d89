"""What Heat does with a queue, call by call, in the order of a stack's life.

After Heat 27: the transports ZAQAR_SIGNAL and ZAQAR_MESSAGE of deployments and servers, the agents of an instance
(heat-config-notify, os-collect-config), `OS::Zaqar::Queue`, `SignedQueueURL`, `Subscription` and `MistralTrigger`, and
the sink of events. The users of a stack live in a domain of Heat's own, with a role that has no meaning elsewhere.
"""

import functools
import json
import os
import re
import time
import uuid

import requests
from keystoneauth1 import session
from keystoneauth1.identity import v3
from zaqarclient.queues.v2 import client as zaqarclient
from zaqarclient.transport import errors

from cloud import check, cloud, journey
from journey import RESERVED, recent
from receiver import Receiver

# How long a subscription of a template lives when it does not say: until the year 9000.
FOREVER_SECS = 220367260800
# How long a message lives that Heat posts.
TTL_SECS = 3600


class Stack:
    """A stack of an owner, with its own project and users in Heat's domain."""

    def __init__(self):
        role = "heat_stack_user"
        if role not in cloud.roles:
            found = cloud.identity.roles.list(name=role)
            cloud.roles[role] = found[0] if found else cloud.identity.roles.create(role)
        self.owner = cloud.person("member")
        self.domain = cloud.identity.domains.create(f"heat-{uuid.uuid4().hex}").id
        self.user = cloud.person(role, domain=self.domain)
        self.endpoint = self.owner.session.get_endpoint(
            service_type="messaging", interface="public", region_name=cloud.region
        )

    def name(self, resource):
        """The physical name of a resource."""
        return f"stack-{resource}-{uuid.uuid4().hex[:12]}"

    def client_of_user(self):
        """A client of the stack's user in the stack's project."""
        return self.client_with(self.user.session.get_token(), self.user.project.id)

    def client_with(self, token, project_id):
        options = {
            "os_auth_token": token,
            "os_auth_url": cloud.auth_url,
            "os_project_id": project_id,
            "os_service_type": "messaging",
            "cacert": cloud.ca,
        }
        auth = {"backend": "keystone", "options": options}
        return zaqarclient.Client(url=self.endpoint, conf={"auth_opts": auth}, version=2)

    def client_of_owner(self):
        """The client of resources; Heat names no region here, and its cloud has one."""
        options = {"region_name": cloud.region, "cacert": cloud.ca}
        auth = {"auth_opts": {"options": options}}
        return zaqarclient.Client(version=2, session=self.owner.session, conf=auth)

    def client_of_signature(self, signed):
        """A client without a token, which shows a signature."""
        options = {key: signed[key] for key in ("paths", "expires", "methods", "signature")}
        options.update(os_project_id=signed["project"], cacert=cloud.ca)
        auth = {"backend": "signed-url", "options": options}
        return zaqarclient.Client(url=self.endpoint, conf={"auth_opts": auth}, version=2)

    def agent(self):
        """The client of an agent on an instance, which knows the user's id and password alone."""
        auth = v3.Password(
            cloud.auth_url,
            user_id=self.user.id,
            password=self.user.password,
            project_id=self.user.project.id,
        )
        logged_in = session.Session(auth=auth)
        endpoint = logged_in.get_endpoint(
            service_type="messaging", interface="public", region_name=cloud.region
        )
        options = {
            "os_auth_token": cloud.secret(logged_in.get_token()),
            "os_project_id": self.user.project.id,
            "insecure": False,
            "cacert": cloud.ca or None,
        }
        auth = {"backend": "keystone", "options": options}
        return zaqarclient.Client(endpoint, conf={"auth_opts": auth}, version=2)


@functools.cache
def the_stack():
    """One stack for all parts: each has queues of its own."""
    return Stack()


def ignoring_not_found(call):
    """Whether the call was not refused as one of what is not there."""
    try:
        call()
    except errors.ResourceNotFound:
        return False
    return True


def names(zaqar):
    return [queue.name for queue in zaqar.queues()[0]]


def popped(queue):
    return [message.body for message in queue.pop()]


@journey.part
def heat_signals_a_deployment(_url, _project):
    stack = the_stack()
    queue_id = stack.name("deployment")
    # The queue is named, and there when it is first used.
    queue = stack.client_of_user().queue(queue_id)
    signed = queue.signed_url(["messages"], methods=["GET", "DELETE"])
    check(
        "a signed URL of the stack's project",
        {key: signed[key] for key in ("paths", "methods", "project")},
        {
            "paths": [f"/v2/queues/{queue_id}/messages"],
            "methods": ["DELETE", "GET"],
            "project": stack.user.project.id,
        },
    )
    check("it can be kept as JSON", json.loads(json.dumps(signed)), signed)
    check("no signal yet", popped(stack.client_of_user().queue(queue_id)), [])

    # The agent on the instance tells what became of the deployment.
    signals = [
        {"deploy_stdout": "gr\u00fcn \u2713\n", "deploy_stderr": "", "deploy_status_code": number}
        for number in (0, 1)
    ]
    for signal in signals:
        stack.agent().queue(queue_id).post({"body": signal, "ttl": 600})
    # Each time that Heat looks it takes one, with a token of its own.
    check("the first signal", popped(stack.client_of_user().queue(queue_id)), signals[:1])
    check("the second", popped(stack.client_of_user().queue(queue_id)), signals[1:])
    check("and no other", popped(stack.client_of_user().queue(queue_id)), [])

    stack.agent().queue(queue_id).post({"body": "late", "ttl": 600})
    reader = stack.client_of_signature(signed).queue(queue_id)
    check("the signature reads", [message.body for message in reader.messages()], ["late"])
    claim = stack.client_of_user().queue(queue_id).claim(ttl=60, grace=60)
    held = list(claim)
    check("a claim of the stack's user", [message.body for message in held], ["late"])
    claim.delete()
    check("the signature pops", popped(reader), ["late"])
    check("and posts nothing", ignoring_not_found(lambda: reader.post({"body": "forged"})), False)

    # The owner of the stack has another project.
    check("the owner has no such queue", queue_id in names(stack.client_of_owner()), False)
    check("the stack's user has", queue_id in names(stack.client_of_user()), True)
    for _ in range(2):
        stack.client_of_user().queue(queue_id).delete()
    check("the queue goes with the stack", queue_id in names(stack.client_of_user()), False)


@journey.part
def heat_sends_metadata_to_a_server(_url, _project):
    stack = the_stack()
    queue_id = stack.name("server")
    metadata = {
        "os-collect-config": {"collectors": ["zaqar", "local"], "zaqar": {"queue_id": queue_id}},
        "deployments": [{"id": str(uuid.uuid4()), "config": "#!/bin/sh\ntrue\n", "inputs": []}],
    }
    for number in range(2):
        body = {**metadata, "number": number}
        stack.client_of_user().queue(queue_id).post({"body": body, "ttl": TTL_SECS})
    collected = [next(stack.agent().queue(queue_id).pop()).body for _ in range(2)]
    check("the collector takes them in order", collected, [{**metadata, "number": n} for n in (0, 1)])
    check("there are no more", next(stack.agent().queue(queue_id).pop(), "none"), "none")
    stack.client_of_user().queue(queue_id).delete()

    events = stack.name("events")
    for state in ("CREATE_IN_PROGRESS", "CREATE_COMPLETE"):
        event = {"timestamp": "2026-11-28T12:00:00Z", "type": "os.heat.event", "payload": {"state": state}}
        stack.client_of_owner().queue(events, auto_create=False).post({"body": event, "ttl": TTL_SECS})
    listed = stack.client_of_owner().queue(events, auto_create=False).messages(echo=True)
    check(
        "the sink of events",
        [(message.body["payload"]["state"], message.ttl) for message in listed],
        [("CREATE_IN_PROGRESS", TTL_SECS), ("CREATE_COMPLETE", TTL_SECS)],
    )


@journey.part
def heat_manages_a_queue_and_its_url(_url, _project):
    stack = the_stack()
    name = "orders"
    # Metadata alone create no queue, and Zaqar answers so, too.
    queue = stack.client_of_owner().queue(name, auto_create=False)
    settings = {"colour": "red", "_default_message_ttl": 120}
    check("a queue that nobody used", ignoring_not_found(lambda: queue.metadata(new_meta=settings)), False)
    stack.client_of_owner().queue(name).post({"body": "first", "ttl": TTL_SECS})
    queue.metadata(new_meta=settings)
    shown = stack.client_of_owner().queue(name, auto_create=False).metadata()
    check("a queue with metadata", shown, {**RESERVED, "colour": "red", "_default_message_ttl": 120})
    stack.client_of_owner().queue(name, auto_create=False).metadata(new_meta={"colour": "blue"})
    shown = stack.client_of_owner().queue(name, auto_create=False).metadata()
    check("is updated", shown, {**RESERVED, "colour": "blue"})

    # A template that says nothing but the queue.
    signed = stack.client_of_owner().queue(name).signed_url(paths=None, methods=None, ttl_seconds=None)
    check(
        "a URL by default",
        (signed["paths"], signed["methods"], signed["project"]),
        ([f"/v2/queues/{name}/messages"], ["GET"], stack.owner.project.id),
    )
    reader = stack.client_of_signature(signed).queue(name)
    check("it reads", [message.body for message in reader.messages()], ["first"])
    check("it posts nothing", ignoring_not_found(lambda: reader.post({"body": 1})), False)
    for expected in (True, True):
        gone = stack.client_of_owner().queue(name, auto_create=False).delete
        check("a queue is deleted, also again", ignoring_not_found(gone), expected)


@journey.part
def heat_subscribes(_url, _project):
    stack = the_stack()
    receiver = Receiver()
    zaqar = stack.client_of_owner
    # What a template leaves out is null.
    asked = {"subscriber": f"{receiver.url}/in", "ttl": FOREVER_SECS, "options": None}
    made = zaqar().subscription("news", **asked)
    found = zaqar().subscription("news", id=made.id)
    check(
        "a subscription for ever",
        (found.subscriber, found.ttl, recent(found.age), found.options),
        (f"{receiver.url}/in", FOREVER_SECS, "recent", {}),
    )
    zaqar().queue("news").post({"body": "told", "ttl": 300})
    check("its receiver is told", [one["body"] for one in receiver.wait_for("/in", 1)], ["told"])
    change = {"subscriber": f"{receiver.url}/there", "ttl": 600, "options": None}
    zaqar().subscription("news", id=made.id, auto_create=False).update(change)
    found = zaqar().subscription("news", id=made.id)
    check("is changed", (found.subscriber, found.ttl), (f"{receiver.url}/there", 600))
    for _ in range(2):
        zaqar().subscription("news", id=made.id, auto_create=False).delete()
    check("and deleted", list(zaqar().subscriptions("news")), [])


def counted(what):
    """How many requests about trusts the server has made, by what came of them."""
    metrics = requests.get(os.environ["CLOUD_METRICS"], timeout=30).text
    lines = re.findall(rf'^isimud_keystone_trust_{what}_total{{outcome="(\w+)"}} (\d+)$', metrics, re.M)
    return {outcome: int(count) for outcome, count in lines}


@journey.part
def heat_triggers_a_workflow(_url, _project):
    stack = the_stack()
    none = {"succeeded": 0, "refused": 0, "unavailable": 0}
    check("no trust yet", (counted("creations"), counted("deletions")), (none, none))
    mistral = Receiver()
    workflow = str(uuid.uuid4())
    post_data = {
        "workflow_id": workflow,
        "params": {"env": {"notification": "$zaqar_message$"}},
        "input": {"size": 3},
    }
    url = f"trust+{mistral.url}/v2/executions"
    options = {"post_data": json.dumps(post_data)}
    made = stack.client_of_owner().subscription("jobs", subscriber=url, ttl=FOREVER_SECS, options=options)
    trusts = trusts_of(stack.owner)
    check("the owner has given one trust", len(trusts), 1)
    stack.client_of_owner().queue("jobs").post({"body": {"job": 1}, "ttl": 300})
    (execution,) = mistral.wait_for("/v2/executions", 1)
    notification = execution["params"]["env"].pop("notification")
    check("the workflow", execution, {**post_data, "params": {"env": {}}})
    check("and its message", (notification["body"], notification["queue_name"]), ({"job": 1}, "jobs"))
    (_, headers, _) = mistral.got[0]
    token = cloud.secret(headers["x-auth-token"])
    said = cloud.identity.tokens.validate(token)
    check(
        "the token is the owner's, by the trust",
        (said.user_id, said.project_id, said.trust_id),
        (stack.owner.id, stack.owner.project.id, trusts[0].id),
    )
    stack.client_of_owner().subscription("jobs", id=made.id, auto_create=False).delete()
    check("the trust goes with the subscription", at_last(lambda: trusts_of(stack.owner), []), [])
    one = {**none, "succeeded": 1}
    check("the server counts it", counted("creations"), one)
    check("and its deletion", at_last(lambda: counted("deletions"), one), one)


def trusts_of(person):
    return person.identity().trusts.list(trustor_user=person.id)


def at_last(ask, wanted, patience_secs=30):
    """The answer, when it is as wanted or the time is over: what comes by itself takes a moment."""
    end = time.monotonic() + patience_secs
    while (answer := ask()) != wanted and time.monotonic() < end:
        time.sleep(0.1)
    return answer
