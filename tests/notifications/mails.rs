//! Notifications by mail (spec: subscriptions.md 7.3): through a command, and through an SMTP server.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use isimud_testing::certificates::Certificates;
use isimud_testing::python;
use serde_json::json;

use crate::notifications::{Service, TIMEOUT};

/// The mails in a folder, when there are so many, oldest first.
fn wait_for(folder: &Path, count: usize) -> Vec<String> {
    let end = Instant::now() + TIMEOUT;
    loop {
        let entries = std::fs::read_dir(folder).expect("the folder");
        let names = entries.map(|entry| entry.expect("an entry").path());
        let mut names: Vec<_> = names
            .filter(|path| path.extension().is_some_and(|end| end == "eml"))
            .collect();
        if names.len() >= count {
            names.sort_by_key(|path| {
                std::fs::metadata(path)
                    .and_then(|data| data.modified())
                    .expect("a time")
            });
            return names
                .iter()
                .map(|path| std::fs::read_to_string(path).expect("a mail"))
                .collect();
        }
        assert!(
            Instant::now() < end,
            "{} of {count} mails came",
            names.len()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A line of a mail's head.
fn head<'a>(mail: &'a str, name: &str) -> &'a str {
    let (head, _) = mail.split_once("\n\n").expect("a head");
    let line = head.lines().find_map(|line| {
        line.split_once(": ")
            .filter(|(found, _)| found.eq_ignore_ascii_case(name))
    });
    line.map_or("", |(_, value)| value)
}

fn text(mail: &str) -> String {
    mail.split_once("\n\n")
        .expect("a text")
        .1
        .replace("=\n", "")
        .replace("=3D", "=")
        .trim_end()
        .to_owned()
}

#[test]
fn a_command_gets_mails_on_its_input() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = folder.path().join("sendmail");
    std::fs::write(
        &script,
        format!("#!/bin/sh\n[ \"$1\" = -t ] || exit 64\nname=$(mktemp {0}/XXXXXX)\ncat > $name && mv $name $name.eml\n", folder.path().display()),
    )
    .expect("a script");
    let mut permissions = std::fs::metadata(&script)
        .expect("the script")
        .permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o755);
    std::fs::set_permissions(&script, permissions).expect("the script may run");
    let mut service = Service::with(&format!(
        "[notifications]\nrequire_confirmation = true\nexternal_confirmation_url = 'http://confirm.example/page'\n\
         [notifications.mail]\ncommand = '{} -t -oi'\nfrom_domains = ['x.example']\n[signed_url]\nsecret_key = 'k'",
        script.display()
    ));
    let options = json!({"from": "me@x.example", "subject": "optsubj"});
    let path = service.subscribe("/v2/queues/sq2", "mailto:jim@example.com", options.clone());
    let asked = wait_for(folder.path(), 1).remove(0);
    assert_eq!(head(&asked, "to"), "jim@example.com");
    assert!(
        head(&asked, "from").contains("no-reply@openstack.org"),
        "{asked}"
    );
    assert_eq!(
        head(&asked, "subject"),
        "Zaqar Notification - Subscription Confirmation"
    );
    let expected = "You have chosen to subscribe to the queue: sq2. This queue belongs to project: p1. To confirm this \
                    subscription, click or visit this link below: http://confirm.example/page?Signature=";
    let said = text(&asked);
    assert!(said.starts_with(expected), "{said}");
    assert!(
        said.contains(&format!(
            "&Methods=PUT&Paths={path}/confirm&Project=p1&Expires="
        )),
        "{said}"
    );
    assert!(said.ends_with("&Url=&Queue=sq2"), "{said}");

    let confirm = format!("{path}/confirm");
    let admin = service.server.as_ref().expect("a server").address;
    let roles = [
        ("X-Roles", "admin".to_owned()),
        ("X-Project-Id", "p1".to_owned()),
    ];
    assert_eq!(
        crate::notifications::signed_put(admin, &confirm, &roles, &json!({"confirmed": true}))
            .status,
        204
    );
    let second = service.subscribe(
        "/v2/queues/sq2",
        "mailto:joe@example.com?subject=From%20the%20URI",
        options,
    );
    let confirm = format!("{second}/confirm");
    assert_eq!(
        crate::notifications::signed_put(admin, &confirm, &roles, &json!({"confirmed": true}))
            .status,
        204
    );
    service.post("/v2/queues/sq2", [json!("s")]);
    let mails = wait_for(folder.path(), 4);
    for (to, subject) in [
        ("jim@example.com", "optsubj"),
        ("joe@example.com", "From the URI"),
    ] {
        let mail = mails
            .iter()
            .find(|mail| head(mail, "to") == to && head(mail, "from") == "me@x.example");
        let mail = mail.unwrap_or_else(|| panic!("no mail to {to}: {mails:?}"));
        assert_eq!(head(mail, "subject"), subject);
        assert_eq!(
            text(mail),
            r#"{"ttl": 3600, "body": "s", "Message_Type": "Notification", "queue_name": "sq2"}"#
        );
    }
}

