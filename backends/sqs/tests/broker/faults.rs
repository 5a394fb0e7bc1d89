//! What happens when SQS is slow, busy, away, or does half of what it was asked.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use isimud_contract::{Delivery, Error, ErrorKind, Receipt};
use isimud_lease::LeaseBroker;
use isimud_sqs::SqsBroker;
use isimud_testing::sqs::Corner;
use isimud_testing::sqs::proxy::{Fault, Proxy};

use crate::support::{
    MINUTE, bare, bodies, make, names, numbers, open_by, queue, receipts, take_all,
};

/// How long a call may take with a time-out of two seconds, on a busy machine.
const IN_TIME: Duration = Duration::from_secs(6);

/// A broker with little patience.
const IMPATIENT: &str = "&timeout_ms=2000";

async fn behind(corner: &Corner, options: &str) -> (Proxy, SqsBroker) {
    let proxy = Proxy::start(corner.port).await;
    let broker = open_by(corner, proxy.port, options);
    (proxy, broker)
}

fn unavailable<T: std::fmt::Debug>(outcome: Result<T, Error>, sentence: &str) {
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.sentence().contains(sentence), "{error}");
}

/// How often each body came.
fn counted(got: &[Delivery]) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for body in bodies(got) {
        *counts.entry(body).or_default() += 1;
    }
    counts
}

pub(crate) async fn a_send_whose_answer_is_lost_is_repeated_with_the_same_ids(corner: Corner) {
    let (proxy, broker) = behind(&corner, "").await;
    let q = queue("q");
    broker.send(&q, numbers(0..1)).await.unwrap();
    for fault in [Fault::DroppedAfter, Fault::FailedAfter, Fault::Dropped] {
        take_all(&broker, &q).await;
        proxy.next("SendMessageBatch", [fault.clone()]);
        let batch = numbers(0..5);
        broker.send(&q, batch.clone()).await.unwrap();
        let got = take_all(&broker, &q).await;
        let copies = if fault == Fault::Dropped { 1 } else { 2 };
        assert_eq!(counted(&got).len(), 5);
        assert!(
            counted(&got).values().all(|count| *count == copies),
            "{fault:?}: {got:?}"
        );
        // By its id the ledger knows a copy for what it is.
        let ids: Vec<_> = batch.iter().map(|envelope| envelope.message.id).collect();
        assert!(
            got.iter()
                .all(|delivery| ids.contains(&delivery.message.id))
        );
    }
}

pub(crate) async fn throttling_is_waited_out(corner: Corner) {
    let (proxy, broker) = behind(&corner, "").await;
    let q = queue("q");
    broker.send(&q, numbers(0..20)).await.unwrap();
    let busy = || {
        [
            Fault::Refused(400, "RequestThrottled"),
            Fault::Refused(503, "ServiceUnavailable"),
        ]
    };
    proxy.next("SendMessageBatch", busy());
    broker.send(&q, numbers(20..21)).await.unwrap();
    proxy.next("ReceiveMessage", busy());
    let got = broker.receive(&q, 20, MINUTE).await.unwrap();
    assert_eq!(got.len(), 20);
    proxy.next("ChangeMessageVisibilityBatch", busy());
    broker.extend(&q, &receipts(&got), MINUTE).await.unwrap();
    proxy.next("DeleteMessageBatch", busy());
    broker.ack(&q, &receipts(&got)).await.unwrap();
    assert_eq!(take_all(&broker, &q).await.len(), 1);
}

