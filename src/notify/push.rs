//! One attempt to tell one subscriber of one thing.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use isimud_contract::{MessageId, Subscription};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::budget::Budget;
use super::entry::{Entry, What};
use super::mail::{Mail, Mailer};
use super::text::{self, Question};
use super::webhook::Webhooks;
use super::{House, Outcome, Settings, host_of};
use crate::signature::Signer;

/// Sends notifications of every kind.
#[derive(Debug)]
pub(crate) struct Push {
    pub(crate) webhooks: Webhooks,
    pub(crate) mailer: Mailer,
    pub(crate) signer: Signer,
    pub(crate) settings: Settings,
    pub(crate) slots: Slots,
    /// Bytes of notifications that are being sent.
    pub(crate) sending: Budget,
}

impl Push {
    /// Makes an attempt, the first of which is number 1.
    pub(crate) async fn attempt(
        &self,
        house: &dyn House,
        subscription: &Subscription,
        entry: &Entry,
        attempt: usize,
    ) -> Outcome {
        let subscriber = &subscription.subscriber;
        let scheme = subscriber.split_once(':').map_or("", |(scheme, _)| scheme);
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
        if is("mailto") {
            return match self.mail(subscription, entry) {
                Ok(mail) => self.mailer.send(mail).await,
                Err(outcome) => outcome,
            };
        }
        if !is("http") && !is("https") {
            return Outcome::Refused("notifications of this kind cannot be sent".into());
        }
        match self.document(house, entry, is("https")) {
            Ok(document) => {
                let body = text::posted(frame, document);
                self.webhooks
                    .push(subscription, entry.id, attempt, body)
                    .await
            }
            Err(outcome) => outcome,
        }
    }

    /// What a receiver is sent. A sealed body is opened for one that is reached over TLS, and for no other.
    fn document(
        &self,
        house: &dyn House,
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
            What::Consent { .. } => {
                let question = question(entry);
                let signed = question
                    .as_ref()
                    .and_then(|question| Some((question, question.sign(&self.signer)?)));
                let Some((question, (grant, signature))) = signed else {
                    return Err(Outcome::Refused("nothing can be signed: there is no key, or the project's id contains a backslash".into()));
                };
                return Ok(question.document(&grant, &signature, &self.settings.service_url));
            }
        };
        let body = match sealed {
            false => readable(entry.id, body)?.to_owned(),
            true if over_tls => {
                let opened = house
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
        let Some(question) = question(entry) else {
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
        let signed = question.sign(&self.signer).filter(|_| !page.is_empty());
        let Some((grant, signature)) = signed else {
            tracing::error!(
                "a mail for consent needs notifications.external_confirmation_url and signed_url.secret_key"
            );
            return Err(Outcome::Refused(
                "there is no page for the answer, or nothing can be signed for it".into(),
            ));
        };
        let link = question.link(page, &grant, &signature, &self.settings.service_url);
        let templates = &self.settings.mail;
        let template = if question.leaving {
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

fn question(entry: &Entry) -> Option<Question<'_>> {
    match &entry.what {
        What::Message { .. } => None,
        What::Consent {
            subscription,
            leaving,
            expires,
        } => Some(Question {
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
const SLOW: Duration = Duration::from_secs(1);

/// Who may send at once: so many in all, and to one host so many. Attempts that hang, and those of subscribers whose
/// last one failed, have as many slots of their own, so that they do not take them from those that answer.
#[derive(Debug)]
pub(crate) struct Slots {
    sound: Arc<Semaphore>,
    ailing: Arc<Semaphore>,
    hosts: Mutex<HashMap<String, Weak<Semaphore>>>,
    per_host: usize,
}

/// The right to send once.
#[derive(Debug)]
pub(crate) struct Slot {
    _host: OwnedSemaphorePermit,
    all: OwnedSemaphorePermit,
    is_ailing: bool,
}

impl Slots {
    pub(crate) fn new(all: usize, per_host: usize) -> Self {
        Self {
            sound: Arc::new(Semaphore::new(all)),
            ailing: Arc::new(Semaphore::new(all)),
            hosts: Mutex::default(),
            per_host,
        }
    }

    /// Waits for a slot; `None` when the service stops.
    pub(crate) async fn take(&self, subscriber: &str, is_ailing: bool) -> Option<Slot> {
        let host = self.host(host_of(subscriber).unwrap_or("mail"));
        let _host = host.acquire_owned().await.ok()?;
        let all = if is_ailing { &self.ailing } else { &self.sound };
        let all = Arc::clone(all).acquire_owned().await.ok()?;
        Some(Slot {
            _host,
            all,
            is_ailing,
        })
    }

    /// Makes an attempt in a slot, which it changes for another when it hangs.
    pub(crate) async fn run(
        &self,
        mut slot: Slot,
        attempt: impl Future<Output = Outcome>,
    ) -> Outcome {
        let mut attempt = pin!(attempt);
        if slot.is_ailing {
            return attempt.await;
        }
        if let Ok(outcome) = timeout(SLOW, &mut attempt).await {
            return outcome;
        }
        tokio::select! {
            outcome = &mut attempt => return outcome,
            other = Arc::clone(&self.ailing).acquire_owned() => if let Ok(other) = other {
                slot.all = other;
            },
        }
        attempt.await
    }

    fn host(&self, host: &str) -> Arc<Semaphore> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = hosts.get(host).and_then(Weak::upgrade) {
            return known;
        }
        // Those that nobody uses any more go when others come.
        if hosts.len() >= 1024 && hosts.len().is_power_of_two() {
            hosts.retain(|_, slots| slots.strong_count() > 0);
        }
        let slots = Arc::new(Semaphore::new(self.per_host));
        hosts.insert(host.to_owned(), Arc::downgrade(&slots));
        slots
    }
}
