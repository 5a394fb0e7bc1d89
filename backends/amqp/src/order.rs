//! In which order deliveries go back.
//!
//! A quorum queue puts what is given back at its head, in the order of coming back. What a server holds of one queue came
//! over several channels, and each of them gives back by itself: two that do so at once would mix what they hold. So
//! deliveries of a queue that are on several channels go back one run after another. On each channel their order is the
//! queue's own. Between channels it is told by the ids of the messages, which this service makes by time; a message with
//! another id stays with the one before it.

use std::collections::{BTreeMap, BTreeSet};

use lapin::types::ShortString;
use uuid::Uuid;

use crate::held::Tag;

/// A queue whose deliveries would take more turns than this gives them back on all channels at once: each turn is a round
/// trip, and all have to fit into the time of a call.
const MAX_ROUND_TRIPS: usize = 300;

/// A delivery that goes back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Back<'a> {
    pub(crate) tag: Tag,
    pub(crate) queue: &'a ShortString,
    pub(crate) id: Option<Uuid>,
}

/// Deliveries of one channel that go back together.
type Run = Vec<Tag>;

/// Sequences that may go back at the same time, each in runs that go back one after another.
pub(crate) fn sequences(all: &[Back<'_>]) -> Vec<Vec<Run>> {
    let mut queues: BTreeMap<&str, Vec<Back<'_>>> = BTreeMap::new();
    for back in all {
        queues.entry(back.queue.as_str()).or_default().push(*back);
    }
    // What is on one channel alone, of whatever queue, goes back by few words.
    let mut alone: BTreeMap<u64, Run> = BTreeMap::new();
    let mut sequences = Vec::new();
    for mut backs in queues.into_values() {
        backs.sort_unstable_by_key(|back| back.tag);
        let channels: BTreeSet<u64> = backs.iter().map(|back| back.tag.channel).collect();
        let runs = (channels.len() > 1).then(|| runs(&backs));
        match runs.filter(|runs| runs.len() <= MAX_ROUND_TRIPS) {
            Some(runs) => sequences.push(runs),
            None => {
                for back in backs {
                    alone.entry(back.tag.channel).or_default().push(back.tag);
                }
            }
        }
    }
    for mut run in alone.into_values() {
        run.sort_unstable();
        sequences.push(vec![run]);
    }
    sequences
}

/// The runs of one queue, whose deliveries are given in the order of their tags.
fn runs(backs: &[Back<'_>]) -> Vec<Run> {
    let mut ranked: Vec<(u128, Tag)> = Vec::with_capacity(backs.len());
    for channel in backs.chunk_by(|one, next| one.tag.channel == next.tag.channel) {
        let mut highest = 0;
        for back in channel {
            highest = back.id.map_or(0, |id| id.as_u128()).max(highest);
            ranked.push((highest, back.tag));
        }
    }
    // Those of a channel stay in their order: they rank ever higher, and the sort keeps equals.
    ranked.sort_by_key(|(rank, _)| *rank);
    let runs = ranked.chunk_by(|(_, one), (_, next)| one.channel == next.channel);
    runs.map(|run| run.iter().map(|(_, tag)| *tag).collect())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag((channel, delivery): (u64, u64)) -> Tag {
        Tag { channel, delivery }
    }

    /// The sequences of deliveries of this queue, by channel, number and id.
    fn of(queue: &str, all: &[(u64, u64, u128)]) -> Vec<Vec<Vec<(u64, u64)>>> {
        let queue = queue.into();
        let back = |(channel, delivery, id): &(u64, u64, u128)| Back {
            tag: tag((*channel, *delivery)),
            queue: &queue,
            id: (*id > 0).then(|| Uuid::from_u128(*id)),
        };
        let all: Vec<_> = all.iter().map(back).collect();
        let plain = |run: &Run| run.iter().map(|it| (it.channel, it.delivery)).collect();
        let sequences = sequences(&all);
        sequences
            .iter()
            .map(|runs| runs.iter().map(plain).collect())
            .collect()
    }

    #[test]
    fn what_came_over_several_channels_goes_back_in_the_order_of_the_queue() {
        let all = [(1, 1, 10), (1, 2, 13), (2, 1, 11), (2, 2, 12), (2, 3, 14)];
        let runs = of("q", &all);
        let expected = [vec![
            vec![(1, 1)],
            vec![(2, 1), (2, 2)],
            vec![(1, 2)],
            vec![(2, 3)],
        ]];
        assert_eq!(runs, expected);
    }

    #[test]
    fn deliveries_of_one_channel_keep_their_order_whatever_their_ids_are() {
        let all = [(1, 1, 20), (1, 2, 5), (1, 3, 0), (2, 1, 0), (2, 2, 21)];
        let expected = [vec![
            vec![(2, 1)],
            vec![(1, 1), (1, 2), (1, 3)],
            vec![(2, 2)],
        ]];
        assert_eq!(of("q", &all), expected);
        let one = [(7, 3, 1), (7, 2, 2)];
        assert_eq!(of("q", &one), [vec![vec![(7, 2), (7, 3)]]]);
    }

    #[test]
    fn too_many_turns_are_not_taken() {
        let alternating = |count: u64| -> Vec<(u64, u64, u128)> {
            (0..count)
                .map(|it| (it % 2, it / 2 + 1, u128::from(it) + 1))
                .collect()
        };
        assert_eq!(of("q", &alternating(MAX_ROUND_TRIPS as u64)).len(), 1);
        let many = of("q", &alternating(MAX_ROUND_TRIPS as u64 + 1));
        assert_eq!(many.len(), 2);
        assert!(many.iter().all(|runs| runs.len() == 1));
    }
}
