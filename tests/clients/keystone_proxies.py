"""Takes the clients of a cloud through a proxy in front of a running server that asks Keystone.

The catalogue names the proxy alone. `CLOUD_PROXY` says what it does: `path` serves the server under a path that the server
knows, `cut` takes the path off and says so in a header, `tls` ends TLS.
"""

import os
import urllib.parse
import uuid

import requests
from zaqarclient.queues import client as queues_client

import keystone_commands  # noqa: F401, its parts come first
import keystone_libraries
from cloud import check, check_secrets, cloud, journey
from journey import main
from reverse_proxy import ReverseProxy

KIND = os.environ["CLOUD_PROXY"]
PREFIX = "" if KIND == "tls" else "/messaging"


def ask(method, url, token, **asked):
    headers = {"X-Auth-Token": token, "Client-ID": str(uuid.uuid4())} if token else {}
    return requests.request(method, url, headers=headers, verify=cloud.ca or True, timeout=60, **asked)


def targets(document):
    """Every target of a link in a document, however deep."""
    if isinstance(document, list):
        return [target for one in document for target in targets(one)]
    if not isinstance(document, dict):
        return []
    found = [value for key, value in document.items() if key in ("href", "href-template")]
    return found + [target for value in document.values() for target in targets(value)]


@journey.part
def documents_lead_through_the_proxy(_url, _project):
    token = cloud.person("member").session.get_token()
    for url in (proxy.url, f"{proxy.url}/"):
        found = ask("GET", url, "")
        check("the versions need no token", found.status_code, 300)
        check("and lead to the API", targets(found.json()), [f"{PREFIX}/v2/"])
    api = urllib.parse.urljoin(f"{proxy.url}/", targets(found.json())[0])
    check("by a link of the proxy", api, f"{proxy.url}/v2/")
    version = ask("GET", f"{proxy.url}/v2", token)
    check("the version", (version.status_code, targets(version.json())), (200, [f"{PREFIX}/v2/"]))
    home = ask("GET", api, token)
    led = targets(home.json())
    check("the home document", (home.status_code, len(led) >= 15), (200, True))
    check("all of it", [target for target in led if not target.startswith(f"{PREFIX}/v2/")], [])
    ping = urllib.parse.urljoin(proxy.url, home.json()["resources"]["rel/ping"]["href-template"])
    check("a link of it works", ask("GET", ping, token).status_code, 204)


@journey.part
def locations_lead_through_the_proxy(_url, _project):
    token = cloud.person("admin").session.get_token()
    queue = f"{proxy.url}/v2/queues/orders"
    body = {"messages": [{"body": number, "ttl": 300} for number in range(3)]}
    pool, database = f"pool-{uuid.uuid4().hex[:8]}", f"sqlite:{os.getcwd()}/located.db"
    made = {
        "queue": ask("PUT", queue, token),
        "messages": ask("POST", f"{queue}/messages", token, json=body),
        "claim": ask("POST", f"{queue}/claims", token, json={"ttl": 60, "grace": 60}),
        "subscription": ask("POST", f"{queue}/subscriptions", token, json={"subscriber": "mailto:a@example.com"}),
        "pool": ask("PUT", f"{proxy.url}/v2/pools/{pool}", token, json={"uri": database, "weight": 0}),
    }
    for name, answer in made.items():
        check(f"{name} is made", answer.status_code, 201)
        where = answer.headers["Location"]
        check(f"{name}: the location is below the path", where.startswith(f"{PREFIX}/v2/"), True)
        found = ask("GET", urllib.parse.urljoin(proxy.url, where), token)
        check(f"{name}: and is there", found.status_code, 200)
    # Other links stand behind the URL of the catalogue, where clients put them.
    listed = ask("GET", f"{queue}/messages?echo=true&limit=2&include_claimed=true", token)
    check("no other link names the path", [one for one in targets(listed.json()) if not one.startswith("/v2/")], [])
    (following,) = (link["href"] for link in listed.json()["links"])
    rest = ask("GET", f"{proxy.url}{following}", token).json()
    check("and the next page is there", [one["body"] for one in rest["messages"]], [2])
    check("the pool goes", ask("DELETE", f"{proxy.url}/v2/pools/{pool}", token).status_code, 204)


@journey.part
def signatures_count_behind_the_proxy(_url, _project):
    zaqar = keystone_libraries.zaqar_of(cloud.person("member").session)
    signed = zaqar.queue("shared").signed_url(paths=["messages"], methods=["POST"], ttl_seconds=600)
    check("a signature is of the path without the prefix", signed["paths"], ["/v2/queues/shared/messages"])
    options = {key: signed[key] for key in ("paths", "expires", "methods", "signature")}
    options["os_project_id"] = signed["project"]
    auth = {"backend": "signed-url", "options": options}
    guest = queues_client.Client(cloud.url, 2, conf={"auth_opts": auth})
    guest.queue("shared").post({"body": "from a guest", "ttl": 300})
    found = [message.body for message in zaqar.queue("shared").messages(echo=True)]
    check("and lets a guest post", found, ["from a guest"])


@journey.part
def access_rules_count_with_the_path_that_is_configured(_url, _project):
    person = cloud.person("member")

    def token(path):
        rule = {"service": "messaging", "method": "GET", "path": path}
        made = person.application_credential(access_rules=[rule])
        return person.session_of(made).get_token()

    plain, prefixed = token("/v2/queues"), token("/messaging/v2/queues")
    check("a rule without the path allows", ask("GET", f"{proxy.url}/v2/queues", plain).status_code, 200)
    check("nothing else", ask("GET", f"{proxy.url}/v2/queues/orders", plain).status_code, 401)
    # What a request says of a prefix is not what rules are written for.
    wanted = 200 if KIND == "path" else 401
    check("a rule with it", ask("GET", f"{proxy.url}/v2/queues", prefixed).status_code, wanted)


@journey.part
def everything_passed_the_proxy(_url, _project):
    check("no client left the path", proxy.refused, [])
    check("the clients came this way", len(proxy.passed) > 200, True)
    outside = [
        headers["Location"]
        for _, _, _, headers in proxy.passed
        if not headers.get("Location", f"{PREFIX}/v2/").startswith(f"{PREFIX}/v2/")
    ]
    check("every location is below the path", outside, [])
    failed = [(method, path) for method, path, status, _ in proxy.passed if status >= 500]
    check("no request failed", failed, [])


@journey.part
def secrets(_url, _project):
    check_secrets()


if __name__ == "__main__":
    pair = (os.environ["CLOUD_CERTIFICATE"], os.environ["CLOUD_CERTIFICATE_KEY"]) if KIND == "tls" else None
    proxy = ReverseProxy(os.environ["CLOUD_URL"], PREFIX, cuts=KIND == "cut", certificate=pair)
    cloud.enter(proxy.url)
    main(journey)
