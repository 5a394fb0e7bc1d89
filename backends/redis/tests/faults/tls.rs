//! Connections that are not plain: with certificates of the test's own authority, and over a Unix socket.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use isimud_contract::{ErrorKind, MessageStore};
use isimud_redis::{Config, RedisStore};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use crate::servers::{Server, Servers, free_port};
use crate::{SLACK, TIMEOUT, changes, create, impatient, lease, post_one, queue};

/// Certificates and keys, in files.
struct Office {
    folder: TempDir,
}

/// Who signs.
type Authority = CertifiedIssuer<'static, KeyPair>;

impl Office {
    fn new() -> Self {
        let office = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let (one, another) = (authority("one"), authority("another"));
        office.write("ca", &one.pem());
        office.write("other-ca", &another.pem());
        office.issue(&one, "server", "127.0.0.1");
        office.issue(&one, "elsewhere", "elsewhere.test");
        office.issue(&one, "client", "client");
        office.issue(&another, "stranger", "client");
        office
    }

    fn issue(&self, authority: &Authority, whose: &str, name: &str) {
        let key = KeyPair::generate().unwrap();
        let mut wanted = CertificateParams::new([name.to_owned()]).unwrap();
        wanted.distinguished_name.push(DnType::CommonName, whose);
        let certificate = wanted.signed_by(&key, authority).unwrap();
        self.write(whose, &certificate.pem());
        self.write(&format!("{whose}-key"), &key.serialize_pem());
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.file(name), text).unwrap();
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The configuration of a server that has these papers.
    fn lines(&self, whose: &str, clients: &str) -> Vec<String> {
        let file = |name: &str| self.file(name).display().to_string();
        vec![
            format!("tls-port {}", free_port().unwrap()),
            format!("tls-cert-file {}", file(whose)),
            format!("tls-key-file {}", file(&format!("{whose}-key"))),
            format!("tls-ca-cert-file {}", file("ca")),
            format!("tls-auth-clients {clients}"),
        ]
    }

    /// A server with a certificate, and where it can be reached by TLS.
    fn start(&self, whose: &str, clients: &str) -> (Servers, String) {
        let servers = self.try_start(whose, clients).unwrap();
        let uri = impatient(&servers);
        assert!(uri.starts_with("rediss://"), "{uri}");
        (servers, uri)
    }

    fn try_start(&self, whose: &str, clients: &str) -> Result<Servers, String> {
        let lines = self.lines(whose, clients);
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        Servers::one(&lines)
    }

    /// The option that names a file.
    fn option(&self, name: &str, file: &str) -> String {
        format!("&{name}={}", self.file(file).display())
    }
}

fn authority(name: &str) -> Authority {
    let mut wanted = CertificateParams::default();
    wanted.distinguished_name.push(DnType::CommonName, name);
    wanted.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(wanted, KeyPair::generate().unwrap()).unwrap()
}

/// A plain server, if the installed one was built with TLS at all.
pub(crate) fn is_there() -> Result<Servers, String> {
    let tried = Office::new().try_start("server", "no");
    tried.map_err(|why| format!("this Redis has no TLS: {why}"))?;
    Servers::single()
}

fn open(uri: &str) -> Arc<RedisStore> {
    RedisStore::open(Config::parse(uri).unwrap()).unwrap()
}

/// A message goes in and comes out, and changes of queues are heard.
async fn works(uri: &str) {
    // What is asked here is whether it works, not how soon on a busy machine.
    let store = open(&uri.replace("timeout_ms=5000", "timeout_ms=30000"));
    let mut told = changes(&store);
    let mut next = async || {
        let wait = tokio::time::timeout(Duration::from_secs(20), told.recv());
        wait.await.unwrap().unwrap()
    };
    assert_eq!(next().await, None, "it listens now");
    let q = queue("q");
    assert!(create(&store, &q).await.unwrap());
    assert_eq!(next().await, Some(q.clone()));
    let id = post_one(&store).await.unwrap();
    let claim = store.claim(&q, &lease(), 1).await.unwrap().unwrap();
    assert_eq!(claim.messages[0].id, id);
}

/// Nothing goes through, in time, and the sentence says why.
async fn is_refused(uri: &str, sentence: &str) {
    let store = open(uri);
    let begun = Instant::now();
    let refusal = post_one(&store).await.unwrap_err();
    assert!(begun.elapsed() < TIMEOUT + SLACK, "{:?}", begun.elapsed());
    assert_eq!(refusal.kind(), ErrorKind::Unavailable, "{refusal}");
    assert!(refusal.sentence().starts_with(sentence), "{refusal:?}");
}

