//! The connections that are open, and how many there may be: in all, and from one address.
//!
//! When all places are taken, connections on which nothing is asked make room for new ones: those of the address that has
//! the most, the oldest first. A client expects that of a connection that it keeps, and whoever opens thousands to take
//! the places of others loses them to those who ask. An address that has less than the others, or less than the new
//! connection's own, loses none. Where nobody can make room the new connection is refused. An address that has as many as one
//! may have makes room for itself in the same way.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;

use super::connection::Activity;
use super::full::TurnedAway;
use crate::spell::Spell;
use crate::telemetry::Traffic;

/// How many connections there may be.
#[derive(Debug, Clone, Default)]
pub(crate) struct ConnectionLimits {
    /// In all.
    pub(crate) most: usize,
    /// From one address, or one network of IPv6 that a customer is given (/64); 0 for no bound.
    pub(crate) most_per_address: usize,
    /// Addresses without a bound of their own: proxies, behind which there are many clients.
    pub(crate) shared: Vec<IpNet>,
}

/// Connections that make room at once, so that it is not looked for at every connection: one in so many of all.
const BATCH: usize = 64;

/// The connections of a listener.
#[derive(Debug)]
pub(super) struct Table {
    limits: ConnectionLimits,
    slots: Mutex<Slots>,
    traffic: Traffic,
    refusing: Spell,
    making_room: Spell,
    /// Connections are closed because their clients take their answers too slowly.
    slow: Spell,
    /// Connections that are told that there is no place.
    pub(super) turned_away: TurnedAway,
}

#[derive(Debug, Default)]
struct Slots {
    next: u64,
    taken: BTreeMap<u64, (IpAddr, Activity)>,
    by_address: HashMap<IpAddr, usize>,
    /// Connections that have lost their places and are not closed yet.
    ending: usize,
}

/// Why a connection is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// There is no place for anybody.
    All,
    /// Its address has as many as it may have.
    Address,
}

impl Table {
    pub(super) fn new(limits: ConnectionLimits, traffic: Traffic) -> Arc<Self> {
        Arc::new(Self {
            limits,
            slots: Mutex::default(),
            traffic,
            refusing: Spell::default(),
            making_room: Spell::default(),
            slow: Spell::default(),
            turned_away: TurnedAway::default(),
        })
    }

    /// Gives a connection its place, if there is one.
    pub(super) fn admit(self: &Arc<Self>, peer: IpAddr, activity: &Activity) -> Result<Slot, Full> {
        let address = network(peer);
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let bound = self.limits.most_per_address;
        if bound > 0
            && slots
                .by_address
                .get(&address)
                .is_some_and(|count| *count >= bound)
            && !self.is_shared(peer)
        {
            let made = slots.make_room_of(address, bound.div_ceil(BATCH));
            if made == 0 {
                self.tell_refused(Full::Address, peer);
                return Err(Full::Address);
            }
            self.tell_made_room(made);
        }
        if slots.taken.len() >= self.limits.most {
            let made = slots.make_room(self.limits.most.div_ceil(BATCH), Some(address));
            if made == 0 {
                self.tell_refused(Full::All, peer);
                return Err(Full::All);
            }
            self.tell_made_room(made);
        }
        let number = slots.next;
        slots.next += 1;
        slots.taken.insert(number, (address, activity.clone()));
        *slots.by_address.entry(address).or_default() += 1;
        drop(slots);
        self.traffic.connections.inc();
        self.tell_over();
        Ok(Slot {
            table: Arc::clone(self),
            number,
        })
    }

    /// Closes connections on which nothing is asked, because the system has no descriptors left. Whether there were any.
    pub(super) fn make_room(&self) -> bool {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.ending > 0 {
            // Their descriptors are about to be free. Who is left by then may be somebody who has few.
            return true;
        }
        let made = slots.make_room(self.limits.most.div_ceil(BATCH), None);
        drop(slots);
        if made > 0 {
            self.tell_made_room(made);
        }
        made > 0
    }

    /// A client took its answers too slowly.
    pub(super) fn tell_slow(&self) {
        self.traffic.closed("slow");
        if self.slow.note() {
            tracing::warn!(
                "a client takes its answers too slowly (server.min_answer_rate); its connection is closed"
            );
        }
    }