pub(crate) async fn throttling_without_end_is_unavailable_in_time(corner: Corner) {
    let (proxy, broker) = behind(&corner, IMPATIENT).await;
    let q = queue("q");
    broker.send(&q, numbers(0..1)).await.unwrap();
    proxy.always("*", Fault::Refused(400, "RequestThrottled"));
    let begun = Instant::now();
    unavailable(broker.send(&q, numbers(1..2)).await, "fewer requests");
    unavailable(broker.receive(&q, 1, MINUTE).await, "fewer requests");
    unavailable(broker.depth(&q).await, "fewer requests");
    unavailable(broker.ping().await, "fewer requests");
    assert!(begun.elapsed() < 4 * IN_TIME);
    proxy.always(
        "SendMessageBatch",
        Fault::Partial((0..10).collect(), "RequestThrottled", false),
    );
    unavailable(broker.send(&q, numbers(1..2)).await, "fewer requests");
    proxy.calm();
    assert_eq!(bodies(&take_all(&broker, &q).await), ["0"]);
}

pub(crate) async fn a_server_that_is_away_is_unavailable_in_time_and_found_again(corner: Corner) {
    let (proxy, broker) = behind(&corner, IMPATIENT).await;
    let q = queue("q");
    broker.send(&q, numbers(0..1)).await.unwrap();
    proxy.always("*", Fault::Dropped);
    let begun = Instant::now();
    unavailable(broker.send(&q, numbers(1..2)).await, "cannot be reached");
    unavailable(broker.receive(&q, 1, MINUTE).await, "cannot be reached");
    unavailable(
        broker.ack(&q, &[Receipt("1:x".into())]).await,
        "cannot be reached",
    );
    assert!(begun.elapsed() < 3 * IN_TIME);
    proxy.calm();
    assert_eq!(bodies(&take_all(&broker, &q).await), ["0"]);
    // Nobody is there at all.
    let nobody = open_by(&corner, 1, IMPATIENT);
    unavailable(nobody.send(&q, numbers(0..1)).await, "cannot be reached");
}

pub(crate) async fn a_server_that_does_not_answer_is_unavailable_in_time(corner: Corner) {
    let (proxy, broker) = behind(&corner, IMPATIENT).await;
    let q = queue("q");
    broker.send(&q, numbers(0..1)).await.unwrap();
    proxy.always("*", Fault::Late(MINUTE));
    for outcome in [
        timed(broker.send(&q, numbers(1..2))).await,
        timed(async { broker.receive(&q, 1, MINUTE).await.map(drop) }).await,
        timed(broker.ping()).await,
        timed(broker.purge(&q)).await,
    ] {
        unavailable(outcome, "in time");
    }
    proxy.calm();
    assert_eq!(bodies(&take_all(&broker, &q).await), ["0"]);
}

async fn timed(call: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    tokio::time::timeout(IN_TIME, call)
        .await
        .expect("an answer in time")
}

pub(crate) async fn of_a_batch_only_what_failed_is_sent_again(corner: Corner) {
    let (proxy, broker) = behind(&corner, "").await;
    let q = queue("q");
    for (code, sender) in [
        ("InternalError", false),
        ("RequestThrottled", true),
        ("KmsThrottled", true),
    ] {
        proxy.next(
            "SendMessageBatch",
            [
                Fault::Partial(vec![1, 2, 9], code, sender),
                Fault::Partial(vec![0], code, sender),
            ],
        );
        broker.send(&q, numbers(0..10)).await.unwrap();
        let got = take_all(&broker, &q).await;
        assert_eq!(got.len(), 10, "{code}: {:?}", bodies(&got));
        assert_eq!(counted(&got).len(), 10);
    }
}

