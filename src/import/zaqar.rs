//! A Zaqar's queues, messages and claims.

use std::path::Path;

use futures_util::{StreamExt, stream};
use isimud_contract::{
    Error, ErrorKind, ImportedClaim, MessageId, QueueKey, Result, Subscription, SubscriptionId,
};
use isimud_import_sources::{
    Address, Cursor, FoundMessage, FoundPage, FoundQueue, FoundSubscription, Names, Record,
    Refusal, SqlManagement, Zaqar, survey,
};

use super::flags;
use super::journal::{Journal, Step};
use super::page_size::PageSize;
use super::target::Placed;
use super::{Report, Work};
use crate::config::Config;
use crate::messaging::{QueueImport, metadata_fault};

/// Queues that are imported at once.
const MAX_CONCURRENT: usize = 4;

/// Messages that were left out before, and are asked for again at once.
const RETRY_PAGE_SIZE: usize = 100;

/// The pass phrase that Zaqar comes with.
const PUBLIC_KEY: &str = "AES256";

/// A Zaqar deployment with the queues that were found in it.
struct Deployment {
    stores: Vec<Zaqar>,
    /// Where the records of queues are, unless they came with the names.
    records: Option<Zaqar>,
    queues: Vec<FoundQueue>,
}

/// What ends something before its end.
enum Halt {
    /// It is about one queue, and nothing beside it.
    Queue(Error),
    /// Nothing goes on without it: the source, the journal, the file of what is left out.
    Import(Error),
}

/// What a source says: that it stays away, or that something in it is not what it should be.
fn of_source(error: Error) -> Halt {
    match error.kind() {
        ErrorKind::Unavailable => Halt::Import(error),
        _ => Halt::Queue(error),
    }
}

pub(super) async fn run(
    work: &Work,
    flags: &flags::Zaqar,
    config: &Config,
    report: &mut Report,
) -> Result<()> {
    let deployment = find(work, flags, config, report).await?;
    for store in deployment.stores.iter().filter(|_| work.progress.is_seen()) {
        for queue in deployment.queues.iter().filter(|queue| queue.has_messages) {
            work.progress.expect(store.count(&queue.queue).await?);
        }
    }
    let mut parts = stream::iter(&deployment.queues)
        .map(|queue| import_queue(work, &deployment, queue))
        .buffer_unordered(MAX_CONCURRENT);
    let mut done = Ok(());
    while let Some((part, ended)) = parts.next().await {
        report.add(part);
        if let Err(error) = ended {
            // The others end where they are, so that what they did is told.
            work.end();
            done = done.and(Err(error));
        }
    }
    done
}

/// Connects to everything, and reads the names.
async fn find(
    work: &Work,
    flags: &flags::Zaqar,
    config: &Config,
    report: &mut Report,
) -> Result<Deployment> {
    let pass_phrases = pass_phrases(flags, config)?;
    let mut stores = Vec::with_capacity(flags.from.len());
    let mut names = Vec::with_capacity(flags.from.len());
    for uri in &flags.from {
        let store = Zaqar::open(Address::parse(uri)?, &pass_phrases).await?;
        report.sources.push(store.shown());
        names.push(store.names().await?);
        stores.push(store);
    }
    let mut metadata = Vec::new();
    let (management, records) = match flags.management.as_deref() {
        Some(uri) if uri.starts_with("redis:") || uri.starts_with("rediss:") => {
            let store = Zaqar::open(Address::parse(uri)?, &[]).await?;
            (store.names().await?, Some(store))
        }
        Some(file) => {
            let path = file.strip_prefix("sqlite:").unwrap_or(file);
            let path = path.strip_prefix("///").unwrap_or(path);
            let sql = SqlManagement::read(Path::new(path))?;
            refuse(work, report, sql.refused)?;
            metadata = sql.queues;
            (Names::of_pools(sql.pools, sql.flavors), None)
        }
        None => (names[0].clone(), Some(stores[0].clone())),
    };
    if !management.lists_queues() && metadata.is_empty() {
        report.note(
            "no management store lists any queue: projects and names are told apart by the first dot",
            "name the management store with --management if there is another",
        );
    }
    let survey = survey(&management, metadata, &names);
    refuse(work, report, survey.refused)?;
    let pools = survey.pools.into_iter().map(|name| format!("pool {name}"));
    let flavors = survey
        .flavors
        .into_iter()
        .map(|name| format!("flavor {name}"));
    for what in pools.chain(flavors) {
        let why = "pools and flavors are the operator's to define anew; their messages come with a --from for each pool";
        work.leave(report, why, what)?;
    }
    Ok(Deployment {
        stores,
        records,
        queues: survey.queues,
    })
}

