//! TLS of both listeners: clients with and without certificates, a certificate that is replaced while requests go on, and
//! a server that stops.

use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, version};
use tempfile::TempDir;

use crate::support::server::{Answer, Server, connect, free_address};

const TIMEOUT: Duration = Duration::from_secs(30);
const NAME: &str = "localhost";

/// Signs certificates, and has them in a folder.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut wanted = CertificateParams::new([]).expect("parameters");
        wanted.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(wanted, key).expect("an authority");
        let authority = Self {
            issuer,
            folder: tempfile::tempdir().expect("a folder"),
        };
        std::fs::write(authority.file("ca.pem"), authority.issuer.pem()).expect("a file");
        authority
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A certificate for the name, and its key, both in PEM.
    fn issue(&self) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let wanted = CertificateParams::new([NAME.to_owned()]).expect("parameters");
        let certificate = wanted.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }

    /// Writes a pair as `NAME.pem` and `NAME-key.pem`, and returns the certificate.
    fn write(&self, name: &str) -> CertificateDer<'static> {
        let (certificate, key) = self.issue();
        std::fs::write(self.file(&format!("{name}.pem")), &certificate).expect("a file");
        std::fs::write(self.file(&format!("{name}-key.pem")), key).expect("a file");
        CertificateDer::from_pem_slice(certificate.as_bytes()).expect("a certificate")
    }

    /// A client that trusts this authority alone.
    fn client(&self) -> Arc<ClientConfig> {
        Arc::new(
            self.builder(&[&version::TLS13, &version::TLS12])
                .with_no_client_auth(),
        )
    }

    fn builder(
        &self,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_file(self.file("ca.pem")).expect("the authority");
        roots.add(authority).expect("it is one");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots)
    }

    /// A client that shows a certificate of this authority.
    fn client_with(&self, name: &str) -> Arc<ClientConfig> {
        let file = |suffix: &str| self.file(&format!("{name}{suffix}.pem"));
        let chain = vec![CertificateDer::from_pem_file(file("")).expect("a certificate")];
        let key = PrivateKeyDer::from_pem_file(file("-key")).expect("a key");
        let builder = self.builder(&[&version::TLS13, &version::TLS12]);
        Arc::new(builder.with_client_auth_cert(chain, key).expect("a pair"))
    }
}

type Stream = BufReader<StreamOwned<ClientConnection, TcpStream>>;

