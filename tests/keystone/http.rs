//! A blocking HTTP/1.1 client and server side of the tests' own: it shares no code with what is tested.

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// A request or an answer: the first line, the headers as they came, and the body.
#[derive(Debug, Clone, Default)]
pub(crate) struct Message {
    pub(crate) start: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Message {
    /// Returns the value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.iter();
        all.find(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Returns the status of an answer.
    pub(crate) fn status(&self) -> u16 {
        let status = self.start.split(' ').nth(1);
        status.and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    /// Returns the body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Reads a message; `None` when the other side has closed the connection before it. An answer without a length ends
    /// with the connection.
    pub(crate) fn read(from: &mut impl BufRead, is_answer: bool) -> io::Result<Option<Self>> {
        let mut message = Self::default();
        let Some(start) = line(from)? else {
            return Ok(None);
        };
        message.start = start;
        while let Some(line) = line(from)?.filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            message
                .headers
                .push((name.to_owned(), value.trim().to_owned()));
        }
        match message.header("content-length").map(str::parse::<usize>) {
            Some(Ok(length)) => {
                message.body.resize(length, 0);
                from.read_exact(&mut message.body)?;
            }
            _ if is_answer => drop(from.read_to_end(&mut message.body)?),
            _ => {}
        }
        Ok(Some(message))
    }

    /// Writes the message; headers that frame it are made anew.
    pub(crate) fn write(&self, to: &mut impl Write, closes: bool) -> io::Result<()> {
        let mut head = format!("{}\r\n", self.start);
        for (name, value) in &self.headers {
            let is_framing = ["connection", "content-length", "transfer-encoding"];
            if !is_framing.contains(&name.to_ascii_lowercase().as_str()) {
                head += &format!("{name}: {value}\r\n");
            }
        }
        let connection = if closes { "Connection: close\r\n" } else { "" };
        head += &format!("Content-Length: {}\r\n{connection}\r\n", self.body.len());
        to.write_all(&[head.as_bytes(), &self.body].concat())?;
        to.flush()
    }
}

fn line(from: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    match from.read_until(b'\n', &mut line)? {
        0 => Ok(None),
        _ => Ok(Some(String::from_utf8_lossy(&line).trim_end().to_owned())),
    }
}

/// Sends one request on a connection of its own and returns the answer.
pub(crate) fn send(port: u16, request: &Message) -> io::Result<Message> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    request.write(&mut stream, true)?;
    let answer = Message::read(&mut BufReader::new(stream), true)?;
    answer.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
}
