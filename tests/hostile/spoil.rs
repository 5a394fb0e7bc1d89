//! The ways to spoil a request: one piece of a valid one, or its bytes without regard to pieces.

use fastrand::Rng;
use serde_json::Value;

use crate::hostile::draft::{Draft, World};
use crate::hostile::words::{
    HEADER_VALUES, HEADERS, METHODS, NOT_HEADER_VALUES, NOT_VALUES, TEXTS, VALUES,
};

/// What is sent, and what may be expected of the server.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) bytes: Vec<u8>,
    /// The request is whole and its end is where it says: there must be an answer.
    pub(crate) answer_due: bool,
    /// The answer has no body whatever its headers say.
    pub(crate) to_head: bool,
}

impl Case {
    /// Makes a request up, for better or worse.
    pub(crate) fn make(rng: &mut Rng, world: &World) -> Self {
        let mut draft = Draft::valid(rng, world);
        if rng.u8(..100) < 30 {
            return Self {
                bytes: spoil_bytes(rng, draft.write()),
                answer_due: false,
                to_head: false,
            };
        }
        for _ in 0..rng.u8(0..4) {
            spoil(rng, &mut draft);
        }
        Self {
            bytes: draft.write(),
            answer_due: !draft.loose,
            to_head: draft.method == "HEAD",
        }
    }
}

/// Spoils one piece of a request.
fn spoil(rng: &mut Rng, draft: &mut Draft) {
    match rng.u8(..16) {
        0..4 => spoil_json(rng, draft),
        4 => spoil_body_bytes(rng, draft),
        5 | 6 => spoil_query(rng, draft),
        7 => spoil_path(rng, draft),
        8 | 9 => spoil_header(rng, draft),
        10 => oversize(rng, draft),
        11 => METHODS[rng.usize(..METHODS.len())].clone_into(&mut draft.method),
        12 => spoil_start(rng, draft),
        13 => spoil_length(rng, draft),
        14 => draft.chunks = Some((0..4).map(|_| rng.usize(1..40)).collect()),
        _ => append(rng, draft),
    }
}

/// What stands where the hostile text will.
const HOLE: &str = "a hole of exactly this shape";

/// Replaces one value somewhere inside the body, or a key, or the whole of it.
fn spoil_json(rng: &mut Rng, draft: &mut Draft) {
    let mut json = draft.json.clone();
    make_hole(rng, &mut json);
    let text = json.to_string();
    let hole = format!("\"{HOLE}\"");
    let (before, after) = text.split_once(&hole).expect("the hole is there");
    let filling = hostile_json(rng);
    draft.loose |= filling.len() > 10_000;
    draft.body = Some([before.as_bytes(), &filling, after.as_bytes()].concat());
}

fn make_hole(rng: &mut Rng, json: &mut Value) {
    let deeper = rng.u8(..4) > 0;
    match json {
        Value::Array(items) if deeper && !items.is_empty() => {
            let at = rng.usize(..items.len());
            make_hole(rng, &mut items[at]);
        }
        Value::Object(members) if deeper && !members.is_empty() => {
            let at = rng.usize(..members.len());
            make_hole(rng, members.values_mut().nth(at).expect("one of them"));
        }
        Value::Object(members) if rng.bool() => {
            let at = rng.usize(..=members.len());
            if let Some(key) = members.keys().nth(at).cloned() {
                members.shift_remove(&key);
            }
            members.insert(TEXTS[rng.usize(..TEXTS.len())].to_owned(), HOLE.into());
        }
        _ => *json = HOLE.into(),
    }
}

fn hostile_json(rng: &mut Rng) -> Vec<u8> {
    match rng.u8(..20) {
        0..10 => VALUES[rng.usize(..VALUES.len())].into(),
        10..15 => NOT_VALUES[rng.usize(..NOT_VALUES.len())].into(),
        15 => nested(rng, "[", "1", "]"),
        16 => nested(rng, "{\"a\":", "1", "}"),
        17 => vec![b'9'; rng.usize(20..5000)],
        18 => [
            b"\"".to_vec(),
            vec![b'x'; rng.usize(0..60_000)],
            b"\"".to_vec(),
        ]
        .concat(),
        _ => [b"0.".to_vec(), vec![b'1'; rng.usize(20..5000)]].concat(),
    }
}

fn nested(rng: &mut Rng, open: &str, inner: &str, close: &str) -> Vec<u8> {
    let depth = [5, 126, 127, 128, 129, 900, 5000, 50_000][rng.usize(..8)];
    let closed = if rng.u8(..4) > 0 {
        depth
    } else {
        rng.usize(..depth)
    };
    (open.repeat(depth) + inner + &close.repeat(closed)).into_bytes()
}

