//! `--what-if`: one case of the user's, simulated with the measured cycles.
//!
//! For each working thread the window says how long it held the GIL, computed without it and slept,
//! and how often it went from the GIL to something else. This gives the mean cycle of the thread,
//! and not the scatter of its cycles, so the simulation draws each from exponential distributions
//! with those means. It simulates the present too. The answer is the work done in the given case
//! divided by the work done in the present, so that errors of the model in both cancel. The
//! interval comes from other draws of the blocks of the window, each with other cycles, widened by
//! 5 % and by the error of the simulated present.

use super::bootstrap::{self, Rng};
use super::report::{Estimate, WhatIf};
use super::rule_input::RuleInput;
use super::scaling;
use super::simulate::{self, Machine, Need, Phase, Worker};
use crate::profile::Profile;
use crate::sample::{Stack, State, StateTimes};

/// The case that the user asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Question {
    /// The question as the user wrote it.
    pub text: String,
    processes: Option<usize>,
    threads: Option<usize>,
    cores: Option<f64>,
    release: Option<String>,
}

/// Most workers in a simulation.
const MAX_WORKERS: usize = 256;
/// Cycles drawn for each worker, which then repeat.
const CYCLES: usize = 64;
/// Simulated nanoseconds.
const SPAN: f64 = 2e9;
/// Draws of the window for the interval.
const DRAWS: usize = 20;
/// Measured error of the model where nothing else is wrong (see `scaling`).
const MODEL_ERROR: f64 = 0.05;
/// Nanoseconds from a release of the GIL until the woken thread runs, measured on an idle machine.
const WAKE: f64 = 50e3;
/// CPython's default, for targets whose switch interval is not known.
const INTERVAL_US: u64 = 5000;
/// Share of its time without the GIL below which a thread has no cycle and only computes.
const ALL_HELD: f64 = 0.02;
/// Share of the busiest thread's work below which a thread is not a worker.
const WORKER: f64 = 0.01;

impl Question {
    /// `processes=8,cores=16`, `threads=4`, `release=json.loads`, in any combination with `cores`.
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
            return Err("give processes or threads, not both".into());
        }
        Ok(question)
    }
}

const HELP: &str = "give processes=N, threads=N, cores=C or release=FUNCTION, such as processes=8,cores=16 or release=json.loads";

/// The answer; without a gain if the verdict refuses predictions.
pub(super) fn answer(e: &RuleInput<'_>, question: &Question, refused: bool) -> WhatIf {
    let (question_text, profile) = (question.text.clone(), e.profile);
    let none = |why: &str| WhatIf { question: question_text.clone(), gain: None, note: why.to_string() };
    if refused {
        return none("not predicted: the verdict says why");
    }
    let freed = question.release.as_deref().map(|function| freed(profile, function));
    if freed.as_ref().is_some_and(|shares| shares.iter().all(|share| *share <= 0.0)) {
        return none("no call of C code below that function held the GIL in any sample");
    }
    let all: Vec<usize> = (0..profile.blocks.len()).collect();
    let case = |blocks: &[usize], seed| gain(e, &bootstrap::rates(profile, blocks), question, freed.as_deref(), seed);
    let Some((estimate, miss)) = case(&all, 1) else { return none("no thread does any work") };
    let mut rng = Rng(0x7768_6174_5f69_665f);
    let mut drawn: Vec<f64> = (0..DRAWS)
        .filter_map(|n| {
            let blocks: Vec<usize> = all.iter().map(|_| rng.below(all.len())).collect();
            case(&blocks, 2 + n as u64).map(|(gain, _)| gain)
        })
        .collect();
    drawn.sort_by(f64::total_cmp);
    let (low, high) = (drawn.first().copied().unwrap_or(estimate), drawn.last().copied().unwrap_or(estimate));
    let wide = MODEL_ERROR + miss;
    let gain = Estimate { estimate, low: low.min(estimate) * (1.0 - wide).max(0.0), high: high.max(estimate) * (1.0 + wide) };
    WhatIf {
        question: question.text.clone(),
        gain: Some(gain),
        note: "not counting the cost of starting processes and of moving data between them".into(),
    }
}

