//! `--what-if`: one case of the user's, predicted by the same model as the verdict's gains
//! (`scaling`), so that one question has one answer.
//!
//! The answer is the work done in the given case divided by the work done now. Its interval comes
//! from draws of the blocks of the window.

use super::bootstrap::Bootstrap;
use super::report::WhatIf;
use super::rule_input::RuleInput;
use super::scaling::{self, workers::Workers};
use crate::profile::Profile;
use crate::sample::{Stack, State};

/// The case that the user asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Question {
    /// The question as the user wrote it.
    pub text: String,
    processes: Option<usize>,
    pub(super) workers: Option<usize>,
    pub(super) threads: Option<usize>,
    pub(super) cores: Option<f64>,
    release: Option<String>,
}

/// Most threads or processes of a question.
const MAX_WORKERS: usize = 256;

impl Question {
    /// `processes=8,cores=16`, `workers=8,threads=2`, `threads=4`, `release=json.loads`, in any
    /// combination with `cores`.
    pub fn parse(text: &str) -> Result<Question, String> {
        let mut question = Question { text: text.to_string(), ..Question::default() };
        for part in text.split(',') {
            let (key, value) = part.split_once('=').ok_or_else(|| format!("`{part}` is not KEY=VALUE; {HELP}"))?;
            let number = || {
                value
                    .parse::<usize>()
                    .ok()
                    .filter(|n| (1..=MAX_WORKERS).contains(n))
                    .ok_or(format!("`{value}` is not a number from 1 to {MAX_WORKERS}"))
            };
            let twice = match key.trim() {
                "workers" => question.workers.replace(number()?).is_some(),
                "processes" => question.processes.replace(number()?).is_some(),
                "threads" => question.threads.replace(number()?).is_some(),
                "cores" => {
                    let cores = value.parse::<f64>().ok().filter(|n| (0.1..=1024.0).contains(n));
                    question.cores.replace(cores.ok_or(format!("`{value}` is not a number of cores from 0.1 to 1024"))?).is_some()
                }
                "release" if !value.is_empty() => question.release.replace(value.to_string()).is_some(),
                _ => return Err(format!("`{part}` is not understood; {HELP}")),
            };
            if twice {
                return Err(format!("`{key}` is given twice"));
            }
        }
        if question.processes.is_some() && question.threads.is_some() {
            return Err("give processes or threads, not both; workers=N,threads=M is for a number of processes with M threads each".into());
        }
        if question.workers.is_some() && (question.processes.is_some() || question.release.is_some()) {
            return Err("workers goes with threads and cores only".into());
        }
        Ok(question)
    }

    /// Whether it is about a service as a whole, with a number of workers.
    pub fn is_of_service(&self) -> bool {
        self.workers.is_some()
    }
}

const HELP: &str =
    "give processes=N, threads=N, workers=N, cores=C or release=FUNCTION, such as processes=8,cores=16 or workers=8,threads=2";

/// The answer; without a gain if the verdict refuses predictions.
pub(super) fn answer(e: &RuleInput<'_>, question: &Question, refused: bool) -> WhatIf {
    let none = |why: &str| WhatIf { question: question.text.clone(), gain: None, note: why.to_string() };
    if refused {
        return none("not predicted: the verdict says why");
    }
    let freed = question.release.as_deref().map(|function| freed(e.profile, function));
    if freed.as_ref().is_some_and(|shares| shares.iter().all(|share| *share <= 0.0)) {
        return none("no call of C code below that function held the GIL in any sample");
    }
    let case = scaling::Alternative { processes: question.processes, threads: question.threads, cores: question.cores, freed };
    let drawn = Bootstrap::new(e.profile, |threads| match question.workers {
        Some(_) => workers(&vec![Some(0); threads.len()], question).gain(threads, &e.program),
        None => scaling::asked(threads, &e.program, &case),
    });
    if drawn.whole().is_none() {
        return none("no thread does any work");
    }
    let gain = drawn.prediction(|gain| gain.unwrap_or(scaling::NO_CHANGE));
    WhatIf {
        question: question.text.clone(),
        gain: Some(gain),
        note: "not counting the cost of starting processes and of moving data between them".into(),
    }
}

/// The prediction of a number of workers. `of`: the process that each thread is of, `None` for the
/// threads that stay as they are.
pub(super) fn workers(of: &[Option<usize>], question: &Question) -> Workers {
    Workers { of: of.to_vec(), workers: question.workers, threads: question.threads, cores: question.cores }
}

