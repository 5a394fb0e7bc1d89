//! From numbers of arrival to row numbers and back.
//!
//! A queue's rows stand in the table under its own number and an offset of forty bits, in the order of their numbers of
//! arrival: offset and number differ by the queue's base. The base is chosen with the first number so that messages which
//! are carried here later have room before it: forty bits of milliseconds are 34 years.

use isimud_contract::{Arrival, Timestamp};

/// Bits of a row number that count arrivals.
pub(crate) const ARRIVAL_BITS: u32 = 40;

/// Offsets in front of the first one.
const ROOM_BEFORE: i64 = 1 << 38;

/// One more than the largest offset.
const OFFSETS: i64 = 1 << ARRIVAL_BITS;

/// Offsets from here on are those of the ledger's rows that wait for their number.
const UNNUMBERED: i64 = OFFSETS - (1 << 38);

/// How one queue's messages are numbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Numbering {
    /// The number of the queue, in the high bits of its rows.
    pub(crate) no: i64,
    /// The number of arrival at offset 0.
    pub(crate) base: i64,
    /// The offset behind that of the last message.
    pub(crate) next: i64,
}

impl Numbering {
    /// For a queue whose first message gets this number.
    pub(crate) fn starting(no: i64, first: i64) -> Self {
        let base = (first - ROOM_BEFORE).max(0);
        Self {
            no,
            base,
            next: (first - base).max(1),
        }
    }

    /// For a queue that goes on behind another numbering, under a number of its own.
    pub(crate) fn behind(&self, no: i64) -> Self {
        Self::starting(no, self.base + self.next)
    }

    /// Whether nothing was numbered since it started.
    pub(crate) fn is_fresh(&self) -> bool {
        self.next <= ROOM_BEFORE
    }

    /// The number of arrival of a row.
    pub(crate) fn number(&self, row: i64) -> u64 {
        (self.base + (row & (OFFSETS - 1))).unsigned_abs()
    }

    /// Where the message of a row stands.
    pub(crate) fn arrival(&self, row: i64) -> Arrival {
        match row < self.unnumbered() {
            true => Arrival::At(self.number(row)),
            false => Arrival::default(),
        }
    }

    /// The last number that was given.
    pub(crate) fn last_number(&self) -> u64 {
        (self.base + self.next - 1).unsigned_abs()
    }

    /// The row of a number; `None` where it is too far from the others to be kept.
    pub(crate) fn row(&self, number: u64) -> Option<i64> {
        let offset = i64::try_from(number).ok()?.checked_sub(self.base)?;
        (1..UNNUMBERED)
            .contains(&offset)
            .then_some(self.no << ARRIVAL_BITS | offset)
    }

    /// The row behind which a listing from a number starts.
    pub(crate) fn row_behind(&self, number: u64) -> i64 {
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        let offset = number.saturating_sub(self.base).clamp(0, UNNUMBERED - 1);
        self.no << ARRIVAL_BITS | offset
    }

    /// The first row that has no number yet.
    pub(crate) fn unnumbered(&self) -> i64 {
        self.no << ARRIVAL_BITS | UNNUMBERED
    }

    /// Takes the row of the next message: behind all others, not before this moment, and above a number.
    pub(crate) fn take_row(&mut self, now: Timestamp, above: u64) -> i64 {
        let above = i64::try_from(above).unwrap_or(0).saturating_add(1);
        let wanted = now.0.max(above).saturating_sub(self.base);
        let fits = wanted < UNNUMBERED;
        let offset = if fits {
            self.next.max(wanted)
        } else {
            self.next
        };
        self.next = offset + 1;
        self.no << ARRIVAL_BITS | offset
    }

    /// Notes that a row is taken, by a message that came with its number.
    pub(crate) fn note_row(&mut self, row: i64) {
        self.next = self.next.max((row & (OFFSETS - 1)) + 1);
    }

    /// Whether so many more messages can be numbered.
    pub(crate) fn has_room(&self, messages: usize) -> bool {
        i64::try_from(messages).is_ok_and(|messages| messages < UNNUMBERED - self.next)
    }
}

/// The number of the first message of a queue that nothing is known of: above what queues had that were deleted.
pub(crate) fn first_number(arrival: Arrival, now: Timestamp, least: i64) -> i64 {
    let first = match arrival {
        Arrival::At(number) => number,
        Arrival::After(number) => number
            .saturating_add(1)
            .max(now.0.max(least).max(1).unsigned_abs()),
    };
    i64::try_from(first).unwrap_or(i64::MAX >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_767_225_600_000);

    #[test]
    fn a_number_is_read_from_its_row() {
        let mut numbering = Numbering::starting(7, NOW.0);
        let row = numbering.take_row(NOW, 0);
        assert_eq!(numbering.number(row), NOW.0.unsigned_abs());
        assert_eq!(numbering.row(NOW.0.unsigned_abs()), Some(row));
        assert_eq!(numbering.last_number(), NOW.0.unsigned_abs());
        assert_eq!(numbering.take_row(NOW, 0), row + 1, "the clock stands");
        let later = numbering.take_row(Timestamp(NOW.0 + 50), 0);
        assert_eq!(later, row + 50);
        let above = numbering.take_row(NOW, numbering.number(later) + 1000);
        assert_eq!(above, later + 1001);
        assert_eq!(numbering.take_row(NOW, u64::MAX), above + 1, "too far");
    }

    #[test]
    fn earlier_numbers_have_room_and_far_ones_have_none() {
        let mut numbering = Numbering::starting(7, NOW.0);
        let first = numbering.take_row(NOW, 0);
        let year = 365 * 24 * 3_600_000;
        let before = NOW.0.unsigned_abs() - 8 * year;
        assert!(numbering.row(before).is_some_and(|row| row < first));
        assert_eq!(numbering.row(before - year), None);
        assert_eq!(numbering.row(NOW.0.unsigned_abs() + 40 * year), None);
        assert_eq!(numbering.row_behind(0), 7 << ARRIVAL_BITS);
        assert_eq!(numbering.row_behind(u64::MAX) >> ARRIVAL_BITS, 7);
        let purged = numbering.behind(8);
        assert!(purged.is_fresh() && !numbering.is_fresh());
        assert!(purged.base + purged.next > numbering.number(first).cast_signed());
    }

    #[test]
    fn small_numbers_are_kept_as_they_are() {
        let mut numbering =
            Numbering::starting(1, first_number(Arrival::default(), Timestamp(0), 0));
        let row = numbering.take_row(Timestamp(0), 0);
        assert_eq!((numbering.number(row), numbering.row(1)), (1, Some(row)));
    }
}
