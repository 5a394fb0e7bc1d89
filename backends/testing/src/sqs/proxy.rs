//! Stands between a client and a server that speaks SQS, and spoils the requests that it is told to.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What happens to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It is passed on, and so is its answer.
    None,
    /// It is refused with this code, and has no effect.
    Refused(u16, &'static str),
    /// The connection ends before it has an effect.
    Dropped,
    /// It has its effect, and the connection ends before the answer.
    DroppedAfter,
    /// It has its effect, and the answer says 500.
    FailedAfter,
    /// Of a batch, the entries at these places are left out and answered as failed: the code, and whether it is the
    /// sender's fault.
    Partial(Vec<usize>, &'static str, bool),
    /// There is no answer for so long.
    Late(Duration),
}

/// Which faults are to come, by action: each is used up by one request, and then the last one stays if it is to.
#[derive(Debug, Default)]
struct Plan {
    action: String,
    coming: VecDeque<Fault>,
    forever: bool,
    storm: Option<Storm>,
}

/// Faults by chance, of every kind.
#[derive(Debug)]
struct Storm {
    chance: fastrand::Rng,
    /// Of so many requests one meets a fault.
    one_in: usize,
}

impl Storm {
    fn next(&mut self, action: &str) -> Fault {
        let chance = &mut self.chance;
        if chance.usize(0..self.one_in) > 0 {
            return Fault::None;
        }
        match chance.u8(0..if action.ends_with("Batch") { 8 } else { 6 }) {
            0 => Fault::Refused(400, "RequestThrottled"),
            1 => Fault::Refused(503, "ServiceUnavailable"),
            2 => Fault::Refused(500, "InternalError"),
            3 => Fault::Dropped,
            4 => Fault::DroppedAfter,
            5 => Fault::FailedAfter,
            kind => {
                let places = (0..10).filter(|_| chance.bool()).collect();
                match kind {
                    6 => Fault::Partial(places, "InternalError", false),
                    _ => Fault::Partial(places, "RequestThrottled", true),
                }
            }
        }
    }
}

/// A proxy on a port of its own.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// Where it listens.
    pub port: u16,
    plan: Arc<Mutex<Plan>>,
    seen: Arc<Mutex<Vec<String>>>,
    /// Requests that met a fault.
    spoilt: Arc<AtomicUsize>,
}

impl Proxy {
    /// Starts a proxy on the runtime at hand, in front of a port.
    pub async fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("the proxy works");
        let proxy = Self {
            port: listener.local_addr().expect("the proxy works").port(),
            plan: Arc::default(),
            seen: Arc::default(),
            spoilt: Arc::default(),
        };
        let standing = proxy.clone();
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.expect("the proxy works");
                let proxy = standing.clone();
                tokio::spawn(async move {
                    // Whoever goes away in the middle is no business of ours.
                    drop(proxy.pass(client, server).await);
                });
            }
        });
        proxy
    }

    /// The next requests of an action meet these faults, one after another.
    pub fn next(&self, action: &str, faults: impl IntoIterator<Item = Fault>) {
        *self.plan.lock().expect("the plan") = Plan {
            action: action.into(),
            coming: faults.into_iter().collect(),
            ..Plan::default()
        };
    }

    /// All requests of an action meet this fault from now on.
    pub fn always(&self, action: &str, fault: Fault) {
        *self.plan.lock().expect("the plan") = Plan {
            action: action.into(),
            coming: [fault].into(),
            forever: true,
            storm: None,
        };
    }

    /// From now on one request of so many meets a fault, and chance says which.
    pub fn storm(&self, seed: u64, one_in: usize) {
        let chance = fastrand::Rng::with_seed(seed);
        *self.plan.lock().expect("the plan") = Plan {
            storm: Some(Storm { chance, one_in }),
            ..Plan::default()
        };
    }

    /// Nothing happens any more.
    pub fn calm(&self) {
        *self.plan.lock().expect("the plan") = Plan::default();
    }

    /// How many requests of an action came by.
    pub fn seen(&self, action: &str) -> usize {
        let seen = self.seen.lock().expect("the plan");
        seen.iter().filter(|seen| *seen == action).count()
    }

    /// How many requests met a fault so far.
    pub fn faults(&self) -> usize {
        self.spoilt.load(Ordering::Relaxed)
    }

    fn fault(&self, action: &str) -> Fault {
        self.seen.lock().expect("the plan").push(action.to_owned());
        let fault = self.planned(action);
        if fault != Fault::None {
            self.spoilt.fetch_add(1, Ordering::Relaxed);
        }
        fault
    }

    fn planned(&self, action: &str) -> Fault {
        let mut plan = self.plan.lock().expect("the plan");
        if let Some(storm) = &mut plan.storm {
            return storm.next(action);
        }
        if plan.action != action && plan.action != "*" {
            return Fault::None;
        }
        if plan.forever {
            return plan.coming.front().cloned().unwrap_or(Fault::None);
        }
        plan.coming.pop_front().unwrap_or(Fault::None)
    }

    async fn pass(&self, mut client: TcpStream, server: u16) -> std::io::Result<()> {
        let Some((head, mut body)) = read(&mut client).await? else {
            return Ok(());
        };
        let target = head.lines().find_map(|line| {
            line.to_ascii_lowercase()
                .strip_prefix("x-amz-target:")
                .map(|_| line)
        });
        let action = target
            .and_then(|line| line.rsplit('.').next())
            .unwrap_or("")
            .trim()
            .to_owned();
        let fault = self.fault(&action);
        let mut failed = Vec::new();
        match &fault {
            Fault::Refused(status, code) => {
                let body =
                    json!({"__type": format!("com.amazonaws.sqs#{code}"), "message": "as planned"});
                return answer(&mut client, *status, &body, Some(code)).await;
            }
            Fault::Dropped => return Ok(()),
            Fault::Late(span) => tokio::time::sleep(*span).await,
            Fault::Partial(places, code, sender) => {
                failed = leave_out(&mut body, places, code, *sender);
            }
            Fault::None | Fault::DroppedAfter | Fault::FailedAfter => {}
        }
        let got = forward(server, &head, &body).await?;
        match fault {
            Fault::DroppedAfter => Ok(()),
            Fault::FailedAfter => answer(&mut client, 500, &json!({}), None).await,
            Fault::Partial(..) => {
                let (_, said) = got.split_once("\r\n\r\n").unwrap_or_default();
                let mut said: Value = serde_json::from_str(said).unwrap_or_else(|_| json!({}));
                if !said["Failed"].is_array() {
                    said["Failed"] = json!([]);
                }
                if !said["Successful"].is_array() {
                    said["Successful"] = json!([]);
                }
                said["Failed"]
                    .as_array_mut()
                    .expect("the proxy works")
                    .extend(failed);
                answer(&mut client, 200, &said, None).await
            }
            _ => client.write_all(got.as_bytes()).await,
        }
    }
}

