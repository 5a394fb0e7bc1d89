//! What Zaqar leaves in Redis, written by hand: also what its API would not let one make again.

use isimud_testing::redis::Servers;
use serde_json::{Value, json};

use crate::import::wire::{Commands, changes, now};
use crate::import::{Ended, bodies, get, import, redis_server};
use crate::support::server::{Client, Server};

/// `{"k": ["v", 1, 1.5, null, true, "é"]}`
const BODY: &[u8] = b"\x81\xa1k\x96\xa1v\x01\xcb\x3f\xf8\0\0\0\0\0\0\xc0\xc3\xa2\xc3\xa9";
const CLIENT: &str = "3381af92-2b9e-11e3-b191-71861300734c";
const CLAIM: &str = "84ca99c8-b9a0-4933-b5c8-cf0c7f54aa30";
const SUM: &str = "MD5:0123456789abcdef0123456789abcdef";
const STOLEN: &str = "94ca99c8-b9a0-4933-b5c8-cf0c7f54aa31";

/// An id of a message, by a number.
pub(crate) fn id(number: u32) -> String {
    format!("507fe7d9-784d-4f83-8322-{number:012}")
}

pub(crate) struct Deployment {
    pub(crate) redis: Servers,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) from: String,
    pub(crate) now: i64,
}

/// A message of the deployment, and what is not as usual in it.
pub(crate) struct Stored<'a> {
    pub(crate) queue: &'a str,
    pub(crate) number: u32,
    pub(crate) body: &'a [u8],
    pub(crate) fields: &'a [(&'a str, String)],
}

impl Deployment {
    pub(crate) fn new() -> Option<Self> {
        let redis = redis_server()?;
        let from = format!("redis://{}", redis.get(0).host());
        Some(Self {
            redis,
            folder: tempfile::tempdir().expect("a folder"),
            from,
            now: now(),
        })
    }

    pub(crate) fn put(&self, stored: &Stored<'_>) {
        let (id, rank) = (id(stored.number), stored.number.to_string());
        let (created, expires) = (self.now - 100, self.now + 3500);
        let mut fields = vec![
            ("id", id.clone()),
            ("t", "3600".into()),
            ("cr", created.to_string()),
            ("e", expires.to_string()),
            ("u", CLIENT.into()),
            ("c", String::new()),
            ("c.e", created.to_string()),
        ];
        for (name, value) in stored.fields {
            fields.retain(|(other, _)| other != name);
            fields.push((name, value.clone()));
        }
        let mut parts: Vec<&[u8]> = vec![b"HSET", id.as_bytes()];
        for (name, value) in &fields {
            parts.extend([name.as_bytes(), value.as_bytes()]);
        }
        if !stored.body.is_empty() {
            parts.extend([&b"b"[..], stored.body]);
        }
        let key = format!("{}.messages", stored.queue);
        Commands::default()
            .add_all(&parts)
            .add([b"ZADD", key.as_bytes(), rank.as_bytes(), id.as_bytes()])
            .send(&self.redis);
    }

    pub(crate) fn plain(&self, queue: &str, number: u32) {
        self.put(&Stored {
            queue,
            number,
            body: BODY,
            fields: &[],
        });
    }

    pub(crate) fn record(&self, project: &str, queue: &str, metadata: &[u8]) {
        let (set, key) = (
            format!("{project}.queues_set"),
            format!("{project}.{queue}"),
        );
        let fields: [&[u8]; 10] = [
            b"HSET",
            key.as_bytes(),
            b"c",
            b"0",
            b"cl",
            b"0",
            b"t",
            b"1",
            b"m",
            metadata,
        ];
        Commands::default()
            .add([b"ZADD", set.as_bytes(), b"1", key.as_bytes()])
            .add(fields)
            .send(&self.redis);
    }

    fn import(&self, more: &[&str]) -> Ended {
        let fixed = ["zaqar", "--from", &self.from, "--store", "sqlite:i.db"];
        import(self.folder.path(), &[&fixed, more].concat())
    }

