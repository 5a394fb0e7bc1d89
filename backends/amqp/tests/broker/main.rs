//! The broker keeps its promises on a RabbitMQ of its own, with classic and with quorum queues.
#![expect(
    clippy::unwrap_used,
    reason = "a failed step fails its trial, and says so at that line"
)]

mod contention;
mod delivering;
mod ending;
mod existing_queues;
mod native;
mod servers;
mod setup;

use std::process::ExitCode;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use isimud_testing::rabbitmq::{Node, Rights, Set};
use isimud_testing::trial;
use libtest_mimic::{Arguments, Trial};
use setup::Setup;

/// The documented rights: of the existing deployment's queues, `trialN.…`, those to read and to write; all of them on
/// those that are made here, in a trial `trialN.PROJECT.…` and `own.…`, and on the queues beside others.
const RIGHTS: Rights = Rights {
    configure: r"^own\.|^trial[0-9]+\.(p|other|~server)\.|^trial[0-9]+\.q-|~adopted$",
    write: r"^own\.|^trial[0-9]+\.|^amq\.default$|~adopted$",
    read: r"^own\.|^trial[0-9]+\.|~adopted$",
};

static NODE: LazyLock<Result<Node, String>> = LazyLock::new(|| {
    Node::start_with(Set {
        rights: Some(RIGHTS),
        ..Set::default()
    })
});

static TRIALS: AtomicU64 = AtomicU64::new(0);

type Check = fn(Setup) -> std::pin::Pin<Box<dyn Future<Output = ()>>>;

fn main() -> ExitCode {
    isimud_conformance::show_logs();
    let mut trials = Vec::new();
    macro_rules! trials {
        ($($name:path,)+) => {
            for kind in ["classic", "quorum"] {
                $(trials.push(trial_on(stringify!($name), kind, |setup| Box::pin($name(setup))));)+
            }
        };
    }
    trials! {
        delivering::what_was_sent_is_received_in_order,
        delivering::a_queue_that_is_not_there_is_empty,
        delivering::what_is_held_is_delivered_to_nobody_else,
        delivering::what_was_settled_is_gone,
        delivering::counts_are_told,
        delivering::a_purge_forgets_what_is_there,
        delivering::a_queue_that_was_removed_can_be_used_again,
        delivering::a_queue_that_somebody_deleted_is_made_again,
        delivering::many_queues_have_nothing_in_common,
        delivering::as_much_is_held_as_is_allowed,
        delivering::whoever_has_gone_takes_nothing_with_him,
        delivering::many_at_once_take_each_message_once,
        contention::concurrent_callers_get_each_message_once_and_in_order,
        contention::a_caller_that_is_cancelled_takes_no_messages_from_others,
        contention::a_queue_that_is_deleted_under_concurrent_callers_delays_nobody,
        contention::concurrent_callers_of_two_servers_and_a_native_leave_nothing,
        ending::visibility_ends_by_itself_and_in_place,
        ending::what_has_ended_is_there_for_the_next_call,
        ending::visibility_is_extended_and_cut_short,
        ending::what_was_given_back_is_there_at_once_and_in_place,
        ending::visibility_ends_before_the_consumer_timeout_of_rabbitmq,
        ending::late_hints_change_nothing,
        ending::rabbitmq_drops_expired_messages,
        ending::a_closed_broker_gives_everything_back,
        ending::what_several_received_at_once_goes_back_in_order_when_the_broker_closes,
        servers::one_settles_what_another_holds,
        servers::receipts_of_the_dead_are_void,
        servers::a_queue_removed_by_one_is_usable_by_the_other,
        native::a_post_is_a_plain_message_for_natives,
        native::any_body_can_be_received,
        native::an_id_of_the_producer_stays_where_it_is_relied_upon,
        native::a_message_lives_no_longer_than_its_queue_keeps_it,
        native::a_message_without_an_id_is_given_one_that_stays,
        native::an_adopted_message_goes_back_to_its_existing_queue,
        native::an_adopted_message_is_never_there_twice,
        native::an_adopted_message_is_once_where_its_copy_was_refused,
        native::what_rabbitmq_dead_lettered_can_be_received,
        native::a_user_and_copies_do_not_lead_astray,
        existing_queues::queues_keep_their_names_exchanges_and_keys,
        existing_queues::a_queue_that_is_missing_is_not_made,
        existing_queues::queues_of_any_arguments_are_adopted,
        existing_queues::a_queue_with_other_arguments_is_used_as_it_is,
        existing_queues::a_stream_is_refused_and_costs_nothing,
        existing_queues::a_queue_of_somebody_alone_is_refused,
        existing_queues::existing_queues_are_adopted_with_the_rights_to_read_and_to_write,
        existing_queues::a_full_queue_is_unavailable,
        existing_queues::an_existing_queue_that_is_dropped_is_emptied_only,
        existing_queues::queues_of_one_project_are_not_those_of_another,
    }
    let status = libtest_mimic::run(&Arguments::from_args(), trials);
    // A static is never dropped, and the node is to end.
    if let Some(Ok(node)) = LazyLock::get(&NODE) {
        node.end();
    }
    status.exit_code()
}

fn trial_on(name: &'static str, kind: &'static str, check: Check) -> Trial {
    let run = move || {
        let node = NODE.as_ref().map_err(Clone::clone);
        trial::run(node, |node| {
            let number = TRIALS.fetch_add(1, Ordering::Relaxed);
            check(Setup::new(node, kind, number))
        })
    };
    Trial::ignorable_test(name, run).with_kind(kind)
}
