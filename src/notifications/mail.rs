//! Notifications by mail (spec: subscriptions.md 7.3): through an SMTP server, or through a command.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use isimud_contract::MessageId;
use lettre::message::header::ContentType;
use lettre::message::{Mailbox, Mailboxes, MessageBuilder};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::Outcome;
use crate::pem;

/// How mail leaves the service, and what its own mails say.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MailSettings {
    /// Which of the two ways.
    pub transport: MailTransport,
    /// A command that takes a mail on its standard input, split at spaces.
    pub command: String,
    /// The SMTP server.
    pub smtp_host: String,
    /// Its port.
    pub smtp_port: u16,
    /// How the connection to it is protected.
    pub smtp_security: SmtpSecurity,
    /// Who logs in; nobody where this is empty.
    pub smtp_user: String,
    /// With which password.
    pub smtp_password: Password,
    /// A file that has the password instead; empty for none.
    pub smtp_password_file: String,
    /// A file of certificate authorities for the SMTP server; empty for those of the machine.
    pub smtp_ca_file: String,
    /// From whom mails are whose subscription does not say.
    pub sender: String,
    /// Domains, beside that of `sender`, that subscriptions may name in `from`.
    pub from_domains: Vec<String>,
    /// A receiver of mail has to agree first, whatever holds for others.
    pub require_confirmation: bool,
    /// Receivers of one subscription, where they need not agree.
    pub max_recipients: usize,
    /// Mails a minute of one project, and to one receiver; 0 for no bound.
    pub max_per_minute: u32,
    /// The mail that asks a receiver for its consent.
    pub confirmation: Template,
    /// The mail that tells a receiver that it gets no more.
    pub unsubscription: Template,
}

impl MailSettings {
    fn command_words(&self) -> impl Iterator<Item = &str> {
        self.command.split(' ').filter(|word| !word.is_empty())
    }

    /// Refuses settings with which no mail could leave; says which.
    pub(super) fn check(&self) -> Result<(), String> {
        match self.transport {
            MailTransport::Command if self.command_words().next().is_none() => {
                Err("notifications.mail.command must name a program".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Reads the file of certificate authorities, where mails leave over TLS. Fails with a sentence that names it when it
    /// cannot be used.
    pub(super) fn check_files(&self) -> Result<(), String> {
        let is_used = self.transport == MailTransport::Smtp
            && self.smtp_security != SmtpSecurity::None
            && !self.smtp_host.is_empty();
        match is_used && !self.smtp_ca_file.is_empty() {
            true => tls(self).map(drop),
            false => Ok(()),
        }
    }
}

/// The ways of mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MailTransport {
    /// A command such as sendmail.
    Command,
    /// An SMTP server.
    Smtp,
}

/// How a connection to an SMTP server is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SmtpSecurity {
    /// Not at all.
    None,
    /// With TLS after a greeting in clear, or not used.
    Starttls,
    /// With TLS from the start.
    Tls,
}

/// A text that no log shows.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Password(pub String);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// A mail of the service itself. In its body `{0}` is the queue, `{1}` the project and `{2}` the link.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// The subject.
    pub subject: String,
    /// The text.
    pub body: String,
}

impl Template {
    /// The text with everything filled in; what is filled in is not looked at again.
    pub(crate) fn fill(&self, queue: &str, project: &str, link: &str) -> String {
        let mut text = String::new();
        let mut rest = self.body.as_str();
        while let Some(at) = rest.find('{') {
            let (before, from) = rest.split_at(at);
            text.push_str(before);
            let value = match from.get(..3) {
                Some("{0}") => queue,
                Some("{1}") => project,
                Some("{2}") => link,
                _ => {
                    text.push('{');
                    rest = &from[1..];
                    continue;
                }
            };
            text.push_str(value);
            rest = &from[3..];
        }
        text.push_str(rest);
        text
    }
}

/// Sends mails.
#[derive(Debug)]
pub(crate) struct Mailer {
    way: Way,
    timeout: Duration,
    senders: Senders,
}

#[derive(Debug)]
enum Way {
    Command(Vec<String>),
    Smtp(AsyncSmtpTransport<Tokio1Executor>),
    /// No SMTP server is configured.
    Nowhere,
}

/// A mail to one subscriber.
#[derive(Debug)]
pub(crate) struct Mail<'a> {
    /// The subscriber, with `mailto:` in front.
    pub(crate) to: &'a str,
    pub(crate) from: Option<&'a str>,
    /// Gives way to a subject in the address.
    pub(crate) subject: Option<&'a str>,
    pub(crate) id: MessageId,
    pub(crate) text: String,
}