fn open(address: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<Stream> {
    let name = ServerName::try_from(NAME).expect("a name");
    let session = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(session, connect(address, TIMEOUT)?);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(BufReader::new(stream))
}

/// Sends one request over an open connection.
fn send(stream: &mut Stream, method: &str, path: &str, body: &str) -> io::Result<Answer> {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {NAME}\r\nClient-ID: 3381af92-2b9e-11e3-b191-71861300734c\r\n\
         X-Project-Id: p\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.get_mut().write_all(request.as_bytes())?;
    let answer = Answer::read(stream, false)?;
    answer.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

fn ask(address: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<Answer> {
    send(&mut open(address, config)?, "GET", "/v2/ping", "")
}

/// The certificate that the server shows now.
fn shown(address: SocketAddr, config: &Arc<ClientConfig>) -> CertificateDer<'static> {
    let stream = open(address, config).expect("a connection");
    let chain = stream.get_ref().conn.peer_certificates().expect("a chain");
    chain[0].clone().into_owned()
}

/// Starts the server over a certificate of the authority, with further lines of configuration.
fn start(authority: &Authority, folder: &Path, lines: &str, flags: &[&str]) -> Server {
    let config = format!(
        "[server]\ntls_cert_file = {:?}\ntls_key_file = {:?}\n{lines}",
        authority.file("server.pem"),
        authority.file("server-key.pem")
    );
    std::fs::write(folder.join("isimud.toml"), config).expect("the configuration");
    let mut server = Server::spawn_with("sqlite::memory:", folder, flags);
    let begun = Instant::now();
    while TcpStream::connect(server.address).is_err() {
        assert!(server.is_running(), "{}", server.log());
        assert!(begun.elapsed() < TIMEOUT, "{}", server.log());
        thread::sleep(Duration::from_millis(10));
    }
    server
}

#[test]
fn client_over_tls_is_served_and_one_without_is_closed() {
    let authority = Authority::new();
    authority.write("server");
    let folder = tempfile::tempdir().expect("a folder");
    let server = start(&authority, folder.path(), "", &[]);
    let config = authority.client();
    let mut stream = open(server.address, &config).expect("a connection");
    for number in 0..3 {
        let body = format!(r#"{{"messages": [{{"ttl": 300, "body": {number}}}]}}"#);
        let answer = send(&mut stream, "POST", "/v2/queues/q/messages", &body);
        assert_eq!(answer.expect("an answer").status, 201);
    }
    let listed = send(&mut stream, "GET", "/v2/queues/q/messages?echo=true", "");
    let listed = listed.expect("an answer").json();
    assert_eq!(listed["messages"].as_array().map(Vec::len), Some(3));
    // A large answer is whole.
    let large = "x".repeat(200_000);
    let body = format!(r#"{{"messages": [{{"ttl": 300, "body": "{large}"}}]}}"#);
    assert_eq!(
        send(&mut stream, "POST", "/v2/queues/large/messages", &body)
            .expect("an answer")
            .status,
        201
    );
    let claimed = send(
        &mut stream,
        "POST",
        "/v2/queues/large/claims",
        r#"{"ttl": 60}"#,
    );
    assert_eq!(
        claimed.expect("an answer").json()["messages"][0]["body"],
        large
    );

    let mut plain = connect(server.address, TIMEOUT).expect("a connection");
    plain
        .write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        .expect("it is sent");
    let mut said = Vec::new();
    // An alert of TLS at the most, and the end.
    plain.read_to_end(&mut said).ok();
    assert!(!said.starts_with(b"HTTP"), "{said:?}");
    assert_eq!(ask(server.address, &config).expect("an answer").status, 204);
    server.stop();
}

#[test]
fn sockets_are_served_over_tls_by_both_listeners() {
    use tokio_tungstenite::tungstenite::{Message, client};
    let authority = Authority::new();
    authority.write("server");
    let folder = tempfile::tempdir().expect("a folder");
    let own = free_address();
    let lines = format!("[websocket]\nlisten = '{own}'\nupgrade = true");
    let server = start(&authority, folder.path(), &lines, &[]);
    let config = authority.client();
    for address in [server.address, own] {
        let stream = open(address, &config).expect("a connection").into_inner();
        let (mut socket, _) = client(format!("wss://{NAME}/"), stream).expect("a socket");
        let request =
            r#"{"action": "queue_list", "headers": {"Client-ID": "c", "X-Project-ID": "p"}}"#;
        socket.send(Message::text(request)).expect("it is sent");
        let answer = socket.read().expect("an answer").into_text();
        assert!(answer.expect("text").contains(r#"{"queues": []}"#));
    }
    server.stop();
}

#[test]
fn certificate_is_replaced_under_load_without_a_failed_request() {
    let authority = Authority::new();
    let first = authority.write("server");
    let folder = tempfile::tempdir().expect("a folder");
    let server = start(&authority, folder.path(), "", &[]);
    let config = authority.client();
    assert_eq!(shown(server.address, &config), first);
    let (over, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let failed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for keeps in [true, false, true, false] {
            let (over, count, failed, config) = (&over, &count, &failed, &config);
            let address = server.address;
            scope.spawn(move || {
                let mut kept = None;
                while !over.load(Ordering::Relaxed) {
                    let done = (|| {
                        let mut stream = match kept.take() {
                            Some(stream) => stream,
                            None => open(address, config)?,
                        };
                        let body = r#"{"messages": [{"ttl": 300, "body": 1}]}"#;
                        let answer = send(&mut stream, "POST", "/v2/queues/q/messages", body)?;
                        if answer.status != 201 {
                            return Err(io::Error::other(answer.to_string()));
                        }
                        kept = keeps.then_some(stream);
                        Ok(())
                    })();
                    match done {
                        Ok(()) => count.fetch_add(1, Ordering::Relaxed),
                        Err(error) => {
                            failed.lock().expect("a list").push(error.to_string());
                            return;
                        }
                    };
                }
            });
        }
        let replaced = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let goes_on = |count: &AtomicU64| {
                let before = count.load(Ordering::Relaxed);
                let begun = Instant::now();
                while count.load(Ordering::Relaxed) < before + 100 {
                    assert!(begun.elapsed() < TIMEOUT, "nothing is served");
                    thread::sleep(Duration::from_millis(5));
                }
            };
            goes_on(&count);
            // As a program does that renews it: one file after the other, so that they do not match for a moment.
            let (certificate, key) = authority.issue();
            std::fs::write(authority.file("server.pem"), &certificate).expect("a file");
            goes_on(&count);
            std::fs::write(authority.file("server-key.pem"), key).expect("a file");
            let wanted = CertificateDer::from_pem_slice(certificate.as_bytes()).expect("it is one");
            let begun = Instant::now();
            while shown(server.address, &config) != wanted {
                assert!(begun.elapsed() < TIMEOUT, "{}", server.log());
                thread::sleep(Duration::from_millis(100));
            }
            goes_on(&count);
            // What nobody can read leaves the pair in place.
            std::fs::write(authority.file("server.pem"), "nothing").expect("a file");
            server.hang_up();
            let begun = Instant::now();
            while !server.log().contains("cannot load the TLS certificate")
                && !server.log().contains("reload failed")
            {
                assert!(begun.elapsed() < TIMEOUT, "{}", server.log());
                thread::sleep(Duration::from_millis(20));
            }
            goes_on(&count);
            assert_eq!(shown(server.address, &config), wanted);
        }));
        over.store(true, Ordering::Relaxed);
        if let Err(panic) = replaced {
            std::panic::resume_unwind(panic);
        }
    });
    assert_eq!(*failed.lock().expect("a list"), Vec::<String>::new());
    server.stop();
}

/// What is there from the start on is read again; a listener does not become another one.
#[test]
fn tls_that_is_added_or_taken_away_needs_a_restart_and_is_said() {
    let authority = Authority::new();
    authority.write("server");
    let ca = authority.client();
    let with_tls = format!(
        "[server]\ntls_cert_file = {:?}\ntls_key_file = {:?}\n",
        authority.file("server.pem"),
        authority.file("server-key.pem")
    );
    for (is_encrypted, then) in [(false, with_tls.as_str()), (true, "")] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("isimud.toml");
        let server = match is_encrypted {
            true => start(&authority, folder.path(), "", &[]),
            false => {
                std::fs::write(&path, "").expect("the configuration");
                Server::start("sqlite::memory:", folder.path())
            }
        };
        std::fs::write(&path, then).expect("the configuration");
        server.hang_up();
        let begun = Instant::now();
        while !server.log().contains("the configuration was read again") {
            assert!(begun.elapsed() < TIMEOUT, "{}", server.log());
            thread::sleep(Duration::from_millis(20));
        }
        let said = server.log();
        let is_told = |line: &str| {
            line.contains("WARN")
                && line.contains("server.tls_cert_file")
                && line.contains("restart")
        };
        assert!(said.lines().any(is_told), "{said}");
        assert_eq!(ask(server.address, &ca).is_ok(), is_encrypted, "{said}");
        server.stop();
    }
}

#[test]
fn client_without_a_certificate_is_refused_where_an_authority_is_set() {
    let (authority, other) = (Authority::new(), Authority::new());
    authority.write("server");
    authority.write("client");
    other.write("client");
    let folder = tempfile::tempdir().expect("a folder");
    let lines = format!("tls_client_ca_file = {:?}\n", authority.file("ca.pem"));
    let server = start(&authority, folder.path(), &lines, &[]);
    let served = |config| ask(server.address, &config).map(|answer| answer.status);
    assert!(served(authority.client()).is_err());
    assert_eq!(
        served(authority.client_with("client")).expect("an answer"),
        204
    );
    // Signed by somebody whom the server does not know.
    std::fs::copy(authority.file("ca.pem"), other.file("ca.pem")).expect("a copy");
    assert!(served(other.client_with("client")).is_err());
    server.stop();
}

#[test]
fn client_of_an_older_version_than_the_oldest_is_refused() {
    let authority = Authority::new();
    authority.write("server");
    let folder = tempfile::tempdir().expect("a folder");
    let server = start(
        &authority,
        folder.path(),
        "tls_min_version = \"1.3\"\n",
        &[],
    );
    let old = Arc::new(authority.builder(&[&version::TLS12]).with_no_client_auth());
    assert!(ask(server.address, &old).is_err());
    assert_eq!(
        ask(server.address, &authority.client())
            .expect("an answer")
            .status,
        204
    );
}

#[test]
fn start_with_files_that_cannot_be_used_says_which_and_why() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().expect("a folder"));
    authority.write("server");
    authority.write("other");
    std::fs::write(authority.file("empty.pem"), "").expect("a file");
    let file = |name: &str| authority.file(name).display().to_string();
    let path = folder.path().join("isimud.toml");
    for (cert, key, told) in [
        ("server.pem", "", "server.tls_key_file is missing"),
        ("", "server-key.pem", "server.tls_cert_file is missing"),
        ("none.pem", "server-key.pem", "none.pem"),
        (
            "empty.pem",
            "server-key.pem",
            "it has no certificate in PEM",
        ),
        ("server.pem", "empty.pem", "empty.pem"),
        ("server.pem", "other-key.pem", "KeyMismatch"),
    ] {
        let named = |name: &str| {
            if name.is_empty() {
                String::new()
            } else {
                file(name)
            }
        };
        let config = format!(
            "[server]\ntls_cert_file = {:?}\ntls_key_file = {:?}\n",
            named(cert),
            named(key)
        );
        std::fs::write(&path, config).expect("the configuration");
        let output = isimud(folder.path(), &["--check", "--config", "isimud.toml"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && said.contains(told),
            "{cert} {key}: {said}"
        );
    }
}

