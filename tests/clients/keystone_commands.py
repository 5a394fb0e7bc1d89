"""`openstack messaging`: every command of python-zaqarclient's plugin, with tokens.

The commands run in one process, as in the interactive mode of `openstack`; two run as processes of their own, one with a
password and one with an application credential.
"""

import contextlib
import importlib.metadata
import io
import json
import os
import subprocess
import sys
import urllib.parse
import uuid

from openstackclient import shell
from zaqarclient.queues import cli

from cloud import check, cloud, journey
from journey import RESERVED, recent
from receiver import Receiver

PLUGIN = "openstack.messaging.v2"


def offered():
    """The commands of the plugin: an entry point `messaging_claim_create` is `messaging claim create`."""
    points = importlib.metadata.entry_points(group=PLUGIN)
    return sorted(point.name.replace("_", " ") for point in points)


ran = set()


def note(arguments):
    """Notes the command that the arguments begin with; names of commands are no beginnings of each other."""
    found = [name for name in COMMANDS if arguments[: len(name.split())] == name.split()]
    if len(found) != 1:
        raise ValueError(f"{arguments} are of {found}")
    ran.update(found)


COMMANDS = offered()


class Shell:
    """The command `openstack` of one person."""

    def __init__(self, person):
        self.client_id = str(uuid.uuid4())
        self.app = shell.OpenStackShell()
        # The handler of the log keeps the stream that it finds first.
        self.errors = io.StringIO()
        options = {
            "--os-auth-url": cloud.auth_url,
            "--os-username": person.name,
            "--os-user-domain-id": person.domain,
            "--os-password": person.password,
            "--os-project-id": person.project.id,
            "--os-region-name": cloud.region,
            "--os-identity-api-version": "3",
        }
        if cloud.ca:
            options["--os-cacert"] = cloud.ca
        options = [word for option in options.items() for word in option]
        code, said, errors = self._captured(lambda: self.app.run([*options, *PING]))
        if code:
            raise RuntimeError(f"openstack ended with {code}: {said}{errors}")
        note(PING)
        self.first = json.loads(said)
        # The plugin keeps one client for the whole process, and people are several here.
        self.app.client_manager.messaging = cli.make_client(self.app.client_manager)

    def __call__(self, command, *arguments):
        """Runs a command that has no answer; it must end well."""
        self.answer(command, *arguments)

    def json(self, command, *arguments):
        """Runs a command, and reads its answer."""
        return json.loads(self.answer(command, *arguments, "-f", "json"))

    def answer(self, command, *arguments):
        code, said, errors = self.run(command, *arguments)
        if code:
            raise RuntimeError(f"{command} {arguments} ended with {code}: {said}{errors}")
        return said

    def run(self, command, *arguments):
        words = [*command.split(), *arguments]
        note(words)
        return self._captured(lambda: self.app.run_subcommand(words))

    def refused(self, command, *arguments):
        """The status of the refusal of a command that must fail."""
        code, said, errors = self.run(command, *arguments)
        found = [status for status in (400, 401, 403, 404, 409, 503) if f"Code: {status}." in errors]
        return found[0] if code and len(found) == 1 else f"ended with {code}: {said}{errors}"

    def _captured(self, run):
        out, before = io.StringIO(), len(self.errors.getvalue())
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(self.errors):
            self.app.stdout, self.app.stderr = out, self.errors
            code = run()
        return code, out.getvalue(), self.errors.getvalue()[before:]


PING = ["messaging", "ping", "-f", "json"]