/// For each thread, the share of its holding in C calls below that function.
fn freed(profile: &Profile, function: &str) -> Vec<f64> {
    let (mut inside, mut held) = (vec![0.0; profile.threads.len()], vec![0.0; profile.threads.len()]);
    for w in &profile.stack_times {
        held[w.thread] += w.times.get(State::HoldingPython) + w.times.get(State::HoldingNative);
        if within(profile.stack(w.stack), function) {
            inside[w.thread] += w.times.get(State::HoldingNative);
        }
    }
    inside.iter().zip(&held).map(|(part, of)| if *of > 0.0 { part / of } else { 0.0 }).collect()
}

/// Whether a stack has a function with that name, or with that file or package, a dot and that
/// name.
fn within(stack: &Stack, function: &str) -> bool {
    let (module, name) = function.rsplit_once('.').map_or((None, function), |(module, name)| (Some(module), name));
    stack.frames.iter().any(|frame| {
        let own = &frame.function.name;
        let named = own == function || own == name || own.ends_with(&format!(".{name}"));
        let path = frame.function.file.trim_end_matches(".py").trim_end_matches("/__init__");
        let there = |module: &str| own.ends_with(function) || path.ends_with(&format!("/{}", module.replace('.', "/"))) || path == module;
        named && module.is_none_or(there)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::{report_with, testing::Scene};

    fn answered(profile: &Profile, text: &str) -> WhatIf {
        report_with(profile, &[Question::parse(text).unwrap()]).what_if.remove(0)
    }

    fn estimate(profile: &Profile, text: &str) -> f64 {
        let answer = answered(profile, text);
        let gain = answer.gain.unwrap_or_else(|| panic!("{text}: {}", answer.note));
        assert!(gain.low <= gain.estimate && gain.estimate <= gain.high, "{gain:?}");
        gain.estimate
    }

    const TURNS: fn(u64) -> Vec<&'static str> =
        |t| if (t / 5).is_multiple_of(2) { vec!["P burn", "W burn"] } else { vec!["W burn", "P burn"] };

    #[test]
    fn questions_are_parsed_or_refused() {
        let q = Question::parse("processes=8,cores=16").unwrap();
        assert_eq!((q.processes, q.cores, q.threads, q.release), (Some(8), Some(16.0), None, None));
        assert_eq!(Question::parse("release=json.loads").unwrap().release.as_deref(), Some("json.loads"));
        for bad in [
            "",
            "processes",
            "processes=0",
            "processes=x",
            "cores=nan",
            "cores=-1",
            "threads=2,processes=2",
            "workers=2,processes=2",
            "workers=2,release=burn",
            "threads=2,threads=3",
            "speed=2",
            "release=",
        ] {
            assert!(Question::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn processes_have_a_gil_each_and_share_the_cores() {
        let profile = Scene::new(2.0).run(4000, TURNS);
        assert!((estimate(&profile, "processes=2") - 2.0).abs() < 0.1);
        assert!((estimate(&profile, "processes=8,cores=8") - 8.0).abs() < 0.4);
        assert!((estimate(&profile, "processes=8,cores=2") - 2.0).abs() < 0.1);
        assert!((estimate(&profile, "threads=8,cores=8") - 1.0).abs() < 0.1);
    }

    #[test]
    fn sleepers_gain_by_more_threads_until_the_gil_is_full() {
        let serve = |t: u64| match t % 20 {
            0 => vec!["P serve", "I recv"],
            10 => vec!["I recv", "P serve"],
            _ => vec!["I recv", "I recv"],
        };
        let profile = Scene::new(2.0).run(4000, serve);
        assert!((1.8..2.1).contains(&estimate(&profile, "threads=4")));
        let full = estimate(&profile, "threads=60");
        assert!((8.0..10.5).contains(&full), "{full}");
    }

    #[test]
    fn a_released_function_frees_the_others() {
        let half =
            |t: u64| if (t / 5).is_multiple_of(2) { vec!["C dumps@json/__init__.py>encode", "W burn"] } else { vec!["W burn", "P burn"] };
        let profile = Scene::new(2.0).run(4000, half);
        let freed = estimate(&profile, "release=json.dumps");
        assert!((1.8..2.1).contains(&freed), "{freed}");
        let answer = answered(&profile, "release=nothing.there");
        assert!(answer.gain.is_none() && answer.note.contains("no call of C"), "{}", answer.note);
    }

    #[test]
    fn nothing_is_promised_on_a_starved_machine() {
        let hashing = |t: u64| if t.is_multiple_of(4) { vec!["N hash", "S hash"] } else { vec!["S hash", "S hash"] };
        let answer = answered(&Scene::new(1.0).run(2000, hashing), "processes=4");
        assert!(answer.gain.is_none() && answer.note.contains("not predicted"));
    }
}
