//! The segments of a queue on the move, and the places that it goes through.

use isimud_contract::{Place, Segment};

use crate::catalogue::is_carried;

/// The segments of a queue on the move, told apart by where they are.
#[derive(Debug)]
pub(super) struct Order {
    /// In other stores than the last, oldest first.
    pub(super) foreign: Vec<Segment>,
    /// In the store of the last one, beside it, oldest first.
    pub(super) sides: Vec<Segment>,
    last: Segment,
    /// As they stand in the place.
    pub(super) all: Vec<Segment>,
}

impl Order {
    /// `None` when there is one segment only.
    pub(super) fn of(place: &Place) -> Option<Self> {
        if place.only().is_some() {
            return None;
        }
        let last = place.last().clone();
        let all: Vec<Segment> = place.segments().cloned().collect();
        let (sides, foreign) = all[..all.len() - 1]
            .iter()
            .cloned()
            .partition(|segment| segment.home == last.home);
        Some(Self {
            foreign,
            sides,
            last,
            all,
        })
    }

    /// Everything but the last.
    pub(super) fn older(&self) -> impl Iterator<Item = &Segment> {
        self.all.iter().take(self.all.len() - 1)
    }

    pub(super) fn is_carried(&self) -> bool {
        is_carried(self.all.iter())
    }

    /// With a segment beside the last in front of everything.
    pub(super) fn carried(&self) -> Place {
        let mut sides = self.sides.clone();
        if sides.is_empty() {
            sides.push(Segment {
                home: self.last.home.clone(),
                part: Place::free_part(&self.all, &self.last.home),
            });
        }
        Self::place(sides.iter().chain(&self.foreign), &self.last)
    }

    /// With those in other stores in front: what comes back there is older than everything that was carried.
    pub(super) fn rested(&self) -> Place {
        Self::place(self.foreign.iter().chain(&self.sides), &self.last)
    }

    pub(super) fn without(&self, gone: &Segment) -> Place {
        Self::place(self.older().filter(|segment| *segment != gone), &self.last)
    }

    fn place<'a>(older: impl Iterator<Item = &'a Segment>, last: &'a Segment) -> Place {
        let segments = older.chain(std::iter::once(last)).cloned();
        Place::of(segments).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use isimud_contract::{Home, PoolName};

    use super::*;

    fn segment(home: &str, part: u32) -> Segment {
        Segment {
            home: Home::Pool(PoolName::parse(home).expect("a name")),
            part,
        }
    }

    fn place(segments: &[(&str, u32)]) -> Place {
        let segments = segments.iter().map(|(home, part)| segment(home, *part));
        Place::of(segments).expect("segments")
    }

    fn order(segments: &[(&str, u32)]) -> Order {
        Order::of(&place(segments)).expect("on the move")
    }

    #[test]
    fn a_queue_goes_from_store_to_store_step_by_step() {
        assert!(Order::of(&place(&[("a", 0)])).is_none());
        let appended = order(&[("a", 0), ("b", 0)]);
        assert!(!appended.is_carried());
        let carried = appended.carried();
        assert_eq!(carried, place(&[("b", 1), ("a", 0), ("b", 0)]));

        let carried = Order::of(&carried).expect("on the move");
        assert!(carried.is_carried());
        let rested = carried.rested();
        assert_eq!(rested, place(&[("a", 0), ("b", 1), ("b", 0)]));

        let rested = Order::of(&rested).expect("on the move");
        assert!(!rested.is_carried());
        assert_eq!(rested.carried(), place(&[("b", 1), ("a", 0), ("b", 0)]));
        let left = rested.without(&segment("a", 0));
        assert_eq!(left, place(&[("b", 1), ("b", 0)]));
        let left = Order::of(&left).expect("on the move");
        assert!(!left.is_carried() && left.foreign.is_empty());
        assert_eq!(left.without(&segment("b", 1)), place(&[("b", 0)]));
    }

    #[test]
    fn a_queue_that_moves_again_takes_everything_with_it() {
        let again = order(&[("b", 1), ("a", 0), ("b", 0), ("c", 0)]);
        assert!(!again.is_carried());
        let carried = place(&[("c", 1), ("b", 1), ("a", 0), ("b", 0), ("c", 0)]);
        assert_eq!(again.carried(), carried);
    }
}