    fn serve(&self) -> Server {
        Server::start("sqlite:i.db", self.folder.path())
    }
}

fn message(client: &mut Client, queue: &str, number: u32) -> Value {
    get(
        client,
        &format!("/v2/queues/{queue}/messages/{}", id(number)),
    )
}

/// A queue with a message of every state that one can be in, 1 to 8.
fn fill_states(deployment: &Deployment) {
    let now = deployment.now;
    deployment.record("p", "q.1", b"\x82\xa4note\xa2\xc3\xa9\xa1n\x05");
    deployment.plain("p.q.1", 1);
    let delayed = [("d", (now + 600).to_string()), ("c.c", "2".into())];
    let until = (now + 500).to_string();
    let claimed = [("c", CLAIM.into()), ("c.e", until.clone())];
    let stolen = [("c", STOLEN.into()), ("c.e", until.clone())];
    let over = [("c", CLAIM.into()), ("c.e", (now - 5).to_string())];
    let expired = [("e", (now - 1).to_string())];
    let summed = [("cs", SUM.into()), ("c.c", "4".into())];
    for (number, fields) in [
        (2, &delayed[..]),
        (3, &claimed),
        (4, &stolen),
        (5, &over),
        (6, &expired),
        (7, &summed),
    ] {
        deployment.put(&Stored {
            queue: "p.q.1",
            number,
            body: BODY,
            fields,
        });
    }
    Commands::default()
        .words(&format!("ZADD p.q.1.messages 8 {}", id(8)))
        .words(&format!("ZADD p.q.1.claims {until} {CLAIM}"))
        .words(&format!("HSET {CLAIM} id {CLAIM} t 900 e {until} n 1"))
        .send(&deployment.redis);
}

