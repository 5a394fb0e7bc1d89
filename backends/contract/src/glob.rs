//! Texts with places for anything in them, as the names of a broker's queues are made by.

/// Whether some text could be made by both: each is a text in bytes, `None` a place for anything.
pub fn globs_meet(one: &[Option<u8>], other: &[Option<u8>]) -> bool {
    // Whether what was read of one can be like so many of the other.
    let mut fits = vec![false; other.len() + 1];
    fits[0] = true;
    for (at, their) in other.iter().enumerate() {
        fits[at + 1] = fits[at] && their.is_none();
    }
    for our in one {
        let mut next = vec![fits[0] && our.is_none(); other.len() + 1];
        for (at, their) in other.iter().enumerate() {
            next[at + 1] = match (our, their) {
                (Some(our), Some(their)) => fits[at] && our == their,
                _ => fits[at + 1] || next[at],
            };
        }
        fits = next;
    }
    fits[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn glob(text: &str) -> Vec<Option<u8>> {
        text.bytes().map(|b| (b != b'*').then_some(b)).collect()
    }

    #[test]
    fn texts_that_both_can_make_are_found() {
        for (one, other, meet) in [
            ("", "", true),
            ("a", "a", true),
            ("a", "b", false),
            ("a", "ab", false),
            ("*", "", true),
            ("*", "abc", true),
            ("a*", "*b", true),
            ("a*", "b*", false),
            ("a*c", "abc", true),
            ("a*c", "abd", false),
            ("*.a", "b.*", true),
            ("a-*-b", "*-c-*", true),
            ("a*b", "ab*c", false),
            ("**", "*a*", true),
        ] {
            assert_eq!(globs_meet(&glob(one), &glob(other)), meet, "{one} {other}");
            assert_eq!(globs_meet(&glob(other), &glob(one)), meet, "{other} {one}");
        }
    }
}
