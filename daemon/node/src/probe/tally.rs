//! Answers counted against thresholds.

/// A probe's answers so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    success: u32,
    failure: u32,
    last: Option<bool>,
    run: u32,
}

impl Tally {
    /// Nothing was answered yet. Thresholds of zero count as one.
    pub fn new(success: u32, failure: u32) -> Self {
        Self { success: success.max(1), failure: failure.max(1), last: None, run: 0 }
    }

    /// Takes an answer; a verdict once enough of its kind came in a row, and again with every further one.
    pub fn add(&mut self, good: bool) -> Option<bool> {
        if self.last == Some(good) {
            self.run = self.run.saturating_add(1);
        } else {
            self.last = Some(good);
            self.run = 1;
        }
        let needed = if good { self.success } else { self.failure };
        (self.run >= needed).then_some(good)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn thresholds_count_answers_in_a_row() {
        let mut tally = Tally::new(2, 3);
        let verdicts: Vec<_> =
            [false, false, true, false, false, false, false, true, true].iter().map(|a| tally.add(*a)).collect();
        let (no, bad, good) = (None, Some(false), Some(true));
        assert_eq!(verdicts, [no, no, no, no, no, bad, bad, no, good]);
    }

    proptest! {
        /// A verdict is given exactly when the last answers, as many as the threshold says, were all alike.
        #[test]
        fn a_verdict_is_what_the_last_answers_agree_on(
            success in 0u32..5, failure in 0u32..5, answers in prop::collection::vec(any::<bool>(), 0..60),
        ) {
            let mut tally = Tally::new(success, failure);
            for at in 0..answers.len() {
                let good = answers[at];
                let needed = if good { success } else { failure }.max(1) as usize;
                let alike = answers[..=at].iter().rev().take_while(|a| **a == good).count();
                prop_assert_eq!(tally.add(good), (alike >= needed).then_some(good));
            }
        }
    }
}