    fn is_shared(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.limits
            .shared
            .iter()
            .any(|network| network.contains(&peer))
    }

    fn tell_refused(&self, why: Full, peer: IpAddr) {
        let (reason, bound) = match why {
            Full::All => ("all", "limits.max_connections"),
            Full::Address => ("address", "limits.max_connections_per_address"),
        };
        self.traffic.refused(reason);
        if self.refusing.note() {
            tracing::warn!(%peer, bound, "connections are refused: there are as many as there may be");
        }
    }

    fn tell_made_room(&self, made: usize) {
        for _ in 0..made {
            self.traffic.closed("idle");
        }
        if self.making_room.note() {
            tracing::warn!(
                "there are as many connections as there may be (limits.max_connections, or max_connections_per_address of \
                 one address): those on which nothing is asked are closed to make room"
            );
        }
    }

    fn tell_over(&self) {
        if let Some(count) = self.refusing.ended() {
            tracing::info!(count, "connections are not refused any more; so many were");
        }
    }
}

impl Slots {
    /// Has connections end on which nothing is asked, so many at the most, for one from this address. How many there were.
    fn make_room(&mut self, most: usize, newcomer: Option<IpAddr>) -> usize {
        let mut quiet: HashMap<IpAddr, Vec<u64>> = HashMap::new();
        for (number, (address, activity)) in &self.taken {
            if !activity.is_answering() {
                quiet.entry(*address).or_default().push(*number);
            }
        }
        let of = |address: &IpAddr| self.by_address.get(address).copied().unwrap_or(0);
        let average = self.taken.len().div_ceil(self.by_address.len().max(1));
        let may_lose = |address: &IpAddr| {
            let is_fair = newcomer.is_none_or(|new| new == *address || of(&new) < of(address));
            is_fair && of(address) >= average
        };
        quiet.retain(|address, _| may_lose(address));
        let Some((_, chosen)) = quiet.into_iter().max_by_key(|(address, _)| of(address)) else {
            return 0;
        };
        self.end(chosen, most)
    }

    /// The same with connections of one address, for another one of it.
    fn make_room_of(&mut self, address: IpAddr, most: usize) -> usize {
        let quiet = |(number, (other, activity)): (&u64, &(IpAddr, Activity))| {
            (*other == address && !activity.is_answering()).then_some(*number)
        };
        let chosen = self.taken.iter().filter_map(quiet).collect();
        self.end(chosen, most)
    }

    /// Has so many of these connections end, at the most. How many those are.
    fn end(&mut self, mut chosen: Vec<u64>, most: usize) -> usize {
        // Those on which a request has begun to arrive come last.
        chosen.sort_by_key(|number| self.taken.get(number).is_some_and(|(_, it)| it.is_busy()));
        chosen.truncate(most.max(1));
        for number in &chosen {
            if let Some((_, activity)) = self.taken.get(number) {
                activity.end();
            }
            self.ending += usize::from(self.leave(*number));
        }
        chosen.len()
    }

    fn leave(&mut self, number: u64) -> bool {
        let Some((address, _)) = self.taken.remove(&number) else {
            return false;
        };
        if let Some(count) = self.by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&address);
            }
        }
        true
    }
}

/// The place of a connection; it is free when this is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    table: Arc<Table>,
    number: u64,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.table.traffic.connections.dec();
        let slots = &self.table.slots;
        let mut slots = slots.lock().unwrap_or_else(PoisonError::into_inner);
        if !slots.leave(self.number) {
            slots.ending = slots.ending.saturating_sub(1);
        }
    }
}

