//! Two servers share a broker and a ledger while everything fails: a message is never lost, never back after a delete,
//! and never in two live claims.
//!
//! Every call to the broker and to the ledger may fail before or after its effect, servers die in the middle of calls,
//! and their clocks differ. A run is made from a seed, which is printed when it fails: `CHAOS_SEED=n` repeats it alone,
//! and `CHAOS_RUNS=n` makes so many runs of each kind.

mod model;
mod shaky;
mod world;

use isimud_lease::Journal;
use isimud_lease::fake::Nature;

use shaky::Sabotage;
use world::{Plan, World};

/// A broker with some weaknesses of each kind.
const WEAK: Nature = Nature {
    failures: 60,
    duplicates: 30,
    ..Nature::PLAIN
};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Makes one run, on one thread, by a clock that only the run moves.
fn run(plan: Plan, seed: u64) -> World {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(world::run(plan, seed))
}

/// Makes all runs of a plan, and looks that they tried something.
fn all(nature: Nature, journal: Journal) {
    struct Told(u64);
    impl Drop for Told {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("this run was made from CHAOS_SEED={}", self.0);
            }
        }
    }
    let plan = Plan {
        nature,
        journal,
        sabotage: Sabotage::None,
    };
    let seeds = match number("CHAOS_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("CHAOS_RUNS").unwrap_or(25),
    };
    for seed in seeds {
        let told = Told(seed);
        let world = run(plan, seed);
        let model = world.model.lock().expect("the run is over");
        for what in ["post", "claim"] {
            assert!(model.served.contains_key(what), "no {what} was served");
        }
        assert!(nature.failures == 0 || model.failed > 0, "nothing failed");
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
    let nature = Nature {
        binds: true,
        ends_lives: true,
        delays: false,
        ..WEAK
    };
    all(nature, Journal::On);
    all(nature, Journal::Off);
}

#[test]
fn a_broker_without_order() {
    let nature = Nature {
        scrambles: true,
        duplicates: 200,
        ..WEAK
    };
    all(nature, Journal::On);
    all(nature, Journal::Off);
}

#[test]
fn a_broker_that_is_deaf_to_every_hint() {
    let nature = Nature {
        deaf: true,
        delays: false,
        ..WEAK
    };
    all(nature, Journal::On);
    all(nature, Journal::Off);
}

/// How many runs it takes at the most until something that is broken is found.
const SABOTAGED: u64 = 40;

/// What a run finds when something is broken on purpose: the words of the check that fails.
fn finds(sabotage: Sabotage, nature: Nature, journal: Journal) -> String {
    let plan = Plan {
        nature,
        journal,
        sabotage,
    };
    std::panic::set_hook(Box::new(|_| {}));
    let found = (0..SABOTAGED).find_map(|seed| {
        let outcome = std::panic::catch_unwind(|| run(plan, seed));
        let panic = outcome.err()?;
        let text = panic.downcast_ref::<String>().cloned();
        Some(text.unwrap_or_default())
    });
    let _ = std::panic::take_hook();
    found.unwrap_or_else(|| format!("{sabotage:?} is never found"))
}

/// Every invariant can fail: each kind of sabotage is found, and by the check that is meant for it.
#[test]
#[ignore = "it silences the panics of tests beside it; the program's own arguments run it alone"]
fn whatever_is_broken_is_found() {
    let quiet = Nature {
        failures: 0,
        duplicates: 0,
        ..WEAK
    };
    for (sabotage, found) in [
        (Sabotage::ForgetDeletes, "which was gone"),
        (Sabotage::ForgetPurges, "which was gone"),
        (Sabotage::GrantTwice, "in two live claims"),
        (Sabotage::EndClaims, "live claim"),
        (Sabotage::SettleHeld, "lost"),
        (Sabotage::BuryFirst, "lost"),
    ] {
        let what = finds(sabotage, quiet, Journal::On);
        assert!(what.contains(found), "{sabotage:?}: {what}");
    }
}
