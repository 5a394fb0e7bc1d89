//! How many elements are read at once: many small ones, few large ones, so that memory depends on neither.

/// Elements that are read, and looked up, at once, at the most.
const MOST: usize = 250;

/// At first, when nothing is known of their size.
const FIRST: usize = 16;

/// Bytes above which fewer are read the next time.
const TOO_MANY_BYTES: usize = 8 << 20;

#[derive(Debug, Clone, Copy)]
pub(super) struct Pace(usize);

impl Pace {
    pub(super) fn new() -> Self {
        Self(FIRST)
    }

    pub(super) fn limit(self) -> usize {
        self.0
    }

    /// So many bytes came with the last part.
    pub(super) fn note(&mut self, bytes: usize) {
        self.0 = if bytes > TOO_MANY_BYTES {
            (self.0 / (bytes / TOO_MANY_BYTES + 1)).max(1)
        } else if bytes < TOO_MANY_BYTES / 4 {
            (self.0 * 2).min(MOST)
        } else {
            self.0
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_elements_are_read_by_the_hundred_and_large_ones_singly() {
        let mut pace = Pace::new();
        for _ in 0..10 {
            pace.note(1000);
        }
        assert_eq!(pace.limit(), MOST);
        pace.note(MOST * (10 << 20));
        assert_eq!(pace.limit(), 1);
        pace.note(10 << 20);
        assert_eq!(pace.limit(), 1, "one is read whatever its size");
        pace.note(4 << 20);
        assert_eq!(pace.limit(), 1);
        pace.note(1);
        assert_eq!(pace.limit(), 2);
    }
}
