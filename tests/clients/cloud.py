"""The cloud of the journeys with Keystone: people who have tokens, and the catalogue that names the server.

`tests/openstack_clients.rs` says by the environment where Keystone is. A journey enters its server into the catalogue in
a region of its own, since the servers of all journeys share one Keystone.
"""

import functools
import os
import pathlib
import uuid

from keystoneauth1 import session
from keystoneauth1.identity import v3
from keystoneclient.v3 import client as keystone

from journey import Journey

DOMAIN = "default"


class Person:
    """A user with roles in a project."""

    def __init__(self, cloud, name, user_id, password, project, domain=DOMAIN):
        self.cloud = cloud
        self.name = name
        self.id = user_id
        self.password = password
        self.project = project
        self.domain = domain

    @functools.cached_property
    def session(self):
        """A session with this user's password, scoped to the project. It gets one token."""
        auth = v3.Password(
            self.cloud.auth_url,
            username=self.name,
            password=self.password,
            user_domain_id=self.domain,
            project_id=self.project.id,
        )
        return self._logged_in(auth)

    def session_of(self, credential):
        """A session with an application credential."""
        auth = v3.ApplicationCredential(
            self.cloud.auth_url,
            application_credential_id=credential.id,
            application_credential_secret=credential.secret,
        )
        return self._logged_in(auth)

    def _logged_in(self, auth):
        made = session.Session(auth=auth, verify=self.cloud.ca or True)
        self.cloud.secret(made.get_token())
        return made

    def identity(self):
        """A client of Keystone for this user."""
        return keystone.Client(session=self.session)

    def application_credential(self, **limits):
        """A substitute for the password, with a name, an id and a secret."""
        name = f"credential-{uuid.uuid4().hex}"
        made = self.identity().application_credentials.create(name, user=self.id, **limits)
        self.cloud.secret(made.secret)
        return made


class Cloud:
    def __init__(self):
        self.auth_url = os.environ["CLOUD_AUTH_URL"]
        self.ca = os.environ.get("CLOUD_CA", "")
        self.url = ""
        self.region = f"region-{uuid.uuid4().hex}"
        self.secrets = {os.environ["CLOUD_ADMIN_PASSWORD"]}
        auth = v3.Password(
            self.auth_url,
            username="admin",
            password=os.environ["CLOUD_ADMIN_PASSWORD"],
            user_domain_id=DOMAIN,
            project_name="admin",
            project_domain_id=DOMAIN,
        )
        self.identity = keystone.Client(session=session.Session(auth=auth))
        self.roles = {role.name: role for role in self.identity.roles.list()}

    def secret(self, text):
        """Keeps a text that must not stand in the server's log."""
        self.secrets.add(text)
        return text

    def enter(self, url):
        """Names a URL as the server's in this journey's region, and Keystone beside it."""
        self.url = url
        self.identity.regions.create(self.region)
        (identity,) = self.identity.services.list(type="identity")
        for service, where in ((os.environ["CLOUD_SERVICE_ID"], url), (identity, self.auth_url)):
            for interface in ("public", "internal"):
                self.identity.endpoints.create(service, where, interface, self.region)

    def project(self, domain=DOMAIN):
        return self.identity.projects.create(f"project-{uuid.uuid4().hex}", domain)

    def person(self, *roles, project=None, domain=DOMAIN):
        """A new user with roles in a project, which is a new one unless it is named."""
        project = project or self.project(domain)
        password = self.secret(f"password-{uuid.uuid4().hex}")
        name = f"user-{uuid.uuid4().hex}"
        user = self.identity.users.create(name, domain=domain, password=password)
        for role in roles:
            self.identity.roles.grant(self.roles[role], user=user, project=project)
        return Person(self, name, user.id, password, project, domain)


cloud = Cloud()
journey = Journey("the clients of a cloud")
check = journey.check


def check_secrets():
    """No secret of this journey may stand in the server's log, which has everything."""
    log = pathlib.Path(os.environ["CLOUD_LOG"]).read_text(encoding="utf-8", errors="replace")
    check("everything is logged", "TRACE" in log, True)
    told = sorted(secret[:12] for secret in cloud.secrets if secret in log)
    check("but no secret", told, [])
