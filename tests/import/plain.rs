//! Lists and streams.

use isimud_testing::certificates::Certificates;
use isimud_testing::redis::{Servers, tls_lines};
use serde_json::json;

use crate::import::wire::{Commands, changes, now};
use crate::import::{Ended, bodies, get, import, redis_server};
use crate::support::server::{Client, Server};

pub(crate) struct Deployment {
    pub(crate) redis: Servers,
    folder: tempfile::TempDir,
    from: String,
}

impl Deployment {
    pub(crate) fn new() -> Option<Self> {
        let redis = redis_server()?;
        let from = format!("redis://{}", redis.get(0).host());
        Some(Self {
            redis,
            folder: tempfile::tempdir().expect("a folder"),
            from,
        })
    }

    /// Imports into the queue `q` of project `p` in an embedded store.
    pub(crate) fn import(&self, kind: &str, more: &[&str]) -> Ended {
        let fixed = [
            kind,
            "--from",
            &self.from,
            "--queue",
            "q",
            "--project",
            "p",
            "--store",
            "sqlite:i.db",
        ];
        import(self.folder.path(), &[&fixed, more].concat())
    }

    pub(crate) fn serve(&self) -> (Server, Client) {
        let server = Server::start("sqlite:i.db", self.folder.path());
        let client = Client::new(server.address, "p");
        (server, client)
    }
}