#[test]
fn server_that_stops_answers_the_request_that_was_sent() {
    let authority = Authority::new();
    authority.write("server");
    let folder = tempfile::tempdir().expect("a folder");
    let server = start(&authority, folder.path(), "", &[]);
    let config = authority.client();
    let mut busy = open(server.address, &config).expect("a connection");
    let mut idle = open(server.address, &config).expect("a connection");
    assert_eq!(
        send(&mut idle, "GET", "/v2/ping", "")
            .expect("an answer")
            .status,
        204
    );
    let head = "POST /v2/queues/q/messages HTTP/1.1\r\nHost: h\r\nClient-ID: 3381af92-2b9e-11e3-b191-71861300734c\r\n\
                X-Project-Id: p\r\nContent-Length: 39\r\n\r\n";
    busy.get_mut()
        .write_all(head.as_bytes())
        .expect("it is sent");
    // The server has the head when it answers another request.
    assert_eq!(ask(server.address, &config).expect("an answer").status, 204);
    let stopping = thread::spawn(move || server.stop());
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).expect("TLS ends as it should");
    assert_eq!(rest, b"");
    let body = r#"{"messages": [{"ttl": 300, "body": 1}]}"#;
    assert_eq!(body.len(), 39);
    busy.get_mut()
        .write_all(body.as_bytes())
        .expect("it is sent");
    let answer = Answer::read(&mut busy, false)
        .expect("an answer")
        .expect("one");
    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("connection"), Some("close"));
    stopping.join().expect("it stops");
}

#[test]
fn commands_ask_an_admin_listener_over_tls() {
    let authority = Authority::new();
    authority.write("server");
    let folder = tempfile::tempdir().expect("a folder");
    let admin = free_address().to_string();
    let lines = format!(
        "[admin]\ntls_cert_file = {:?}\ntls_key_file = {:?}\n",
        authority.file("server.pem"),
        authority.file("server-key.pem")
    );
    let server = start(
        &authority,
        folder.path(),
        &lines,
        &["--admin-listen", &admin],
    );
    let port = admin.rsplit(':').next().expect("a port");
    let url = format!("https://{NAME}:{port}");
    let (ca, other) = (authority.file("ca.pem"), Authority::new().file("ca.pem"));
    let list = |ca: &Path| {
        let ca = ca.display().to_string();
        isimud(
            folder.path(),
            &[
                "pools",
                "drain",
                "default",
                "--no-wait",
                "--admin",
                &url,
                "--ca-file",
                &ca,
            ],
        )
    };
    let output = list(&ca);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(!list(&other).status.success());
    server.stop();
}

fn isimud(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isimud"));
    let run = command.args(arguments).current_dir(folder).output();
    run.expect("the binary can be run")
}
