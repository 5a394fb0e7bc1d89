//! Who there is in the Keystone of the tests: projects, users, roles, credentials.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use isimud::keystone::{Authenticator, KeystoneConfig};
use isimud_contract::{Clock, ManualClock, SystemClock};
use serde_json::{Value, json};

use crate::keystone::fixture::{self, Keystone};
use crate::keystone::log;

pub(crate) const PASSWORD: &str = "user-pw-7c211433";
pub(crate) const SERVICE_PASSWORD: &str = "service-pw-e4d909c2";

/// A Keystone with people in it.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) keystone: Keystone,
    pub(crate) shop: String,
    pub(crate) alice: String,
    /// A user of role `service` in project `service`, beside the service user.
    pub(crate) nova: String,
    service: String,
    /// Held while a region is looked for and created.
    regions: Mutex<()>,
}

static NUMBER: AtomicUsize = AtomicUsize::new(0);

impl World {
    /// Starts a Keystone and creates everybody.
    pub(crate) fn start() -> Self {
        Self::people(Keystone::start("2"))
    }

    /// The same with a Keystone that answers one request after the other. Of two at once, one can put into its cache what the
    /// other has just outdated, and a role that was granted is then missing.
    pub(crate) fn start_in_turn() -> Self {
        Self::people(Keystone::start("1"))
    }

    fn people(keystone: Keystone) -> Self {
        log::keep_secret(&keystone.admin);
        for secret in [PASSWORD, SERVICE_PASSWORD, fixture::ADMIN_PASSWORD] {
            log::keep_secret(secret);
        }
        let project =
            |name: &str| keystone.create("/v3/projects", "project", &json!({"name": name}));
        let (service, shop) = (project("service"), project("shop"));
        let user = |name: &str, password: &str| create_user(&keystone, name, password);
        let (zaqar, alice) = (user("zaqar", SERVICE_PASSWORD), user("alice", PASSWORD));
        let nova = user("nova", PASSWORD);
        for (project, user, role) in [
            (&service, &zaqar, "service"),
            (&service, &nova, "service"),
            (&shop, &alice, "member"),
            (&shop, &alice, "reader"),
        ] {
            grant(&keystone, project, user, role);
        }
        Self {
            keystone,
            shop,
            alice,
            nova,
            service,
            regions: Mutex::default(),
        }
    }

