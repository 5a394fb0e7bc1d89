//! Pools that a file declares, and what operators see of pools.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::command::process::{Running, exchange, isimud, run};
use crate::support::server::{self, Client};

const DECLARED: &str = r#"
[pools.one]
uri = "sqlite:one.db"
weight = 3
[pools.one.options]
cache_mib = 8
[pools.two]
uri = "sqlite:two.db"
weight = 1
[flavors.gold]
project = "operations"
pools = ["two"]
"#;

/// A folder's configuration, which names the file of pools.
fn configure(folder: &Path, pools: &str) {
    fs::write(folder.join("pools.toml"), pools).expect("a file of pools");
    let text = "[pooling]\nfile = \"pools.toml\"";
    fs::write(folder.join("isimud.toml"), text).expect("a configuration");
}

fn serve(folder: &Path) -> Running {
    let arguments = ["--store", "sqlite:main.db", "--config", "isimud.toml"];
    Running::start(folder, &arguments)
}

fn operator(server: &Running) -> Client {
    Client::new(server.address, "operations").admin()
}

fn get(client: &mut Client, path: &str) -> Value {
    client.send("GET", path, None).expect("an answer").json()
}

#[test]
fn a_file_declares_pools_and_flavors() {
    let folder = tempfile::tempdir().expect("a folder");
    configure(folder.path(), DECLARED);
    let server = serve(folder.path());
    let mut client = operator(&server);
    let one = get(&mut client, "/v2/pools/one?detailed=true");
    assert_eq!(one["uri"], "sqlite:one.db");
    assert_eq!(one["weight"], 3);
    assert_eq!(one["options"], json!({"cache_mib": 8}));
    assert_eq!(
        get(&mut client, "/v2/flavors/gold")["pool_list"],
        json!(["two"])
    );
    let body = json!({"_flavor": "gold"});
    let made = client.send("PUT", "/v2/queues/q", Some(&body));
    assert_eq!(made.expect("an answer").status, 201);

    // What the API adds stays; what the file declares comes back with the next start, as it is declared then.
    let three = json!({"uri": "sqlite:three.db", "weight": 5});
    let added = client.send("PUT", "/v2/pools/three", Some(&three));
    assert_eq!(added.expect("an answer").status, 201);
    let changed = client.send("PATCH", "/v2/pools/one", Some(&json!({"weight": 9})));
    assert_eq!(changed.expect("an answer").status, 200);
    drop(server);
    configure(folder.path(), &DECLARED.replace("weight = 1", "weight = 2"));
    let server = serve(folder.path());
    let mut client = operator(&server);
    for (pool, weight) in [("one", 3), ("two", 2), ("three", 5)] {
        let shown = get(&mut client, &format!("/v2/pools/{pool}"));
        assert_eq!(shown["weight"], weight, "{pool}");
    }
    drop(server);
    fs::write(folder.path().join("isimud.toml"), "").expect("a configuration");
    let server = serve(folder.path());
    let mut client = operator(&server);
    assert_eq!(get(&mut client, "/v2/pools/two")["weight"], 2);
    let stats = get(&mut client, "/v2/queues/q/stats");
    assert_eq!(stats["messages"]["total"], 0);
}

#[test]
fn a_wrong_file_of_pools_is_refused_with_a_line() {
    let folder = tempfile::tempdir().expect("a folder");
    for (pools, said) in [
        (
            "[pools.a]\nuri = \"kafka://h\"\nweight = 1",
            "pool 'a': no driver serves",
        ),
        (
            "[pools.a]\nuri = \"sqlite:a?speed=1\"\nweight = 1",
            "'speed'",
        ),
        ("[pools.a]\nuri = \"sqlite:a\"", "weight"),
        ("[pools", "pools.toml"),
        (
            "[pools.default]\nuri = \"sqlite:a\"\nweight = 1",
            "'default'",
        ),
    ] {
        configure(folder.path(), pools);
        for check in [&["--check"][..], &[]] {
            let mut arguments = vec!["--store", "sqlite:main.db", "--config", "isimud.toml"];
            arguments.extend(check);
            let ended = run(isimud(folder.path(), &arguments));
            assert_eq!(ended.status.code(), Some(1), "{ended:?}");
            assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
            assert!(ended.stderr.contains(said), "{ended:?}");
        }
    }
    assert!(
        !folder.path().join("main.db").exists(),
        "nothing was opened"
    );
}

