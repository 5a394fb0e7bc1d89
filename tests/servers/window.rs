//! With `appendfsync everysec` a killed Redis may lose what it had acknowledged shortly before. How much that was is
//! counted and printed; whatever is older than the window must be there, and the servers must say what happened.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use isimud_testing::redis::Servers;
use serde_json::{Value, json};

use crate::restart::oracle::numbered;
use crate::servers::Service;
use crate::servers::crashes::{self, QUEUE};
use crate::support::server::{Answer, Client};

const KILLS: usize = 3;
const PRODUCERS: usize = 4;
const WORKERS: usize = 16;
/// Messages that are posted and not yet deleted, at the most, about.
const BACKLOG: usize = 2_000;
/// Redis answers before its log is with the kernel when the disk is slow, for two seconds at the most (Redis
/// documentation, "Append-only file"); the rest is for a busy machine.
const WINDOW: Duration = Duration::from_millis(3000);

#[test]
fn with_appendfsync_everysec_the_loss_is_within_its_window() {
    let Some(service) = Service::start(Servers::single) else {
        return;
    };
    let test = Test::default();
    let mut kills = Vec::new();
    thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (test, service) = (&test, &service);
            if worker < PRODUCERS {
                scope.spawn(move || test.produce(service.client(worker), worker as u64));
            } else {
                scope.spawn(move || test.consume(|| service.client(worker)));
            }
        }
        let _over = Over(&test.over);
        for _ in 0..KILLS {
            thread::sleep(Duration::from_millis(fastrand::u64(1000..2000)));
            let redis = service.redis.get(0);
            redis.kill();
            kills.push(Instant::now());
            redis.start_again().expect("Redis starts again");
            for mut client in service.clients() {
                crashes::until_served(&mut client);
            }
        }
        thread::sleep(Duration::from_millis(500));
    });
    test.report(&service, &kills);
    let warning = "Redis was restarted: messages, claims and deletions that it acknowledged in its last two seconds";
    let log = service.log();
    let said = log.lines().filter(|line| line.contains(warning)).count();
    assert_eq!(said, 2 * KILLS, "each server says it of each restart");
}

/// Ends the work when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What the workers were told, by the number of the message, and when.
#[derive(Default)]
struct Told {
    posted: BTreeMap<u64, Instant>,
    /// Every claim that delivered it.
    claimed: BTreeMap<u64, Vec<(String, Instant)>>,
    /// Whoever asked for it, whatever the answer.
    asked: BTreeSet<u64>,
    deleted: BTreeMap<u64, Instant>,
    wrong: Vec<String>,
    died: usize,
}

#[derive(Default)]
struct Test {
    told: Mutex<Told>,
    over: AtomicBool,
}

