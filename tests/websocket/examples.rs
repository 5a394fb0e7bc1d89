//! The examples of docs/examples, as a reader would run them.

use std::path::Path;
use std::process::Command;

use isimud_testing::{python, started};

use crate::websocket::Service;

fn example(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docs/examples")
        .join(name)
}

#[test]
fn the_worker_in_python_gets_and_deletes_what_it_posts() {
    let Some(python) = started("Python with websocket-client", python("clients")) else {
        return;
    };
    let service = Service::start("");
    let run = Command::new(python)
        .arg(example("websocket_client.py"))
        .args([&format!("ws://{}/", service.server.address), "p1", "work"])
        .output()
        .expect("it can be run");
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(
        run.status.success(),
        "{}",
        String::from_utf8_lossy(&run.stderr)
    );
    for number in 0..3 {
        assert!(
            said.contains(&format!("received {{'number': {number}}}")),
            "{said}"
        );
    }
    assert_eq!(said.matches("deleted 204").count(), 3, "{said}");
}

/// Posts what comes back to it, and follows a server that stops and starts again.
const SCRIPT: &str = r#"
const { delayAfter, follow } = require(process.argv[1]);
const client = follow({
  url: process.argv[2], project: "p1", queue: "news",
  show: (body) => { console.log("shown", body); client.close(); },
  tell: (text) => { console.log(text); if (text === "subscription_create: 201") client.post("hello"); },
});
console.log("delay", delayAfter({ reason: "The server stops. Reconnect in 1234 ms." }, 9), delayAfter({}, 1));
"#;

#[test]
fn the_script_of_the_page_shows_what_is_posted() {
    let has_sockets = Command::new("node")
        .args(["--experimental-websocket", "-e", "new WebSocket"])
        .output()
        .map_err(|error| error.to_string())
        .and_then(|run| {
            let said = String::from_utf8_lossy(&run.stderr).into_owned();
            match said.contains("ReferenceError") || said.contains("bad option") {
                true => Err(said),
                false => Ok(()),
            }
        });
    if started("Node.js with WebSocket", has_sockets).is_none() {
        return;
    }
    let service = Service::start("");
    let run = Command::new("node")
        .args(["--experimental-websocket", "-e", SCRIPT])
        .arg(example("websocket.js"))
        .arg(format!("ws://{}/", service.server.address))
        .output()
        .expect("it can be run");
    let said = String::from_utf8_lossy(&run.stdout);
    let errors = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{said}{errors}");
    for line in ["delay 1234 1000", "shown hello"] {
        assert!(said.contains(line), "{said}{errors}");
    }
}
