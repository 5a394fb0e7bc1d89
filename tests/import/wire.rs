//! Commands of any bytes, sent to a Redis.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{SystemTime, UNIX_EPOCH};

use isimud_testing::redis::Servers;

/// Commands that are sent together.
#[derive(Default)]
pub(crate) struct Commands {
    text: Vec<u8>,
    count: usize,
}

impl Commands {
    /// Adds a command.
    pub(crate) fn add<const N: usize>(&mut self, parts: [&[u8]; N]) -> &mut Self {
        self.add_all(&parts)
    }

    pub(crate) fn add_all(&mut self, parts: &[&[u8]]) -> &mut Self {
        self.text.extend(format!("*{}\r\n", parts.len()).bytes());
        for part in parts {
            self.text.extend(format!("${}\r\n", part.len()).bytes());
            self.text.extend_from_slice(part);
            self.text.extend_from_slice(b"\r\n");
        }
        self.count += 1;
        self
    }

    /// Adds a command of words.
    pub(crate) fn words(&mut self, words: &str) -> &mut Self {
        let parts: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
        self.add_all(&parts)
    }

    /// Sends them, and fails when one is refused. None of them may have an answer of several lines.
    pub(crate) fn send(&mut self, redis: &Servers) {
        let stream = TcpStream::connect(("127.0.0.1", redis.get(0).port)).expect("a connection");
        let mut writer = stream.try_clone().expect("two ends");
        let text = std::mem::take(&mut self.text);
        let writing = std::thread::spawn(move || writer.write_all(&text));
        let mut reader = BufReader::new(stream);
        for _ in 0..std::mem::take(&mut self.count) {
            let mut line = String::new();
            reader.read_line(&mut line).expect("an answer");
            assert!(!line.starts_with('-'), "{line}");
            if line.starts_with('$') {
                reader.read_line(&mut line).expect("its value");
            }
        }
        writing.join().expect("a thread").expect("sent");
    }
}

/// How often the server's data have changed.
pub(crate) fn changes(redis: &Servers) -> String {
    let info = redis.get(0).command("INFO persistence").expect("an answer");
    let line = info
        .lines()
        .find(|line| line.starts_with("rdb_changes_since_last_save"));
    line.expect("a count").to_owned()
}

/// The present in Unix seconds.
#[expect(
    clippy::disallowed_methods,
    reason = "what is written has real times, which another program reads"
)]
pub(crate) fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a time");
    since.as_secs().try_into().expect("a number of seconds")
}