impl Mailer {
    /// A mailer by the settings; or says what is wrong with them.
    pub(crate) fn new(settings: &MailSettings, timeout: Duration) -> Result<Self, String> {
        let way = match settings.transport {
            MailTransport::Command => {
                let words = settings.command_words().map(str::to_owned);
                Way::Command(words.collect())
            }
            MailTransport::Smtp if settings.smtp_host.is_empty() => Way::Nowhere,
            MailTransport::Smtp => Way::Smtp(smtp(settings, timeout)?),
        };
        Ok(Self {
            way,
            timeout,
            senders: Senders::new(settings),
        })
    }

    /// Sends a mail once and says what became of it.
    pub(crate) async fn send(&self, mail: Mail<'_>) -> Outcome {
        let message = match self.compose(mail) {
            Ok(message) => message,
            Err(why) => return Outcome::Refused(why),
        };
        let sending = async {
            match &self.way {
                Way::Command(words) => run(words, &message.formatted()).await,
                Way::Smtp(server) => match server.send(message).await {
                    Ok(_) => Outcome::Delivered,
                    Err(error) if error.is_permanent() => Outcome::Refused(error.to_string()),
                    Err(error) => failed(error.to_string()),
                },
                Way::Nowhere => Outcome::Refused("no SMTP server is configured".into()),
            }
        };
        let timed = tokio::time::timeout(self.timeout, sending).await;
        timed.unwrap_or_else(|_| failed("the mail did not leave in time".into()))
    }

    fn compose(&self, mail: Mail<'_>) -> Result<Message, String> {
        let (_, own_subject) = address(mail.to);
        let to = recipients(mail.to)?;
        let from = self.senders.sender(mail.from)?;
        let mut builder: MessageBuilder = Message::builder()
            .from(from)
            .subject(own_subject.as_deref().or(mail.subject).unwrap_or(""))
            .message_id(Some(format!("<{}@isimud>", mail.id)))
            .header(ContentType::TEXT_PLAIN);
        for mailbox in to {
            builder = builder.to(mailbox);
        }
        builder.body(mail.text).map_err(|error| error.to_string())
    }
}

fn failed(why: String) -> Outcome {
    Outcome::Failed { why, after: None }
}

/// From whom mails may be.
#[derive(Debug, Clone, Default)]
pub(crate) struct Senders {
    own: String,
    domains: Vec<String>,
}

impl Senders {
    pub(crate) fn new(settings: &MailSettings) -> Self {
        Self {
            own: settings.sender.clone(),
            domains: settings.from_domains.clone(),
        }
    }

    /// The sender that a subscription asks for with its option `from`. What is no address is a name, and the address
    /// that of the configuration. Says so when mails must not be from it.
    pub(crate) fn sender(&self, from: Option<&str>) -> Result<Mailbox, String> {
        let own: Result<Mailbox, _> = self.own.parse();
        let own = own.map_err(|error| format!("notifications.mail.sender is no address: {error}"));
        let Some(from) = from.map(str::trim).filter(|from| !from.is_empty()) else {
            return own;
        };
        if !from.contains('@') {
            if from.chars().any(char::is_control) {
                return Err("from has a control character".to_owned());
            }
            return own.map(|own| Mailbox::new(Some(from.to_owned()), own.email));
        }
        let asked: Mailbox = from
            .parse()
            .map_err(|error| format!("from is no mail address: {error}"))?;
        let is = |domain: &str| domain.eq_ignore_ascii_case(asked.email.domain());
        let is_own = own.is_ok_and(|own| is(own.email.domain()));
        if is_own || self.domains.iter().any(|domain| is(domain)) {
            return Ok(asked);
        }
        Err(format!(
            "mails may not be from the domain {}",
            asked.email.domain()
        ))
    }
}

/// The receivers that a `mailto:` URI names.
pub(crate) fn recipients(uri: &str) -> Result<Mailboxes, String> {
    let (to, _) = address(uri);
    let to: Mailboxes = to
        .parse()
        .map_err(|error| format!("the subscriber is no mail address: {error}"))?;
    match to.iter().next() {
        Some(_) => Ok(to),
        None => Err("the subscriber is no mail address".to_owned()),
    }
}

/// The addresses of a `mailto:` URI in one spelling.
pub(crate) fn receiver(uri: &str) -> String {
    address(uri).0.trim().to_ascii_lowercase()
}

/// Whether a subscriber gets mail.
pub(crate) fn is_mail(subscriber: &str) -> bool {
    let scheme = subscriber.split_once(':').map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("mailto"))
}