pub(crate) async fn an_entry_that_is_refused_for_good_is_an_error_and_the_rest_is_sent(
    corner: Corner,
) {
    let (proxy, broker) = behind(&corner, "").await;
    let q = queue("q");
    proxy.next(
        "SendMessageBatch",
        [Fault::Partial(vec![3], "InvalidMessageContents", true)],
    );
    let error = broker.send(&q, numbers(0..5)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert_eq!(take_all(&broker, &q).await.len(), 4);
    assert_eq!(proxy.seen("SendMessageBatch"), 1);
}

pub(crate) async fn what_is_deleted_or_hidden_in_part_is_done_in_full(corner: Corner) {
    let (proxy, broker) = behind(&corner, "").await;
    let q = queue("q");
    broker.send(&q, numbers(0..20)).await.unwrap();
    let got = broker.receive(&q, 20, MINUTE).await.unwrap();
    let half = || [Fault::Partial(vec![0, 5], "InternalError", false)];
    proxy.next("ChangeMessageVisibilityBatch", half());
    broker
        .extend(&q, &receipts(&got), 10 * MINUTE)
        .await
        .unwrap();
    corner.advance(5 * MINUTE);
    assert_eq!(broker.receive(&q, 20, MINUTE).await.unwrap(), []);
    proxy.next("DeleteMessageBatch", half());
    broker.ack(&q, &receipts(&got[..10])).await.unwrap();
    proxy.next("ChangeMessageVisibilityBatch", half());
    broker.release(&q, &receipts(&got[10..])).await.unwrap();
    assert_eq!(take_all(&broker, &q).await.len(), 10);
}

pub(crate) async fn a_batch_too_long_for_the_server_is_split(corner: Corner) {
    let (proxy, broker) = behind(&corner, "").await;
    let q = queue("q");
    let too_long = || Fault::Refused(400, "BatchRequestTooLong");
    proxy.next("SendMessageBatch", [too_long(), too_long()]);
    broker.send(&q, numbers(0..10)).await.unwrap();
    assert_eq!(counted(&take_all(&broker, &q).await).len(), 10);
    proxy.always("SendMessageBatch", too_long());
    let error = broker.send(&q, numbers(0..10)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}

pub(crate) async fn expired_credentials_are_unavailable_until_they_are_renewed(corner: Corner) {
    let (proxy, broker) = behind(&corner, "").await;
    let q = queue("q");
    broker.send(&q, numbers(0..1)).await.unwrap();
    for code in ["ExpiredTokenException", "ExpiredToken"] {
        proxy.always("*", Fault::Refused(403, code));
        unavailable(broker.send(&q, numbers(1..2)).await, "expired");
        unavailable(broker.receive(&q, 1, MINUTE).await, "expired");
    }
    proxy.always("*", Fault::Refused(403, "InvalidClientTokenId"));
    unavailable(broker.ping().await, "credentials");
    proxy.calm();
    assert_eq!(bodies(&take_all(&broker, &q).await), ["0"]);
}

pub(crate) async fn who_may_not_is_told_so(corner: Corner) {
    let (proxy, broker) = behind(&corner, "").await;
    let q = queue("q");
    broker.send(&q, numbers(0..1)).await.unwrap();
    for code in ["AccessDeniedException", "AccessDenied", "KmsAccessDenied"] {
        proxy.always("*", Fault::Refused(403, code));
        for outcome in [
            broker.send(&q, numbers(1..2)).await,
            broker.receive(&q, 1, MINUTE).await.map(drop),
            broker.ack(&q, &[Receipt("1:x".into())]).await,
        ] {
            assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Internal, "{code}");
        }
    }
}

pub(crate) async fn a_queue_deleted_behind_our_back_is_made_again(corner: Corner) {
    let (_proxy, broker) = behind(&corner, "").await;
    let q = queue("q");
    broker.send(&q, numbers(0..3)).await.unwrap();
    let held = broker.receive(&q, 1, MINUTE).await.unwrap();
    let delete = async || {
        let name = format!("{}-p_-q", corner.login);
        let found = bare(&corner)
            .get_queue_url()
            .queue_name(name)
            .send()
            .await
            .unwrap();
        bare(&corner)
            .delete_queue()
            .queue_url(found.queue_url().unwrap())
            .send()
            .await
            .unwrap();
    };
    delete().await;
    assert_eq!(broker.receive(&q, 10, MINUTE).await.unwrap(), []);
    broker.ack(&q, &receipts(&held)).await.unwrap();
    assert!(names(&corner).await.is_empty());
    broker.send(&q, numbers(3..4)).await.unwrap();
    delete().await;
    // The broker still believes that it is there.
    broker.send(&q, numbers(4..5)).await.unwrap();
    assert_eq!(bodies(&take_all(&broker, &q).await), ["4"]);
    delete().await;
    assert_eq!(broker.depth(&q).await.unwrap(), Default::default());
    broker.purge(&q).await.unwrap();
}

pub(crate) async fn a_name_that_rests_is_unavailable(corner: Corner) {
    let (proxy, broker) = behind(&corner, "").await;
    let q = queue("q");
    proxy.next(
        "CreateQueue",
        [Fault::Refused(
            400,
            "AWS.SimpleQueueService.QueueDeletedRecently",
        )],
    );
    unavailable(
        broker.send(&q, numbers(0..1)).await,
        "deleted less than a minute ago",
    );
    broker.send(&q, numbers(0..1)).await.unwrap();
    assert_eq!(take_all(&broker, &q).await.len(), 1);
    // Somebody else made it meanwhile, with other attributes.
    make(&corner, &format!("{}-p_-r", corner.login), &[]).await;
    proxy.next("GetQueueUrl", [Fault::Refused(400, "QueueDoesNotExist")]);
    broker.send(&queue("r"), numbers(0..1)).await.unwrap();
    assert_eq!(proxy.seen("CreateQueue"), 3);
    assert_eq!(take_all(&broker, &queue("r")).await.len(), 1);
}

pub(crate) async fn hints_about_what_is_gone_are_no_errors(corner: Corner) {
    let (_proxy, broker) = behind(&corner, "").await;
    let q = queue("q");
    broker.send(&q, numbers(0..2)).await.unwrap();
    let got = broker.receive(&q, 2, MINUTE).await.unwrap();
    broker.ack(&q, &receipts(&got[..1])).await.unwrap();
    let foreign = Receipt("another broker's".into());
    let made_up = Receipt("1767225600000:AQEBnothing".into());
    for receipts in [vec![got[0].receipt.clone()], vec![foreign], vec![made_up]] {
        broker.ack(&q, &receipts).await.unwrap();
        broker.extend(&q, &receipts, MINUTE).await.unwrap();
        broker.release(&q, &receipts).await.unwrap();
        broker.ack(&queue("nowhere"), &receipts).await.unwrap();
    }
    // A batch with one of those in it does what it can for the others.
    let both: Vec<_> = receipts(&got);
    broker.extend(&q, &both, 10 * MINUTE).await.unwrap();
    corner.advance(5 * MINUTE);
    assert_eq!(broker.receive(&q, 2, MINUTE).await.unwrap(), []);
    broker.release(&q, &both).await.unwrap();
    assert_eq!(take_all(&broker, &q).await.len(), 1);
}

pub(crate) async fn a_fifo_batch_that_failed_in_the_middle_is_not_mended_out_of_order(
    corner: Corner,
) {
    let (proxy, broker) = behind(&corner, "&fifo=true").await;
    let q = queue("q");
    let batch = numbers(0..10);
    // The end of a batch can be sent again.
    proxy.next(
        "SendMessageBatch",
        [Fault::Partial(vec![8, 9], "InternalError", false)],
    );
    broker.send(&q, batch.clone()).await.unwrap();
    assert_eq!(take_all(&broker, &q).await.len(), 10);
    // Its middle cannot.
    proxy.next(
        "SendMessageBatch",
        [Fault::Partial(vec![4], "InternalError", false)],
    );
    unavailable(broker.send(&q, numbers(10..20)).await, "SQS failed");
    let got: Vec<usize> = bodies(&take_all(&broker, &q).await)
        .iter()
        .map(|body| body.parse().unwrap())
        .collect();
    assert_eq!(got, [10, 11, 12, 13, 15, 16, 17, 18, 19]);
    // A lost answer is no copy.
    proxy.next("SendMessageBatch", [Fault::DroppedAfter]);
    broker.send(&q, numbers(20..30)).await.unwrap();
    assert_eq!(take_all(&broker, &q).await.len(), 10);
}