impl Test {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().expect("no worker panicked")
    }

    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    fn backlog(&self) -> usize {
        let told = self.told();
        told.posted.len().saturating_sub(told.asked.len())
    }

    fn produce(&self, mut client: Client, producer: u64) {
        let mut numbers = (producer..).step_by(PRODUCERS);
        while self.goes_on() {
            if self.backlog() > BACKLOG {
                thread::sleep(Duration::from_millis(5));
                continue;
            }
            let batch: Vec<u64> = numbers.by_ref().take(10).collect();
            let message = |number: &u64| json!({"ttl": 86_400, "body": {"number": number}});
            let messages: Vec<Value> = batch.iter().map(message).collect();
            let path = format!("{QUEUE}/messages");
            let answer = ask(
                &mut client,
                "POST",
                &path,
                Some(&json!({"messages": messages})),
            );
            match answer {
                Some(answer) if answer.status == 201 => {
                    let now = Instant::now();
                    let told = batch.into_iter().map(|number| (number, now));
                    self.told().posted.extend(told);
                }
                Some(answer) => self.told().wrong.push(format!("a post: {answer}")),
                None => {}
            }
        }
    }

    fn consume(&self, born: impl Fn() -> Client) {
        let mut client = born();
        let mut rng = Rng::new();
        while self.goes_on() {
            let path = format!("{QUEUE}/claims?limit=10");
            let terms = json!({"ttl": 43_200, "grace": 60});
            let answer = match ask(&mut client, "POST", &path, Some(&terms)) {
                Some(answer) if answer.status == 201 => answer,
                Some(answer) if answer.status == 204 => {
                    thread::sleep(Duration::from_millis(5));
                    continue;
                }
                Some(answer) => {
                    self.told().wrong.push(format!("a claim: {answer}"));
                    continue;
                }
                None => continue,
            };
            let now = Instant::now();
            let claim = answer.header("location").unwrap_or_default().to_owned();
            let messages = numbered(&answer.json());
            for (number, _) in &messages {
                let mut told = self.told();
                let claims = told.claimed.entry(*number).or_default();
                claims.push((claim.clone(), now));
            }
            for (number, href) in messages {
                if rng.u8(..50) == 0 {
                    // This worker dies, and another one takes its place: what it has claimed stays claimed.
                    self.told().died += 1;
                    client = born();
                    break;
                }
                self.told().asked.insert(number);
                let answer = ask(&mut client, "DELETE", &href, None);
                if answer.is_some_and(|answer| answer.status == 204) {
                    self.told().deleted.insert(number, Instant::now());
                }
            }
        }
    }

    /// Compares what was told with what is there.
    fn report(&self, service: &Service, kills: &[Instant]) {
        let [mut one, mut other] = service.clients();
        let listed = crashes::list(&mut one);
        assert_eq!(listed, crashes::list(&mut other), "two servers, two lists");
        let told = self.told();
        let lost = told
            .posted
            .iter()
            .filter(|(number, _)| !listed.contains(number) && !told.asked.contains(number));
        let undone = told
            .deleted
            .iter()
            .filter(|(number, _)| listed.contains(number));
        // Of two claims with the same message the earlier one must have been undone.
        let forgotten = told.claimed.values().flat_map(|claims| {
            let earlier = &claims[..claims.len() - 1];
            earlier.iter().map(|(_, at)| at)
        });
        println!(
            "everysec: {} messages acknowledged, {} deleted, {} workers died",
            told.posted.len(),
            told.deleted.len(),
            told.died
        );
        window("messages", lost.map(|(_, at)| at), kills);
        window("deletions", undone.map(|(_, at)| at), kills);
        window("claims", forgotten, kills);
        assert!(told.wrong.is_empty(), "{:#?}", told.wrong);
        assert!(
            told.posted.len() > 1000 && told.deleted.len() > 500,
            "too little happened"
        );
        for claims in told.claimed.values().filter(|claims| claims.len() > 1) {
            let mut alive =
                |claim: &str| one.send("GET", claim, None).expect("an answer").status == 200;
            let alive = claims.iter().filter(|(claim, _)| alive(claim)).count();
            assert!(alive <= 1, "{claims:?} are alive together");
        }
    }
}

/// Prints how much was lost, and demands that all of it had been told shortly before a kill.
fn window<'a>(what: &str, lost: impl Iterator<Item = &'a Instant>, kills: &[Instant]) {
    let ages = lost.map(|at| {
        let kill = kills.iter().find(|kill| *kill >= at);
        kill.unwrap_or_else(|| panic!("{what} are lost, and nobody was killed"))
            .duration_since(*at)
    });
    let ages: Vec<Duration> = ages.collect();
    let oldest = ages.iter().max().copied().unwrap_or_default();
    println!(
        "{what} lost: {}, the oldest {oldest:?} before the kill",
        ages.len()
    );
    assert!(
        oldest < WINDOW,
        "{what} are lost from {oldest:?} before the kill"
    );
}

/// The answer; `None` when there is none, or none that says anything.
fn ask(client: &mut Client, method: &str, path: &str, body: Option<&Value>) -> Option<Answer> {
    let answer = client.send(method, path, body).ok();
    let answer = answer.filter(|answer| answer.status != 503);
    if answer.is_none() {
        thread::sleep(Duration::from_millis(5));
    }
    answer
}
