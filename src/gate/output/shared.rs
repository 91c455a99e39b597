//! Texts that several formats share: a check as lines, a function with its location and stack.
//!
//! `sanitize::clean` removes line breaks and control characters from names here and bounds their
//! length; the file of each format does the escaping that the format needs.

use super::source_location::SourceLocation;
use crate::analysis::own_code::is_own;
use crate::gate::outcome::{Check, Culprit, Kind, Outcome, StackFrame, Verdict};
use crate::output::numbers;
use crate::output::sanitize::clean;
use std::path::Path;

/// The most frames of a stack that are shown, from the leaf on.
const MAX_FRAMES: usize = 30;

/// The title of a check: its expression.
pub fn title(check: &Check) -> String {
    clean(&check.expression)
}

/// The kind of a check.
pub fn kind(check: &Check) -> &'static str {
    match check.kind {
        Kind::Limit => "limit",
        Kind::Regression => "regression",
    }
}

/// The result in one sentence: `waiting is 52.1 % (50.3 - 53.9), limit <= 20 %: all of the interval
/// is above the limit`.
pub fn sentence(check: &Check) -> String {
    let measured = match check.measured_text.as_str() {
        numbers::NONE => "is unknown".to_string(),
        text => format!("is {}", clean(text)),
    };
    let mut text = format!("{} {measured}, limit {}", clean(&check.metric), clean(&check.limit_text));
    if check.baseline.is_some() {
        text.push_str(&format!(", baseline {}", clean(&check.baseline_text)));
    }
    format!("{text}: {}", clean(&check.why))
}

/// The details of a check, one a line, with aligned columns.
pub fn lines(check: &Check, base: &Path) -> Vec<String> {
    let mut out = vec![
        format!("{}: {}", check.verdict.as_str(), clean(&check.expression)),
        format!("limit     {}", clean(&check.limit_text)),
        format!("measured  {}", clean(&check.measured_text)),
    ];
    if check.kind == Kind::Regression {
        out.push(format!("baseline  {}", clean(&check.baseline_text)));
    }
    out.push(clean(&check.why));
    if let Some(culprit) = &check.culprit {
        out.push(culprit_sentence(culprit, base));
        out.extend(stack(culprit, base).into_iter().map(|frame| format!("  {frame}")));
    }
    out
}

/// The culprit in one sentence: `parse (app.py:12) at line 16, thread worker-0: holds the GIL 97 %
/// of the time`.
pub fn culprit_sentence(culprit: &Culprit, base: &Path) -> String {
    let thread = culprit.thread.as_ref().map_or_else(String::new, |thread| format!(", thread {}", clean(thread)));
    format!("{}{thread}: {}", culprit_name(culprit, base), clean(&culprit.what))
}

/// The culprit and its caller: each with the line of its `def`, and the line that runs.
pub fn culprit_name(culprit: &Culprit, base: &Path) -> String {
    let place = |name: &str, file: &str, first: u32, line: u32| {
        let at = if line == 0 || line == first { String::new() } else { format!(" at line {line}") };
        with_location(name, file, first, base) + &at
    };
    let name = place(&culprit.name, &culprit.file, culprit.first_line, culprit.line);
    match &culprit.called_from {
        Some(c) => format!("{name}, called from {}", place(&c.name, &c.file, c.line, c.call_line)),
        None => name,
    }
}

/// Its most frequent stack, root first, one frame a line.
pub fn stack(culprit: &Culprit, base: &Path) -> Vec<String> {
    let (left_out, shown) = innermost(&culprit.stack);
    let above = (left_out > 0).then(|| format!("({left_out} outer frames left out)"));
    above.into_iter().chain(shown.iter().map(|frame| with_location(&frame.name, &frame.file, frame.line, base))).collect()
}

/// The number of frames that are left out, and the frames that are shown.
pub fn innermost(stack: &[StackFrame]) -> (usize, &[StackFrame]) {
    let left_out = stack.len().saturating_sub(MAX_FRAMES);
    (left_out, stack.get(left_out..).unwrap_or_default())
}

fn with_location(name: &str, file: &str, line: u32, base: &Path) -> String {
    let path = SourceLocation::new(file, line, base).map(|place| place.path);
    // Not a path, but better than nothing: `<string>`.
    let made = || Some(file.to_string()).filter(|file| file.starts_with('<'));
    match path.or_else(made) {
        Some(path) if line > 0 => format!("{} ({}:{line})", clean(name), clean(&path)),
        Some(path) => format!("{} ({})", clean(name), clean(&path)),
        None => clean(name),
    }
}

/// The function and line of a culprit that a reader of the checkout can open: the innermost of its
/// stack that is the user's own and below `base`. Without one, its caller wherever that is, or
/// itself.
pub fn culprit_place<'a>(culprit: &'a Culprit, base: &Path) -> Option<(&'a str, SourceLocation)> {
    let own = |name: &'a str, file: &str, line: u32| {
        let place = SourceLocation::new(file, line, base).filter(|_| is_own(name, file))?;
        Some((name, place))
    };
    let itself = || own(&culprit.name, &culprit.file, culprit.line_to_show());
    let caller = || culprit.called_from.as_ref().and_then(|c| own(&c.name, &c.file, if c.call_line > 0 { c.call_line } else { c.line }));
    let frames = culprit.stack.iter().rev().filter_map(|frame| own(&frame.name, &frame.file, frame.line));
    let mut all = itself().into_iter().chain(caller()).chain(frames);
    let below = all.find(|(_, place)| place.is_below());
    let library = || Some((culprit.name.as_str(), SourceLocation::new(&culprit.file, culprit.line_to_show(), base)?));
    below.or_else(itself).or_else(caller).or_else(library)
}