/// The gain, and the error of the simulated present: of the share of time in which workers wait.
fn gain(e: &RuleInput<'_>, threads: &[StateTimes], question: &Question, freed: Option<&[f64]>, seed: u64) -> Option<(f64, f64)> {
    let most = threads.iter().map(scaling::work).fold(0.0, f64::max);
    let at_work: Vec<usize> =
        (0..threads.len()).filter(|n| scaling::work(&threads[*n]) > WORKER * most && most > 0.0).take(MAX_WORKERS).collect();
    if at_work.is_empty() {
        return None;
    }
    let seconds = e.profile.running_seconds().max(1e-9);
    let mut rng = Rng(seed);
    let mut draw = |n: usize, free: f64| cycles(&threads[n], e.profile.threads[n].gil_exits as f64 / seconds, free, &mut rng);
    let cores = question.cores.unwrap_or_else(|| e.cores());
    let interval = e.profile.target.switch_interval_us.unwrap_or(INTERVAL_US) as f64 * 1e3;
    let machine = |cores| Machine { cores, interval: Some(interval), wake: WAKE };
    let now: Vec<Worker> = at_work.iter().map(|n| Worker { work: draw(*n, 0.0), gil: 0 }).collect();
    let then: Vec<Worker> = match question.processes.or(question.threads) {
        // This number of threads, copied in turn from those that were measured.
        Some(count) => (0..count.max(if question.processes.is_some() { at_work.len() } else { 1 }))
            .map(|n| (at_work[n % at_work.len()], n))
            .map(|(thread, n)| Worker {
                work: draw(thread, freed.map_or(0.0, |f| f[thread])),
                gil: question.processes.map_or(0, |processes| n % processes),
            })
            .collect(),
        None => at_work.iter().map(|n| Worker { work: draw(*n, freed.map_or(0.0, |f| f[*n])), gil: 0 }).collect(),
    };
    let (before, after) = (simulate::run(&now, &machine(e.cores()), SPAN), simulate::run(&then, &machine(cores), SPAN));
    // Work, not time: the speed of a thread that sleeps counts by its work between sleeps.
    let done = |workers: &[Worker], outcome: &[simulate::WorkerOutcome]| {
        workers.iter().zip(outcome).map(|(w, o)| o.speed * working(w)).sum::<f64>()
    };
    let (today, in_case) = (done(&now, &before), done(&then, &after));
    let waited = |n: &usize| threads[*n].get(State::Waiting) / threads[*n].total().max(1e-12);
    let miss = at_work.iter().zip(&before).map(|(n, o)| (o.waiting - waited(n)).abs()).sum::<f64>() / at_work.len() as f64;
    (today > 0.0).then(|| (in_case / today, miss))
}

/// The share of work in a worker's own time.
fn working(worker: &Worker) -> f64 {
    let sum = |asleep: bool| worker.work.iter().filter(|(need, _)| asleep || *need != Need::Asleep).map(|(_, nanos)| nanos).sum::<f64>();
    let all = sum(true);
    if all > 0.0 {
        sum(false) / all
    } else {
        0.0
    }
}

/// The cycles of a thread. `gil_exits`: how often per second it went from the GIL to something
/// else. `free`: the share of its holding that runs without the GIL.
fn cycles(t: &StateTimes, gil_exits: f64, free: f64, rng: &mut Rng) -> Vec<Phase> {
    let held = t.get(State::HoldingPython) + t.get(State::HoldingNative);
    let (freed, held) = (held * free.clamp(0.0, 1.0), held * (1.0 - free.clamp(0.0, 1.0)));
    let (native, blocked) = (t.get(State::Native) + freed, t.get(State::HoldingBlocked));
    let asleep = t.get(State::Io) + t.get(State::Lock) + t.get(State::Unknown);
    let own = held + blocked + native + asleep;
    if own <= 0.0 {
        return Vec::new();
    }
    let often = if native + asleep < ALL_HELD * own { 1.0 } else { gil_exits.max(1.0) };
    let parts = [(Need::Held, held), (Need::HeldAsleep, blocked), (Need::Cpu, native), (Need::Asleep, asleep)];
    let parts: Vec<(Need, Vec<f64>)> =
        parts.into_iter().filter(|(_, time)| *time > 0.0).map(|(need, time)| (need, draws(time / often * 1e9, rng))).collect();
    (0..CYCLES).flat_map(|n| parts.iter().map(move |(need, lengths)| (*need, lengths[n]))).collect()
}

/// One length per cycle, exponential, with exactly this mean. Otherwise the amount of work would
/// differ a little between workers.
fn draws(mean: f64, rng: &mut Rng) -> Vec<f64> {
    let drawn: Vec<f64> = (0..CYCLES).map(|_| -(1.0 - rng.unit()).ln()).collect();
    let scale = mean * CYCLES as f64 / drawn.iter().sum::<f64>().max(1e-9);
    drawn.into_iter().map(|length| length * scale).collect()
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
