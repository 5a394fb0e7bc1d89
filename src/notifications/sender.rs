//! One attempt to send one notification to one subscriber.

use std::pin::pin;
use std::sync::{Arc, Once};
use std::time::Duration;

use bytes::Bytes;
use isimud_contract::{MessageId, ProjectId, Subscription};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use super::budget::{Budget, Shares};
use super::entry::{Entry, What};
use super::mail::{self, Mail, Mailer};
use super::rate::Rates;
use super::text::{self, ConfirmationRequest};
use super::trust::{NoTrustToken, TrustRecord, TrustTokens, target_of_trust};
use super::webhook::{Push, Webhooks};
use super::{DeliveryContext, Outcome, Settings, bare_host_of, host_of};
use crate::signature::Signer;

/// Sends notifications of every kind.
#[derive(Debug)]
pub(crate) struct Sender {
    pub(crate) webhooks: Webhooks,
    pub(crate) mailer: Mailer,
    pub(crate) signer: Signer,
    pub(crate) settings: Settings,
    pub(crate) limits: ConcurrencyLimits,
    /// Bytes of notifications that are being sent.
    pub(crate) sending: Budget,
    /// Gets the tokens of trust subscriptions.
    pub(crate) trust_tokens: Option<Arc<dyn TrustTokens>>,
    /// Says once that a token is sent in clear.
    pub(crate) clear_token: Once,
}

impl Sender {
    /// Makes an attempt, the first of which is number 1.
    pub(crate) async fn attempt(
        &self,
        context: &dyn DeliveryContext,
        subscription: &Subscription,
        entry: &Entry,
        attempt: usize,
    ) -> Outcome {
        let subscriber = subscription.subscriber.as_str();
        let trusted = target_of_trust(subscriber);
        let target = trusted.unwrap_or(subscriber);
        let scheme = target.split_once(':').map_or("", |(scheme, _)| scheme);
        let is = |wanted: &str| scheme.eq_ignore_ascii_case(wanted);
        let frame = text::frame(&subscription.options).filter(|_| !is("mailto"));
        let size = text::size(entry, frame);
        if frame.is_some() && size.sent > self.settings.max_notification_bytes {
            return Outcome::Refused(format!(
                "it would have {} bytes, and notifications.max_notification_bytes is {}",
                size.sent, self.settings.max_notification_bytes
            ));
        }
        let taking = self.sending.take(&entry.source.project, size.in_all);
        let Some(_spent) = taking.await else {
            return Outcome::Failed {
                why: "the service ends".to_owned(),
                after: None,
            };
        };
        if is("mailto") && trusted.is_none() {
            return match self.mail(subscription, entry) {
                Ok(mail) => self.mailer.send(mail).await,
                Err(outcome) => outcome,
            };
        }
        if !is("http") && !is("https") {
            return Outcome::Refused("notifications of this kind cannot be sent".into());
        }
        match self.document(context, entry, is("https")) {
            Ok(document) => {
                let push = Push {
                    subscription,
                    target,
                    id: entry.id,
                    attempt,
                    body: text::posted(frame, document),
                };
                match trusted {
                    None => self.webhooks.push(&push).await,
                    Some(_) => self.push_with_token(&push, is("http")).await,
                }
            }
            Err(outcome) => outcome,
        }
    }

    /// Sends a notification with a token of the trust of its subscription; once more with a new token when the receiver
    /// refuses the first.
    async fn push_with_token(&self, push: &Push<'_>, in_clear: bool) -> Outcome {
        let Some(tokens) = &self.trust_tokens else {
            let why = "it needs a trust of Keystone, and there are none: authentication is off, or there is no trustee";
            return Outcome::Refused(why.to_owned());
        };
        let Some(trust) = TrustRecord::read(&push.subscription.options) else {
            let why = "its trust is not known to be its user's: the user has to change the subscription, or create it anew";
            return Outcome::Refused(why.to_owned());
        };
        if in_clear {
            self.clear_token.call_once(|| {
                tracing::warn!(
                    "a subscriber of trust+http is sent a token in clear; take trust+http out of \
                     notifications.subscriber_types to have receivers behind TLS only"
                );
            });
        }
        let mut refused = None;
        loop {
            let token = match tokens.token(&trust.id, refused.as_ref()).await {
                Ok(token) => token,
                Err(NoTrustToken { after, why }) => {
                    let why = format!("there is no token of its trust: {why}");
                    return match after {
                        None => Outcome::Refused(why),
                        after => Outcome::Failed { why, after },
                    };
                }
            };
            match self.webhooks.push_with_token(push, &token).await {
                (Outcome::Refused(_), true) if refused.is_none() => refused = Some(token),
                (outcome, _) => return outcome,
            }
        }
    }