/// What may open encrypted bodies.
fn pass_phrases(flags: &flags::Zaqar, config: &Config) -> Result<Vec<String>> {
    let Some(path) = &flags.encryption_key_file else {
        let mut keys = config.encryption_keys.clone();
        if !keys.iter().any(|key| key == PUBLIC_KEY) {
            keys.push(PUBLIC_KEY.to_owned());
        }
        return Ok(keys);
    };
    let text = std::fs::read_to_string(path).map_err(|error| {
        Error::invalid("the file of encryption keys cannot be read")
            .with("file", path.display())
            .caused_by(error)
    })?;
    Ok(text
        .lines()
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect())
}

/// Tells of what cannot be taken.
fn refuse(work: &Work, report: &mut Report, refused: Vec<Refusal>) -> Result<()> {
    for Refusal { what, why, .. } in refused {
        work.leave(report, why, what)?;
    }
    Ok(())
}

/// Imports a queue, and returns what was done; an error for what ends the import.
async fn import_queue(
    work: &Work,
    deployment: &Deployment,
    found: &FoundQueue,
) -> (Report, Result<()>) {
    let mut report = Report::default();
    if work.is_over() {
        report.queues_unvisited = 1;
        return (report, Ok(()));
    }
    let parts = import_parts(work, deployment, found, &mut report);
    let done = match work.target.alone(&found.queue, parts).await {
        Ok(Some(done)) => done,
        Ok(None) => {
            report.queues_unvisited = 1;
            Ok(())
        }
        Err(error) => {
            let halt = Err(Halt::Queue(error));
            settle(work, &mut report, format!("queue {}", found.queue), halt)
        }
    };
    (report, done)
}

/// Imports the parts of a queue one after the other; one that cannot be read holds up no other.
async fn import_parts(
    work: &Work,
    deployment: &Deployment,
    found: &FoundQueue,
    report: &mut Report,
) -> Result<()> {
    let queue = &found.queue;
    let made = import_record(work, deployment, found, report).await;
    let is_made = made.is_ok();
    settle(work, report, format!("queue {queue}"), made)?;
    if !is_made {
        return Ok(());
    }
    if found.has_messages {
        for store in &deployment.stores {
            let done = import_messages(work, store, queue, report).await;
            let what = format!("messages of {queue} in {}", store.shown());
            settle(work, report, what, done)?;
        }
    }
    if found.subscribed {
        for store in &deployment.stores {
            let done = import_subscriptions(work, store, queue, report).await;
            let what = format!("subscriptions of {queue} in {}", store.shown());
            settle(work, report, what, done)?;
        }
    }
    Ok(())
}

/// Tells of a part that did not come to its end, and counts what had been read of it. An error ends the import.
fn settle(
    work: &Work,
    report: &mut Report,
    what: String,
    done: std::result::Result<(), Halt>,
) -> Result<()> {
    let read = report.unaccounted();
    report.messages_left += read;
    let (error, ends_all) = match done {
        Ok(()) => return Ok(()),
        Err(Halt::Queue(error)) => (error, false),
        Err(Halt::Import(error)) => (error, true),
    };
    let mut what = match (error.about("key"), error.about("type")) {
        (Some(key), Some(found)) => format!("{what} (key {key}, a {found})"),
        _ => format!("{what}: {error}"),
    };
    if read > 0 {
        what.push_str(&format!(", {read} of them read and not known to be stored"));
    }
    // The file of what is left out may be what failed.
    let told = work.leave(report, error.sentence().to_owned(), what);
    match ends_all {
        true => Err(error),
        false => told,
    }
}

