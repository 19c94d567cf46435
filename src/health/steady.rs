//! What is said of a check by what was found in the runs before: no alarm for what lasts only one run. Pure.

use super::{Answer, Outcome};

/// Returns what is said of a check that must be bad for some runs in a row; `before` is what was found in the runs before, the
/// last one first.
///
/// Of runs that differ in badness it is the mildest. What is well is said to be well at once.
pub(crate) fn said(found: Outcome, runs: u32, before: &[Outcome]) -> Outcome {
    let runs = usize::try_from(runs).unwrap_or(usize::MAX).max(1);
    if before.len() + 1 < runs {
        return Outcome::Ok;
    }
    before.iter().copied().take(runs - 1).chain([found]).min().unwrap_or(found)
}

/// Says of an answer what its check's `for` allows; the message tells what was found.
pub(crate) fn hold_back(answer: &mut Answer, before: &[Outcome]) {
    let (found, runs) = (answer.found, answer.check.runs);
    let said = said(found, runs, before);
    if said == found {
        return;
    }
    let so_far = 1 + before.iter().take_while(|outcome| **outcome >= found).count();
    let reading = &mut answer.reading;
    reading.outcome = said;
    reading.message = format!("{}, for {so_far} of {runs} runs: {}", found.name(), reading.message);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    use Outcome::{Critical, Ok, Unknown, Warning};

    #[test]
    fn what_lasts_one_run_is_no_alarm() {
        assert_eq!(said(Critical, 1, &[]), Critical);
        assert_eq!(said(Critical, 3, &[]), Ok);
        assert_eq!(said(Critical, 3, &[Critical, Ok]), Ok);
        assert_eq!(said(Critical, 3, &[Critical, Critical]), Critical);
        assert_eq!(said(Critical, 3, &[Warning, Unknown]), Warning);
        assert_eq!(said(Unknown, 2, &[Critical, Critical]), Unknown);
        assert_eq!(said(Ok, 3, &[Critical, Critical, Critical]), Ok);
    }

    proptest! {
        #[test]
        fn it_is_never_worse_than_what_was_found_and_in_the_end_the_same(
            found in proptest::sample::select(&Outcome::WORST_FIRST[..]),
            runs in 1..6_u32,
            before in proptest::collection::vec(proptest::sample::select(&Outcome::WORST_FIRST[..]), 0..8),
        ) {
            prop_assert!(said(found, runs, &before) <= found);
            prop_assert_eq!(said(found, runs, &[found; 5]), found);
        }
    }
}