/// Damages the text of the body; its length is still stated as it is.
fn spoil_body_bytes(rng: &mut Rng, draft: &mut Draft) {
    let mut body = draft.body.take().unwrap_or_default();
    match rng.u8(..5) {
        0 => body.truncate(rng.usize(..=body.len())),
        1 => body = NOT_VALUES[rng.usize(..NOT_VALUES.len())].to_vec(),
        2 => body.extend_from_slice(NOT_VALUES[rng.usize(..NOT_VALUES.len())]),
        _ => damage(rng, &mut body),
    }
    draft.body = Some(body);
}

fn spoil_query(rng: &mut Rng, draft: &mut Draft) {
    let mut text = TEXTS[rng.usize(..TEXTS.len())].to_owned();
    if rng.u8(..10) == 0 {
        let times = rng.usize(2..200);
        text = vec![text; times].join(",");
    }
    let at = rng.usize(..=draft.query.len());
    match draft.query.get_mut(at) {
        Some(pair) if rng.u8(..4) == 0 => pair.0 = text,
        Some(pair) if rng.bool() => {
            let twice = (pair.0.clone(), text);
            draft.query.push(twice);
        }
        Some(pair) => pair.1 = text,
        None => {
            let names = [
                "limit",
                "marker",
                "ids",
                "pop",
                "claim_id",
                "claim_ids",
                "echo",
                "detailed",
                "x",
            ];
            let name = names[rng.usize(..names.len())];
            draft.query.push((name.to_owned(), text));
        }
    }
}

fn spoil_path(rng: &mut Rng, draft: &mut Draft) {
    let text = TEXTS[rng.usize(..TEXTS.len())];
    let path = String::from_utf8_lossy(&draft.path).into_owned();
    let mut parts: Vec<&str> = path.split('/').collect();
    let at = rng.usize(1..=parts.len());
    match rng.u8(..5) {
        0 => parts.insert(at, text),
        1 if at < parts.len() => drop(parts.remove(at)),
        2 => parts.push(""),
        _ if at < parts.len() => parts[at] = text,
        _ => parts.push(text),
    }
    draft.path = parts.join("/").into_bytes();
    draft.loose |= !draft.path.starts_with(b"/");
}

fn spoil_header(rng: &mut Rng, draft: &mut Draft) {
    let name = HEADERS[rng.usize(..HEADERS.len())];
    let value = HEADER_VALUES[rng.usize(..HEADER_VALUES.len())];
    let known = rng.usize(..draft.headers.len().max(1));
    match rng.u8(..8) {
        0 | 1 if known < draft.headers.len() => drop(draft.headers.remove(known)),
        2 if known < draft.headers.len() => draft.headers[known].1 = value.to_vec(),
        3 if known < draft.headers.len() => {
            let mut twice = draft.headers[known].clone();
            if rng.bool() {
                twice.1 = value.to_vec();
            }
            draft.headers.push(twice);
        }
        4 => {
            draft.say(
                name,
                NOT_HEADER_VALUES[rng.usize(..NOT_HEADER_VALUES.len())],
            );
            draft.loose = true;
        }
        5 => {
            let names = [
                "",
                " ",
                "a b",
                "\u{e9}",
                "(x)",
                "a\0",
                "Client-ID ",
                " Client-ID",
                ":",
            ];
            draft.say(names[rng.usize(..names.len())], value);
            draft.loose = true;
        }
        _ => draft.say(name, value),
    }
}

/// More than anybody needs: of headers, of a header, of a query, of a path, of a body.
fn oversize(rng: &mut Rng, draft: &mut Draft) {
    let size = [1000, 8192, 20_000, 70_000, 500_000][rng.usize(..5)];
    match rng.u8(..6) {
        0 => (0..size / 50).for_each(|at| draft.say(&format!("X-{at}"), "y")),
        1 => draft.say(HEADERS[rng.usize(..HEADERS.len())], vec![b'a'; size]),
        2 => draft.query.push(("x".to_owned(), "y".repeat(size))),
        3 => (0..size / 10).for_each(|at| draft.query.push((format!("k{at}"), at.to_string()))),
        4 => draft.path.extend(vec![b'p'; size]),
        _ => draft.body = Some(vec![b' '; size]),
    }
    draft.loose = true;
}