async fn import_subscriptions(
    work: &Work,
    store: &Zaqar,
    queue: &QueueKey,
    report: &mut Report,
) -> std::result::Result<(), Halt> {
    let (subscriptions, refused) = store.subscriptions(queue).await.map_err(of_source)?;
    refuse(work, report, refused).map_err(Halt::Import)?;
    for subscription in subscriptions {
        let kept = work.target.subscription(&kept(subscription)).await;
        match kept.map_err(Halt::Queue)? {
            true => report.subscriptions_new += 1,
            false => report.subscriptions_there += 1,
        }
    }
    Ok(())
}

/// A subscription as the service keeps it.
fn kept(found: FoundSubscription) -> Subscription {
    Subscription {
        id: SubscriptionId(found.id),
        source: found.queue,
        subscriber: found.subscriber,
        ttl: found.ttl,
        age: found.age,
        options: found.options,
        confirmed: found.confirmed,
    }
}

async fn import_record(
    work: &Work,
    deployment: &Deployment,
    found: &FoundQueue,
    report: &mut Report,
) -> std::result::Result<(), Halt> {
    let queue = &found.queue;
    let metadata = match (&found.metadata, &deployment.records) {
        (Some(metadata), _) => metadata.clone(),
        (None, Some(records)) => match records.record(queue).await.map_err(of_source)? {
            Record::Metadata(metadata) => metadata,
            Record::Missing => isimud_contract::Metadata::new(),
            Record::Unreadable => {
                let why = "their record cannot be read, or has in it what the API refuses";
                work.leave(report, why, format!("metadata of {queue}"))
                    .map_err(Halt::Import)?;
                isimud_contract::Metadata::new()
            }
        },
        (None, None) => isimud_contract::Metadata::new(),
    };
    if let Some(fault) = metadata_fault(&metadata, &work.limits) {
        let why = format!(
            "metadata that have no effect as they are, and that no change of them may leave so ({fault})"
        );
        report.note(why, queue.to_string());
    }
    let made = work.target.queue(queue, &metadata).await;
    match made.map_err(Halt::Queue)? {
        QueueImport::Created => report.queues_made += 1,
        QueueImport::Existing => report.queues_there += 1,
        QueueImport::Conflicting => {
            report.queues_there += 1;
            report.note(
                "queues that were here already, and keep their metadata",
                queue.to_string(),
            );
        }
    }
    Ok(())
}

async fn import_messages(
    work: &Work,
    store: &Zaqar,
    queue: &QueueKey,
    report: &mut Report,
) -> std::result::Result<(), Halt> {
    let source = store.shown();
    let known = work.journal.known(&source, queue);
    let mut cursor = known
        .and_then(|known| {
            Some(Cursor {
                after: known.after.clone()?,
                same: known.same,
            })
        })
        .unwrap_or_default();
    let left: Vec<String> = known
        .map(|known| known.left.iter().cloned().collect())
        .unwrap_or_default();
    for ids in left.chunks(RETRY_PAGE_SIZE) {
        if work.is_over() {
            return Ok(());
        }
        let page = store.again(queue, ids).await.map_err(of_source)?;
        let still = import_page(work, queue, page, report).await?;
        let done = ids.iter().filter(|id| !still.contains(id)).cloned();
        let step = Step::Done(done.collect());
        let noted = work.journal.note(&source, queue, &step);
        noted.map_err(Halt::Import)?;
    }
    let (mut page_size, mut count_left) = (PageSize::new(), left.len());
    while !work.is_over() {
        let page = store.page(queue, &cursor, page_size.limit()).await;
        let page = page.map_err(of_source)?;
        page_size.note(bytes(&page));
        let entries = page.messages.len() + page.refused.len();
        let ended = page.left.expired + page.left.dangling;
        let (is_last, reached) = (page.is_last, page.reached.clone());
        let left = import_page(work, queue, page, report).await?;
        work.progress
            .advance(entries + usize::try_from(ended).unwrap_or(0));
        count_left += left.len();
        if reached != cursor && Journal::has_room_for(count_left) {
            let step = Step::Reached {
                after: reached.after.clone(),
                same: reached.same,
                left,
            };
            let noted = work.journal.note(&source, queue, &step);
            noted.map_err(Halt::Import)?;
        }
        if is_last {
            break;
        }
        cursor = reached;
    }
    Ok(())
}

