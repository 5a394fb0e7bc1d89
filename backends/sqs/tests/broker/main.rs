//! The broker against a server that speaks SQS, alone, through a proxy that spoils things, and beside boto3.
#![expect(
    clippy::unwrap_used,
    reason = "a failed step fails its trial, and says so at that line"
)]

mod adopting;
mod carrying;
mod cost;
mod credentials;
mod faults;
mod fifo;
mod headers;
mod interop;
mod leased;
mod purging;
mod support;
mod tls;

use std::pin::Pin;
use std::process::ExitCode;

use isimud_testing::sqs::{Corner, Emulator};
use isimud_testing::trial;
use libtest_mimic::{Arguments, Trial};

type Check = fn(Corner) -> Pin<Box<dyn Future<Output = ()>>>;

fn main() -> ExitCode {
    isimud_conformance::show_logs();
    if let Ok(uri) = std::env::var(credentials::PROBE) {
        return credentials::probe(&uri);
    }
    macro_rules! trials {
        ($($module:ident: $($name:ident),+;)*) => {
            vec![$($(trial_on(
                concat!(stringify!($module), "::", stringify!($name)),
                |corner| Box::pin($module::$name(corner)),
            ),)+)*]
        };
    }
    let trials = trials! {
        leased:
            faults_of_sqs_lose_no_message_and_grant_none_twice,
            a_fifo_queue_keeps_its_order_through_releases_and_lost_answers;
        interop:
            both_sides_at_once_process_each_message_exactly_once,
            an_id_that_a_native_chose_swallows_no_message,
            statistics_count_what_natives_send_and_take,
            what_boto3_sends_is_read_here,
            what_is_sent_here_boto3_reads;
        headers:
            attributes_of_natives_go_on_as_they_came,
            what_is_more_than_sqs_takes_comes_back_whole;
        faults:
            a_send_whose_answer_is_lost_is_repeated_with_the_same_ids,
            throttling_is_waited_out,
            throttling_without_end_is_unavailable_in_time,
            a_server_that_is_away_is_unavailable_in_time_and_found_again,
            a_server_that_does_not_answer_is_unavailable_in_time,
            of_a_batch_only_what_failed_is_sent_again,
            an_entry_that_is_refused_for_good_is_an_error_and_the_rest_is_sent,
            what_is_deleted_or_hidden_in_part_is_done_in_full,
            a_batch_too_long_for_the_server_is_split,
            expired_credentials_are_unavailable_until_they_are_renewed,
            who_may_not_is_told_so,
            a_queue_deleted_behind_our_back_is_made_again,
            a_name_that_rests_is_unavailable,
            hints_about_what_is_gone_are_no_errors,
            a_fifo_batch_that_failed_in_the_middle_is_not_mended_out_of_order;
        carrying:
            every_part_of_a_message_comes_back,
            visibility_is_what_was_asked_for,
            extensions_end_where_sqs_ends_them,
            delays_are_native,
            bodies_of_every_kind_come_back,
            sizes_are_refused_before_anything_is_sent,
            an_empty_queue_is_nothing_special,
            a_wait_ends_when_a_message_comes,
            counts_are_those_of_sqs,
            what_nobody_waits_for_any_more_is_given_back,
            a_closed_broker_is_unavailable;
        credentials:
            they_come_from_the_environment,
            they_come_from_a_profile_and_are_read_again_when_refused,
            they_come_from_a_web_identity,
            without_any_the_store_is_unavailable;
        tls:
            a_certificate_of_a_known_authority_is_trusted,
            a_certificate_of_nobody_known_is_not_trusted,
            tls_files_that_cannot_be_read_are_refused_at_once;
        purging:
            a_purge_takes_what_was_sent_before_and_nothing_else,
            a_removed_queue_stays_and_is_empty,
            a_removed_queue_is_deleted_where_that_is_wanted;
        adopting:
            existing_queues_are_reached_by_their_names,
            an_adopted_queue_that_is_missing_is_not_made,
            the_limits_of_an_adopted_queue_are_kept,
            a_long_name_is_tagged;
        fifo:
            messages_come_in_the_order_in_which_they_were_sent,
            what_is_given_back_comes_first_again,
            each_client_has_its_own_order,
            a_message_that_comes_back_is_sent_again,
            a_repeated_send_is_one_message;
        cost:
            requests_for_a_thousand_messages,
            the_documented_actions_are_those_that_are_used;
    };
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn trial_on(name: &'static str, check: Check) -> Trial {
    Trial::ignorable_test(name, move || trial::run(Emulator::shared(), check))
}