#[test]
fn operators_see_which_pools_are_down() {
    let folder = tempfile::tempdir().expect("a folder");
    let far = format!("redis://{}?timeout_ms=300", server::free_address());
    let near = "[pools.near]\nuri = \"sqlite:near.db\"\nweight = 1\n";
    configure(
        folder.path(),
        &format!("{near}[pools.far]\nuri = \"{far}\"\nweight = 0"),
    );
    let admin = server::free_address();
    let address = admin.to_string();
    let arguments = [
        "--store",
        "sqlite:main.db",
        "--config",
        "isimud.toml",
        "--admin-listen",
        &address,
    ];
    let server = Running::start(folder.path(), &arguments);
    let look = |path: &str| {
        exchange(
            admin,
            &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        )
    };
    let ready = look("/ready");
    assert_eq!(ready.status, 200, "{ready}");
    let stores = json!({"default": "up", "far": "down", "near": "up"});
    assert_eq!(ready.json(), json!({"ready": true, "stores": stores}));
    let message = json!({"messages": [{"body": 1}]});
    let posted = operator(&server).send("POST", "/v2/queues/q/messages", Some(&message));
    assert_eq!(posted.expect("an answer").status, 201);
    let page = look("/metrics");
    let page = String::from_utf8_lossy(&page.body);
    for line in [
        r#"isimud_backend_up{pool="default"} 1"#,
        r#"isimud_backend_up{pool="far"} 0"#,
        r#"isimud_backend_up{pool="near"} 1"#,
        r#"isimud_store_operations_total{pool="near",operation="post",outcome="ok"} 1"#,
    ] {
        assert!(
            page.lines().any(|one| one == line),
            "{line} is not in\n{page}"
        );
    }
}

/// A broker without a journal does not know what it has, whether it answers or not.
#[test]
fn a_pool_that_cannot_count_refuses_a_bound_of_messages() {
    let folder = tempfile::tempdir().expect("a folder");
    let uri = format!(
        "amqp://{}?journal=false&timeout_ms=300",
        server::free_address()
    );
    let blind = format!("[pools.blind]\nuri = \"{uri}\"\nweight = 1\n");
    let flavor = "[flavors.blind]\nproject = \"operations\"\npools = [\"blind\"]\n";
    configure(folder.path(), &format!("{blind}{flavor}"));
    let server = serve(folder.path());
    let mut client = operator(&server);
    let mut send = |method, path, body: Value| {
        let answer = client.send(method, path, Some(&body));
        answer.expect("an answer")
    };
    let bounded = json!({"_flavor": "blind", "_max_messages": 5});
    let refused = send("PUT", "/v2/queues/bounded", bounded);
    assert_eq!(refused.status, 400, "{refused}");
    let plain = json!({"_flavor": "blind"});
    assert_eq!(send("PUT", "/v2/queues/plain", plain).status, 201);
    let bound = json!([{"op": "add", "path": "/metadata/_max_messages", "value": 5}]);
    let also_refused = send("PATCH", "/v2/queues/plain", bound);
    assert_eq!(also_refused.status, 400, "{also_refused}");
    for answer in [refused, also_refused] {
        let why = answer.json()["description"].clone();
        assert!(
            why.as_str()
                .is_some_and(|why| why.contains("'journal' is off")),
            "{why}"
        );
    }
    let elsewhere = json!({"_max_messages": 5});
    assert_eq!(send("PUT", "/v2/queues/elsewhere", elsewhere).status, 201);
}
