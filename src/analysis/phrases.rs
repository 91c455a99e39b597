//! Numbers and names for sentences. Names come from the target, so control characters are replaced
//! and long names are cut.

use super::file_names::FileNames;
use super::report::{Estimate, Place};
use crate::sample::Function;

/// The longest name in a sentence, in characters.
const MAX_NAME: usize = 60;

/// A share as "66 %".
pub(super) fn percent(share: f64) -> String {
    match share * 100.0 {
        p if p <= 0.0 => "0 %".into(),
        p if p < 0.95 => "less than 1 %".into(),
        p => format!("{p:.0} %"),
    }
}

/// A gain as "1.9x faster (1.8 - 2.0)", "no faster (0.95 - 1.05)" or "0.8x as fast (0.7 - 0.9)".
pub(super) fn gain(e: &Estimate) -> String {
    let unit = if e.estimate < 1.0 { "as fast" } else { "faster" };
    if format!("{:.1}", e.estimate) == "1.0" {
        format!("no faster ({:.2} - {:.2})", e.low, e.high)
    } else {
        format!("{:.1}x {unit} ({:.1} - {:.1})", e.estimate, e.low, e.high)
    }
}

/// "on these 2 cores".
pub(super) fn on_cores(cpus: f64) -> String {
    if cpus == 1.0 {
        "on this one core".into()
    } else {
        format!("on these {} cores", number(cpus))
    }
}

/// "1 core", "1.5 cores".
pub(super) fn cores(cpus: f64) -> String {
    match number(cpus) {
        one if one == "1" => "1 core".into(),
        n => format!("{n} cores"),
    }
}

/// A number without needless decimals: "2", "1.5".
pub(super) fn number(n: f64) -> String {
    let text = format!("{n:.1}");
    text.strip_suffix(".0").map(str::to_string).unwrap_or(text)
}

/// An estimated number of threads: "1.5", "30".
pub(super) fn count(n: f64) -> String {
    if n < 10.0 {
        number(n)
    } else {
        format!("{n:.0}")
    }
}

/// "1 such thread", "2.2 such threads".
pub(super) fn such_threads(n: f64) -> String {
    match count(n) {
        one if one == "1" => "1 such thread".into(),
        n => format!("{n} such threads"),
    }
}

/// "1 thread", "3 threads".
pub(super) fn threads(n: usize) -> String {
    if n == 1 {
        "1 thread".into()
    } else {
        format!("{n} threads")
    }
}

/// A verb after a count: "waits" for one, "wait" for more.
pub(super) fn verb(n: usize, plain: &str) -> String {
    if n == 1 {
        format!("{plain}s")
    } else {
        plain.into()
    }
}

/// A function as "burn (app.py:12)". The line is that of its `def`; any other line of it is named
/// "at line 14".
pub(super) fn place(names: &FileNames, p: &Place) -> String {
    let name = clean(&p.name);
    match (names.short(&p.file), p.line) {
        ("", _) => name,
        (file, 0) => format!("{name} ({})", clean(file)),
        (file, line) => format!("{name} ({}:{line})", clean(file)),
    }
}

/// A function with its caller in the user's own code, if it has one: "encode (json/encoder.py:183),
/// called from parse (app.py:12)".
pub(super) fn place_and_caller(names: &FileNames, p: &Place) -> String {
    match own_caller(p) {
        Some(caller) => format!("{}, called from {}", place(names, p), place(names, &caller)),
        None => place(names, p),
    }
}

/// The caller of a function in the user's own code.
pub(super) fn own_caller(p: &Place) -> Option<Place> {
    let caller = p.called_from.as_ref()?;
    Some(Place { name: caller.name.clone(), file: caller.file.clone(), line: caller.line, called_from: None })
}

/// A function's name, file and first line.
pub(super) fn named(f: &Function) -> Place {
    Place { name: f.name.clone(), file: f.file.clone(), line: f.first_line, called_from: None }
}

/// A name from the target, safe to print.
pub(super) fn clean(text: &str) -> String {
    let safe = |c: char| if c.is_control() { '?' } else { c };
    match text.char_indices().nth(MAX_NAME) {
        Some((cut, _)) => text[..cut].chars().map(safe).chain(['…']).collect(),
        None => text.chars().map(safe).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::report::Caller;

    #[test]
    fn numbers_have_units() {
        let e = |estimate, low, high| Estimate { estimate, low, high };
        assert_eq!((percent(0.664), percent(0.001), percent(0.0)), ("66 %".into(), "less than 1 %".into(), "0 %".into()));
        assert_eq!(gain(&e(1.94, 1.84, 2.0)), "1.9x faster (1.8 - 2.0)");
        assert_eq!(gain(&e(1.01, 0.95, 1.0)), "no faster (0.95 - 1.00)");
        assert_eq!(gain(&e(0.81, 0.72, 0.9)), "0.8x as fast (0.7 - 0.9)");
        assert_eq!(
            (on_cores(2.0), on_cores(1.0), on_cores(1.5)),
            ("on these 2 cores".into(), "on this one core".into(), "on these 1.5 cores".into())
        );
    }

    #[test]
    fn places_are_short_and_harmless() {
        let at = |name: &str, file: &str, line| Place { name: name.into(), file: file.into(), line, called_from: None };
        let p = |name: &str, file: &str, line| place(&FileNames::default(), &at(name, file, line));
        assert_eq!(p("burn", "/srv/app.py", 12), "burn (app.py:12)");
        let caller = Caller { name: "parse".into(), file: "/srv/app.py".into(), line: 12, call_line: 15 };
        let encode = Place { called_from: Some(caller), ..at("encode", "/usr/lib/python3.11/json/encoder.py", 183) };
        assert_eq!(place_and_caller(&FileNames::default(), &encode), "encode (json/encoder.py:183), called from parse (app.py:12)");
        assert_eq!(p("(no Python frame)", "", 0), "(no Python frame)");
        assert_eq!(p("a\x1b[31m", "<string>", 0), "a?[31m (<string>)");
        assert_eq!(p(&"é".repeat(100), "", 0).chars().count(), MAX_NAME + 1);
    }
}
