//! What only a connection shows of the API: lengths, and bodies that arrive badly.

use std::io::{BufReader, Write};
use std::time::{Duration, Instant};

use crate::command::process::{HEADERS, Running, TIMEOUT, exchange};
use crate::support::server::{Answer, connect};

fn start() -> (Running, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Running::start(folder.path(), &["--store", "sqlite::memory:"]);
    (server, folder)
}

#[test]
fn the_versions_have_a_length_of_228() {
    let (server, _folder) = start();
    let answer = exchange(server.address, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(answer.status, 300);
    assert_eq!(answer.header("content-length"), Some("228"));
    assert_eq!(answer.body.len(), 228);
}

#[test]
fn an_answer_that_has_no_body_says_so_by_its_length_except_204() {
    let (server, _folder) = start();
    for (method, path, status, length) in [
        ("PUT", "/v2/queues/q", 201, Some("0")),
        ("PUT", "/v2/queues/q", 204, None),
        ("GET", "/v2/ping", 204, None),
        ("HEAD", "/v2/ping", 204, None),
        ("DELETE", "/v2/queues/q", 204, None),
        ("OPTIONS", "/v2/queues", 200, Some("0")),
    ] {
        let request = format!("{method} {path} HTTP/1.1\r\n{HEADERS}\r\n");
        let answer = exchange(server.address, &request);
        assert_eq!(answer.status, status, "{method} {path}");
        assert_eq!(
            answer.header("content-length"),
            length,
            "{method} {path} {status}"
        );
        assert_eq!(answer.header("transfer-encoding"), None, "{method} {path}");
    }
}

#[test]
fn a_length_that_is_no_number_is_400() {
    let (server, _folder) = start();
    for length in ["abc", "-1", "1.5", "", "5, 6", "99999999999999999999"] {
        let request =
            format!("PUT /v2/queues/q HTTP/1.1\r\n{HEADERS}Content-Length: {length}\r\n\r\n{{}}");
        assert_eq!(exchange(server.address, &request).status, 400, "{length}");
    }
}

#[test]
fn a_request_for_no_host_or_for_two_is_400_and_ends_the_connection() {
    let (server, _folder) = start();
    let rest = HEADERS.replace("Host: localhost\r\n", "");
    assert_ne!(rest, HEADERS);
    for (version, hosts, status) in [
        ("1.1", "", 400),
        ("1.1", "Host: a\r\nHost: a\r\n", 400),
        ("1.1", "Host: a\r\nhost: b\r\n", 400),
        ("1.1", "Host: a b\r\n", 400),
        ("1.1", "Host: [::1]:8888\r\n", 204),
        ("1.0", "", 204),
    ] {
        let request = format!("GET /v2/ping HTTP/{version}\r\n{hosts}{rest}\r\n");
        let answer = exchange(server.address, &request);
        assert_eq!(answer.status, status, "{hosts}: {answer}");
        if status == 400 {
            assert_eq!(answer.json()["title"], "Bad request");
            assert!(!answer.keeps_alive(), "{answer}");
        }
    }
}

#[test]
fn a_body_in_codings_that_are_not_chunked_once_is_refused_and_nothing_behind_it_is_read() {
    let (server, _folder) = start();
    for (codings, status) in [
        ("Transfer-Encoding: chunked, chunked\r\n", 400),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            400,
        ),
        ("Transfer-Encoding: gzip, chunked\r\n", 501),
        ("Transfer-Encoding: identity, chunked\r\n", 501),
        ("Transfer-Encoding: gzip\r\n", 400),
        ("Transfer-Encoding: chunked, gzip\r\n", 400),
    ] {
        let request = format!(
            "PUT /v2/queues/q HTTP/1.1\r\n{HEADERS}{codings}\r\n2\r\n{{}}\r\n0\r\n\r\n\
             PUT /v2/queues/smuggled HTTP/1.1\r\n{HEADERS}Content-Length: 0\r\n\r\n"
        );
        let answer = exchange(server.address, &request);
        assert_eq!(answer.status, status, "{codings}: {answer}");
        assert!(!answer.keeps_alive(), "{codings}: {answer}");
    }
    let queues = server.client().send("GET", "/v2/queues", None);
    let queues = queues.expect("an answer").json();
    assert_eq!(queues["queues"], serde_json::json!([]));
}

#[test]
fn bytes_beyond_the_length_are_no_part_of_the_body() {
    let (server, _folder) = start();
    let body = r#"{"a": 1}"#;
    let request = format!(
        "PUT /v2/queues/q HTTP/1.1\r\n{HEADERS}Content-Length: {}\r\n\r\n{body} and more",
        body.len()
    );
    assert_eq!(exchange(server.address, &request).status, 201);
    let shown = server.client().send("GET", "/v2/queues/q", None);
    assert_eq!(shown.expect("an answer").json()["a"], 1);
}