const UNTRUSTED: &str = "the certificate of Redis is not trusted";

pub(crate) async fn a_certificate_of_a_known_authority_is_trusted(_: Servers) {
    let office = Office::new();
    let (_server, uri) = office.start("server", "no");
    works(&format!("{uri}{}", office.option("ca_file", "ca"))).await;
}

pub(crate) async fn a_certificate_of_nobody_known_is_not_trusted(_: Servers) {
    let office = Office::new();
    let (_server, uri) = office.start("server", "no");
    is_refused(&uri, UNTRUSTED).await;
    let other = office.option("ca_file", "other-ca");
    is_refused(&format!("{uri}{other}"), UNTRUSTED).await;
}

pub(crate) async fn a_certificate_for_another_host_is_not_trusted(_: Servers) {
    let office = Office::new();
    let (_server, uri) = office.start("elsewhere", "no");
    let trust = office.option("ca_file", "ca");
    is_refused(&format!("{uri}{trust}"), UNTRUSTED).await;
}

pub(crate) async fn a_client_shows_its_certificate(_: Servers) {
    let office = Office::new();
    let (_server, uri) = office.start("server", "yes");
    let uri = format!("{uri}{}", office.option("ca_file", "ca"));
    is_refused(&uri, "Redis refuses the TLS connection").await;
    let papers = |whose: &str| {
        office.option("cert_file", whose) + &office.option("key_file", &format!("{whose}-key"))
    };
    let stranger = format!("{uri}{}", papers("stranger"));
    is_refused(&stranger, "Redis refuses the TLS connection").await;
    works(&format!("{uri}{}", papers("client"))).await;
}

pub(crate) async fn a_plain_server_is_no_server_for_tls(servers: Servers) {
    let uri = impatient(&servers).replace("redis:", "rediss:");
    is_refused(&uri, "Redis cannot be reached").await;
    let office = Office::new();
    let (_server, uri) = office.start("server", "no");
    is_refused(&uri.replace("rediss:", "redis:"), "Redis ").await;
}

pub(crate) async fn tls_files_that_cannot_be_read_are_refused_at_once(_: Servers) {
    let office = Office::new();
    office.write("rubbish", "-----BEGIN CERTIFICATE-----\nnot even this\n");
    for options in [
        office.option("ca_file", "missing"),
        office.option("ca_file", "rubbish"),
        office.option("cert_file", "client") + &office.option("key_file", "client"),
    ] {
        let config = Config::parse(&format!("rediss://127.0.0.1:1?{}", &options[1..])).unwrap();
        let refusal = RedisStore::open(config).unwrap_err();
        assert_eq!(refusal.kind(), ErrorKind::Invalid, "{options}: {refusal}");
    }
}

pub(crate) async fn a_cluster_is_reached_by_tls(_: Servers) {
    let office = Office::new();
    let servers = Servers::cluster_with(|| {
        let mut lines = office.lines("server", "no");
        lines.push("tls-cluster yes".into());
        lines.push("tls-replication yes".into());
        lines
    });
    let servers = servers.unwrap();
    let uri = servers.uri("tls:");
    works(&format!("{uri}{}", office.option("ca_file", "ca"))).await;
    is_refused(&impatient(&servers), UNTRUSTED).await;
}

pub(crate) async fn sentinels_and_whom_they_name_are_reached_by_tls(_: Servers) {
    let office = Office::new();
    let lines = || {
        let mut lines = office.lines("server", "no");
        lines.push("tls-replication yes".into());
        lines
    };
    let servers = Servers::sentinel_with(lines, Duration::from_secs(30)).unwrap();
    let uri = servers.uri("tls:");
    works(&format!("{uri}{}", office.option("ca_file", "ca"))).await;
    let store = open(&impatient(&servers));
    assert_eq!(
        post_one(&store).await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
}

pub(crate) async fn a_socket_is_a_server(_: Servers) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("redis.sock");
    let server = Server::start(&[&format!("unixsocket {}", path.display())]).unwrap();
    let uri = |path: &Path| format!("redis:{}?timeout_ms=600", path.display());
    works(&uri(&path)).await;
    is_refused(&uri(&folder.path().join("none")), "Redis cannot be reached").await;
    drop(server);
}
