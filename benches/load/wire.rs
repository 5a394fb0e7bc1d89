//! One keep-alive connection: writes prepared requests, reads HTTP/1.1 answers, times each exchange.
//!
//! The generator shares the machine with the server that it measures, so this is the least that reads an answer
//! correctly: status, `content-length`, `location`, body. A chunked answer is refused, not guessed at. A client library
//! would cost as much as the server does.

use std::net::SocketAddr;
use std::ops::Range;
use std::pin::Pin;
use std::time::{Duration, Instant};
use std::{future, io, str};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::Result;

/// What a connection has seen since it was last asked.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// How long each exchange took, from the first byte written to the last byte read.
    pub(crate) latencies: Vec<Duration>,
    /// Bytes read, heads and bodies.
    pub(crate) received: u64,
}

/// A connection to a server. Requests go one at a time.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    seen: Seen,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: vec![0; 16 * 1024],
            seen: Seen::default(),
        })
    }

    /// Sends one whole request and reads its answer, whatever the status.
    pub(crate) async fn exchange<'a>(&'a mut self, request: &'a [u8]) -> Result<Answer<'a>> {
        let begun = Instant::now();
        self.write(request).await?;
        let (head, end) = self.read().await?;
        self.seen.latencies.push(begun.elapsed());
        self.seen.received += end as u64;
        Ok(Answer {
            request,
            status: head.status,
            location: str::from_utf8(&self.buffer[head.location])?,
            body: str::from_utf8(&self.buffer[head.length..end])?,
        })
    }

    /// Hands over what was seen and starts afresh.
    pub(crate) fn take_seen(&mut self) -> Seen {
        std::mem::take(&mut self.seen)
    }

    async fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let stream = &mut self.stream;
            let written =
                future::poll_fn(|cx| Pin::new(&mut *stream).poll_write(cx, bytes)).await?;
            bytes = &bytes[written..];
        }
        Ok(())
    }

    /// Reads one answer to the front of the buffer; returns its head and where its body ends.
    async fn read(&mut self) -> Result<(Head, usize)> {
        let mut filled = 0;
        loop {
            if filled == self.buffer.len() {
                self.buffer.resize(2 * filled, 0);
            }
            match read_some(&mut self.stream, &mut self.buffer[filled..]).await? {
                0 => {
                    return Err(
                        "the server closed the connection in the middle of an exchange".into(),
                    );
                }
                count => filled += count,
            }
            if let Some(head) = Head::parse(&self.buffer[..filled])? {
                let end = head.length + head.content_length;
                if filled > end {
                    return Err("the server sent more than its content-length".into());
                }
                if filled == end {
                    return Ok((head, end));
                }
            }
        }
    }
}

/// One `read`. Polling directly lets tokio see a short read and spare the second call that would find nothing.
async fn read_some(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut buffer = ReadBuf::new(buffer);
    future::poll_fn(|cx| Pin::new(&mut *stream).poll_read(cx, &mut buffer)).await?;
    Ok(buffer.filled().len())
}

/// What is needed of an answer's head.
#[derive(Debug)]
struct Head {
    status: u16,
    /// Bytes up to the body.
    length: usize,
    content_length: usize,
    /// The header's value; empty without one.
    location: Range<usize>,
}

impl Head {
    /// Returns `None` while the head is not complete.
    fn parse(bytes: &[u8]) -> Result<Option<Self>> {
        let Some(mut at) = line_end(bytes, 0) else {
            return Ok(None);
        };
        let status = bytes
            .strip_prefix(b"HTTP/1.1 ")
            .and_then(|rest| str::from_utf8(rest.get(..3)?).ok()?.parse().ok())
            .ok_or("the answer does not begin with an HTTP/1.1 status line")?;
        let mut content_length = None;
        let mut location = 0..0;
        while let Some(end) = line_end(bytes, at) {
            let line = bytes[at..end].trim_ascii_end();
            if line.is_empty() {
                let content_length = match (content_length, status) {
                    (Some(length), _) => length,
                    (None, 204) => 0,
                    (None, _) => return Err("the answer has no content-length".into()),
                };
                return Ok(Some(Self {
                    status,
                    length: end,
                    content_length,
                    location,
                }));
            }
            if let Some(value) = header(line, b"content-length: ") {
                content_length = Some(str::from_utf8(value)?.parse()?);
            } else if let Some(value) = header(line, b"location: ") {
                let value_end = at + line.len();
                location = value_end - value.len()..value_end;
            }
            at = end;
        }
        Ok(None)
    }
}

/// The position after the line that begins at `from`.
fn line_end(bytes: &[u8], from: usize) -> Option<usize> {
    let newline = bytes[from..].iter().position(|&byte| byte == b'\n')?;
    Some(from + newline + 1)
}

/// The value of a header line, if it is the header of this name (lower case, with colon and space).
fn header<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, value) = line.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then_some(value)
}

/// An answer, as long as its connection is not used again. What makes one right is in `zaqar.rs`.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) request: &'a [u8],
    pub(crate) status: u16,
    /// The header's value; empty without one.
    pub(crate) location: &'a str,
    pub(crate) body: &'a str,
}
