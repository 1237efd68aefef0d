//! Statements for which values were sent ahead of their execution.

use std::collections::BTreeSet;

/// Most of them that are told apart. Behind that, all count as such.
const STATEMENTS_MAX: usize = 1_024;

/// Their numbers, as the server knows them.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    known: BTreeSet<u32>,
    /// It may be any: too many are known, or a number was not.
    any: bool,
}

impl Ahead {
    /// Values of this statement were sent; `None` where nobody knows of which.
    pub(super) fn sent(&mut self, number: Option<u32>) {
        match number {
            Some(number) if self.known.contains(&number) => {}
            Some(number) if self.known.len() < STATEMENTS_MAX => _ = self.known.insert(number),
            Some(_) | None => self.any = true,
        }
    }

    /// Whether there may be some of this statement.
    pub(super) fn has(&self, number: Option<u32>) -> bool {
        let is_known = number.is_none_or(|number| self.known.contains(&number));
        self.any || (is_known && !self.known.is_empty())
    }

    /// It is executed, reset or closed: the server keeps none of it.
    pub(super) fn gone(&mut self, number: Option<u32>) {
        if let Some(number) = number {
            self.known.remove(&number);
        }
    }

    /// The session is as new.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn my_13_values_sent_ahead_are_those_of_their_statement_and_bounded() {
        let mut ahead = Ahead::default();
        assert!(!ahead.has(Some(1)) && !ahead.has(None));
        ahead.sent(Some(1));
        ahead.gone(Some(2));
        assert!(ahead.has(Some(1)) && ahead.has(None) && !ahead.has(Some(2)));
        ahead.gone(Some(1));
        assert!(!ahead.has(Some(1)) && !ahead.has(None));
        for number in 0..2_000 {
            ahead.sent(Some(number));
        }
        assert_eq!(ahead.known.len(), STATEMENTS_MAX);
        ahead.gone(Some(7));
        assert!(ahead.has(Some(7)), "nobody knows of which there are more");
        ahead.clear();
        assert!(!ahead.has(Some(8)));
        ahead.sent(None);
        assert!(ahead.has(Some(9)));
    }
}
