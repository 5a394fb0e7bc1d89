//! Two servers share a broker and a ledger while everything fails: a message is never lost, never back after a delete,
//! and never in two live claims.
//!
//! Every call to the broker and to the ledger may fail before or after its effect, servers die in the middle of calls,
//! and their clocks differ. A run is made from a seed, which is printed when it fails: `CHAOS_SEED=n` repeats it alone,
//! and `CHAOS_RUNS=n` makes so many runs of each kind.

mod model;
mod shaky;
mod simulation;

use isimud_lease::Journal;
use isimud_lease::fake::FaultProfile;

use shaky::Sabotage;
use simulation::{Plan, Simulation};

/// Runs of each kind, unless the environment asks for more.
const RUNS: u64 = 30;

/// How many runs it takes at the most until something that is broken on purpose is found.
const SABOTAGED: u64 = 40;

/// A broker with some weaknesses of each kind.
const WEAK: FaultProfile = FaultProfile {
    failures: 60,
    duplicates: 30,
    ..FaultProfile::PLAIN
};

/// A broker that never fails, so that nothing is left open.
const CALM: FaultProfile = FaultProfile {
    failures: 0,
    duplicates: 0,
    ..WEAK
};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Makes one run, on one thread, by a clock that only the run moves.
fn run(plan: Plan, seed: u64) -> Simulation {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(simulation::run(plan, seed))
}

/// Makes all runs of a plan, and looks that they tried something.
fn all(faults: FaultProfile, journal: Journal) {
    struct Told(u64);
    impl Drop for Told {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("this run was made from CHAOS_SEED={}", self.0);
            }
        }
    }
    let plan = Plan {
        faults,
        journal,
        sabotage: Sabotage::None,
    };
    let seeds = match number("CHAOS_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("CHAOS_RUNS").unwrap_or(RUNS),
    };
    for seed in seeds {
        let told = Told(seed);
        let simulation = run(plan, seed);
        let model = simulation.model.lock().expect("the run is over");
        for what in ["post", "claim"] {
            assert!(model.served.contains_key(what), "no {what} was served");
        }
        assert!(faults.failures == 0 || model.failed > 0, "nothing failed");
        drop(told);
    }
}

#[test]
fn a_broker_that_leases_in_time() {
    all(WEAK, Journal::On);
}

#[test]
fn a_broker_that_leases_in_time_without_the_journal() {
    all(WEAK, Journal::Off);
}

#[test]
fn a_broker_whose_leases_end_with_the_connection() {
    let faults = FaultProfile {
        connection_bound: true,
        expires_messages: true,
        delays: false,
        ..WEAK
    };
    all(faults, Journal::On);
    all(faults, Journal::Off);
}

#[test]
fn a_broker_without_order() {
    let faults = FaultProfile {
        reorders: true,
        duplicates: 200,
        ..WEAK
    };
    all(faults, Journal::On);
    all(faults, Journal::Off);
}

#[test]
fn a_broker_that_is_deaf_to_every_hint() {
    let faults = FaultProfile {
        ignores_hints: true,
        delays: false,
        ..WEAK
    };
    all(faults, Journal::On);
    all(faults, Journal::Off);
}

/// Every check can fail: what is broken on purpose is found, and by the check that is meant for it.
fn finds(sabotage: Sabotage, words: &str) {
    let plan = Plan {
        faults: CALM,
        journal: Journal::On,
        sabotage,
    };
    let mut found = Vec::new();
    for seed in 0..SABOTAGED {
        let outcome = std::panic::catch_unwind(|| run(plan, seed));
        let panic = outcome.err();
        let text = panic.and_then(|panic| panic.downcast_ref::<String>().cloned());
        found.extend(text);
        if found.last().is_some_and(|text| text.contains(words)) {
            return;
        }
    }
    panic!("{sabotage:?}: {found:?} was found");
}

#[test]
fn forgotten_deletes_are_found() {
    finds(Sabotage::ForgetDeletes, "which was gone");
}

#[test]
fn forgotten_purges_are_found() {
    finds(Sabotage::ForgetPurges, "which was gone");
}

#[test]
fn a_message_in_two_claims_is_found() {
    finds(Sabotage::GrantTwice, "in two live claims");
}

#[test]
fn a_claim_that_ends_early_is_found() {
    finds(Sabotage::EndClaims, "live claim");
}

#[test]
fn a_message_that_is_settled_while_it_is_held_is_found() {
    finds(Sabotage::SettleHeld, "lost");
}

#[test]
fn a_message_that_never_reaches_the_dead_letter_queue_is_found() {
    finds(Sabotage::BuryFirst, "lost");
}