#[test]
fn live_messages_come_with_all_they_are() {
    let Some(deployment) = Deployment::new() else {
        return;
    };
    fill_states(&deployment);
    let before = changes(&deployment.redis);
    let ended = deployment.import(&[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended.says("messages 6");
    ended.says("claims 2, holding 2 messages");
    ended.says("expired 1");
    ended.says("dangling 1");
    assert_eq!(changes(&deployment.redis), before, "the source was changed");

    let server = deployment.serve();
    let mut client = Client::new(server.address, "p");
    let metadata = get(&mut client, "/v2/queues/q.1");
    assert_eq!(
        (&metadata["note"], &metadata["n"]),
        (&json!("é"), &json!(5))
    );
    let first = message(&mut client, "q.1", 1);
    assert_eq!(first["body"], json!({"k": ["v", 1, 1.5, null, true, "é"]}));
    assert_eq!(first["ttl"], 3600);
    assert!(
        (100..160).contains(&first["age"].as_i64().expect("an age")),
        "{first}"
    );
    assert_eq!(message(&mut client, "q.1", 7)["checksum"], SUM);
    let claim = get(&mut client, &format!("/v2/queues/q.1/claims/{CLAIM}"));
    assert_eq!(
        (&claim["ttl"], claim["messages"].as_array().map(Vec::len)),
        (&json!(900), Some(1))
    );
    let stats = get(&mut client, "/v2/queues/q.1/stats");
    assert_eq!(
        (&stats["messages"]["claimed"], &stats["messages"]["total"]),
        (&json!(2), &json!(6))
    );
    // The delayed one is not among those that can be had, and the claimed ones are not.
    let popped = client
        .send("DELETE", "/v2/queues/q.1/messages?pop=10", None)
        .expect("an answer");
    let popped = popped.json();
    let counts = popped["messages"].as_array().expect("messages").iter();
    let counts: Vec<&Value> = counts.map(|message| &message["claim_count"]).collect();
    assert_eq!(counts, [0, 0, 4]);
    // Nobody sees their own.
    let own = client
        .send("GET", "/v2/queues/q.1/messages", None)
        .expect("an answer")
        .json();
    assert_eq!(own["messages"], json!([]));
}

/// Names that have dots, or are shared, and keys that are not what their names say.
fn fill_names(deployment: &Deployment) {
    deployment.record("p", "x", b"\x80");
    deployment.record("p", "x.y", b"\x80");
    deployment.record("a", "b.c", b"\x80");
    deployment.record("a.b", "c", b"\x80");
    deployment.record("p", "spoilt", b"\xc1");
    for (queue, number) in [
        ("p.x.y", 1),
        ("p.x", 2),
        ("a.b.c", 3),
        ("p.dead", 4),
        ("new.dead.q", 5),
    ] {
        deployment.plain(queue, number);
    }
    let bad = [("e", (deployment.now + 9).to_string())];
    for (number, body) in [(6, &b"\xc1"[..]), (7, b"")] {
        deployment.put(&Stored {
            queue: "p.x",
            number,
            body,
            fields: &bad,
        });
    }
    let subscriber = "HSET 607fe7d9-784d-4f83-8322-0cc0d255c50c s x u http://h t 9999 p p c 1 e";
    Commands::default()
        .words("SET some.messages text")
        .words("ZADD p.x.messages 9 notanid")
        .words("HSET notanid e 99999999999 b x t 1 cr 1")
        .words("ZADD p.x.subscriptions 1 607fe7d9-784d-4f83-8322-0cc0d255c50c")
        .words(&format!("{subscriber} {}", deployment.now + 900))
        .words("ZADD pools 0 fast.pools")
        .send(&deployment.redis);
}

#[test]
fn names_with_dots_find_their_queues_and_strange_keys_are_told_of() {
    let Some(deployment) = Deployment::new() else {
        return;
    };
    fill_names(&deployment);
    let ended = deployment.import(&["--journal", "j"]);
    assert_eq!(ended.code, Some(3), "something stays behind: {ended:?}");
    ended.says("queues 7");
    ended.says("messages 4");
    for line in [
        "2 x another project's queue has the same keys",
        "1 x its body is not MessagePack",
        "1 x its id is not a UUID in lower case",
        "1 x what has its id is no message",
        "1 x their record cannot be read",
        "pool fast",
        "subscribed 1",
    ] {
        ended.says(line);
    }
    let server = deployment.serve();
    let path = "/v2/queues/x/subscriptions/607fe7d9-784d-4f83-8322-0cc0d255c50c";
    let kept = Client::new(server.address, "p").send("GET", path, None);
    let kept = kept.expect("an answer").json();
    assert_eq!(kept["subscriber"], "http://h", "{kept}");
    assert_eq!(kept["confirmed"], true, "{kept}");
    let life = kept["ttl"].as_u64().expect("a ttl");
    assert!((800..=900).contains(&life), "what it had left: {kept}");
    for (project, queue, count) in [
        ("p", "x", 1),
        ("p", "x.y", 1),
        ("p", "dead", 1),
        ("new", "dead.q", 1),
        ("a", "b.c", 0),
        ("a.b", "c", 0),
    ] {
        let mut client = Client::new(server.address, project);
        assert_eq!(bodies(&mut client, queue).len(), count, "{project}/{queue}");
    }
}

#[test]
fn encrypted_bodies_are_opened_and_encrypted_anew() {
    let Some(deployment) = Deployment::new() else {
        return;
    };
    let text = b"AkGC1N9VLlbN4ObBqO3dD+GKtMvTY5+z6siAD1e+mHE=";
    let object =
        b"TiTknS+f+XjFdhZritzr75Eas8RMBrUaOPujcYSiQBmOkAo0xCSXBjTDYGI6D8Mxr/8e48kjLiEVW/TElFbiPQ==";
    deployment.record("p", "q", b"\x81\xb8_enable_encrypt_messages\xc3");
    for (number, body) in [(1, &text[..]), (2, object)] {
        let length = u8::try_from(body.len()).expect("a short body");
        deployment.put(&Stored {
            queue: "p.q",
            number,
            body: &[&[0xc4, length], body].concat(),
            fields: &[("cs", SUM.into())],
        });
    }
    deployment.plain("p.q", 3);
    // The key is unknown: only what was not encrypted comes, and the journal remembers the others.
    let ended = deployment.import(&["--journal", "j"]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    ended.says("messages 1");
    ended.says("2 x none of the pass phrases opens its encrypted body");
    std::fs::write(deployment.folder.path().join("keys"), "other\nMyKey123\n").expect("written");
    let ended = deployment.import(&["--journal", "j", "--encryption-key-file", "keys"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended.says("read 2");
    ended.says("messages 2");
    ended.says("decrypted 2");
    let ended = deployment.import(&["--journal", "j", "--encryption-key-file", "keys"]);
    ended.says("read 0");
    let stored = std::fs::read(deployment.folder.path().join("i.db")).expect("the store");
    assert!(
        !stored.windows(5).any(|part| part == "éllo".as_bytes()),
        "a body is readable on the disk"
    );

    let server = deployment.serve();
    let mut client = Client::new(server.address, "p");
    let first = message(&mut client, "q", 1);
    assert_eq!(first["body"], "héllo");
    // It was that of the ciphertext.
    assert_ne!(first["checksum"], SUM);
    assert_eq!(
        message(&mut client, "q", 2)["body"],
        json!({"k": [1, 2.5, null, true, "x"]})
    );
}

#[test]
fn what_was_consumed_here_does_not_come_back_with_a_journal() {
    let Some(deployment) = Deployment::new() else {
        return;
    };
    deployment.record("p", "q", b"\x80");
    for number in 1..=700 {
        deployment.plain("p.q", number);
    }
    deployment.import(&["--journal", "j"]).says("messages 700");
    let server = deployment.serve();
    let mut client = Client::new(server.address, "p");
    client
        .send("DELETE", "/v2/queues/q/messages?pop=20", None)
        .expect("an answer");
    server.kill();
    deployment.plain("p.q", 701);
    deployment.import(&["--journal", "j"]).says("messages 1");
    let other = ["--journal", "j", "--store", "sqlite:other.db"];
    let ended = import(
        deployment.folder.path(),
        &[&["zaqar", "--from", &deployment.from], &other[..]].concat(),
    );
    assert_eq!(ended.code, Some(1));
    assert!(ended.errors.contains("another store"), "{ended:?}");
    // Without it everything is looked at again.
    deployment
        .import(&[])
        .says("messages 20 new, 681 there already");
}

#[test]
fn pools_are_several_sources() {
    let (Some(one), Some(other)) = (Deployment::new(), Deployment::new()) else {
        return;
    };
    one.record("p", "q", b"\x81\xa1n\x07");
    one.plain("p.q", 1);
    other.plain("p.q", 2);
    other.plain("p.q.2", 3);
    let ended = one.import(&["--from", &other.from]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended.says("queues 2");
    ended.says("messages 3");
    let server = one.serve();
    let mut client = Client::new(server.address, "p");
    assert_eq!(bodies(&mut client, "q").len(), 2);
    assert_eq!(get(&mut client, "/v2/queues/q")["n"], 7);
}

#[test]
fn queues_may_come_from_sql() {
    let Some(deployment) = Deployment::new() else {
        return;
    };
    deployment.plain("p.q.with.dots", 1);
    deployment.plain("p.dead", 2);
    let dump = "-- MySQL dump\nCREATE TABLE `Queues` (`id` int);\n\
        INSERT INTO `Queues` VALUES (1,'p','q.with.dots',_binary '{\\\"n\\\": 7}'),(2,'other','empty','{}');\n";
    std::fs::write(deployment.folder.path().join("zaqar.sql"), dump).expect("written");
    let ended = deployment.import(&["--management", "zaqar.sql"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended.says("queues 3");
    ended.says("messages 2");
    let server = deployment.serve();
    let mut client = Client::new(server.address, "p");
    assert_eq!(get(&mut client, "/v2/queues/q.with.dots")["n"], 7);
    assert_eq!(bodies(&mut client, "q.with.dots").len(), 1);
}