/// Takes entries out of a batch, and says what is to be said of them.
fn leave_out(body: &mut String, places: &[usize], code: &str, sender: bool) -> Vec<Value> {
    let mut batch: Value = serde_json::from_str(body).expect("a batch");
    let entries = batch["Entries"].as_array_mut().expect("entries");
    let mut failed = Vec::new();
    let mut place = 0;
    entries.retain(|entry| {
        let stays = !places.contains(&place);
        place += 1;
        if !stays {
            failed.push(json!({"Id": entry["Id"], "Code": code, "SenderFault": sender, "Message": "as planned"}));
        }
        stays
    });
    *body = batch.to_string();
    failed
}

async fn forward(server: u16, head: &str, body: &str) -> std::io::Result<String> {
    if serde_json::from_str::<Value>(body).is_ok_and(|body| body["Entries"] == json!([])) {
        return Ok("HTTP/1.1 200 OK\r\n\r\n{}".into());
    }
    let mut stream = TcpStream::connect(("127.0.0.1", server)).await?;
    let mut request = String::new();
    for line in head.lines() {
        let name = line
            .split(':')
            .next()
            .unwrap_or_default()
            .to_ascii_lowercase();
        if name != "content-length" && name != "connection" {
            request.push_str(line);
            request.push_str("\r\n");
        }
    }
    request.push_str(&format!(
        "Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    ));
    stream.write_all(request.as_bytes()).await?;
    let mut got = String::new();
    stream.read_to_string(&mut got).await?;
    Ok(got)
}

async fn answer(
    client: &mut TcpStream,
    status: u16,
    body: &Value,
    code: Option<&str>,
) -> std::io::Result<()> {
    let body = body.to_string();
    let code = code
        .map(|code| format!("x-amzn-query-error: {code};Sender\r\n"))
        .unwrap_or_default();
    let answer = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/x-amz-json-1.0\r\n{code}Content-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    client.write_all(answer.as_bytes()).await
}

/// One request: its head, and its body.
async fn read(client: &mut TcpStream) -> std::io::Result<Option<(String, String)>> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let length = head
                .lines()
                .find_map(|line| {
                    line.to_ascii_lowercase()
                        .strip_prefix("content-length:")?
                        .trim()
                        .parse()
                        .ok()
                })
                .unwrap_or(0);
            let mut body = bytes.split_off(end + 4);
            while body.len() < length {
                if client.read_buf(&mut body).await? == 0 {
                    return Ok(None);
                }
            }
            return Ok(Some((head, String::from_utf8_lossy(&body).into_owned())));
        }
        if client.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    }
}
