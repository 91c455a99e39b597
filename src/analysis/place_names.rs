//! How the sentences of the rules name functions, and which function advice is about: the user's
//! own, also where a library's code runs.

use super::phrases::{self, named};
use super::report::Place;
use super::rule_input::{holder, with_caller, RuleInput};
use crate::profile::FunctionId;

impl RuleInput<'_> {
    /// A function as "burn (app.py:12)".
    pub(super) fn place(&self, p: &Place) -> String {
        phrases::place(&self.names, p)
    }

    /// A function with its caller in the user's own code: "encode (json/encoder.py:183), called
    /// from parse (app.py:12)".
    pub(super) fn place_and_caller(&self, p: &Place) -> String {
        phrases::place_and_caller(&self.names, p)
    }

    /// The same before the rest of a sentence: with a comma behind the caller.
    pub(super) fn place_and_caller_clause(&self, p: &Place) -> String {
        let comma = if p.called_from.is_some() { "," } else { "" };
        self.place_and_caller(p) + comma
    }

    /// The user's function that holds the GIL while others wait, or that calls the library function
    /// which does. A library's function where no code of the user's calls it.
    pub(super) fn own_holder(&self) -> Place {
        let holder = holder(&self.holder_mix, self.functions).unwrap_or_default();
        phrases::own_caller(&holder).unwrap_or(holder)
    }

    /// [`RuleInput::own_holder`] as "burn (app.py:12)".
    pub(super) fn culprit(&self) -> String {
        match self.own_holder() {
            nothing if nothing.name.is_empty() => "the function that holds the GIL".into(),
            holder => self.place(&holder),
        }
    }

    /// A function of the profile, with its caller.
    pub(super) fn function(&self, id: FunctionId) -> Place {
        with_caller(self.functions, named(self.profile.function(id)))
    }
}

#[cfg(test)]
mod tests {
    use crate::analysis::report;
    use crate::analysis::testing::Scene;

    #[test]
    fn a_verdict_names_the_innermost_function_and_the_users_caller() {
        let [holds, waits] = ["P export>encode@/lib/python3.11/json/encoder.py", "W export>encode@/lib/python3.11/json/encoder.py"];
        let turns = |t: u64| if t % 10 < 5 { vec![holds, waits] } else { vec![waits, holds] };
        let r = report(&Scene::new(2.0).run(3000, turns));
        let because = "100 % of that while encode (json/encoder.py:12), called from export (app.py:12), holds it; encode runs Python code.";
        assert!(r.verdict.because[0].ends_with(because), "{:?}", r.verdict.because);
        assert!(r.verdict.next_steps[0].starts_with("Run export (app.py:12) in"), "{:?}", r.verdict.next_steps);
        let holder = r.blame[0].holder.as_ref().unwrap();
        assert_eq!((holder.name.as_str(), holder.called_from.as_ref().map(|c| c.name.as_str())), ("encode", Some("export")));
    }

    #[test]
    fn all_library_code_that_a_function_calls_counts_as_its_own() {
        let word = |state: char, leaf: u64| -> &'static str {
            Box::leak(format!("{state} export>step_{leaf}@/lib/python3.11/json/encoder.py").into_boxed_str())
        };
        let words: Vec<_> = (0..4).map(|leaf| (word('P', leaf), word('W', leaf))).collect();
        let turns = |t: u64| {
            let (holds, waits) = words[(t % 4) as usize];
            match t % 10 {
                0..4 => vec![holds, waits, "W serve"],
                4..8 => vec![waits, holds, "W serve"],
                _ => vec![waits, waits, "P serve"],
            }
        };
        let r = report(&Scene::new(2.0).run(3000, turns));
        let because = &r.verdict.because[0];
        assert!(because.contains("80 % of that while export (app.py:12) holds it, mostly in step_"), "{because}");
        assert!(because.ends_with(" (json/encoder.py:12); export runs Python code."), "{because}");
    }

    #[test]
    fn files_of_the_same_name_are_distinguished_in_sentences() {
        let turns = |t: u64| {
            if t % 10 < 5 {
                vec!["P load@shop/models.py", "W read@user/models.py"]
            } else {
                vec!["W load@shop/models.py", "P read@user/models.py"]
            }
        };
        let r = report(&Scene::new(2.0).run(3000, turns));
        assert!(
            r.verdict.because[0].contains("(shop/models.py:12)") || r.verdict.because[0].contains("(user/models.py:12)"),
            "{:?}",
            r.verdict.because
        );
    }
}