    /// What a receiver is sent. A sealed body is opened for one that is reached over TLS, and for no other.
    fn document(
        &self,
        context: &dyn DeliveryContext,
        entry: &Entry,
        over_tls: bool,
    ) -> Result<String, Outcome> {
        let (ttl, delay, sealed, body) = match &entry.what {
            What::Message {
                ttl,
                delay,
                sealed,
                body,
            } => (ttl, delay, sealed, body),
            What::Confirmation { .. } => {
                let confirmation = confirmation(entry);
                let signed = confirmation.as_ref().and_then(|confirmation| {
                    Some((confirmation, confirmation.sign(&self.signer)?))
                });
                let Some((confirmation, (grant, signature))) = signed else {
                    return Err(Outcome::Refused("nothing can be signed: there is no key, or the project's id contains a backslash".into()));
                };
                return Ok(confirmation.document(&grant, &signature, &self.settings.service_url));
            }
        };
        let body = match sealed {
            false => readable(entry.id, body)?.to_owned(),
            true if over_tls => {
                let opened = context
                    .open(entry.id, body)
                    .map_err(|error| Outcome::Failed {
                        why: error.to_string(),
                        after: None,
                    })?;
                readable(entry.id, &opened)?.to_owned()
            }
            true => Value::from(readable(entry.id, body)?).to_string(),
        };
        let delay = delay.map(|delay| delay.as_secs());
        Ok(text::message(&entry.source, ttl.as_secs(), delay, &body))
    }

    fn mail<'a>(
        &'a self,
        subscription: &'a Subscription,
        entry: &Entry,
    ) -> Result<Mail<'a>, Outcome> {
        let option = |key: &str| subscription.options.get(key).and_then(Value::as_str);
        let mail = |from, subject, text| Mail {
            to: &subscription.subscriber,
            from,
            subject,
            id: entry.id,
            text,
        };
        let Some(confirmation) = confirmation(entry) else {
            let What::Message {
                ttl,
                delay,
                sealed,
                body,
            } = &entry.what
            else {
                return Err(Outcome::Refused("this cannot be sent by mail".into()));
            };
            let body = match sealed {
                false => readable(entry.id, body)?.to_owned(),
                true => Value::from(readable(entry.id, body)?).to_string(),
            };
            let delay = delay.map(|delay| delay.as_secs());
            let text = text::message(&entry.source, ttl.as_secs(), delay, &body);
            return Ok(mail(option("from"), option("subject"), text));
        };
        let page = &self.settings.external_confirmation_url;
        let signed = confirmation.sign(&self.signer).filter(|_| !page.is_empty());
        let Some((grant, signature)) = signed else {
            tracing::error!(
                "a confirmation mail needs notifications.external_confirmation_url and signed_url.secret_key"
            );
            return Err(Outcome::Refused(
                "there is no page for the answer, or nothing can be signed for it".into(),
            ));
        };
        let link = confirmation.link(page, &grant, &signature, &self.settings.service_url);
        let templates = &self.settings.mail;
        let template = if confirmation.leaving {
            &templates.unsubscription
        } else {
            &templates.confirmation
        };
        let text = template.fill(
            entry.source.name.shown(),
            entry.source.project.as_str(),
            &link,
        );
        Ok(mail(None, Some(template.subject.as_str()), text))
    }
}

fn confirmation(entry: &Entry) -> Option<ConfirmationRequest<'_>> {
    match &entry.what {
        What::Message { .. } => None,
        What::Confirmation {
            subscription,
            leaving,
            expires,
        } => Some(ConfirmationRequest {
            source: &entry.source,
            subscription: *subscription,
            leaving: *leaving,
            expires: *expires,
        }),
    }
}

fn readable(id: MessageId, body: &Bytes) -> Result<&str, Outcome> {
    std::str::from_utf8(body).map_err(|_| Outcome::Refused(format!("the body of {id} is not text")))
}

/// How long an attempt may take before it counts as one of those that hang.
const SLOW_ATTEMPT: Duration = Duration::from_secs(1);

/// What a retry costs of a rate: who fails is not asked as often as who answers.
const RETRY_COST: u32 = 10;
/// What is not used of a rate in this time is lost.
const BURST: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);

/// Who may send when, and how many at once: so many in all, to one host, and of one project, which also may not have all
/// that there are of a host. Attempts that hang, and those of subscribers whose last one failed, have as many slots of
/// their own, so that they do not take them from those that answer.
#[derive(Debug)]
pub(crate) struct ConcurrencyLimits {
    healthy: Kind,
    failing: Kind,
    rate_of_host: Rates,
    rate_of_project: Rates,
    rate_of_mail: Rates,
}