#[test]
fn a_chunked_body_is_read() {
    let (server, _folder) = start();
    let request = format!(
        "PUT /v2/queues/q HTTP/1.1\r\n{HEADERS}Transfer-Encoding: chunked\r\n\r\n\
         5\r\n{{\"a\":\r\n3\r\n 1}}\r\n0\r\n\r\n"
    );
    assert_eq!(exchange(server.address, &request).status, 201);
    let shown = server.client().send("GET", "/v2/queues/q", None);
    assert_eq!(shown.expect("an answer").json()["a"], 1);
}

#[test]
fn a_chunked_body_that_never_ends_is_refused_when_it_is_too_large() {
    let (server, _folder) = start();
    let stream = connect(server.address, TIMEOUT).expect("a connection");
    let mut stream = BufReader::new(stream);
    let head = format!("PUT /v2/queues/q HTTP/1.1\r\n{HEADERS}Transfer-Encoding: chunked\r\n\r\n");
    stream
        .get_mut()
        .write_all(head.as_bytes())
        .expect("it is read");
    let chunk = format!("400\r\n{}\r\n", " ".repeat(1024));
    for _ in 0..65 {
        stream
            .get_mut()
            .write_all(chunk.as_bytes())
            .expect("it is read");
    }
    let answer = Answer::read(&mut stream, false)
        .expect("HTTP")
        .expect("an answer");
    assert_eq!(answer.status, 400, "{answer}");
    assert_eq!(
        answer.json()["description"],
        "Queue metadata is too large. Max size: 65536"
    );
}

/// Many clients send the head and the body apart, and the next request on the same connection.
#[test]
fn a_body_that_is_not_read_does_not_end_the_connection() {
    let (server, _folder) = start();
    let stream = connect(server.address, TIMEOUT).expect("a connection");
    let mut stream = BufReader::new(stream);
    let refused = "PUT /v2/queues/two%20words HTTP/1.1\r\n";
    // Each time the rest of one request, and the head of the next.
    for sent in [
        format!("{refused}{HEADERS}Content-Length: 2\r\n\r\n"),
        format!("{{}}{refused}{HEADERS}Transfer-Encoding: chunked\r\n\r\n"),
        format!("2\r\n{{}}\r\n0\r\n\r\n{refused}{HEADERS}\r\n"),
    ] {
        stream
            .get_mut()
            .write_all(sent.as_bytes())
            .expect("it is read");
        let answer = Answer::read(&mut stream, false).expect("HTTP");
        let answer = answer.expect("an answer");
        assert_eq!(answer.status, 400, "{answer}");
        assert!(answer.keeps_alive(), "{answer}");
    }
}

#[test]
fn where_a_large_body_is_not_read_the_answer_ends_the_connection() {
    let (server, _folder) = start();
    for further in [
        "Content-Length: 5000000\r\n",
        "Content-Length: 2\r\nExpect: 100-continue\r\n",
    ] {
        let request = format!("PUT /v2/queues/two%20words HTTP/1.1\r\n{HEADERS}{further}\r\n");
        let answer = exchange(server.address, &request);
        assert_eq!(answer.status, 400, "{answer}");
        assert!(!answer.keeps_alive(), "{answer}");
    }
}

#[test]
fn a_client_that_is_too_slow_is_not_waited_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let environment = [
        ("ISIMUD__SERVER__HEADER_TIMEOUT_SECS", "1"),
        ("ISIMUD__SERVER__BODY_TIMEOUT_SECS", "1"),
    ];
    let arguments = ["--store", "sqlite::memory:"];
    let server = Running::start_with(folder.path(), &arguments, &environment);
    let head = format!("PUT /v2/queues/q HTTP/1.1\r\n{HEADERS}");
    let body_missing = format!("{head}Content-Length: 2\r\n\r\n{{");
    let start = Instant::now();
    let answer = exchange(server.address, &body_missing);
    assert_eq!(answer.status, 408, "{answer}");
    assert_eq!(answer.json()["title"], "Request timeout");
    let mut stream = connect(server.address, TIMEOUT).expect("a connection");
    stream.write_all(head.as_bytes()).expect("it is read");
    let ended = Answer::read(&mut BufReader::new(stream), false);
    assert!(!matches!(ended, Ok(Some(answer)) if answer.status < 400));
    let took = start.elapsed();
    assert!(took < Duration::from_secs(8), "it took {took:?}");
}