/// The addresses of a `mailto:` URI and its subject, decoded. Some write `mailto://a@b`, which is no other address.
fn address(uri: &str) -> (String, Option<String>) {
    let rest = uri.split_once(':').map_or(uri, |(_, rest)| rest);
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let (to, query) = rest.split_once('?').unwrap_or((rest, ""));
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let subject = query.split('&').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.eq_ignore_ascii_case("subject").then(|| decode(value))
    });
    (decode(to), subject)
}

fn smtp(
    settings: &MailSettings,
    timeout: Duration,
) -> Result<AsyncSmtpTransport<Tokio1Executor>, String> {
    let tls = match settings.smtp_security {
        SmtpSecurity::None => Tls::None,
        SmtpSecurity::Starttls => Tls::Required(tls(settings)?),
        SmtpSecurity::Tls => Tls::Wrapper(tls(settings)?),
    };
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&settings.smtp_host)
        .port(settings.smtp_port)
        .tls(tls)
        .timeout(Some(timeout));
    if !settings.smtp_user.is_empty() {
        let password = settings.smtp_password.0.clone();
        builder = builder.credentials(Credentials::new(settings.smtp_user.clone(), password));
    }
    Ok(builder.build())
}

fn tls(settings: &MailSettings) -> Result<TlsParameters, String> {
    let mut builder = TlsParameters::builder(settings.smtp_host.clone());
    if !settings.smtp_ca_file.is_empty() {
        let file = &settings.smtp_ca_file;
        let unusable = |why: &dyn std::fmt::Display| {
            format!("mail.smtp_ca_file: cannot use the file {file}: {why}")
        };
        for authority in pem::certificates(Path::new(file)).map_err(|why| unusable(&why))? {
            let certificate = Certificate::from_der(authority.to_vec());
            builder = builder.add_root_certificate(certificate.map_err(|why| unusable(&why))?);
        }
    }
    builder.build().map_err(|error| error.to_string())
}

/// Hands a mail to a command. It has to end with 0.
async fn run(words: &[String], mail: &[u8]) -> Outcome {
    let Some((program, arguments)) = words.split_first() else {
        return Outcome::Refused("no mail command is configured".into());
    };
    let done = async {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut process = command.kill_on_drop(true).spawn()?;
        if let Some(mut input) = process.stdin.take() {
            let text = String::from_utf8_lossy(mail).replace("\r\n", "\n");
            input.write_all(text.as_bytes()).await?;
        }
        process.wait().await
    };
    match done.await {
        Ok(status) if status.success() => Outcome::Delivered,
        Ok(status) => failed(format!("{program} ended with {status}")),
        Err(error) => failed(format!("{program} cannot be used: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_address_may_name_a_subject() {
        for (uri, to, subject) in [
            ("mailto:a@x.y", "a@x.y", None),
            ("mailto://a@x.y", "a@x.y", None),
            ("MAILTO:a@x.y?subject=A%20b", "a@x.y", Some("A b")),
            ("mailto:a%2Bb@x.y?cc=c&Subject=s", "a+b@x.y", Some("s")),
        ] {
            assert_eq!(
                address(uri),
                (to.to_owned(), subject.map(str::to_owned)),
                "{uri}"
            );
        }
    }

    #[test]
    fn mails_are_from_domains_of_the_configuration() {
        let senders = Senders {
            own: "Queues <mq@own.example>".to_owned(),
            domains: vec!["also.example".to_owned()],
        };
        for (from, sender) in [
            (None, "Queues <mq@own.example>"),
            (Some(""), "Queues <mq@own.example>"),
            // As the reference's own sample has it.
            (Some("Jack"), "Jack <mq@own.example>"),
            (Some("me@Own.example"), "me@own.example"),
            (Some("Me <me@also.example>"), "Me <me@also.example>"),
        ] {
            let found = senders.sender(from).expect("a sender").to_string();
            assert_eq!(found.to_lowercase(), sender.to_lowercase(), "{from:?}");
        }
        for from in ["boss@bank.example", "a@b@c", "x@", "Jack\nBcc: all"] {
            assert!(senders.sender(Some(from)).is_err(), "{from}");
        }
    }

    #[test]
    fn a_template_is_filled_once() {
        let template = Template {
            subject: String::new(),
            body: "{0} of {1}: {2} {3} {x {".to_owned(),
        };
        assert_eq!(template.fill("{1}", "p", "{0}"), "{1} of p: {0} {3} {x {");
    }
}