/// The request line beside method and path.
fn spoil_start(rng: &mut Rng, draft: &mut Draft) {
    let versions = [
        "HTTP/1.0",
        "HTTP/1.1",
        "HTTP/2.0",
        "HTTP/0.9",
        "HTTP/1.2",
        "http/1.1",
        "",
        "HTTP/1.1 x",
        "ICY",
    ];
    match rng.u8(..4) {
        0 => {
            draft.path = format!("http://localhost{}", String::from_utf8_lossy(&draft.path)).into()
        }
        1 => {
            draft.method =
                ["", "G(T", "CONNECT", "GET\0", "\u{c9}", " GET"][rng.usize(..6)].to_owned()
        }
        2 => draft.path.insert(
            rng.usize(..=draft.path.len()),
            [0, 0x80, 0xff, b'\t', b' '][rng.usize(..5)],
        ),
        _ => draft.version = versions[rng.usize(..versions.len())],
    }
    draft.loose = true;
}

/// Lies about where the body ends.
fn spoil_length(rng: &mut Rng, draft: &mut Draft) {
    let lengths = [
        "-1",
        "+5",
        "5 ",
        "abc",
        "",
        "5, 5",
        "5, 6",
        "1e3",
        "0x5",
        "18446744073709551616",
        "99999999999999999999999",
        "0",
        "1",
        "100000",
        "9223372036854775807",
    ];
    let encodings = [
        "chunked",
        "gzip, chunked",
        "chunked, chunked",
        "identity",
        "xchunked",
        "chunked;q=1",
        "",
        "CHUNKED",
        "gzip",
    ];
    let length = lengths[rng.usize(..lengths.len())];
    match rng.u8(..5) {
        0 | 1 => {
            draft.states_length = false;
            draft.say("Content-Length", length);
        }
        2 => draft.say("Content-Length", length),
        3 => draft.say("Transfer-Encoding", encodings[rng.usize(..encodings.len())]),
        _ => {
            draft.states_length = false;
            draft.chunks = Some(vec![rng.usize(1..9)]);
            draft.say("Transfer-Encoding", encodings[rng.usize(..encodings.len())]);
        }
    }
    draft.loose = true;
}

/// Something behind the request: garbage, the same again, or broken chunks.
fn append(rng: &mut Rng, draft: &mut Draft) {
    let sizes: [&[u8]; 8] = [
        b"zz\r\n",
        b"5\r\nab\r\n0\r\n\r\n",
        b"ffffffffffffffff\r\nx",
        b"fffffffffffffffff\r\n",
        b"-1\r\n",
        b"3;ext=\"\r\nabc\r\n",
        b"3\nabc\n0\n\n",
        b"1\r\nx\r\n0\r\nTrailer: \0\r\n\r\n",
    ];
    draft.tail = match rng.u8(..4) {
        0 => (0..rng.usize(1..500)).map(|_| rng.u8(..)).collect(),
        1 => draft.write().repeat(rng.usize(1..4)),
        2 => draft.write()[..rng.usize(1..40)].to_vec(),
        _ => {
            draft.states_length = false;
            draft.body = None;
            draft.say("Transfer-Encoding", "chunked");
            sizes[rng.usize(..sizes.len())].to_vec()
        }
    };
    draft.loose = true;
}

/// Damages a written request, or forgets it for something that never was one.
fn spoil_bytes(rng: &mut Rng, mut bytes: Vec<u8>) -> Vec<u8> {
    let openings: [&[u8]; 9] = [
        b"",
        b"\r\n\r\n",
        b"\n",
        b"GET",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x12\x04\0\0\0\0\0",
        b"SSH-2.0-x\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        b"GET /\r\n",
        b"\0\0\0\0",
    ];
    match rng.u8(..12) {
        0 => openings[rng.usize(..openings.len())].to_vec(),
        1 => (0..rng.usize(1..2000)).map(|_| rng.u8(..)).collect(),
        2 => vec![rng.u8(..); rng.usize(1..100_000)],
        3..6 => {
            bytes.truncate(rng.usize(..=bytes.len()));
            bytes
        }
        _ => {
            damage(rng, &mut bytes);
            bytes
        }
    }
}

/// Changes, inserts, removes or repeats a few bytes.
fn damage(rng: &mut Rng, bytes: &mut Vec<u8>) {
    for _ in 0..rng.u8(1..6) {
        let at = rng.usize(..=bytes.len());
        let end = (at + rng.usize(..20)).min(bytes.len());
        let byte = if rng.bool() {
            rng.u8(..)
        } else {
            *rng.choice(b"\0\r\n :%\"{}[],\\0\x80\xff").expect("some")
        };
        match rng.u8(..5) {
            0 => drop(bytes.drain(at..end)),
            1 => bytes.insert(at, byte),
            2 => {
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            _ if at < bytes.len() => bytes[at] = byte,
            _ => bytes.push(byte),
        }
    }
}