fn bytes(page: &FoundPage) -> usize {
    page.messages
        .iter()
        .map(|found| found.message.body.len())
        .sum()
}

/// Stores a part, and returns the ids of what is left out and may be taken another time.
async fn import_page(
    work: &Work,
    queue: &QueueKey,
    page: FoundPage,
    report: &mut Report,
) -> std::result::Result<Vec<String>, Halt> {
    let count = page.messages.len() + page.refused.len();
    report.read += count as u64 + page.left.expired + page.left.dangling;
    report.left += page.left;
    let mut left = Vec::new();
    for Refusal { what, why, again } in page.refused {
        work.leave_message(report, why, what)
            .map_err(Halt::Import)?;
        left.extend(again);
    }
    let claims = claims(&page.messages);
    for found in &page.messages {
        report.decrypted += u64::from(found.encrypted);
        for (is_so, why) in [
            (
                found.altered,
                "bodies with NaN, infinity or bytes in them, which JSON cannot say: they became null or base64",
            ),
            (
                found.as_text,
                "bodies that the API refuses in posts (numbers beyond 64 bits, too deep a nesting): they became strings of their JSON",
            ),
        ] {
            if is_so {
                report.note(why, format!("message {} of {queue}", found.message.id));
            }
        }
    }
    let messages = page
        .messages
        .into_iter()
        .map(|found| found.message)
        .collect();
    let mut placed = Placed::default();
    let done = work.target.messages(queue, messages, &mut placed).await;
    report.place(&placed);
    for refused in placed.refused {
        let what = format!("message {} of {queue} ({} bytes)", refused.id, refused.size);
        work.leave_message(report, refused.why, what)
            .map_err(Halt::Import)?;
        left.push(refused.id.to_string());
    }
    done.map_err(Halt::Queue)?;
    for (claim, mut ids) in claims {
        ids.retain(|id| !left.contains(&id.to_string()));
        let held = work.target.claim(queue, claim, &ids).await;
        match held.map_err(Halt::Queue)? {
            Some(held) => {
                report.hold(claim.id, held as u64);
                if held < ids.len() {
                    let why = "claims that hold fewer of their messages, because those were taken or claimed here meanwhile";
                    report.note(why, format!("claim {} of {queue}", claim.id));
                }
            }
            None => {
                let why = "the store cannot take the claim over: its messages are free";
                work.leave(report, why, format!("claim {} of {queue}", claim.id))
                    .map_err(Halt::Import)?;
            }
        }
    }
    Ok(left)
}

/// The messages of each claim, in order.
fn claims(messages: &[FoundMessage]) -> Vec<(ImportedClaim, Vec<MessageId>)> {
    let mut claims: Vec<(ImportedClaim, Vec<MessageId>)> = Vec::new();
    for found in messages {
        let Some(claim) = found.claim else {
            continue;
        };
        match claims.iter_mut().find(|(other, _)| other.id == claim.id) {
            Some((_, ids)) => ids.push(found.message.id),
            None => claims.push((claim, vec![found.message.id])),
        }
    }
    claims
}
