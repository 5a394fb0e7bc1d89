//! A Zaqar's queues, messages and claims.

use std::path::Path;

use futures_util::{StreamExt, TryStreamExt, stream};
use isimud_contract::{
    Error, ForeignClaim, MessageId, QueueKey, Result, Subscription, SubscriptionId,
};
use isimud_estates::{
    Address, Cursor, FoundMessage, FoundPage, FoundQueue, FoundSubscription, Names, Record,
    SqlManagement, Zaqar, survey,
};

use super::flags;
use super::journal::Place;
use super::{PAGE, Report, Work};
use crate::config::Config;
use crate::messaging::{Adopted, metadata_fault};

/// Queues that are imported at once.
const AT_ONCE: usize = 4;

/// The pass phrase that Zaqar comes with.
const PUBLIC_KEY: &str = "AES256";

/// An estate with the queues that were found in it.
struct Estate {
    stores: Vec<Zaqar>,
    /// Where the records of queues are, unless they came with the names.
    records: Option<Zaqar>,
    queues: Vec<FoundQueue>,
}

pub(super) async fn run(
    work: &Work,
    flags: &flags::Zaqar,
    config: &Config,
    report: &mut Report,
) -> Result<()> {
    let estate = find(flags, config, report).await?;
    for store in estate.stores.iter().filter(|_| work.progress.is_seen()) {
        for queue in estate.queues.iter().filter(|queue| queue.has_messages) {
            work.progress.expect(store.count(&queue.queue).await?);
        }
    }
    let parts = stream::iter(&estate.queues)
        .map(|queue| import_queue(work, &estate, queue))
        .buffer_unordered(AT_ONCE);
    parts
        .try_for_each(|part| {
            report.add(part);
            std::future::ready(Ok(()))
        })
        .await
}

/// Connects to everything, and reads the names.
async fn find(flags: &flags::Zaqar, config: &Config, report: &mut Report) -> Result<Estate> {
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
            report.refuse(sql.refused);
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
    report.refuse(survey.refused);
    let pools = survey.pools.into_iter().map(|name| format!("pool {name}"));
    let flavors = survey
        .flavors
        .into_iter()
        .map(|name| format!("flavor {name}"));
    for what in pools.chain(flavors) {
        let why = "pools and flavors are the operator's to define anew; their messages come with a --from for each pool";
        report.leave(why, what);
    }
    Ok(Estate {
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

async fn import_queue(work: &Work, estate: &Estate, found: &FoundQueue) -> Result<Report> {
    let mut report = Report::default();
    import_record(work, estate, found, &mut report).await?;
    if found.has_messages {
        for store in &estate.stores {
            import_messages(work, store, &found.queue, &mut report).await?;
        }
    }
    if found.subscribed {
        for store in &estate.stores {
            let (subscriptions, refused) = store.subscriptions(&found.queue).await?;
            report.refuse(refused);
            for subscription in subscriptions {
                match work.target.subscription(&kept(subscription)).await? {
                    true => report.subscriptions_new += 1,
                    false => report.subscriptions_there += 1,
                }
            }
        }
    }
    Ok(report)
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
    estate: &Estate,
    found: &FoundQueue,
    report: &mut Report,
) -> Result<()> {
    let queue = &found.queue;
    let metadata = match (&found.metadata, &estate.records) {
        (Some(metadata), _) => metadata.clone(),
        (None, Some(records)) => match records.record(queue).await? {
            Record::Metadata(metadata) => metadata,
            Record::Missing => isimud_contract::Metadata::new(),
            Record::Unreadable => {
                report.leave(
                    "their record cannot be read",
                    format!("metadata of {queue}"),
                );
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
    match work.target.queue(queue, &metadata).await? {
        Adopted::Made => report.queues_made += 1,
        Adopted::There => report.queues_there += 1,
        Adopted::Different => {
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
) -> Result<()> {
    let source = store.shown();
    let mut cursor = match work.journal.place(&source, queue) {
        Some(Place { after, same }) => Cursor {
            after: after.clone(),
            same: *same,
        },
        None => Cursor::default(),
    };
    // What was refused once may be wanted once the reason is gone, so the journal stays in front of it.
    let mut may_note = true;
    loop {
        let page = store.page(queue, &cursor, PAGE).await?;
        let entries = page.messages.len() + page.refused.len();
        let left = page.left.expired + page.left.dangling;
        let (is_last, reached) = (page.is_last, page.reached.clone());
        may_note &= page.refused.is_empty();
        import_page(work, queue, page, report).await?;
        work.progress
            .advance(entries + usize::try_from(left).unwrap_or(0));
        if may_note && reached != cursor {
            let place = Place {
                after: reached.after.clone(),
                same: reached.same,
            };
            work.journal.note(&source, queue, place)?;
        }
        if is_last {
            return Ok(());
        }
        cursor = reached;
    }
}

async fn import_page(
    work: &Work,
    queue: &QueueKey,
    page: FoundPage,
    report: &mut Report,
) -> Result<()> {
    report.left += page.left;
    report.refuse(page.refused);
    let claims = claims(&page.messages);
    for found in &page.messages {
        report.decrypted += u64::from(found.encrypted);
        if found.altered {
            report.note(
                "bodies with NaN, infinity or bytes in them, which JSON cannot say: they became null or base64",
                format!("message {} of {queue}", found.message.id),
            );
        }
    }
    let count = page.messages.len() as u64;
    let messages = page
        .messages
        .into_iter()
        .map(|found| found.message)
        .collect();
    let new = work.target.messages(queue, messages).await? as u64;
    report.messages_new += new;
    report.messages_there += count - new;
    for (claim, ids) in claims {
        match work.target.claim(queue, claim, &ids).await? {
            Some(held) => {
                report.hold(claim.id, held as u64);
                if held < ids.len() {
                    let why = "claims that hold fewer of their messages, because those were taken or claimed here meanwhile";
                    report.note(why, format!("claim {} of {queue}", claim.id));
                }
            }
            None => report.leave(
                "the store cannot take the claim over: its messages are free",
                format!("claim {} of {queue}", claim.id),
            ),
        }
    }
    Ok(())
}

/// The messages of each claim, in order.
fn claims(messages: &[FoundMessage]) -> Vec<(ForeignClaim, Vec<MessageId>)> {
    let mut claims: Vec<(ForeignClaim, Vec<MessageId>)> = Vec::new();
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
