"""Takes the clients of a cloud through a running server that asks Keystone.

`tests/openstack_clients.rs` runs it, and says by the environment where Keystone is; see cloud.py.
"""

import os

import keystone_commands  # noqa: F401, its parts come first
import keystone_libraries  # noqa: F401
import keystone_heat  # noqa: F401
import keystone_aodh  # noqa: F401
from cloud import check_secrets, cloud, journey
from journey import main


@journey.part
def secrets(_url, _project):
    check_secrets()


if __name__ == "__main__":
    cloud.enter(os.environ["CLOUD_URL"])
    main(journey)