/// What counts as one address: of IPv6 the network that one customer has.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn table(most: usize, most_per_address: usize) -> Arc<Table> {
        let limits = ConnectionLimits {
            most,
            most_per_address,
            shared: vec!["10.0.0.9/32".parse().expect("a network")],
        };
        Table::new(limits, Traffic::default())
    }

    fn admit(table: &Arc<Table>, peer: &str) -> Result<(Slot, Activity), Full> {
        let activity = Activity::default();
        Ok((table.admit(address(peer), &activity)?, activity))
    }

    #[test]
    fn an_address_has_no_more_places_than_its_own() {
        let table = table(10, 2);
        let held = [1, 2].map(|_| admit(&table, "10.0.0.1").expect("a place"));
        let busy = [held[0].1.begin(), held[1].1.begin()];
        assert_eq!(admit(&table, "10.0.0.1").err(), Some(Full::Address));
        drop(busy);
        assert!(admit(&table, "10.0.0.2").is_ok());
        drop(held);
        assert!(admit(&table, "10.0.0.1").is_ok());
        let proxy: Vec<_> = (0..5).map(|_| admit(&table, "10.0.0.9")).collect();
        assert!(proxy.iter().all(Result::is_ok), "it has no bound");
    }

    #[test]
    fn idle_connections_of_an_address_make_room_for_its_next_one_and_others_keep_theirs() {
        let table = table(10, 2);
        let other = admit(&table, "10.0.0.2").expect("a place");
        let held = [1, 2].map(|_| admit(&table, "10.0.0.1").expect("a place"));
        let busy = held[0].1.begin();
        let third = admit(&table, "10.0.0.1").expect("the idle one made room");
        let told = [&held[0], &held[1], &third, &other].map(|(_, it)| it.is_told_to_end());
        assert_eq!(told, [false, true, false, false]);
        drop(busy);
    }

    #[test]
    fn one_network_of_ipv6_is_one_address() {
        let table = table(10, 1);
        let held = admit(&table, "2001:db8::1").expect("a place");
        let _busy = held.1.begin();
        assert_eq!(admit(&table, "2001:db8::2").err(), Some(Full::Address));
        assert!(admit(&table, "2001:db8:0:1::1").is_ok());
        let mapped = admit(&table, "::ffff:10.0.0.1").expect("a place");
        let _also_busy = mapped.1.begin();
        assert_eq!(admit(&table, "10.0.0.1").err(), Some(Full::Address));
    }

    #[test]
    fn who_has_the_most_connections_makes_room_for_others() {
        let table = table(4, 0);
        let greedy = [1, 2, 3].map(|_| admit(&table, "10.0.0.1").expect("a place"));
        let modest = admit(&table, "10.0.0.2").expect("a place");
        let busy = greedy[0].1.begin();
        assert!(admit(&table, "10.0.0.3").is_ok());
        assert!(!modest.1.is_told_to_end());
        // The oldest that is not busy.
        let told = [0, 1, 2].map(|at: usize| greedy[at].1.is_told_to_end());
        assert_eq!(told, [false, true, false]);
        drop(busy);
    }

    #[test]
    fn who_has_few_connections_does_not_make_room_for_who_has_many() {
        let table = table(4, 0);
        let greedy = [1, 2, 3].map(|_| admit(&table, "10.0.0.1").expect("a place"));
        let busy = [0, 1, 2].map(|at: usize| greedy[at].1.begin());
        let modest = admit(&table, "10.0.0.2").expect("a place");
        for newcomer in ["10.0.0.1", "10.0.0.3"] {
            assert_eq!(admit(&table, newcomer).err(), Some(Full::All));
        }
        assert!(!table.make_room());
        assert!(!modest.1.is_told_to_end());
        drop(busy);
    }

    #[test]
    fn without_descriptors_nobody_is_closed_while_others_are_closing() {
        let table = table(10, 0);
        let modest = admit(&table, "10.0.0.2").expect("a place");
        let greedy = [1, 2, 3].map(|_| admit(&table, "10.0.0.1").expect("a place"));
        assert!(table.make_room());
        // All but the one that was closed are busy by now.
        let busy = greedy.each_ref().map(|(_, activity)| activity.begin());
        for _ in 0..3 {
            assert!(table.make_room());
        }
        assert!(!modest.1.is_told_to_end());
        drop(busy);
    }

    #[test]
    fn a_connection_is_refused_where_all_are_busy() {
        let table = table(2, 0);
        let held = [1, 2].map(|_| admit(&table, "10.0.0.1").expect("a place"));
        let busy = [held[0].1.begin(), held[1].1.begin()];
        assert_eq!(admit(&table, "10.0.0.2").err(), Some(Full::All));
        assert!(!table.make_room());
        drop(busy);
        assert!(admit(&table, "10.0.0.2").is_ok());
    }
}
