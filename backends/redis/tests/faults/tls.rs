//! Connections that are not plain: with certificates of the test's own authority, and over a Unix socket.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use isimud_contract::{ErrorKind, MessageStore};
use isimud_redis::{Config, RedisStore};
use isimud_testing::certificates::Certificates;
use isimud_testing::redis::{Server, Servers, tls_lines};

use crate::{SLACK, TIMEOUT, changes, create, impatient, lease, post_one, queue};

fn try_start(certificates: &Certificates, server: &str, clients: &str) -> Result<Servers, String> {
    let lines = tls_lines(certificates, server, clients);
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    Servers::one(&lines)
}

/// A server with a certificate, and where it can be reached by TLS.
fn start(certificates: &Certificates, server: &str, clients: &str) -> (Servers, String) {
    let servers = try_start(certificates, server, clients).unwrap();
    let uri = impatient(&servers);
    assert!(uri.starts_with("rediss://"), "{uri}");
    (servers, uri)
}

/// A plain server, if the installed one was built with TLS at all.
pub(crate) fn is_there() -> Result<Servers, String> {
    let tried = try_start(&Certificates::create(), "server", "no");
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
    let certificates = Certificates::create();
    let (_server, uri) = start(&certificates, "server", "no");
    works(&format!("{uri}{}", certificates.option("ca_file", "ca"))).await;
}

pub(crate) async fn a_certificate_of_nobody_known_is_not_trusted(_: Servers) {
    let certificates = Certificates::create();
    let (_server, uri) = start(&certificates, "server", "no");
    is_refused(&uri, UNTRUSTED).await;
    let other = certificates.option("ca_file", "other-ca");
    is_refused(&format!("{uri}{other}"), UNTRUSTED).await;
}

pub(crate) async fn a_certificate_for_another_host_is_not_trusted(_: Servers) {
    let certificates = Certificates::create();
    let (_server, uri) = start(&certificates, "elsewhere", "no");
    let trust = certificates.option("ca_file", "ca");
    is_refused(&format!("{uri}{trust}"), UNTRUSTED).await;
}

pub(crate) async fn a_client_shows_its_certificate(_: Servers) {
    let certificates = Certificates::create();
    let (_server, uri) = start(&certificates, "server", "yes");
    let uri = format!("{uri}{}", certificates.option("ca_file", "ca"));
    is_refused(&uri, "Redis refuses the TLS connection").await;
    let stranger = format!("{uri}{}", certificates.identity("stranger"));
    is_refused(&stranger, "Redis refuses the TLS connection").await;
    works(&format!("{uri}{}", certificates.identity("client"))).await;
}

pub(crate) async fn a_plain_server_is_no_server_for_tls(servers: Servers) {
    let uri = impatient(&servers).replace("redis:", "rediss:");
    is_refused(&uri, "Redis cannot be reached").await;
    let certificates = Certificates::create();
    let (_server, uri) = start(&certificates, "server", "no");
    is_refused(&uri.replace("rediss:", "redis:"), "Redis ").await;
}

pub(crate) async fn tls_files_that_cannot_be_read_are_refused_at_once(_: Servers) {
    let certificates = Certificates::create();
    certificates.write("rubbish", "-----BEGIN CERTIFICATE-----\nnot even this\n");
    for options in [
        certificates.option("ca_file", "missing"),
        certificates.option("ca_file", "rubbish"),
        certificates.option("cert_file", "client") + &certificates.option("key_file", "client"),
    ] {
        let config = Config::parse(&format!("rediss://127.0.0.1:1?{}", &options[1..])).unwrap();
        let refusal = RedisStore::open(config).unwrap_err();
        assert_eq!(refusal.kind(), ErrorKind::Invalid, "{options}: {refusal}");
    }
}

pub(crate) async fn a_cluster_is_reached_by_tls(_: Servers) {
    let certificates = Certificates::create();
    let servers = Servers::cluster_with(|| {
        let mut lines = tls_lines(&certificates, "server", "no");
        lines.push("tls-cluster yes".into());
        lines.push("tls-replication yes".into());
        lines
    });
    let servers = servers.unwrap();
    let uri = servers.uri("tls:");
    works(&format!("{uri}{}", certificates.option("ca_file", "ca"))).await;
    is_refused(&impatient(&servers), UNTRUSTED).await;
}

pub(crate) async fn sentinels_and_whom_they_name_are_reached_by_tls(_: Servers) {
    let certificates = Certificates::create();
    let lines = || {
        let mut lines = tls_lines(&certificates, "server", "no");
        lines.push("tls-replication yes".into());
        lines
    };
    let servers = Servers::sentinel_with(lines, Duration::from_secs(30)).unwrap();
    let uri = servers.uri("tls:");
    works(&format!("{uri}{}", certificates.option("ca_file", "ca"))).await;
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
