//! How many elements are read at once: many small ones, few large ones, so that memory depends on neither.

/// Elements that are read, and looked up, at once, at the most.
const MAX_PAGE_SIZE: usize = 250;

/// At first, when nothing is known of their size.
const FIRST_PAGE_SIZE: usize = 16;

/// Bytes above which fewer are read the next time.
const MAX_PAGE_BYTES: usize = 8 << 20;

#[derive(Debug, Clone, Copy)]
pub(super) struct PageSize(usize);

impl PageSize {
    pub(super) fn new() -> Self {
        Self(FIRST_PAGE_SIZE)
    }

    pub(super) fn limit(self) -> usize {
        self.0
    }

    /// So many bytes came with the last part.
    pub(super) fn note(&mut self, bytes: usize) {
        self.0 = if bytes > MAX_PAGE_BYTES {
            (self.0 / (bytes / MAX_PAGE_BYTES + 1)).max(1)
        } else if bytes < MAX_PAGE_BYTES / 4 {
            (self.0 * 2).min(MAX_PAGE_SIZE)
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
        let mut page_size = PageSize::new();
        for _ in 0..10 {
            page_size.note(1000);
        }
        assert_eq!(page_size.limit(), MAX_PAGE_SIZE);
        page_size.note(MAX_PAGE_SIZE * (10 << 20));
        assert_eq!(page_size.limit(), 1);
        page_size.note(10 << 20);
        assert_eq!(page_size.limit(), 1, "one is read whatever its size");
        page_size.note(4 << 20);
        assert_eq!(page_size.limit(), 1);
        page_size.note(1);
        assert_eq!(page_size.limit(), 2);
    }
}
