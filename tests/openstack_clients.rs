//! The clients of a cloud against the real binary and a real Keystone, with tokens: `openstack messaging`,
//! python-zaqarclient, openstacksdk, and what Heat and Aodh do, over each kind of store; and all of them through proxies.
//!
//! A test starts a server by itself and lets one script of `tests/clients` drive it, which enters the server into the
//! catalogue and creates people. Keystone is one for all tests. Nothing is skipped where Python, its packages or Keystone
//! are missing: the tests fail with the command that installs them. A broker may be left out, unless `REQUIRE_BACKENDS=1`
//! asks for all.

use std::path::Path;
use std::sync::LazyLock;

use isimud_testing::certificates::Certificates;
use serde_json::json;
use tempfile::TempDir;

use crate::journeys::Store;
use crate::keystone::fixture::ADMIN_PASSWORD;
use crate::keystone::world::{SERVICE_PASSWORD, World};
use crate::support::script;
use crate::support::server::{Server, free_address, last_lines};

/// The Keystone of all of these tests.
static WORLD: LazyLock<World> = LazyLock::new(World::start_in_turn);

/// The service in Keystone's catalogue. Each script has endpoints of its own, in a region of its own.
static SERVICE: LazyLock<String> = LazyLock::new(|| {
    let service = json!({"type": "messaging", "name": "zaqar"});
    WORLD.keystone.create("/v3/services", "service", &service)
});

#[test]
fn clients_with_tokens_over_sqlite() {
    let folder = folder();
    let store = format!("sqlite:{}/isimud.db", folder.path().display());
    travel("keystone_journey.py", store.into(), &folder, "", "", &[]);
}

#[test]
fn clients_with_tokens_over_redis() {
    if let Some(store) = Store::redis() {
        travel("keystone_journey.py", store, &folder(), "", "", &[]);
    }
}

#[test]
fn clients_with_tokens_over_rabbitmq() {
    if let Some(store) = Store::rabbitmq("quorum") {
        travel("keystone_journey.py", store, &folder(), "", "", &[]);
    }
}

#[test]
fn clients_through_a_proxy_that_serves_under_a_path() {
    travel_by_proxy("path", "base_path = \"/messaging\"\n", &[]);
}

#[test]
fn clients_through_a_proxy_that_cuts_a_path_off() {
    travel_by_proxy("cut", "", &[]);
}

#[test]
fn clients_through_a_proxy_that_ends_tls() {
    let certificates = Certificates::create();
    let [ca, certificate, key] =
        ["ca", "server", "server-key"].map(|name| certificates.file(name).display().to_string());
    let environment = [
        ("CLOUD_CA", &*ca),
        // A client that shows a signature takes no file.
        ("REQUESTS_CA_BUNDLE", &*ca),
        ("CLOUD_CERTIFICATE", &*certificate),
        ("CLOUD_CERTIFICATE_KEY", &*key),
    ];
    travel_by_proxy("tls", "", &environment);
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

/// Takes the clients through a proxy, which the script starts in front of the server.
fn travel_by_proxy(kind: &str, server: &str, environment: &[(&str, &str)]) {
    let store = "sqlite::memory:".to_owned().into();
    let access = "trusted_proxies = [\"127.0.0.1\"]\n";
    let environment = [environment, &[("CLOUD_PROXY", kind)]].concat();
    let script = "keystone_proxies.py";
    travel(script, store, &folder(), server, access, &environment);
}

/// Takes one script through a server of its own, with further lines in its sections `[server]` and `[access]`.
fn travel(
    script: &str,
    store: Store,
    folder: &TempDir,
    server: &str,
    access: &str,
    environment: &[(&str, &str)],
) {
    let auth_url = format!("http://127.0.0.1:{}/v3", WORLD.keystone.port);
    configure(folder.path(), &auth_url, server, access);
    let management = store.management.iter();
    let admin = free_address().to_string();
    let flags = management.flat_map(|uri| ["--management", uri]);
    let flags: Vec<_> = flags.chain(["--admin-listen", &*admin]).collect();
    let server = Server::start_with(&store.uri, folder.path(), &flags);
    let url = format!("http://{}", server.address);
    let metrics = format!("http://{admin}/metrics");
    let log = folder.path().join("server.log").display().to_string();
    let cloud = [
        ("CLOUD_URL", &*url),
        ("CLOUD_AUTH_URL", &*auth_url),
        ("CLOUD_ADMIN_PASSWORD", ADMIN_PASSWORD),
        ("CLOUD_SERVICE_ID", &*SERVICE),
        ("CLOUD_LOG", &*log),
        ("CLOUD_METRICS", &*metrics),
    ];
    let environment = [&cloud, environment].concat();
    let told = || last_lines(&server.log(), 40);
    script::run(script, &url, &environment, folder.path(), told);
    assert!(
        !server.log().contains(SERVICE_PASSWORD),
        "the log has the password of the service user"
    );
}

fn configure(folder: &Path, auth_url: &str, server: &str, access: &str) {
    let pools = folder.display();
    let config = format!(
        "[server]\n{server}[access]\nauthentication = \"keystone\"\n{access}[log]\nlevel = \"trace\"\n\
         [signed_url]\nsecret_key = \"journey\"\n[pooling]\nsqlite_folder = \"{pools}\"\n\
         [notifications]\nallowed_networks = [\"127.0.0.0/8\"]\n\
         [keystone]\nauth_url = \"{auth_url}\"\nregion = \"RegionOne\"\nusername = \"zaqar\"\nuser_domain_id = \"default\"\n\
         password = \"{SERVICE_PASSWORD}\"\nproject = \"service\"\nproject_domain_id = \"default\"\ntimeout_secs = 10\n"
    );
    std::fs::write(folder.join("isimud.toml"), config).expect("the configuration");
}
