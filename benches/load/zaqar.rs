//! The requests of the API, and what a right answer to each is.
//!
//! Answers are searched as text: the API fixes the separators (http.md 6), and the bodies posted here hold nothing
//! that looks like a field of a message. A wrong answer becomes an error that shows request and answer.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::Result;
use crate::wire::Answer;

/// Bytes of a message's body.
const BODY_BYTES: usize = 256;

/// Messages in one post of a queue's stock; with their frame they stay under the 262144 bytes of a post.
pub(crate) const BATCH: usize = 500;

/// Characters of a wrong answer that its error shows.
const SHOWN: usize = 500;

/// The body of every message: one JSON object of exactly [`BODY_BYTES`].
pub(crate) fn event() -> String {
    let (start, end) = (r#"{"event": "BackupStarted", "backup_id": ""#, r#""}"#);
    let padding = "c".repeat(BODY_BYTES - start.len() - end.len());
    format!("{start}{padding}{end}")
}

/// The document that posts `count` messages.
pub(crate) fn messages(count: usize) -> String {
    let message = format!(r#"{{"ttl": 3600, "body": {}}}"#, event());
    format!(r#"{{"messages": [{}]}}"#, vec![message; count].join(", "))
}

/// A queue's address, and the requests to it as bytes.
#[derive(Debug, Clone)]
pub(crate) struct Queue {
    path: String,
}

impl Queue {
    /// A queue that nobody has used in this process. All names are equally long.
    pub(crate) fn fresh() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // The process id keeps runs apart on a server that was there before.
        Self {
            path: format!("/v2/queues/load-{:07}-{number:04}", std::process::id()),
        }
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn remove(&self) -> Vec<u8> {
        request("DELETE", &self.path, None)
    }

    pub(crate) fn stats(&self) -> Vec<u8> {
        request("GET", &format!("{}/stats", self.path), None)
    }

    pub(crate) fn post(&self, count: usize) -> Vec<u8> {
        let target = format!("{}/messages", self.path);
        request("POST", &target, Some(&messages(count)))
    }

    /// The first page of ten, own messages included.
    pub(crate) fn list(&self) -> Vec<u8> {
        request(
            "GET",
            &format!("{}/messages?limit=10&echo=true", self.path),
            None,
        )
    }

    pub(crate) fn get(&self, id: &str) -> Vec<u8> {
        request("GET", &format!("{}/messages/{id}", self.path), None)
    }

    /// `ttl_secs` is also the claim's grace.
    pub(crate) fn claim(&self, limit: usize, ttl_secs: u32) -> Vec<u8> {
        let target = format!("{}/claims?limit={limit}", self.path);
        let terms = format!(r#"{{"ttl": {ttl_secs}, "grace": {ttl_secs}}}"#);
        request("POST", &target, Some(&terms))
    }

    pub(crate) fn release(&self, claim: &str) -> Vec<u8> {
        request("DELETE", &format!("{}/claims/{claim}", self.path), None)
    }

    /// Deletes a message that is free.
    pub(crate) fn delete(&self, id: &str) -> Vec<u8> {
        request("DELETE", &format!("{}/messages/{id}", self.path), None)
    }

    /// Deletes a message of a claim.
    pub(crate) fn delete_claimed(&self, id: &str, claim: &str) -> Vec<u8> {
        let target = format!("{}/messages/{id}?claim_id={claim}", self.path);
        request("DELETE", &target, None)
    }

    /// Deletes at most twenty messages, claimed or not.
    pub(crate) fn delete_all(&self, ids: &[String]) -> Vec<u8> {
        let target = format!("{}/messages?ids={}", self.path, ids.join(","));
        request("DELETE", &target, None)
    }

    pub(crate) fn pop(&self, count: usize) -> Vec<u8> {
        request(
            "DELETE",
            &format!("{}/messages?pop={count}", self.path),
            None,
        )
    }
}

/// The header with a token that all requests have; empty without one.
static TOKEN: OnceLock<String> = OnceLock::new();

/// Has all requests carry a token of Keystone's. To be called before the first request is made.
pub(crate) fn send_token(token: &str) {
    TOKEN.get_or_init(|| format!("X-Auth-Token: {token}\r\n"));
}

/// A whole request as bytes.
pub(crate) fn request(method: &str, target: &str, body: Option<&str>) -> Vec<u8> {
    let entity = body.map_or_else(String::new, |body| {
        format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        )
    });
    let token = TOKEN.get_or_init(String::new);
    format!(
        "{method} {target} HTTP/1.1\r\n\
         Host: load.test\r\n\
         Client-ID: 3381af92-2b9e-11e3-b191-71861300734c\r\n\
         X-Project-Id: bench\r\n\
         {token}{entity}\r\n{}",
        body.unwrap_or_default()
    )
    .into_bytes()
}

/// A claim as answered.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub(crate) claim: String,
    pub(crate) ids: Vec<String>,
}

impl<'a> Answer<'a> {
    /// The post was stored; returns the ids of its `count` messages.
    pub(crate) fn posted(&self, count: usize) -> Result<Vec<&'a str>> {
        let resources = self.body.split("/messages/").skip(1);
        let ids: Vec<_> = resources
            .filter_map(|rest| Some(rest.split_once('"')?.0))
            .collect();
        let (_, located) = self
            .location
            .split_once("/messages?ids=")
            .unwrap_or_default();
        // A location need not list all ids of a long post.
        let named = ids.first().is_some_and(|first| located.starts_with(first));
        let right = self.status == 201 && ids.len() == count && named;
        self.right(right, || format!("201 with {count} message ids"))?;
        Ok(ids)
    }

    /// The claim got exactly `count` messages, and each names it.
    pub(crate) fn claimed(&self, count: usize) -> Result<Claimed> {
        let (_, claim) = self.location.split_once("/claims/").unwrap_or_default();
        let ids: Vec<_> = self.ids().map(str::to_owned).collect();
        let named = self.body.matches(&format!("?claim_id={claim}\"")).count();
        let right = self.status == 201 && ids.len() == count && named == count;
        self.right(right, || format!("201 with {count} claimed messages"))?;
        Ok(Claimed {
            claim: claim.to_owned(),
            ids,
        })
    }

    /// The answer holds exactly `count` messages: a page, a pop or a single message.
    pub(crate) fn shown(&self, count: usize) -> Result<()> {
        let right = self.status == 200 && self.ids().count() == count;
        self.right(right, || format!("200 with {count} messages"))
    }

    /// What was asked is done and there is nothing to say.
    pub(crate) fn done(&self) -> Result<()> {
        self.right(self.status == 204, || "204".to_owned())
    }

    /// The queue's stats count `total` live messages.
    pub(crate) fn counted(&self, total: u64) -> Result<()> {
        let (_, counted) = self.body.split_once("\"total\": ").unwrap_or_default();
        let digits = counted.split([',', '}']).next().unwrap_or_default();
        let right = self.status == 200 && digits.parse() == Ok(total);
        self.right(right, || format!("200 with a total of {total}"))
    }

    /// The ids of the messages shown.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let fields = self.body.split("\"id\": \"").skip(1);
        fields.filter_map(|rest| Some(rest.split_once('"')?.0))
    }

    /// The target of a page's `next` link.
    pub(crate) fn next_link(&self) -> Option<&'a str> {
        let (_, link) = self.body.rsplit_once(r#"{"rel": "next", "href": ""#)?;
        Some(link.split_once('"')?.0)
    }

    fn right(&self, right: bool, expected: impl FnOnce() -> String) -> Result<()> {
        if right {
            return Ok(());
        }
        let request = String::from_utf8_lossy(self.request);
        let line = request.lines().next().unwrap_or_default();
        let (expected, status) = (expected(), self.status);
        let body: String = self.body.chars().take(SHOWN).collect();
        Err(format!("{line}: expected {expected}, got {status} {body}").into())
    }
}
