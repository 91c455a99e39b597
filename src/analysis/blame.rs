//! Waits by waiting and holding function, as rows of the report. Small rows would fill the file and
//! say little: they are added up in two rows, with a holder and without.

use super::phrases::named;
use super::report::{Blame, Caller, FunctionRow, Place};
use crate::profile::{BlameRow, FunctionId, Profile, OTHER_FUNCTIONS};
use std::collections::HashMap;

/// How many rows a report has at most, besides those two.
const MAX_ROWS: usize = 500;

/// The rows, longest waits first, with the callers of `functions`.
pub(super) fn rows(profile: &Profile, functions: &[FunctionRow]) -> Vec<Blame> {
    let callers: HashMap<(&str, &str, u32), &Caller> =
        functions.iter().filter_map(|f| Some(((f.name.as_str(), f.file.as_str(), f.line), f.called_from.as_ref()?))).collect();
    let place = |id: FunctionId| {
        let function = profile.function(id);
        let caller = callers.get(&(function.name.as_str(), function.file.as_str(), function.first_line));
        Place { called_from: caller.map(|caller| (*caller).clone()), ..named(function) }
    };
    let row = |r: &BlameRow| Blame { waiter: place(r.waiter), holder: r.holder.map(place), seconds: r.nanos / 1e9 };
    let (largest, small) = profile.blame.split_at(profile.blame.len().min(MAX_ROWS));
    let mut rows: Vec<Blame> = largest.iter().map(row).collect();
    for holder in [Some(OTHER_FUNCTIONS), None] {
        let nanos = small.iter().filter(|r| r.holder.is_some() == holder.is_some()).map(|r| r.nanos).sum();
        if nanos > 0.0 {
            rows.push(row(&BlameRow { waiter: OTHER_FUNCTIONS, holder, nanos }));
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::{rows, MAX_ROWS};
    use crate::analysis::testing::Scene;
    use crate::profile::{BlameRow, NO_PYTHON, OTHER_FUNCTIONS};

    #[test]
    fn small_rows_are_added_up_and_no_waiting_is_lost() {
        let mut profile = Scene::new(2.0).run(100, |_| vec!["P burn"]);
        let holder = |n: usize| (!n.is_multiple_of(3)).then_some(OTHER_FUNCTIONS);
        profile.blame = (0..700).map(|n| BlameRow { waiter: NO_PYTHON, holder: holder(n), nanos: 1e9 }).collect();
        let rows = rows(&profile, &[]);
        let sum = |with: bool| rows.iter().filter(|r| r.holder.is_some() == with).map(|r| r.seconds).sum::<f64>();
        assert_eq!((rows.len(), sum(true), sum(false)), (MAX_ROWS + 2, 466.0, 234.0));
    }
}
