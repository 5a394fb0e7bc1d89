//! The queues of Celery and of BullMQ, which are more than one list.

use serde_json::json;

use crate::import::bodies;
use crate::import::plain::Deployment;
use crate::import::wire::Commands;

/// A task as kombu writes it, with an empty body.
fn task(number: u32) -> String {
    format!(
        r#"{{"body":"W10=","headers":{{"id":"{number}"}},"properties":{{"body_encoding":"base64"}}}}"#
    )
}

/// Eight tasks: two of the usual priority, three of others, one for another queue, and two that workers hold.
fn fill_celery(deployment: &Deployment) {
    let held = |number, key: &str| format!(r#"[{},"ex","{key}"]"#, task(number));
    let (one, other, foreign) = (held(6, "celery"), held(7, "bound"), held(8, "elsewhere"));
    let tasks: Vec<String> = (0..6).map(task).collect();
    Commands::default()
        .add([b"LPUSH", b"celery", tasks[0].as_bytes()])
        .add([b"LPUSH", b"celery", tasks[1].as_bytes()])
        .add([b"LPUSH", b"celery\x06\x163", tasks[2].as_bytes()])
        .add([b"LPUSH", b"celery\x06\x169", tasks[3].as_bytes()])
        .add([b"LPUSH", b"celery\x06\x169", tasks[4].as_bytes()])
        .add([b"LPUSH", b"celery2", tasks[5].as_bytes()])
        .add([b"HSET", b"unacked", b"tag-1", one.as_bytes()])
        .add([b"HSET", b"unacked", b"tag-2", other.as_bytes()])
        .add([b"HSET", b"unacked", b"tag-3", foreign.as_bytes()])
        .add([
            b"SADD",
            b"_kombu.binding.ex",
            b"bound\x06\x16\x06\x16celery",
        ])
        .send(&deployment.redis);
}

#[test]
fn tasks_of_every_priority_are_taken_and_those_that_workers_hold_are_told_of() {
    let Some(deployment) = Deployment::new() else {
        return;
    };
    fill_celery(&deployment);
    let celery = ["--key", "celery", "--unwrap", "celery"];
    for more in [&["--dry-run"][..], &[]] {
        let ended = deployment.import("redis-list", &[&celery[..], more].concat());
        assert_eq!(
            ended.code,
            Some(3),
            "two stay with their workers: {ended:?}"
        );
        ended.says("read 7 elements");
        ended.says("messages 5");
        ended.says("left out 2 elements");
        ended.says("2 x a worker of Celery holds it");
        assert!(ended.report.contains("task tag-2 of unacked"), "{ended:?}");
    }
    let ended = deployment.import("redis-list", &[&celery[..], &["--unacked"]].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended.says("messages 2 new, 5 there already");
    let (_server, mut client) = deployment.serve();
    let found = bodies(&mut client, "q");
    let ids: Vec<_> = found.iter().map(|body| &body["headers"]["id"]).collect();
    assert_eq!(ids[..5], ["0", "1", "2", "3", "4"]);
    assert_eq!(found[6]["body"], json!([]), "{found:?}");
}

#[test]
fn a_queue_of_celery_may_have_its_tasks_in_workers_hands_alone() {
    let Some(deployment) = Deployment::new() else {
        return;
    };
    fill_celery(&deployment);
    let flags = ["--key", "elsewhere", "--unwrap", "celery", "--unacked"];
    let ended = deployment.import("redis-list", &flags);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended.says("messages 1");
    let nobodys = ["--key", "nobody", "--unwrap", "celery"];
    let ended = deployment.import("redis-list", &nobodys);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.errors.contains("there is no such key"), "{ended:?}");
}

#[test]
fn a_key_of_another_type_holds_up_no_task_and_no_job() {
    let Some(deployment) = Deployment::new() else {
        return;
    };
    let held = format!(r#"[{},"ex","bound"]"#, task(1));
    Commands::default()
        .add([b"LPUSH", b"celery", task(0).as_bytes()])
        .add([b"HSET", b"unacked", b"tag-1", held.as_bytes()])
        .words("SET _kombu.binding.ex x")
        .words("SET celery\x06\x163 x")
        .send(&deployment.redis);
    let celery = ["--key", "celery", "--unwrap", "celery"];
    let ended = deployment.import("redis-list", &celery);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    ended.says("messages 1");
    ended.says("key _kombu.binding.ex (string)");
    ended.says(r"key celery\x06\x163 (string)");
    Commands::default()
        .words("DEL unacked")
        .words("SET unacked x")
        .send(&deployment.redis);
    let ended = deployment.import("redis-list", &celery);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    ended.says("messages 0 new, 1 there already");
    ended.says("key unacked (string)");
    fill_bull(&deployment);
    Commands::default()
        .words("SET bull:mail:paused x")
        .send(&deployment.redis);
    let bull = ["--key", "bull:mail:wait", "--unwrap", "bullmq"];
    let ended = deployment.import("redis-list", &bull);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    ended.says("messages 4");
    ended.says("key bull:mail:paused (string)");
}

/// Six jobs: two that wait, one with a priority, one delayed, one at work, and a number without a job.
fn fill_bull(deployment: &Deployment) {
    let due = (crate::import::wire::now() + 600) * 1000 * 4096;
    let mut commands = Commands::default();
    for number in 1..=5 {
        let data = format!(r#"{{"to":{number}}}"#);
        let key = format!("bull:mail:{number}");
        let made = ((crate::import::wire::now() - 50) * 1000).to_string();
        let parts: [&[u8]; 8] = [
            b"HSET",
            key.as_bytes(),
            b"name",
            b"send",
            b"data",
            data.as_bytes(),
            b"timestamp",
            made.as_bytes(),
        ];
        commands.add(parts);
    }
    commands
        .words("LPUSH bull:mail:wait 1 2 99")
        .words("ZADD bull:mail:prioritized 1 3")
        .words(&format!("ZADD bull:mail:delayed {due} 4"))
        .words("LPUSH bull:mail:active 5")
        .send(&deployment.redis);
}

#[test]
fn jobs_of_bullmq_are_taken_and_not_their_numbers() {
    let Some(deployment) = Deployment::new() else {
        return;
    };
    fill_bull(&deployment);
    let plain = deployment.import("redis-list", &["--key", "bull:mail:wait"]);
    assert_eq!(plain.code, Some(1), "numbers are of no use: {plain:?}");
    assert!(plain.errors.contains("--unwrap bullmq"), "{plain:?}");
    let bull = ["--key", "bull:mail:wait", "--unwrap", "bullmq"];
    let ended = deployment.import("redis-list", &bull);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    ended.says("read 6 elements");
    ended.says("messages 4");
    ended.says("1 x a worker holds it");
    ended.says("job 5 of bull:mail:active");
    ended.says("1 x there is no such job, or it has no data");
    ended.says("job 99 of bull:mail:wait");
    let again = deployment.import("redis-list", &bull);
    again.says("messages 0 new, 4 there already");
    let (_server, mut client) = deployment.serve();
    let found = bodies(&mut client, "q");
    let jobs = [1, 2, 3, 4].map(
        |number: u32| json!({"id": number.to_string(), "name": "send", "data": {"to": number}}),
    );
    assert_eq!(found, jobs);
    let free = client
        .send("DELETE", "/v2/queues/q/messages?pop=10", None)
        .expect("an answer")
        .json();
    let free = free["messages"].as_array().expect("messages").len();
    assert_eq!(free, 3, "one is delayed");
}
