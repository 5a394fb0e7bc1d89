"""What Aodh does when an alarm has an action with a queue, call by call, after Aodh 23.

`zaqar://?topic=...` posts as the service user to a queue of the alarm's, `zaqar://?queue_name=...&signature=...` through a
signed URL, and `trust+zaqar://TRUST:delete@?queue_name=...` as the owner of the alarm, by a trust.
"""

import urllib.parse
import uuid

from keystoneauth1 import session
from keystoneauth1.identity import v3
from zaqarclient.queues import client as queues_client
from zaqarclient.transport import errors

from cloud import check, cloud, journey
from receiver import Receiver


class Aodh:
    """The notifiers of a service user."""

    def __init__(self):
        self.user = cloud.person("admin")
        self.identity = self.user.identity()
        service = self.identity.services.find(type="messaging")
        found = self.identity.endpoints.find(
            service_id=service.id, region_id=cloud.region, interface="public"
        )
        self.endpoint = found.url

    def client(self, backend, options):
        auth = {"backend": backend, "options": {**options, "cacert": cloud.ca}}
        return queues_client.Client(self.endpoint, version=2, conf={"auth_opts": auth})

    def own_client(self):
        """Aodh names no domains, for which Keystone refuses it; here they are named."""
        options = {
            "os_username": self.user.name,
            "os_user_domain_id": self.user.domain,
            "os_password": self.user.password,
            "os_project_name": self.user.project.name,
            "os_project_domain_id": self.user.domain,
            "os_auth_url": cloud.auth_url,
            "insecure": "",
        }
        return self.client("keystone", options)

    def notify(self, action, alarm):
        """The notifier of `zaqar://`."""
        asked = urllib.parse.parse_qs(urllib.parse.urlsplit(action).query)
        if "queue_name" in asked:
            options = {key: asked[key][0] for key in ("signature", "expires")}
            options.update({key: asked[key][0].split(",") for key in ("paths", "methods")})
            options["os_project_id"] = asked["project_id"][0]
            client, name = self.client("signed-url", options), asked["queue_name"][0]
        else:
            client, name = self.own_client(), f"{alarm['alarm_id']}-{asked['topic'][-1]}"
        queue = client.queue(name)
        for subscriber in asked.get("subscriber", []):
            client.subscription(name, subscriber=subscriber, ttl=int(asked.get("ttl", ["3600"])[-1]))
        queue.post({"body": alarm})
        return client, name

    def trusted_session(self, trust):
        auth = v3.Password(
            cloud.auth_url,
            username=self.user.name,
            password=self.user.password,
            user_domain_id=self.user.domain,
            trust_id=trust,
        )
        return session.Session(auth=auth)

    def trusted_client(self, token):
        return self.client("keystone", {"os_auth_token": cloud.secret(token)})

    def notify_trusted(self, action, alarm):
        """The notifier of `trust+zaqar://`."""
        parts = urllib.parse.urlsplit(action)
        name = urllib.parse.parse_qs(parts.query)["queue_name"][-1]
        token = self.trusted_session(parts.username).get_token()
        self.trusted_client(token).queue(name).post({"body": alarm})


def alarm():
    return {
        "alarm_name": "cpu \u2265 80 %",
        "alarm_id": str(uuid.uuid4()),
        "severity": "critical",
        "previous": "ok",
        "current": "alarm",
        "reason": "Transition to alarm",
        "reason_data": {"type": "threshold", "count": 3, "most_recent": 91.5, "disposition": "outside"},
    }


def bodies(queue):
    return [message.body for message in queue.messages(echo=True)]


@journey.part
def aodh_posts_to_a_topic(_url, _project):
    aodh, receiver, raised = Aodh(), Receiver(), alarm()
    query = urllib.parse.urlencode(
        [("topic", "cpu"), ("subscriber", f"{receiver.url}/alarm"), ("subscriber", "mailto://a@example.com"), ("ttl", "600")]
    )
    client, name = aodh.notify(f"zaqar://?{query}", raised)
    check("the queue of the alarm", name, f"{raised['alarm_id']}-cpu")
    check("has the alarm", bodies(client.queue(name)), [raised])
    told = receiver.wait_for("/alarm", 1)
    check("the subscriber is told", [document["body"] for document in told], [raised])
    # The alarm goes off again: the same subscribers are asked for once more.
    aodh.notify(f"zaqar://?{query}", raised)
    check("and again", [document["body"] for document in receiver.wait_for("/alarm", 2)], [raised] * 2)
    subscribed = sorted((one.subscriber, one.ttl) for one in client.subscriptions(name))
    wanted = [(f"{receiver.url}/alarm", 600), ("mailto://a@example.com", 600)]
    check("with one subscription of each", subscribed, wanted)


@journey.part
def aodh_posts_through_a_signed_url(_url, _project):
    aodh, owner, raised = Aodh(), cloud.person("member"), alarm()
    options = {"region_name": cloud.region, "cacert": cloud.ca}
    zaqar = queues_client.Client(version=2, session=owner.session, conf={"auth_opts": {"options": options}})
    signed = zaqar.queue("alarms").signed_url(paths=["messages"], methods=["POST"], ttl_seconds=600)
    # As Heat's attribute `query_str` has it: nothing is escaped.
    query = (
        f"signature={signed['signature']}&expires={signed['expires']}&paths={','.join(signed['paths'])}"
        f"&methods={','.join(signed['methods'])}&project_id={signed['project']}&queue_name=alarms"
    )
    client, name = aodh.notify(f"zaqar://?{query}", raised)
    check("the owner gets the alarm", bodies(zaqar.queue("alarms")), [raised])
    try:
        found = bodies(client.queue(name))
    except errors.ResourceNotFound:
        found = "refused"
    check("which the signature does not show", found, "refused")


@journey.part
def aodh_posts_by_a_trust(_url, _project):
    aodh, owner, raised = Aodh(), cloud.person("member"), alarm()
    of_owner = owner.identity()
    trust = of_owner.trusts.create(
        trustor_user=owner.id,
        trustee_user=aodh.user.id,
        project=owner.project.id,
        impersonation=True,
        role_names=["member"],
    )
    aodh.notify_trusted(f"trust+zaqar://{trust.id}:delete@?queue_name=alarms", raised)
    options = {"region_name": cloud.region, "cacert": cloud.ca}
    zaqar = queues_client.Client(version=2, session=owner.session, conf={"auth_opts": {"options": options}})
    check("the owner gets the alarm", bodies(zaqar.queue("alarms")), [raised])
    check("and the service user nothing", list(aodh.own_client().queues()[0]), [])
    unused = aodh.trusted_session(trust.id).get_token()
    of_owner.trusts.delete(trust.id)
    try:
        found = bodies(aodh.trusted_client(unused).queue("alarms"))
    except errors.UnauthorizedError:
        found = "refused"
    check("a token of a trust that was taken back", found, "refused")