/// The location of a check: its culprit; without one, the first line of the program's script.
pub fn place(check: &Check, outcome: &Outcome, base: &Path) -> Option<SourceLocation> {
    let of = |culprit: &Culprit| culprit_place(culprit, base).map(|(_, place)| place);
    check.culprit.as_ref().and_then(of).or_else(|| {
        let args = &outcome.target.as_ref()?.command;
        args.iter().skip(1).find(|arg| arg.ends_with(".py")).and_then(|script| SourceLocation::new(script, 1, base))
    })
}

/// The checks that do not pass, the worst first, otherwise in their order.
pub fn unpassed(outcome: &Outcome) -> Vec<&Check> {
    let rank = |check: &&Check| match check.verdict {
        Verdict::Fail => 0,
        Verdict::Inconclusive => 1,
        Verdict::Warn => 2,
        Verdict::Pass => 3,
    };
    let mut checks: Vec<&Check> = outcome.checks.iter().filter(|check| check.verdict != Verdict::Pass).collect();
    checks.sort_by_key(rank);
    checks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::testing;

    #[test]
    fn a_failed_check_names_the_function_its_line_and_the_stack() {
        let outcome = testing::outcome();
        let failed = unpassed(&outcome)[0];
        let text = lines(failed, Path::new("/srv/app"));
        assert_eq!(text[0], "fail: waiting <= 20%");
        assert_eq!(
            text[4],
            "Parser.parse<T> (app.py:12) at line 16, thread worker-0: holds the GIL 97 % of the time; 1.9 threads wait behind it"
        );
        assert_eq!(text[5], "  main (app.py:40)");
        assert_eq!(text[6], "  evil\\x1b[31m]]>&\"'|\\n::error::x");
        assert_eq!(text.len(), 8);
        assert_eq!(sentence(failed), "waiting is 52.1 % (50.3 - 53.9), limit <= 20 %: all of the interval is above the limit");
    }

    #[test]
    fn a_librarys_culprit_is_located_in_the_users_code_below_the_directory() {
        let mut outcome = testing::in_library();
        let base = Path::new("/srv/app");
        let at = |outcome: &Outcome| place(unpassed(outcome)[0], outcome, base).map(|place| (place.path, place.line)).unwrap();
        assert_eq!(at(&outcome), ("shop.py".into(), 4));
        let sentence =
            "iterencode (/usr/lib/python3.11/json/encoder.py:205) at line 258, called from export (shop.py:3) at line 4, thread worker-0: ";
        let lines = lines(unpassed(&outcome)[0], base);
        assert!(lines[4].starts_with(sentence), "{}", lines[4]);
        outcome.checks.iter_mut().filter_map(|check| check.culprit.as_mut()).for_each(|culprit| culprit.file = "<string>".into());
        assert!(culprit_name(unpassed(&outcome)[0].culprit.as_ref().unwrap(), base)
            .starts_with("iterencode (<string>:205) at line 258, called from"));
        // A caller outside of the directory, and one in an environment inside of it.
        let frame = |name: &str, file: &str, line| StackFrame { name: name.into(), file: file.into(), line };
        for culprit in outcome.checks.iter_mut().filter_map(|check| check.culprit.as_mut()) {
            culprit.called_from.as_mut().unwrap().file = "/opt/shared/shop.py".into();
            culprit.stack = vec![
                frame("main", "/srv/app/bench.py", 7),
                frame("post", "/srv/app/.venv/lib/python3.11/site-packages/http/post.py", 8),
                frame("export", "/opt/shared/shop.py", 4),
                frame("iterencode", "/usr/lib/python3.11/json/encoder.py", 258),
            ];
        }
        assert_eq!(at(&outcome), ("bench.py".into(), 7));
        outcome.checks.iter_mut().filter_map(|check| check.culprit.as_mut()).for_each(|culprit| culprit.stack.clear());
        assert_eq!(at(&outcome), ("/opt/shared/shop.py".into(), 4));
    }

    #[test]
    fn long_stacks_lose_their_outer_frames() {
        let mut culprit = testing::outcome().checks.into_iter().find_map(|check| check.culprit).unwrap();
        culprit.stack = (0..100).map(|n| StackFrame { name: format!("f{n}"), file: String::new(), line: 0 }).collect();
        let text = stack(&culprit, Path::new("/"));
        assert_eq!((text.len(), text[0].as_str(), text[30].as_str()), (31, "(70 outer frames left out)", "f99"));
    }

    #[test]
    fn the_worst_come_first() {
        let outcome = testing::outcome();
        let verdicts: Vec<Verdict> = unpassed(&outcome).iter().map(|check| check.verdict).collect();
        assert_eq!(verdicts, [Verdict::Fail, Verdict::Fail, Verdict::Inconclusive, Verdict::Warn]);
    }
}
