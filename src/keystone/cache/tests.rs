//! The cache's promises, one by one and for random orders of events.

use isimud_contract::ManualClock;

use super::*;
use crate::keystone::identity::tests::identity;

const LIMITS: CacheLimits = CacheLimits {
    fresh: Duration::from_secs(60),
    stale_grace: Duration::ZERO,
    negative: Duration::from_secs(5),
    entries: 100,
};

const SECOND: Duration = Duration::from_secs(1);

fn cache(limits: CacheLimits) -> (Cache, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::default());
    (Cache::new(limits, Arc::clone(&clock) as _), clock)
}

fn key(token: &str) -> TokenKey {
    TokenKey::new(token.as_bytes(), Mode::Current)
}

/// An identity that expires so many seconds from now.
fn good_for(clock: &ManualClock, secs: u64) -> Arc<Identity> {
    let expires_at = clock.wall().after(Duration::from_secs(secs));
    Arc::new(identity(&["member"], expires_at))
}

#[test]
fn a_good_answer_is_fresh_for_its_time_and_unknown_afterwards() {
    let (cache, clock) = cache(LIMITS);
    let alice = good_for(&clock, 3600);
    assert_eq!(cache.lookup(key("a")), Lookup::Unknown);
    cache.accept(key("a"), cache.start(), &alice);
    clock.advance(SECOND * 60 - Duration::from_millis(1));
    assert_eq!(cache.lookup(key("a")), Lookup::Fresh(alice));
    clock.advance(Duration::from_millis(1));
    assert_eq!(cache.lookup(key("a")), Lookup::Unknown);
}

#[test]
fn cache_time_zero_keeps_nothing() {
    let (cache, clock) = cache(CacheLimits {
        fresh: Duration::ZERO,
        ..LIMITS
    });
    cache.accept(key("a"), cache.start(), &good_for(&clock, 3600));
    assert_eq!(cache.lookup(key("a")), Lookup::Unknown);
    assert_eq!(cache.size().entries, 0);
}

#[test]
fn a_token_is_refused_at_the_second_at_which_it_expires() {
    let (cache, clock) = cache(LIMITS);
    cache.accept(key("a"), cache.start(), &good_for(&clock, 10));
    clock.advance(Duration::from_millis(9_999));
    assert!(matches!(cache.lookup(key("a")), Lookup::Fresh(_)));
    clock.advance(Duration::from_millis(1));
    assert_eq!(cache.lookup(key("a")), Lookup::Expired);
    clock.advance(SECOND * 3600);
    assert_eq!(cache.lookup(key("a")), Lookup::Expired, "for good");
}

#[test]
fn an_expired_token_may_be_fresh_where_expired_ones_are_allowed() {
    let (cache, clock) = cache(CacheLimits {
        stale_grace: SECOND * 900,
        ..LIMITS
    });
    let allow = TokenKey::new(b"a", Mode::AllowExpired);
    let expired = good_for(&clock, 0);
    cache.accept(allow, cache.start(), &expired);
    assert_eq!(cache.lookup(allow), Lookup::Fresh(expired));
    assert_eq!(cache.lookup(key("a")), Lookup::Unknown, "keys are apart");
    clock.advance(SECOND * 60);
    assert_eq!(
        cache.lookup(allow),
        Lookup::Unknown,
        "no grace after expiry"
    );
}

#[test]
fn a_404_drops_the_good_answer_and_is_remembered_for_its_time() {
    let (cache, clock) = cache(LIMITS);
    cache.accept(key("a"), cache.start(), &good_for(&clock, 3600));
    cache.reject(key("a"));
    assert_eq!(cache.lookup(key("a")), Lookup::Rejected);
    assert_eq!(cache.lookup(key("b")), Lookup::Unknown);
    clock.advance(SECOND * 5);
    assert_eq!(cache.lookup(key("a")), Lookup::Unknown);
    let alice = good_for(&clock, 3600);
    cache.accept(key("a"), cache.start(), &alice);
    assert_eq!(cache.lookup(key("a")), Lookup::Fresh(alice));
}

#[test]
fn an_answer_to_an_earlier_question_does_not_undo_a_404() {
    let (cache, clock) = cache(LIMITS);
    let allow = TokenKey::new(b"a", Mode::AllowExpired);
    let started = cache.start();
    cache.reject(allow);
    cache.accept(key("a"), started, &good_for(&clock, 3600));
    assert_eq!(cache.lookup(key("a")), Lookup::Rejected);
    clock.advance(SECOND * 5);
    assert_eq!(cache.lookup(key("a")), Lookup::Unknown);
}

#[test]
fn a_404_for_the_current_token_does_not_refuse_an_expired_one() {
    let (cache, clock) = cache(LIMITS);
    let allow = TokenKey::new(b"a", Mode::AllowExpired);
    cache.accept(allow, cache.start(), &good_for(&clock, 3600));
    cache.reject(key("a"));
    assert_eq!(cache.lookup(key("a")), Lookup::Rejected);
    assert_eq!(cache.lookup(allow), Lookup::Unknown, "Keystone is asked");
}

#[test]
fn a_stale_answer_is_offered_within_the_grace_alone() {
    let (cache, clock) = cache(CacheLimits {
        stale_grace: SECOND * 30,
        ..LIMITS
    });
    let alice = good_for(&clock, 3600);
    cache.accept(key("a"), cache.start(), &alice);
    let short = good_for(&clock, 70);
    cache.accept(key("b"), cache.start(), &short);
    clock.advance(SECOND * 60);
    assert_eq!(cache.lookup(key("a")), Lookup::Stale(alice));
    assert_eq!(cache.lookup(key("b")), Lookup::Stale(short));
    clock.advance(SECOND * 10);
    assert_eq!(cache.lookup(key("b")), Lookup::Expired);
    clock.advance(SECOND * 20);
    assert_eq!(cache.lookup(key("a")), Lookup::Unknown);
}

