//! The callers of library code: for each function that is not the user's own, the nearest caller
//! that is.
//!
//! A function may have several callers. The one that counts is the one behind most of the waiting
//! that the function inflicts; for a function that inflicts next to none, the one behind most of
//! its time.

use super::own_code;
use super::report::Caller;
use crate::profile::{FunctionId, Profile, StackId};
use crate::sample::Function;
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Inflicted waiting, as a share of the function's own time, from which it decides.
const INFLICTS: f64 = 0.01;

/// Nanoseconds of a function under one caller.
#[derive(Clone, Copy, Debug, Default)]
struct CallerTime {
    inflicted: f64,
    all: f64,
}

impl CallerTime {
    fn add(&mut self, other: CallerTime) {
        self.inflicted += other.inflicted;
        self.all += other.all;
    }
}

/// The times of one caller, by the line of its call.
type CallLines = BTreeMap<u32, CallerTime>;

/// The times of one function: of all its callers, and of each.
#[derive(Debug, Default)]
struct CallersOf<'p> {
    total: CallerTime,
    callers: HashMap<&'p Function, CallLines>,
}

/// The caller of each function that needs one and has one.
pub(super) fn of(profile: &Profile) -> HashMap<FunctionId, Caller> {
    // In the order of the stacks, so that equal profiles have equal sums.
    let mut times: BTreeMap<StackId, CallerTime> = BTreeMap::new();
    for row in &profile.stack_times {
        times.entry(row.stack).or_default().all += row.times.total();
    }
    for (stack, nanos) in profile.inflicted() {
        times.entry(stack).or_default().inflicted += nanos;
    }
    // A function is in many stacks, and its path is long.
    let mut known: FxHashMap<*const Function, bool> = FxHashMap::default();
    let mut is_own = |f: &Arc<Function>| *known.entry(Arc::as_ptr(f)).or_insert_with(|| own_code::is_own(&f.name, &f.file));
    let mut functions: HashMap<FunctionId, CallersOf> = HashMap::new();
    for (id, time) in times {
        let stack = profile.stack(id);
        let Some(nearest) = stack.frames.iter().rposition(|frame| is_own(&frame.function)) else { continue };
        if nearest + 1 < stack.frames.len() {
            let of = functions.entry(profile.leaf(id)).or_default();
            let frame = &stack.frames[nearest];
            of.total.add(time);
            of.callers.entry(&frame.function).or_default().entry(frame.line).or_default().add(time);
        }
    }
    functions.into_iter().filter_map(|(function, of)| Some((function, largest(&of)?))).collect()
}

/// The caller that counts, with the line of its call.
fn largest(of: &CallersOf<'_>) -> Option<Caller> {
    let inflicts = of.total.inflicted > INFLICTS * of.total.all;
    let figure = |time: &CallerTime| if inflicts { time.inflicted } else { time.all };
    let sum = |lines: &CallLines| lines.values().map(figure).sum::<f64>();
    let key = |f: &Function| (f.name.clone(), f.file.clone(), f.first_line);
    let (caller, lines) = of.callers.iter().max_by(|a, b| sum(a.1).total_cmp(&sum(b.1)).then_with(|| key(b.0).cmp(&key(a.0))))?;
    let (line, _) = lines.iter().max_by(|a, b| figure(a.1).total_cmp(&figure(b.1)).then(b.0.cmp(a.0)))?;
    Some(Caller { name: caller.name.clone(), file: caller.file.clone(), line: caller.first_line, call_line: *line })
}

#[cfg(test)]
mod tests {
    use crate::analysis::report;
    use crate::analysis::report::Report;
    use crate::analysis::testing::Scene;

    const ENCODE: &str = "encode@/lib/python3.11/json/encoder.py";

    fn state(state: char, caller: &str) -> &'static str {
        Box::leak(format!("{state} {caller}>{ENCODE}").into_boxed_str())
    }

    fn caller(r: &Report, function: &str) -> Option<(String, u32, u32)> {
        let row = r.functions.iter().find(|f| f.name == function).unwrap();
        row.called_from.as_ref().map(|c| (c.name.clone(), c.line, c.call_line))
    }

    #[test]
    fn library_code_has_the_nearest_caller_of_the_users_and_own_code_has_none() {
        let through = state('P', "export>dumps@/lib/python3.11/json/__init__.py");
        let r = report(&Scene::new(2.0).run(1000, |_| vec![through, "W work"]));
        assert_eq!(caller(&r, "encode"), Some(("export".into(), 12, 14)));
        assert_eq!(caller(&r, "work"), None);
        let alone = "P handle@/v/site-packages/server/loop.py";
        let r = report(&Scene::new(2.0).without_main().run(1000, |_| vec![alone, "I work"]));
        assert_eq!(caller(&r, "handle"), None);
    }

    #[test]
    fn the_caller_behind_most_of_the_inflicted_waiting_counts() {
        let (often, harmful, waits) = (state('P', "often"), state('P', "harmful"), state('W', "harmful"));
        let r = report(&Scene::new(2.0).run(1000, |t| if t % 10 < 7 { vec![often, "I work"] } else { vec![harmful, "W work"] }));
        assert_eq!(caller(&r, "encode").unwrap().0, "harmful");
        let r = report(&Scene::new(2.0).run(1000, |t| if t % 10 < 7 { vec![often, "I work"] } else { vec![waits, "P work"] }));
        assert_eq!(caller(&r, "encode").unwrap().0, "often");
    }
}