def process(arguments, **settings):
    """Runs `openstack` as a process of its own, and reads its answer."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OS_")}
    environment.update(OS_AUTH_URL=cloud.auth_url, OS_REGION_NAME=cloud.region, **settings)
    if cloud.ca:
        environment["OS_CACERT"] = cloud.ca
    done = subprocess.run(
        [sys.executable, "-m", "openstackclient.shell", *arguments, "-f", "json"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{arguments} ended with {done.returncode}: {done.stderr}")
    note(arguments)
    return json.loads(done.stdout)


@journey.part
def commands_as_processes(_url, _project):
    person = cloud.person("member")
    created = process(
        ["messaging", "queue", "create", "orders"],
        OS_USERNAME=person.name,
        OS_USER_DOMAIN_ID=person.domain,
        OS_PASSWORD=person.password,
        OS_PROJECT_ID=person.project.id,
        OS_IDENTITY_API_VERSION="3",
    )
    check("a queue is created with a password", created, {"Name": "orders"})
    credential = person.application_credential()
    listed = process(
        ["messaging", "queue", "list"],
        OS_AUTH_TYPE="v3applicationcredential",
        OS_APPLICATION_CREDENTIAL_ID=credential.id,
        OS_APPLICATION_CREDENTIAL_SECRET=credential.secret,
    )
    check("and listed with an application credential", listed, [{"Name": "orders"}])


@journey.part
def commands_of_queues(_url, _project):
    openstack = Shell(cloud.person("member"))
    check("ping", openstack.first, {"Pingable": True})
    for name in ("a", "b", "c"):
        check(f"queue create {name}", openstack.json("messaging queue create", name), {"Name": name})
    names = [{"Name": name} for name in ("a", "b", "c")]
    check("queue list", openstack.json("messaging queue list"), names)
    page = openstack.json("messaging queue list", "--limit", "1", "--marker", "a", "--with_count")
    check("queue list, a page", page, [{"Name": "b"}])
    openstack("messaging queue set metadata", "a", '{"_default_message_ttl": 120, "colour": "red"}')
    metadata = {**RESERVED, "_default_message_ttl": 120, "colour": "red"}
    check(
        "queue get metadata",
        openstack.json("messaging queue get metadata", "a"),
        {"Metadata": metadata},
    )
    detailed = openstack.json("messaging queue list", "--detailed", "--limit", "1")
    check(
        "queue list, detailed",
        detailed,
        [{"Name": "a", "Metadata_Dict": metadata, "Href": "/v2/queues/a"}],
    )
    openstack("messaging queue delete", "c")
    check("queue delete", openstack.json("messaging queue list"), names[:2])
    check("stats of an empty queue", stats(openstack, "a"), {"claimed": 0, "free": 0, "total": 0})

    document = json.loads(openstack.answer("messaging homedoc"))
    path = urllib.parse.urlsplit(cloud.url).path
    check(
        "homedoc names the resources",
        document["resources"]["rel/messages"]["href-template"],
        f"{path}/v2/queues/{{queue_name}}/messages{{?marker,limit,echo,include_claimed}}",
    )
    asked = ["--paths", "messages,claims", "--methods", "GET,POST", "--ttl-seconds", "600"]
    signed = openstack.json("messaging queue signed url", "a", *asked)
    check(
        "queue signed url",
        {key: signed[key] for key in ("Paths", "Methods", "Project ID")},
        {
            "Paths": "/v2/queues/a/claims,/v2/queues/a/messages",
            "Methods": "GET,POST",
            "Project ID": openstack.app.client_manager.auth_ref.project_id,
        },
    )


def stats(openstack, queue):
    found = openstack.json("messaging queue stats", queue)["Stats"]["messages"]
    return {key: found[key] for key in ("claimed", "free", "total")}


@journey.part
def commands_of_messages_and_claims(_url, _project):
    openstack = Shell(cloud.person("member"))
    us, them = ["--client-id", openstack.client_id], ["--client-id", str(uuid.uuid4())]
    for number in range(4):
        body = json.dumps({"body": {"n": number}, "ttl": 300})
        openstack("messaging message post", "jobs", body, *us)
    check("message post", stats(openstack, "jobs"), {"claimed": 0, "free": 4, "total": 4})
    check("message list leaves out one's own", openstack.json("messaging message list", "jobs", *us), [])
    listed = openstack.json("messaging message list", "jobs", *them)
    check("message list", [read(one["Body"]) for one in listed], [{"n": n} for n in range(4)])
    check("their lives", [(one["TTL"], recent(one["Age"])) for one in listed], [(300, "recent")] * 4)
    echoed = openstack.json("messaging message list", "jobs", *us, "--echo", "--limit", "2")
    check("message list --echo", [one["ID"] for one in echoed], [one["ID"] for one in listed[:2]])
    some = ",".join(one["ID"] for one in listed[1:3])
    picked = openstack.json("messaging message list", "jobs", *us, "--message-ids", some)
    check("message list by ids", [read(one["Body"]) for one in picked], [{"n": 1}, {"n": 2}])

    claimed = openstack.json("messaging claim create", "jobs", "--ttl", "120", "--grace", "60", "--limit", "3")
    check("claim create", [read(one["Messages"]) for one in claimed], [{"n": n} for n in range(3)])
    claims = {one["Claim_ID"] for one in claimed}
    check("of one claim", len(claims), 1)
    (claim,) = claims
    check("stats count it", stats(openstack, "jobs"), {"claimed": 3, "free": 1, "total": 4})
    free = openstack.json("messaging message list", "jobs", *them)
    check("message list leaves out claimed ones", [read(one["Body"]) for one in free], [{"n": 3}])
    everything = openstack.json(
        "messaging message list", "jobs", *them, "--include-claimed", "--include-delayed"
    )
    check("message list --include-claimed", len(everything), 4)
    found = openstack.json("messaging claim query", "jobs", claim)
    check("claim query", [read(one["Message"]) for one in found], [{"n": n} for n in range(3)])
    renewed = openstack.json("messaging claim renew", "jobs", claim, "--ttl", "240", "--grace", "60")
    check("claim renew", [read(one["Message"]) for one in renewed], [{"n": n} for n in range(3)])
    openstack("messaging claim release", "jobs", claim)
    check("claim release", stats(openstack, "jobs"), {"claimed": 0, "free": 4, "total": 4})
    check("a released claim is gone", openstack.refused("messaging claim query", "jobs", claim), 404)

    openstack("messaging queue purge", "jobs", "--resource_types", "messages")
    check("queue purge", stats(openstack, "jobs"), {"claimed": 0, "free": 0, "total": 0})


def read(cell):
    """What a cell of a table has: JSON, or the text that the client makes of it."""
    return cell if isinstance(cell, dict) else json.loads(cell.replace("'", '"'))


@journey.part
def commands_of_subscriptions(_url, _project):
    openstack = Shell(cloud.person("member"))
    receiver = Receiver()
    options = {"post_headers": {"X-Own": "yes"}}
    made = openstack.json(
        "messaging subscription create", "news", f"{receiver.url}/in", "600", "--options", json.dumps(options)
    )
    known = {"Subscriber": f"{receiver.url}/in", "TTL": 600, "Options": options}
    check("subscription create", made, {"ID": made["ID"], **known})
    shown = openstack.json("messaging subscription show", "news", made["ID"])
    check(
        "subscription show",
        {**shown, "Age": recent(shown["Age"])},
        {"ID": made["ID"], **known, "Age": "recent", "Confirmed": False},
    )
    openstack("messaging message post", "news", '{"body": "told", "ttl": 300}', "--client-id", openstack.client_id)
    told = [document["body"] for document in receiver.wait_for("/in", 1)]
    check("its receiver is told", told, ["told"])
    other = openstack.json("messaging subscription create", "news", "mailto:a@example.com", "3600")
    listed = openstack.json("messaging subscription list", "news")
    check("subscription list", sorted(one["ID"] for one in listed), sorted([made["ID"], other["ID"]]))
    first = openstack.json("messaging subscription list", "news", "--limit", "1")
    second = openstack.json("messaging subscription list", "news", "--limit", "1", "--marker", first[0]["ID"])
    check("pages of them", sorted(one["ID"] for one in first + second), sorted(one["ID"] for one in listed))

    # What is left out is sent as null, and stays as it is.
    openstack("messaging subscription update", "news", made["ID"], "--subscriber", f"{receiver.url}/there")
    shown = openstack.json("messaging subscription show", "news", made["ID"])
    check(
        "subscription update of the address",
        (shown["Subscriber"], shown["TTL"]),
        (f"{receiver.url}/there", 600),
    )
    openstack("messaging subscription update", "news", made["ID"], "--ttl", "900")
    shown = openstack.json("messaging subscription show", "news", made["ID"])
    check("subscription update of the life", (shown["Subscriber"], shown["TTL"]), (f"{receiver.url}/there", 900))
    for one in (made, other):
        openstack("messaging subscription delete", "news", one["ID"])
    check("subscription delete", openstack.json("messaging subscription list", "news"), [])
    check(
        "what is deleted is not found",
        openstack.refused("messaging subscription show", "news", made["ID"]),
        404,
    )


@journey.part
def commands_of_operators(_url, _project):
    person = cloud.person("member")
    member, operator = Shell(person), Shell(cloud.person("admin", project=person.project))
    pool, flavor = f"pool-{uuid.uuid4().hex[:8]}", f"flavor-{uuid.uuid4().hex[:8]}"
    uri = f"sqlite:{os.getcwd()}/{pool}.db"
    known = {"Name": pool, "Weight": 0, "URI": uri, "Flavor": None, "Options": {}}
    check("pool create", operator.json("messaging pool create", pool, uri, "0"), known)
    # Options are told to those who ask for details.
    shown = {**known, "Options": ""}
    check("pool show", operator.json("messaging pool show", pool), shown)
    changed = operator.json("messaging pool update", pool, "--pool_weight", "1", "--pool_options", "{}")
    check("pool update", changed, {**shown, "Weight": 1})
    listed = operator.json("messaging pool list", "--detailed", "--limit", "20")
    check("pool list", [one for one in listed if one["Name"] == pool], [{**known, "Weight": 1}])

    made = operator.json("messaging flavor create", flavor, "--pool_list", pool)
    check("flavor create", (made["Name"], made["Pool list"]), (flavor, [pool]))
    shown = operator.json("messaging flavor show", flavor)
    check("flavor show", (shown["Name"], shown["Pool list"]), (flavor, [pool]))
    check("its capabilities", "CLAIMS" in shown["Capabilities"], True)
    updated = operator.json("messaging flavor update", flavor, "--pool_list", pool)
    check("flavor update", (updated["Name"], updated["Pool_list"]), (flavor, [pool]))
    listed = operator.json("messaging flavor list", "--detailed", "--limit", "20")
    check("flavor list", [one["Pool list"] for one in listed if one["Name"] == flavor], [[pool]])

    member("messaging queue create", "wares")
    member("messaging queue set metadata", "wares", json.dumps({"_flavor": flavor}))
    for command in (
        ["messaging pool create", "mine", uri, "1"],
        ["messaging pool show", pool],
        ["messaging pool list"],
        ["messaging pool update", pool, "--pool_weight", "9"],
        ["messaging pool delete", pool],
        ["messaging flavor create", "mine", "--pool_list", pool],
        ["messaging flavor update", flavor, "--pool_list", pool],
        ["messaging flavor delete", flavor],
        ["messaging health"],
    ):
        check(f"a member is refused {command[0]}", member.refused(*command), 403)

    health = json.loads(operator.answer("messaging health"))
    check("health", health["catalog_reachable"], True)
    # A pool with queues stays.
    check("a pool in use is not deleted", operator.refused("messaging pool delete", pool), 403)
    member("messaging queue delete", "wares")
    operator("messaging flavor delete", flavor)
    check("flavor delete", operator.refused("messaging flavor show", flavor), 404)
    operator("messaging pool delete", pool)
    check("pool delete", operator.refused("messaging pool show", pool), 404)


@journey.part
def commands_are_all_there_are(_url, _project):
    check("every command of the plugin ran", sorted(ran), COMMANDS)
    check("and there are as many as ever", len(COMMANDS) >= 32, True)
