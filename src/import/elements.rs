//! The elements of a Redis list, and the entries of a stream, as the messages of one queue.

use std::time::Duration;

use isimud_contract::{ClientId, Error, Message, Metadata, ProjectId, QueueKey, QueueName, Result};
use isimud_estates::{Address, ElementPage, List, Stream, StreamSelection};
use uuid::Uuid;

use super::flags;
use super::journal::Place;
use super::{PAGE, Report, Work};
use crate::config::Config;
use crate::messaging::Adopted;

/// The queue that the elements go to, and how long they live there.
struct Destination {
    queue: QueueKey,
    ttl: Duration,
}

impl Destination {
    fn new(flags: &flags::Plain, config: &Config) -> Result<Self> {
        let project = ProjectId::parse(&flags.project)
            .map_err(|_| Error::invalid("--project is not 1 to 256 characters"))?;
        let name = QueueName::parse(&flags.queue)
            .map_err(|_| Error::invalid("--queue is not 1 to 64 of a-z A-Z 0-9 _ - ."))?;
        let secs = flags.ttl.unwrap_or(config.limits.default_message_ttl);
        Ok(Self {
            queue: QueueKey::new(project, name),
            ttl: config.limits.message_ttl(secs)?,
        })
    }

    /// Makes the queue. One that was made already keeps its metadata.
    async fn make(&self, work: &Work, report: &mut Report) -> Result<()> {
        match work.target.queue(&self.queue, &Metadata::new()).await? {
            Adopted::Made => report.queues_made += 1,
            Adopted::There | Adopted::Different => report.queues_there += 1,
        }
        Ok(())
    }

    /// Stores a part. Whoever pushed the elements is not known, so they come from the client with the nil id.
    async fn store(&self, work: &Work, page: ElementPage, report: &mut Report) -> Result<()> {
        let count = page.elements.len();
        let messages = page.elements.into_iter().map(|element| {
            let mut message = Message::new(
                element.id,
                ClientId::Uuid(Uuid::nil()),
                self.ttl,
                element.body,
            );
            message.age = element.age;
            message
        });
        let new = work
            .target
            .messages(&self.queue, messages.collect())
            .await?;
        report.messages_new += new as u64;
        report.messages_there += (count - new) as u64;
        report.acknowledged += page.acknowledged;
        Ok(())
    }
}

pub(super) async fn run_list(
    work: &Work,
    flags: &flags::List,
    config: &Config,
    report: &mut Report,
) -> Result<()> {
    let plain = &flags.plain;
    let to = Destination::new(plain, config)?;
    let address = Address::parse(&plain.from)?;
    let mut list = List::open(
        address,
        &plain.key,
        flags.oldest.into(),
        plain.unwrap.into(),
    )
    .await?;
    report.sources.push(list.shown());
    work.progress.expect(list.count());
    to.make(work, report).await?;
    loop {
        let page = list.next(PAGE).await?;
        let (count, is_last) = (page.elements.len(), page.is_last);
        to.store(work, page, report).await?;
        work.progress.advance(count);
        if is_last {
            break;
        }
    }
    if plain.shared.journal.is_some() {
        report.note(
            "a list has no places that stay, so there is nothing to put into a journal",
            "elements that are here already are known by their ids",
        );
    }
    if !list.is_unchanged().await? {
        report.leave(
            "the list changed while it was read, and elements may have been missed: run the import again",
            list.shown(),
        );
    }
    Ok(())
}

pub(super) async fn run_stream(
    work: &Work,
    flags: &flags::Stream,
    config: &Config,
    report: &mut Report,
) -> Result<()> {
    let plain = &flags.plain;
    let to = Destination::new(plain, config)?;
    let address = Address::parse(&plain.from)?;
    let source = format!("{address} {}", plain.key);
    let selection = StreamSelection {
        group: flags.group.clone(),
        field: flags.field.clone(),
        unwrap: plain.unwrap.into(),
        after: work
            .journal
            .place(&source, &to.queue)
            .map(|place| place.after.clone()),
    };
    let mut stream = Stream::open(address, &plain.key, selection).await?;
    report.sources.push(stream.shown());
    work.progress.expect(stream.count());
    to.make(work, report).await?;
    loop {
        let page = stream.next(PAGE).await?;
        let entries = page.elements.len() + usize::try_from(page.acknowledged).unwrap_or(0);
        let is_last = page.is_last;
        let place = Place {
            after: page.reached.clone(),
            same: 1,
        };
        to.store(work, page, report).await?;
        work.progress.advance(entries);
        work.journal.note(&source, &to.queue, place)?;
        if is_last {
            return Ok(());
        }
    }
}