/// A mail server of the test's own.
struct MailServer {
    port: u16,
    process: Child,
}

impl MailServer {
    /// Starts it, with a certificate that is in `folder` then.
    fn start(folder: &Path, starttls: bool) -> Self {
        let certificates = Certificates::create();
        let read = |name| std::fs::read_to_string(certificates.file(name)).expect("a file");
        let both = read("localhost") + &read("localhost-key");
        std::fs::write(folder.join("both.pem"), both).expect("a file");
        std::fs::write(folder.join("ca.pem"), read("ca")).expect("a file");
        let mut command = Command::new(python("clients").expect("an interpreter"));
        command
            .arg(isimud_testing::file("tests/clients/smtp_server.py"))
            .arg("--folder")
            .arg(folder);
        command.arg("--certificate").arg(folder.join("both.pem"));
        if starttls {
            command.arg("--starttls");
        }
        let mut process = command
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the mail server runs");
        let mut said = String::new();
        let output = process.stdout.take().expect("an output");
        BufReader::new(output).read_line(&mut said).expect("a port");
        let port = said.trim().parse().expect("a port");
        Self { port, process }
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        // Both fail only for a process that has ended already.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

#[test]
fn an_smtp_server_gets_mails_over_tls_alone() {
    for starttls in [false, true] {
        let folder = tempfile::tempdir().expect("a folder");
        let server = MailServer::start(folder.path(), starttls);
        let mut service = Service::with(&format!(
            "[notifications.mail]\ntransport = 'smtp'\nsmtp_host = 'localhost'\nsmtp_port = {}\nsmtp_security = '{}'\n\
             smtp_user = 'isimud'\nsmtp_password = 'geheim'\nsmtp_ca_file = '{}'\nsender = 'Queues <mq@example.com>'\nrequire_confirmation = false",
            server.port,
            if starttls { "starttls" } else { "tls" },
            folder.path().join("ca.pem").display(),
        ));
        service.subscribe(
            "/v2/queues/sq2",
            "mailto:jim@example.com?subject=News",
            json!({}),
        );
        let dead = json!({"_dead_letter_queue": "undeliverable"});
        service.subscribe("/v2/queues/sq2", "mailto:refused@example.com", dead);
        service.post("/v2/queues/sq2", [json!({"n": 1}), json!({"name": "Ünal"})]);
        let mails = wait_for(folder.path(), 2);
        for (mail, body) in mails.iter().zip([r#"{"n":1}"#, r#"{"name":"\u00dcnal"}"#]) {
            assert_eq!(head(mail, "X-Session"), "tls=True login=True");
            assert_eq!(head(mail, "to"), "jim@example.com");
            assert!(head(mail, "from").contains("mq@example.com"));
            assert_eq!(head(mail, "subject"), "News");
            let expected = format!(
                "{{\"ttl\": 3600, \"body\": {body}, \"Message_Type\": \"Notification\", \"queue_name\": \"sq2\"}}"
            );
            assert_eq!(text(mail), expected);
        }
        let end = Instant::now() + TIMEOUT;
        while service.expect(200, "GET", "/v2/queues/undeliverable/stats", json!(null))["messages"]
            ["total"]
            != 2
        {
            assert!(
                Instant::now() < end,
                "what the server refused is not among the dead letters"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