#[test]
fn a_flood_of_bad_tokens_pushes_no_good_one_out() {
    let (cache, clock) = cache(LIMITS);
    let alice = good_for(&clock, 3600);
    cache.accept(key("a"), cache.start(), &alice);
    for bad in 0..3 * NEGATIVE_ENTRIES {
        cache.reject(key(&bad.to_string()));
    }
    assert_eq!(cache.lookup(key("a")), Lookup::Fresh(alice));
    assert_eq!(cache.size().negative_entries, NEGATIVE_ENTRIES);
}

#[test]
fn large_identities_are_bounded_by_their_bytes() {
    let (cache, clock) = cache(LIMITS);
    let role = "x".repeat(40_000);
    let large = Arc::new(identity(&[&role], clock.wall().after(SECOND * 3600)));
    for token in 0..50 {
        cache.accept(key(&token.to_string()), cache.start(), &large);
    }
    let size = cache.size();
    assert!(size.bytes <= LIMITS.entries * BYTES_PER_ENTRY, "{size:?}");
    assert_eq!((size.entries, size.evicted), (5, 45));
}

#[test]
fn a_clock_that_is_set_back_makes_no_answer_younger() {
    let clock = Arc::new(ManualClock::default());
    let cache = Cache::new(LIMITS, Arc::clone(&clock) as _);
    clock.advance(SECOND * 100);
    cache.accept(key("a"), cache.start(), &good_for(&clock, 36_000));
    let earlier = Cache {
        limits: LIMITS,
        clock: Arc::new(ManualClock::default()),
        tables: cache.tables,
    };
    assert_eq!(earlier.lookup(key("a")), Lookup::Unknown);
}

/// What a simple model knows of one key: the last decision that counts.
#[derive(Default, Clone)]
struct Known {
    accepted: Option<(Timestamp, Arc<Identity>)>,
    rejected: Option<(Timestamp, u64)>,
}

/// Drives the cache through random events and checks the three promises after each of them.
#[test]
fn no_order_of_events_serves_an_expired_or_a_refused_token() {
    let (mut served, mut stale, mut refused) = (0, 0, 0);
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let limits = CacheLimits {
            fresh: SECOND * random.u32(0..20),
            stale_grace: SECOND * random.u32(0..20) * random.u32(0..2),
            negative: SECOND * random.u32(0..6),
            entries: random.usize(1..6),
        };
        let (cache, clock) = cache(limits);
        let tokens = ["a", "b", "c"];
        let mut known = vec![Known::default(); tokens.len() * 2];
        let mut flights: Vec<(usize, Started, u64)> = Vec::new();
        for event in 1..400_u64 {
            let which = random.usize(0..known.len());
            let mode = [Mode::Current, Mode::AllowExpired][which % 2];
            let key = TokenKey::new(tokens[which / 2].as_bytes(), mode);
            match random.u8(0..8) {
                0 | 1 => clock.advance(Duration::from_millis(random.u64(0..4_000))),
                2 => flights.push((which, cache.start(), event)),
                3 | 4 if !flights.is_empty() => {
                    let (which, started, asked) =
                        flights.swap_remove(random.usize(0..flights.len()));
                    let mode = [Mode::Current, Mode::AllowExpired][which % 2];
                    let key = TokenKey::new(tokens[which / 2].as_bytes(), mode);
                    let identity = good_for(&clock, random.u64(0..30));
                    cache.accept(key, started, &identity);
                    let pair = [which & !1, which | 1];
                    let is_refuted =
                        |at: &usize| known[*at].rejected.is_some_and(|(_, event)| event > asked);
                    if !pair.iter().any(is_refuted) {
                        known[which] = Known {
                            accepted: Some((clock.now(), identity)),
                            rejected: None,
                        };
                    }
                }
                5 if random.bool() => {
                    cache.reject(key);
                    let pair = [which & !1, which | 1];
                    pair.iter().for_each(|at| known[*at].accepted = None);
                    known[which & !1].rejected = Some((clock.now(), event));
                    if mode == Mode::AllowExpired {
                        known[which].rejected = Some((clock.now(), event));
                    }
                }
                _ => {
                    let (now, wall) = (clock.now(), clock.wall());
                    let known = &known[which];
                    let found = cache.lookup(key);
                    match &found {
                        Lookup::Fresh(identity) | Lookup::Stale(identity) => {
                            let (at, accepted) =
                                known.accepted.as_ref().expect("Keystone said 200 last");
                            assert_eq!(identity, accepted);
                            let is_stale = matches!(found, Lookup::Stale(_));
                            assert!(
                                mode == Mode::AllowExpired && !is_stale
                                    || !identity.is_expired(wall)
                            );
                            let grace = if is_stale {
                                limits.stale_grace
                            } else {
                                Duration::ZERO
                            };
                            assert!(now.since(*at) < limits.fresh + grace);
                            served += 1;
                            stale += usize::from(is_stale);
                        }
                        Lookup::Rejected => {
                            let (at, _) = known.rejected.expect("Keystone said 404");
                            assert!(now.since(at) < limits.negative);
                            refused += 1;
                        }
                        Lookup::Expired => {
                            let (_, identity) =
                                known.accepted.as_ref().expect("Keystone said 200 last");
                            assert!(identity.is_expired(wall) && mode == Mode::Current);
                        }
                        Lookup::Unknown => {}
                    }
                }
            }
            assert!(cache.size().entries <= limits.entries);
        }
    }
    let seen = (served, stale, refused);
    assert!(
        served > 1000 && stale > 100 && refused > 500,
        "{seen:?} proves too little"
    );
}