/// Two thousand jobs, four equal elements between them, and one that is no text; the newest on the left.
fn fill_list(redis: &Servers) {
    let mut commands = Commands::default();
    for number in 0..2_000 {
        commands.words(&format!(r#"LPUSH jobs {{"class":"Job","jid":{number}}}"#));
        if number % 500 == 0 {
            commands.words("LPUSH jobs tick");
        }
    }
    commands.add([b"LPUSH", b"jobs", b"\x80\x04N."]).send(redis);
}

#[test]
fn a_list_keeps_its_order_and_a_second_import_makes_no_doubles() {
    let Some(deployment) = Deployment::new() else {
        return;
    };
    fill_list(&deployment.redis);
    let before = changes(&deployment.redis);

    let dry = deployment.import("redis-list", &["--key", "jobs", "--dry-run"]);
    dry.says("would import");
    dry.says("messages 2005");
    assert!(
        !deployment.folder.path().join("i.db").exists(),
        "a dry run made a store"
    );

    let first = deployment.import("redis-list", &["--key", "jobs", "--ttl", "7200"]);
    assert_eq!(first.code, Some(0), "{first:?}");
    first.says("messages 2005");
    let second = deployment.import("redis-list", &["--key", "jobs", "--ttl", "7200"]);
    second.says("messages 0 new, 2005 there already");
    assert_eq!(changes(&deployment.redis), before, "the source was changed");

    // What was taken at the old end, and added at the new one, moves nothing.
    Commands::default()
        .words("RPOP jobs")
        .words("LPUSH jobs last")
        .send(&deployment.redis);
    let third = deployment.import("redis-list", &["--key", "jobs"]);
    third.says("messages 1 new, 2004 there already");

    let (_server, mut client) = deployment.serve();
    let found = bodies(&mut client, "q");
    assert_eq!(found.len(), 2_006);
    assert_eq!(
        found[..2],
        [json!({"class": "Job", "jid": 0}), json!("tick")]
    );
    let jobs: Vec<i64> = found
        .iter()
        .filter_map(|body| body["jid"].as_i64())
        .collect();
    assert_eq!(jobs, (0..2_000).collect::<Vec<_>>());
    assert_eq!(
        found[2_004..],
        [json!({"base64": "gAROLg=="}), json!("last")]
    );
    let page = get(&mut client, "/v2/queues/q/messages?echo=true&limit=1");
    assert_eq!(page["messages"][0]["ttl"], 7200);
}

#[test]
fn a_list_may_have_its_oldest_element_on_the_left_and_celerys_wrapping() {
    let Some(deployment) = Deployment::new() else {
        return;
    };
    let wrapped = br#"{"body":"W1sxLDJdLHt9XQ==","headers":{"id":"x"},"properties":{"body_encoding":"base64"}}"#;
    Commands::default()
        .add([b"RPUSH", b"celery", wrapped])
        .words("RPUSH celery 2 3")
        .send(&deployment.redis);
    let ended = deployment.import(
        "redis-list",
        &["--key", "celery", "--oldest", "left", "--unwrap", "celery"],
    );
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let (_server, mut client) = deployment.serve();
    let unwrapped = json!({"body": [[1, 2], {}], "headers": {"id": "x"}, "properties": {}});
    assert_eq!(bodies(&mut client, "q"), [unwrapped, json!(2), json!(3)]);
}

/// A thousand entries from a time in milliseconds on, of which a group has ten, and has acknowledged three.
fn fill_stream(redis: &Servers, old: i64) {
    let mut commands = Commands::default();
    for number in 0..1_000 {
        commands.words(&format!(
            "XADD s {}-{} n {number} text a",
            old + number / 10,
            number % 10
        ));
    }
    commands.words("XGROUP CREATE s workers 0").send(redis);
    let read = "XREADGROUP GROUP workers one COUNT 10 STREAMS s >";
    redis.get(0).command(read).expect("delivered");
    for number in [0, 1, 5] {
        let acknowledged = format!("XACK s workers {old}-{number}");
        redis.get(0).command(&acknowledged).expect("acknowledged");
    }
}

#[test]
fn a_stream_keeps_order_and_age_and_leaves_out_what_its_group_has_done() {
    let Some(deployment) = Deployment::new() else {
        return;
    };
    fill_stream(&deployment.redis, now() * 1000 - 90_000);
    let before = changes(&deployment.redis);
    let ended = deployment.import(
        "redis-stream",
        &["--key", "s", "--group", "workers", "--journal", "j"],
    );
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended.says("messages 997");
    ended.says("done 3 entries");
    // Without the journal everything is looked at again; with it only what is new.
    let again = deployment.import("redis-stream", &["--key", "s"]);
    again.says("messages 3 new, 997 there already");
    assert_eq!(changes(&deployment.redis), before, "the source was changed");
    Commands::default()
        .words("XADD s * n 1000")
        .send(&deployment.redis);
    let more = deployment.import(
        "redis-stream",
        &["--key", "s", "--journal", "j", "--field", "n"],
    );
    more.says("messages 1");

    let (_server, mut client) = deployment.serve();
    let found = bodies(&mut client, "q");
    assert_eq!(found.len(), 1_001);
    assert_eq!(found[0], json!({"n": "2", "text": "a"}));
    assert_eq!(found[1_000], json!(1000));
    let page = get(&mut client, "/v2/queues/q/messages?echo=true&limit=1");
    let age = page["messages"][0]["age"].as_i64().expect("an age");
    assert!((90..150).contains(&age), "{age}");
}

#[test]
fn the_source_may_be_behind_sentinels_or_in_a_cluster() {
    if redis_server().is_none() {
        return;
    }
    for (servers, option) in [
        (Servers::calm_sentinel(), "?master=isimud"),
        (Servers::cluster(), "?cluster=true"),
    ] {
        let servers = servers.expect("servers");
        let sentinel = option.contains("master");
        // Whichever of the masters has the key takes it.
        let push = |at: usize| {
            servers
                .get(at)
                .command("RPUSH jobs 1 2 3")
                .expect("an answer")
        };
        let taken = (0..3).any(|at| push(at).starts_with(':'));
        assert!(taken, "no server took the list");
        let host = servers.get(if sentinel { 2 } else { 0 }).host();
        let from = format!("redis://{host}{option}");
        let folder = tempfile::tempdir().expect("a folder");
        let arguments = ["--key", "jobs", "--queue", "q", "--dry-run"];
        let ended = import(
            folder.path(),
            &[&["redis-list", "--from", &from], &arguments[..]].concat(),
        );
        assert_eq!(ended.code, Some(0), "{ended:?}");
        ended.says("messages 3");
    }
}

#[test]
fn the_source_may_speak_tls_with_an_authority_of_its_own() {
    if redis_server().is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let certificates = Certificates::create();
    let lines = tls_lines(&certificates, "server", "yes");
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let servers = match Servers::one(&lines) {
        Ok(servers) => servers,
        Err(why) => return eprintln!("left out: this redis-server has no TLS: {why}"),
    };
    Commands::default().words("RPUSH jobs 1 2").send(&servers);
    let host = servers.get(0).host();
    let options = certificates.option("ca_file", "ca") + &certificates.identity("client");
    for (query, code) in [(options.as_str(), 0), ("", 1)] {
        let from = format!("rediss://{host}?{}", query.trim_start_matches('&'));
        let arguments = [
            "--key",
            "jobs",
            "--queue",
            "q",
            "--dry-run",
            "--from",
            &from,
        ];
        let ended = import(folder.path(), &[&["redis-list"], &arguments[..]].concat());
        assert_eq!(ended.code, Some(code), "{ended:?}");
    }
}

#[test]
fn mistakes_end_with_a_sentence() {
    let Some(deployment) = Deployment::new() else {
        return;
    };
    Commands::default()
        .words("SET text x")
        .words("XADD s * a b")
        .send(&deployment.redis);
    for (kind, more, sentence) in [
        (
            "redis-list",
            &["--key", "text"][..],
            "the key is not that of a list",
        ),
        (
            "redis-stream",
            &["--key", "text"],
            "the key is not that of a stream",
        ),
        (
            "redis-stream",
            &["--key", "s", "--group", "g"],
            "the stream has no such group",
        ),
        ("redis-list", &["--key", "x", "--ttl", "5"], "TTL"),
        ("redis-list", &["--key", "x"], "there is no such key"),
        ("redis-stream", &["--key", "x"], "there is no such key"),
        (
            "redis-list",
            &["--key", "x", "--unacked"],
            "--unacked needs --unwrap celery",
        ),
        (
            "redis-list",
            &["--key", "x", "--store", "http://x"],
            "no driver serves",
        ),
    ] {
        let ended = deployment.import(kind, more);
        let is_usage = more.contains(&"--store");
        assert_eq!(ended.code, Some(if is_usage { 2 } else { 1 }), "{ended:?}");
        assert!(is_usage || ended.errors.contains(sentence), "{ended:?}");
        assert_eq!(ended.errors.lines().count() == 1, !is_usage, "{ended:?}");
    }
    assert!(
        !deployment.folder.path().join("i.db").exists() || {
            let (_server, mut client) = deployment.serve();
            get(&mut client, "/v2/queues")["queues"] == json!([])
        },
        "a mistake made a queue"
    );
    let nobody = [
        "redis-list",
        "--from",
        "redis://127.0.0.1:1",
        "--key",
        "k",
        "--queue",
        "q",
    ];
    let ended = import(deployment.folder.path(), &nobody);
    assert_eq!(ended.code, Some(1));
    assert!(ended.errors.contains("cannot be reached"), "{ended:?}");
}

#[test]
fn an_embedded_store_in_use_is_explained() {
    let Some(deployment) = Deployment::new() else {
        return;
    };
    let (_server, _client) = deployment.serve();
    let ended = deployment.import("redis-list", &["--key", "jobs"]);
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.errors.contains("stop the server that uses it"),
        "{ended:?}"
    );
}
