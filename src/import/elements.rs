//! The elements of Redis lists, the entries of a stream and BullMQ's jobs, as the messages of one queue.

use std::collections::HashMap;
use std::time::Duration;

use isimud_contract::{
    ClientId, Error, Message, MessageId, Metadata, ProjectId, QueueKey, QueueName, Result,
};
use isimud_import_sources::{
    Address, ElementPage, Elements, Jobs, Lists, Refusal, Stream, StreamSelection, Unwrap, missing,
};
use uuid::Uuid;

use super::flags;
use super::journal::Step;
use super::page_size::PageSize;
use super::target::Placed;
use super::{Report, Work};
use crate::config::Config;
use crate::messaging::QueueImport;

/// Entries that were left out before, and are asked for again at once.
const RETRY_PAGE_SIZE: usize = 100;

/// The queue that the elements go to, and how long they live there.
struct Destination {
    /// What is read, as the journal names it.
    source: String,
    queue: QueueKey,
    ttl: Duration,
}

/// What became of a part: what the journal is to remember.
#[derive(Debug, Default)]
struct Stored {
    /// Messages that need not be taken again.
    taken: Vec<MessageId>,
    /// The names of those that were left out.
    left: Vec<String>,
}

impl Destination {
    fn new(flags: &flags::Plain, config: &Config) -> Result<Self> {
        let project = ProjectId::parse(&flags.project)
            .map_err(|_| Error::invalid("--project is not 1 to 256 characters"))?;
        let name = QueueName::parse(&flags.queue)
            .map_err(|_| Error::invalid("--queue is not 1 to 64 of a-z A-Z 0-9 _ - ."))?;
        let secs = flags.ttl.unwrap_or(config.limits.default_message_ttl);
        let address = Address::parse(&flags.from)?;
        Ok(Self {
            source: format!("{address} {}", flags.key),
            queue: QueueKey::new(project, name),
            ttl: config.limits.message_ttl(secs)?,
        })
    }

    /// Makes the queue. One that was made already keeps its metadata.
    async fn make(&self, work: &Work, report: &mut Report) -> Result<()> {
        match work.target.queue(&self.queue, &Metadata::new()).await? {
            QueueImport::Created => report.queues_made += 1,
            QueueImport::Existing | QueueImport::Conflicting => report.queues_there += 1,
        }
        Ok(())
    }

    /// Stores a part. Whoever pushed the elements is not known, so they come from the client with the nil id.
    async fn store(&self, work: &Work, page: ElementPage, report: &mut Report) -> Result<Stored> {
        let count = page.elements.len() + page.refused.len();
        report.read += count as u64 + page.acknowledged;
        report.acknowledged += page.acknowledged;
        refuse(work, report, page.refused)?;
        let mut names = HashMap::new();
        let mut stored = Stored::default();
        let mut messages = Vec::with_capacity(page.elements.len());
        for element in page.elements {
            if work
                .journal
                .has_taken(&self.source, &self.queue, element.id)
            {
                report.messages_before += 1;
                continue;
            }
            let client = ClientId::Uuid(Uuid::nil());
            let mut message = Message::new(element.id, client, self.ttl, element.body);
            message.age = element.age;
            message.delay = element.delay;
            stored.taken.push(element.id);
            names.insert(element.id, element.name);
            messages.push(message);
        }
        let mut placed = Placed::default();
        let done = work
            .target
            .messages(&self.queue, messages, &mut placed)
            .await;
        report.place(&placed);
        for refused in placed.refused {
            let name = names.remove(&refused.id).unwrap_or_default();
            let what = format!("{name} ({} bytes)", refused.size);
            work.leave_message(report, refused.why, what)?;
            stored.taken.retain(|id| *id != refused.id);
            stored.left.push(name);
        }
        done?;
        Ok(stored)
    }

    /// Reads something to its end, and has the journal remember the elements.
    async fn carry<E: Elements>(
        &self,
        work: &Work,
        mut from: E,
        report: &mut Report,
    ) -> Result<()> {
        let mut page_size = PageSize::new();
        while !work.is_over() {
            let page = from.next(page_size.limit()).await?;
            page_size.note(bytes(&page));
            let (count, is_last) = (page.elements.len(), page.is_last);
            let stored = self.store(work, page, report).await?;
            work.progress.advance(count);
            if !stored.taken.is_empty() {
                let step = Step::Taken(stored.taken);
                work.journal.note(&self.source, &self.queue, &step)?;
            }
            if is_last {
                break;
            }
        }
        if !work.is_over() && !from.is_unchanged().await? {
            let why = "it changed while it was read, and elements may have been missed: run the import again";
            work.leave(report, why, from.shown())?;
        }
        Ok(())
    }
}

fn bytes(page: &ElementPage) -> usize {
    page.elements.iter().map(|element| element.body.len()).sum()
}

/// Tells of elements that were read and cannot be taken.
fn refuse(work: &Work, report: &mut Report, refused: Vec<Refusal>) -> Result<()> {
    for Refusal { what, why, .. } in refused {
        work.leave_message(report, why, what)?;
    }
    Ok(())
}

pub(super) async fn run_list(
    work: &Work,
    flags: &flags::List,
    config: &Config,
    report: &mut Report,
) -> Result<()> {
    let plain = &flags.plain;
    let to = Destination::new(plain, config)?;
    let unwrap: Unwrap = plain.unwrap.into();
    if flags.unacked && unwrap != Unwrap::Celery {
        return Err(Error::invalid("--unacked needs --unwrap celery"));
    }
    let all = async {
        match unwrap {
            Unwrap::BullMq => run_jobs(work, &to, plain, report).await,
            Unwrap::Nothing | Unwrap::Celery => run_lists(work, &to, flags, report).await,
        }
    };
    let done = work.target.alone(&to.queue, all).await;
    account(work, report)?;
    done.and_then(|done| done.unwrap_or(Ok(())))
}