/// Slots of those that answer, or of those that do not.
#[derive(Debug)]
struct Kind {
    all: Arc<Semaphore>,
    hosts: Shares<String>,
    projects: Shares<ProjectId>,
    hosts_of_projects: Shares<(ProjectId, String)>,
}

type Permits = [OwnedSemaphorePermit; 2];

impl Kind {
    fn new(settings: &Settings) -> Self {
        let per_host = settings.max_deliveries_per_host;
        Self {
            all: Arc::new(Semaphore::new(settings.max_deliveries)),
            hosts: Shares::new(per_host),
            projects: Shares::new(settings.max_deliveries_per_project),
            hosts_of_projects: Shares::new((per_host * 3).div_ceil(4)),
        }
    }

    /// Waits for what a project may have; `None` when the service stops. First, so that who waits for more waits for
    /// others with no more than that.
    async fn share(&self, key: &(ProjectId, String)) -> Option<Permits> {
        let of_both = self.hosts_of_projects.of(key).acquire_owned().await.ok()?;
        let of_project = self.projects.of(&key.0).acquire_owned().await.ok()?;
        Some([of_both, of_project])
    }

    /// Waits for what all projects have in common.
    async fn common(&self, host: &String) -> Option<Permits> {
        let of_host = self.hosts.of(host).acquire_owned().await.ok()?;
        let of_all = Arc::clone(&self.all).acquire_owned().await.ok()?;
        Some([of_host, of_all])
    }
}

/// The right to send once.
#[derive(Debug)]
pub(crate) struct SendPermit {
    key: (ProjectId, String),
    permits: [Permits; 2],
    is_failing: bool,
}

impl ConcurrencyLimits {
    pub(crate) fn new(settings: &Settings) -> Self {
        let second = Duration::from_secs(1);
        Self {
            healthy: Kind::new(settings),
            failing: Kind::new(settings),
            rate_of_host: Rates::new(settings.max_per_second_per_host, second, BURST),
            rate_of_project: Rates::new(settings.max_per_second_per_project, second, BURST),
            rate_of_mail: Rates::new(settings.mail.max_per_minute, MINUTE, MINUTE / 2),
        }
    }

    /// Waits for its turn and a slot; `None` when the service stops.
    pub(crate) async fn take(
        &self,
        project: &ProjectId,
        subscriber: &str,
        is_failing: bool,
    ) -> Option<SendPermit> {
        let host = host_of(subscriber).unwrap_or("mail").to_ascii_lowercase();
        let key = (project.clone(), host);
        let kind = if is_failing {
            &self.failing
        } else {
            &self.healthy
        };
        let share = kind.share(&key).await?;
        sleep(self.turn(project, subscriber, is_failing)).await;
        Some(SendPermit {
            permits: [share, kind.common(&key.1).await?],
            key,
            is_failing,
        })
    }

    /// How long to wait for the turn of a project at a host, or of its mails.
    fn turn(&self, project: &ProjectId, subscriber: &str, is_failing: bool) -> Duration {
        let cost = if is_failing { RETRY_COST } else { 1 };
        let of_project = self.rate_of_project.take(project.as_str(), cost);
        let of_host = match bare_host_of(subscriber) {
            Some(host) => self.rate_of_host.take(&host.to_ascii_lowercase(), cost),
            // Names of projects have no blanks in front of them, and addresses have an `@`.
            None => {
                let receiver = mail::receiver(subscriber);
                let of_receiver = self.rate_of_mail.take(&receiver, 1);
                of_receiver.max(self.rate_of_mail.take(&format!(" {project}"), 1))
            }
        };
        of_project.max(of_host)
    }

    /// Makes an attempt in a slot, which it changes for another when it hangs.
    pub(crate) async fn run(
        &self,
        mut slot: SendPermit,
        attempt: impl Future<Output = Outcome>,
    ) -> Outcome {
        let mut attempt = pin!(attempt);
        if slot.is_failing {
            return attempt.await;
        }
        if let Ok(outcome) = timeout(SLOW_ATTEMPT, &mut attempt).await {
            return outcome;
        }
        let key = slot.key.clone();
        let other = async {
            let share = self.failing.share(&key).await?;
            Some([share, self.failing.common(&key.1).await?])
        };
        tokio::select! {
            outcome = &mut attempt => return outcome,
            other = other => if let Some(other) = other {
                slot.permits = other;
            },
        }
        attempt.await
    }
}

#[cfg(test)]
#[path = "sender/tests.rs"]
mod tests;