    /// Creates a user with a role in project `shop`, and returns the name and the id.
    pub(crate) fn user(&self, role: &str) -> (String, String) {
        let name = format!("user-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let id = create_user(&self.keystone, &name, PASSWORD);
        grant(&self.keystone, &self.shop, &id, role);
        (name, id)
    }

    /// Creates another service user, and returns its name.
    pub(crate) fn service_user(&self, role: &str) -> (String, String) {
        let name = format!("service-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let id = create_user(&self.keystone, &name, SERVICE_PASSWORD);
        grant(&self.keystone, &self.service, &id, role);
        (name, id)
    }

    pub(crate) fn in_shop(&self) -> Value {
        json!({"project": {"id": self.shop}})
    }

    /// Gets a token of a user in project `shop`.
    pub(crate) fn token(&self, user: &str) -> String {
        let token = self.keystone.login(user, PASSWORD, Some(&self.in_shop()));
        log::keep_secret(&token);
        token
    }

    /// Gets a token of a user with the role `service`.
    pub(crate) fn service_token(&self) -> String {
        let scope = json!({"project": {"id": self.service}});
        let token = self.keystone.login("nova", PASSWORD, Some(&scope));
        log::keep_secret(&token);
        token
    }

    /// Creates an application credential of alice's with these access rules, and gets a token with it.
    pub(crate) fn credential_token(&self, rules: Option<&Value>) -> String {
        let (id, secret) =
            self.application_credential("alice", &self.alice, &self.in_shop(), rules);
        let credential = json!({"id": id, "secret": secret});
        let methods = ["application_credential"];
        let auth = json!({"identity": {"methods": methods, "application_credential": credential}});
        let token = self.keystone.token(&auth);
        log::keep_secret(&token);
        token
    }

    fn application_credential(
        &self,
        user: &str,
        id: &str,
        scope: &Value,
        rules: Option<&Value>,
    ) -> (String, String) {
        let password = if user == "alice" {
            PASSWORD
        } else {
            SERVICE_PASSWORD
        };
        let token = self.keystone.login(user, password, Some(scope));
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut credential = json!({"name": format!("credential-{number}")});
        if let Some(rules) = rules {
            credential["access_rules"] = rules.clone();
        }
        let path = format!("/v3/users/{id}/application_credentials");
        let body = json!({ "application_credential": credential });
        let answer = self.keystone.request("POST", &path, &token, Some(&body));
        assert_eq!(answer.status(), 201, "{}", answer.json());
        let created = &answer.json()["application_credential"];
        let secret = fixture::text(&created["secret"]);
        log::keep_secret(&secret);
        (fixture::text(&created["id"]), secret)
    }

    /// Creates an application credential of a new service user.
    pub(crate) fn service_credential(&self) -> (String, String) {
        let (name, id) = self.service_user("service");
        let scope = json!({"project": {"id": self.service}});
        self.application_credential(&name, &id, &scope, None)
    }

    /// The section `[keystone]` of a service that asks at a port; `more` lies over it.
    pub(crate) fn config(&self, port: u16, more: &Value) -> KeystoneConfig {
        // A region of its own for each proxy: the service then validates through it, as the catalogue says.
        let region = format!("region-{port}");
        let creating = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = |endpoint: &Value| endpoint["region_id"] == region.as_str();
        let endpoints = fixture::list(&self.keystone.get("/v3/endpoints"), "endpoints");
        if !endpoints.iter().any(is_known) {
            self.keystone
                .create("/v3/regions", "region", &json!({"id": region}));
            let service = endpoints.first().expect("Keystone's own endpoint")["service_id"].clone();
            let url = format!("http://127.0.0.1:{port}/v3");
            let endpoint = json!({"service_id": service, "interface": "internal", "region_id": region, "url": url});
            self.keystone.create("/v3/endpoints", "endpoint", &endpoint);
        }
        drop(creating);
        let mut section = json!({
            "auth_url": format!("http://127.0.0.1:{port}"), "public_url": "http://public.example:5000", "region": region,
            "username": "zaqar", "user_domain_id": "default", "password": SERVICE_PASSWORD,
            "project": "service", "project_domain_id": "default",
            // A busy machine is no matter of most tests; those of time limits set their own.
            "timeout_secs": 10,
        });
        let members = section.as_object_mut().expect("an object");
        members.extend(more.as_object().expect("an object").clone());
        serde_json::from_value(section).expect("a section")
    }

    /// An authenticator that asks at a port, with a clock that is moved by hand and starts at the present moment.
    pub(crate) fn authenticator(
        &self,
        port: u16,
        more: &Value,
    ) -> (Arc<Authenticator>, Arc<ManualClock>) {
        let settings = self.config(port, more).resolve().expect("it is right");
        let clock = Arc::new(ManualClock::new(SystemClock.now()));
        let authenticator = Authenticator::new(&settings, Arc::clone(&clock) as _);
        (Arc::new(authenticator.expect("it can be made")), clock)
    }
}

fn create_user(keystone: &Keystone, name: &str, password: &str) -> String {
    keystone.create(
        "/v3/users",
        "user",
        &json!({"name": name, "password": password}),
    )
}

pub(crate) fn grant(keystone: &Keystone, project: &str, user: &str, role: &str) {
    let role = keystone.role(role);
    let path = format!("/v3/projects/{project}/users/{user}/roles/{role}");
    keystone.change("PUT", &path, &Value::Null);
}