async fn run_lists(
    work: &Work,
    to: &Destination,
    flags: &flags::List,
    report: &mut Report,
) -> Result<()> {
    let plain = &flags.plain;
    let key = plain.key.as_str();
    let address = Address::parse(&plain.from)?;
    let lists = Lists::open(address, key, flags.oldest.into(), plain.unwrap.into()).await?;
    let held = match plain.unwrap {
        flags::Wrapping::Celery => collected(lists.held(key)).await?,
        _ => Vec::new(),
    };
    if lists.lists.is_empty() && held.is_empty() {
        return Err(missing(key));
    }
    report.sources.push(lists.shown(key));
    for list in &lists.lists {
        work.progress.expect(list.count());
    }
    for Refusal { what, why, .. } in lists.refused {
        work.leave(report, why, what)?;
    }
    to.make(work, report).await?;
    // What a worker had taken is older than what still waits.
    for page in held {
        if flags.unacked {
            let stored = to.store(work, page, report).await?;
            if !stored.taken.is_empty() {
                let step = Step::Taken(stored.taken);
                work.journal.note(&to.source, &to.queue, &step)?;
            }
            continue;
        }
        report.read += (page.elements.len() + page.refused.len()) as u64;
        refuse(work, report, page.refused)?;
        for task in page.elements {
            let why = "a worker of Celery holds it: it is done there, or put back, or taken with --unacked";
            work.leave_message(report, why, task.name)?;
        }
    }
    for list in lists.lists {
        to.carry(work, list, report).await?;
    }
    Ok(())
}

/// Everything of a source that is small: workers hold a few tasks each.
async fn collected(mut from: impl Elements) -> Result<Vec<ElementPage>> {
    let mut pages = Vec::new();
    loop {
        let page = from.next(RETRY_PAGE_SIZE).await?;
        let is_last = page.is_last;
        if !page.elements.is_empty() || !page.refused.is_empty() {
            pages.push(page);
        }
        if is_last {
            return Ok(pages);
        }
    }
}

async fn run_jobs(
    work: &Work,
    to: &Destination,
    plain: &flags::Plain,
    report: &mut Report,
) -> Result<()> {
    let (parts, refused) = Jobs::open(Address::parse(&plain.from)?, &plain.key).await?;
    if parts.is_empty() {
        return Err(missing(&plain.key));
    }
    for part in &parts {
        report.sources.push(part.shown());
        work.progress.expect(part.count());
    }
    for Refusal { what, why, .. } in refused {
        work.leave(report, why, what)?;
    }
    to.make(work, report).await?;
    for part in parts {
        to.carry(work, part, report).await?;
    }
    Ok(())
}

pub(super) async fn run_stream(
    work: &Work,
    flags: &flags::Stream,
    config: &Config,
    report: &mut Report,
) -> Result<()> {
    let to = Destination::new(&flags.plain, config)?;
    let all = stream(work, &to, flags, report);
    let done = work.target.alone(&to.queue, all).await;
    account(work, report)?;
    done.and_then(|done| done.unwrap_or(Ok(())))
}

async fn stream(
    work: &Work,
    to: &Destination,
    flags: &flags::Stream,
    report: &mut Report,
) -> Result<()> {
    let plain = &flags.plain;
    if let flags::Wrapping::BullMq = plain.unwrap {
        return Err(Error::invalid(
            "BullMQ's jobs are in lists, not in a stream",
        ));
    }
    let known = work.journal.known(&to.source, &to.queue);
    let selection = StreamSelection {
        group: flags.group.clone(),
        field: flags.field.clone(),
        unwrap: plain.unwrap.into(),
        after: known.and_then(|known| known.after.clone()),
    };
    let mut stream = Stream::open(Address::parse(&plain.from)?, &plain.key, selection).await?;
    report.sources.push(stream.shown());
    work.progress.expect(stream.count());
    to.make(work, report).await?;
    let left: Vec<String> = known
        .map(|known| known.left.iter().cloned().collect())
        .unwrap_or_default();
    for ids in left.chunks(RETRY_PAGE_SIZE) {
        if work.is_over() {
            return Ok(());
        }
        let page = stream.again(ids).await?;
        let stored = to.store(work, page, report).await?;
        let still = entries(stored.left);
        let done = ids.iter().filter(|id| !still.contains(id)).cloned();
        let step = Step::Done(done.collect());
        work.journal.note(&to.source, &to.queue, &step)?;
    }
    let mut page_size = PageSize::new();
    while !work.is_over() {
        let page = stream.next(page_size.limit()).await?;
        page_size.note(bytes(&page));
        let count = page.elements.len() + usize::try_from(page.acknowledged).unwrap_or(0);
        let (is_last, reached) = (page.is_last, page.reached.clone());
        let stored = to.store(work, page, report).await?;
        work.progress.advance(count);
        let step = Step::Reached {
            after: reached,
            same: 1,
            left: entries(stored.left),
        };
        work.journal.note(&to.source, &to.queue, &step)?;
        if is_last {
            break;
        }
    }
    Ok(())
}

/// The ids of entries by their names.
fn entries(names: Vec<String>) -> Vec<String> {
    let ids = names.iter().filter_map(|name| name.strip_prefix("entry "));
    ids.map(str::to_owned).collect()
}

/// Counts what had been read, and was not stored, when the import ended.
fn account(work: &Work, report: &mut Report) -> Result<()> {
    let count = report.unaccounted();
    report.messages_left += count;
    match count {
        0 => Ok(()),
        _ => work.leave(
            report,
            "read, and not known to be stored, when the import ended",
            format!("{count} elements"),
        ),
    }
}
