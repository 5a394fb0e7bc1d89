//! The segments of a migrating queue, and the places that it goes through.

use isimud_contract::{Placement, Segment};

use crate::catalogue::carried;

/// The segments of a migrating queue, told apart by what is to be done with them.
///
/// Segments stand in the order of the age of their messages, and that order alone says what is carried before what: a
/// store that stands twice among them, since the queue came back to it, has old messages in one and new ones in the
/// other. A move that is asked for while an earlier one goes on appends a segment; what is being carried is brought to
/// its end first, as readers wait at it.
#[derive(Debug)]
pub(super) struct Order {
    /// What is to be carried, oldest first.
    pub(super) sources: Vec<Segment>,
    /// Where to.
    pub(super) side: Segment,
    /// As they stand in the place.
    pub(super) all: Vec<Segment>,
    /// How many of them, behind the first, are being carried into the first.
    carried: usize,
}

impl Order {
    /// `None` when there is one segment only.
    pub(super) fn of(placement: &Placement) -> Option<Self> {
        if placement.only().is_some() {
            return None;
        }
        let all: Vec<Segment> = placement.segments().cloned().collect();
        let carried = carried(&all);
        let side = match carried {
            0 => placement.last().side(),
            _ => all[0].clone(),
        };
        let until = match carried {
            0 => all.len() - 1,
            count => count + 1,
        };
        let sources = all[..until].iter().filter(|one| !one.is_same_as(&side));
        Some(Self {
            sources: sources.cloned().collect(),
            side,
            carried,
            all,
        })
    }

    /// Everything but the last.
    pub(super) fn older(&self) -> impl Iterator<Item = &Segment> {
        self.all.iter().take(self.all.len() - 1)
    }

    pub(super) fn is_migrating(&self) -> bool {
        self.carried > 0
    }

    /// With the segment beside the last in front of everything.
    pub(super) fn carried(&self) -> Placement {
        let last = &self.all[self.all.len() - 1..];
        place([std::slice::from_ref(&self.side), &self.sources, last])
    }

    /// With what was carried from in front of where it was carried to: what comes back there is older than everything
    /// that was carried.
    pub(super) fn rested(&self) -> Placement {
        let rest = &self.all[self.carried + 1..];
        place([&self.sources, std::slice::from_ref(&self.side), rest])
    }

    pub(super) fn without(&self, gone: &Segment) -> Placement {
        let older = self.older().filter(|segment| *segment != gone);
        let older: Vec<Segment> = older.cloned().collect();
        place([&older, &self.all[self.all.len() - 1..], &[]])
    }
}

fn place(parts: [&[Segment]; 3]) -> Placement {
    Placement::of(parts.concat()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use isimud_contract::{PoolName, StoreId};

    use super::*;

    fn segment(store_id: &str, generation: u32) -> Segment {
        Segment::new(
            StoreId::Pool(PoolName::parse(store_id).expect("a name")),
            generation,
        )
    }

    /// Of names such as `a0`: the pool and the number; `b0*` is the segment beside `b0`.
    fn place(text: &str) -> Placement {
        let segments = text.split(' ').map(|name| {
            let plain = name.trim_end_matches('*');
            let generation = plain[1..].parse().expect("a number");
            let segment = segment(&plain[..1], generation);
            match name == plain {
                true => segment,
                false => segment.side(),
            }
        });
        Placement::of(segments).expect("segments")
    }

    fn order(text: &str) -> Order {
        Order::of(&place(text)).expect("on the move")
    }

    #[test]
    fn a_queue_goes_from_store_to_store_step_by_step() {
        assert!(Order::of(&place("a0")).is_none());
        let appended = order("a0 b0");
        assert!(!appended.is_migrating());
        assert_eq!(appended.carried(), place("b0* a0 b0"));

        let carried = order("b0* a0 b0");
        assert!(carried.is_migrating());
        assert_eq!(carried.rested(), place("a0 b0* b0"));

        let rested = order("a0 b0* b0");
        assert!(!rested.is_migrating());
        assert_eq!(rested.carried(), place("b0* a0 b0"));
        assert_eq!(rested.without(&segment("a", 0)), place("b0* b0"));

        let left = order("b0* b0");
        assert!(!left.is_migrating() && left.sources.is_empty());
        assert_eq!(left.without(&segment("b", 0).side()), place("b0"));
    }

    #[test]
    fn a_queue_that_moves_again_takes_everything_with_it_in_order() {
        let again = order("a0 b0* b0 c0");
        assert!(!again.is_migrating());
        assert_eq!(again.carried(), place("c0* a0 b0* b0 c0"));
        // It comes to a store where it was before.
        let back = order("a0 b0 a1");
        assert_eq!(back.carried(), place("a1* a0 b0 a1"));
        let carried = order("a1* a0 b0 a1");
        assert!(carried.is_migrating());
        assert_eq!(carried.sources, [segment("a", 0), segment("b", 0)]);
        assert_eq!(carried.rested(), place("a0 b0 a1* a1"));
    }

    #[test]
    fn what_is_being_carried_is_brought_to_its_end_before_a_new_move_begins() {
        for last in ["b0* a0 b0 c0", "b0* a0 b0 c0 b1", "b0* a0 b0 a1"] {
            let again = order(last);
            assert!(again.is_migrating(), "{last}");
            assert_eq!(again.sources, [segment("a", 0)], "{last}");
            assert_eq!(again.side, segment("b", 0).side(), "{last}");
        }
        assert_eq!(order("b0* a0 b0 c0").rested(), place("a0 b0* b0 c0"));
        assert_eq!(order("b0* b0 c0").carried(), place("c0* b0* b0 c0"));
    }

    #[test]
    fn a_side_of_another_segment_is_a_segment_like_any_other() {
        let order = order("c0* a0 b0* b0 c0 b1");
        assert!(order.is_migrating());
        assert_eq!(order.sources.len(), 3);
        let rested = Order::of(&order.rested()).expect("on the move");
        assert_eq!(order.rested(), place("a0 b0* b0 c0* c0 b1"));
        assert_eq!(rested.side, segment("b", 1).side());
    }
}
