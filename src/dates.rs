//! Dates as the API writes and reads them.

use std::ops::RangeInclusive;

use isimud_contract::Timestamp;

/// A moment as `YYYY-MM-DDThh:mm:ssZ`, in UTC.
pub(crate) fn iso8601(moment: Timestamp) -> String {
    format!("{}Z", zoneless(moment))
}

/// A moment as `YYYY-MM-DDThh:mm:ss`, in UTC: the form that signatures are made of.
pub(crate) fn zoneless(moment: Timestamp) -> String {
    let secs = moment.0.div_euclid(1000);
    let (days, second) = (secs.div_euclid(86_400), secs.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// The date of a day counted from 1970-01-01, by eras of 400 years that begin in March.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day_of_year - (153 * shifted_month + 2) / 5 + 1)
}

/// The day of a date, counted from 1970-01-01: what [`civil`] undoes.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let shifted_month = (month + 9) % 12;
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Reads an ISO 8601 date in the spellings of the reference: with or without hyphens and colons, a `T` or a space
/// before the time, which may be left out from the right; fractions of a second are cut, no zone means UTC.
pub(crate) fn parse(text: &str) -> Option<Timestamp> {
    let mut rest = Reader(text.as_bytes());
    let year = rest.number(4..=4)?;
    let dashed = rest.skip(b"-");
    let (month, day) = match (rest.0.is_empty(), dashed) {
        (true, true) => return None,
        (true, false) => (1, 1),
        (false, true) => (
            rest.number(1..=2)?,
            match rest.skip(b"-") {
                true => rest.number(1..=2)?,
                false => 1,
            },
        ),
        (false, false) => (rest.number(2..=2)?, rest.number(2..=2)?),
    };
    let (mut hour, mut minute, mut second, mut offset) = (0, 0, 0, 0);
    if rest.skip(b" T") {
        hour = rest.number(2..=2)?;
        if rest.skip(b":") || rest.at_digit() {
            minute = rest.number(2..=2)?;
            if rest.skip(b":") || rest.at_digit() {
                second = rest.number(1..=2)?;
                if rest.skip(b".,") {
                    rest.number(1..=usize::MAX)?;
                }
            }
        }
        offset = rest.offset()?;
    }
    let last = days(year + month / 12, month % 12 + 1, 1) - days(year, month, 1);
    let in_range = (1..=12).contains(&month)
        && (1..=last).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60
        && year > 0;
    let secs = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    (rest.0.is_empty() && in_range).then_some(Timestamp(secs * 1000))
}

/// What is left of a date.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn at_digit(&self) -> bool {
        self.0.first().is_some_and(u8::is_ascii_digit)
    }

    /// Steps over a byte that is one of these.
    fn skip(&mut self, any: &[u8]) -> bool {
        match self.0.split_first() {
            Some((byte, rest)) if any.contains(byte) => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    /// So many digits, as far as they go.
    fn number(&mut self, digits: RangeInclusive<usize>) -> Option<i64> {
        let found = self.0.iter().take_while(|byte| byte.is_ascii_digit());
        let length = found.count().min(*digits.end());
        let (number, rest) = self.0.split_at(length);
        self.0 = rest;
        let number = number.iter().fold(0_i64, |number, digit| {
            number
                .saturating_mul(10)
                .saturating_add(i64::from(digit - b'0'))
        });
        digits.contains(&length).then_some(number)
    }

    /// A zone, in seconds that it is ahead of UTC.
    fn offset(&mut self) -> Option<i64> {
        if self.0.is_empty() || self.skip(b"Z") {
            return Some(0);
        }
        let sign = if self.skip(b"+") {
            1
        } else if self.skip(b"-") {
            -1
        } else {
            return None;
        };
        let hours = self.number(2..=2)?;
        let minutes = match self.skip(b":") || self.at_digit() {
            true => self.number(2..=2)?,
            false => 0,
        };
        (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_around_the_edges_of_the_calendar() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399_999, "2000-02-28T23:59:59Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (1_767_225_599_000, "2025-12-31T23:59:59Z"),
            (1_764_044_665_000, "2025-11-25T04:24:25Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(iso8601(Timestamp(millis)), text);
        }
    }

    #[test]
    fn dates_are_read_in_every_spelling_of_the_reference() {
        for (text, meant) in [
            ("2035-01-01T00:00:00", "2035-01-01T00:00:00Z"),
            ("2035-01-01T00:00:00Z", "2035-01-01T00:00:00Z"),
            ("2035-01-01 02:00:00.999+02:00", "2035-01-01T00:00:00Z"),
            ("20350101T000000-0130", "2035-01-01T01:30:00Z"),
            ("2036-02-29", "2036-02-29T00:00:00Z"),
            ("2035-1-2T03", "2035-01-02T03:00:00Z"),
            ("2035-12", "2035-12-01T00:00:00Z"),
            ("2035", "2035-01-01T00:00:00Z"),
            ("1969-12-31T23:59:59Z", "1969-12-31T23:59:59Z"),
        ] {
            assert_eq!(parse(text).map(iso8601).as_deref(), Some(meant), "{text}");
        }
        for bad in [
            "",
            "garbage",
            "2035-",
            "203501",
            "2035-13-01",
            "2035-02-29",
            "2035-01-01T",
            "2035-01-01T24:00",
            "2035-01-01T00:60",
            "2035-01-01T00:00:00X",
            "2035-01-01T00:00:00+",
            "2035-01-01T00:00:00Zx",
            "0000-01-01",
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }
}
