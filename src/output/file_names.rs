//! Places in source files: the short name of the file and a line, harmless.
//!
//! A place after a function's name is the function's `def` line. In a stack it is the line that
//! runs, as in a traceback. Any other line is named "at line 14".

use super::sanitize;
use crate::analysis::file_names::FileNames;
use crate::analysis::report::{Caller, Report};

/// The names of the files of a report.
pub fn of_report(report: &Report) -> FileNames {
    let holders = report.blame.iter().filter_map(|blame| blame.holder.as_ref());
    let places = report.blame.iter().map(|blame| &blame.waiter).chain(holders);
    let rows = report.functions.iter().map(|f| (f.file.as_str(), &f.called_from));
    let all = rows.chain(places.map(|place| (place.file.as_str(), &place.called_from)));
    FileNames::new(all.flat_map(|(file, caller)| [Some(file), caller.as_ref().map(|caller| caller.file.as_str())]).flatten())
}

/// `app.py:12`, or the file alone where the line is not known.
pub fn place(names: &FileNames, file: &str, line: u32) -> String {
    match (sanitize::clean(names.short(file)), line) {
        (file, 0) => file,
        (file, line) => format!("{file}:{line}"),
    }
}

/// `parse (app.py:12) at line 15`.
pub fn caller(names: &FileNames, caller: Option<&Caller>) -> Option<String> {
    let caller = caller?;
    let at = if caller.call_line == 0 { String::new() } else { format!(" at line {}", caller.call_line) };
    Some(format!("{} ({}){at}", sanitize::clean(&caller.name), place(names, &caller.file, caller.line)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::report::FunctionRow;
    use crate::output::testing::measured;

    #[test]
    fn a_caller_has_its_def_line_and_the_line_of_the_call() {
        let mut report = measured().report;
        let called_from = |file: &str, call_line| Some(Caller { name: "par\nse".into(), file: file.into(), line: 12, call_line });
        report.functions = ["/srv/a/app.py", "/srv/b/app.py"]
            .map(|file| FunctionRow { called_from: called_from(file, 15), ..report.functions[0].clone() })
            .to_vec();
        let names = of_report(&report);
        let text = |n: usize| caller(&names, report.functions[n].called_from.as_ref()).unwrap();
        assert_eq!((text(0).as_str(), text(1).as_str()), ("par\\nse (a/app.py:12) at line 15", "par\\nse (b/app.py:12) at line 15"));
        assert_eq!(caller(&names, called_from("/srv/c.py", 0).as_ref()).unwrap(), "par\\nse (c.py:12)");
    }
}
