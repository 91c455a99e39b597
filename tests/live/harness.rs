//! Makes one case of each check and interpreter, so that it can be listed, selected and timed
//! alone: `states::sleepers_are_in_io::3.11-pyenv`.
//!
//! Cases of [`BESIDE_OTHERS`] tolerate other programs and may run beside each other. Every other
//! case measures, and runs alone: `.config/nextest.toml` has that for nextest, and the guards below
//! for every other way to run the tests.

use crate::once;
use crate::support::checks::{self, Complaints};
use crate::support::{self, Interpreter};
use libtest_mimic::{Completion, Failed, Trial};

/// Modules and cases that may run beside each other, as in `.config/nextest.toml`: see
/// [`nextest_has_the_same_lists`].
const BESIDE_OTHERS: &[&str] = &[
    "churn::no_sample_fails_",
    "cli::attach::",
    "cli::bad_input::",
    "cli::dump::",
    "cli::run::",
    "compat_children::",
    "compat_frozen::",
    "compat_gils::",
    "compat_life::",
    "compat_namespaces::",
    "compat_programs::",
    "compat_runtimes::",
    "docs::",
    "findings::",
    "harness::",
    "moving::",
    "packaging::",
    "pytest_plugin::marks_that_",
    "pytest_plugin::tests_without_",
    "reads::",
    "recordings::a_full_disk_",
    "recordings::a_kill_",
    "recordings::a_report_is_",
    "recordings::the_workers_",
    "sample_cost::a_herd_of_sleepers_costs_",
    "sample_cost::idle_",
    "sample_cost::samples_of_",
    "schemas::",
    "states::sleepers_",
    "states::the_target_",
    "stops::",
    "top::",
];

/// Cases of such modules that measure after all.
const ALONE: &[&str] = &[
    "cli::attach::a_stopped_terminal_",
    "cli::run::a_short_program_",
    "findings::native_threads_",
    "findings::one_case_",
    "findings::workers_",
    "reads::layouts::drop_requests_",
    "stops::stopped_often_",
];

/// All cases, in the order in which they were added.
#[derive(Default)]
pub struct Suite(Vec<Trial>);

impl Suite {
    /// A check of one interpreter. A failure is a panic.
    pub fn on(&mut self, module: &str, check: &str, interpreters: impl IntoIterator<Item = Interpreter>, run: fn(&Interpreter)) {
        for interpreter in interpreters {
            let name = format!("{}::{check}::{}", short(module), interpreter.label);
            self.add(name, move || run(&interpreter));
        }
    }

    /// The same for a measurement that needs `--ignored`.
    pub fn by_hand(&mut self, module: &str, check: &str, interpreters: impl IntoIterator<Item = Interpreter>, run: fn(&Interpreter)) {
        let first = self.0.len();
        self.on(module, check, interpreters, run);
        let marked: Vec<Trial> = self.0.drain(first..).map(|trial| trial.with_ignored_flag(true)).collect();
        self.0.extend(marked);
    }

    /// A check of one interpreter that goes on after a complaint.
    pub fn complaining(
        &mut self,
        module: &str,
        check: &str,
        interpreters: impl IntoIterator<Item = Interpreter>,
        run: fn(&Interpreter, &mut Complaints),
    ) {
        for interpreter in interpreters {
            let name = format!("{}::{check}::{}", short(module), interpreter.label);
            self.add(name, move || checks::complain(&interpreter, run));
        }
    }

    /// A check that needs no interpreter, or finds its own.
    pub fn once(&mut self, module: &str, check: &str, run: fn()) {
        self.add(format!("{}::{check}", short(module)), run);
    }

    fn add(&mut self, name: String, run: impl FnOnce() + Send + 'static) {
        let begins = |parts: &[&str]| parts.iter().any(|part| name.starts_with(part));
        let beside_others = begins(BESIDE_OTHERS) && !begins(ALONE);
        let case = name.clone();
        self.0.push(Trial::ignorable_test(name, move || -> Result<Completion, Failed> {
            let _guard = if beside_others { support::shared_guard() } else { support::serial_guard() };
            support::begin_case(&case);
            run();
            Ok(match support::skipped_here() {
                Some(why) => Completion::ignored_with(why),
                None => Completion::Completed,
            })
        }));
    }

    /// For `libtest_mimic::run`.
    pub fn trials(self) -> Vec<Trial> {
        self.0
    }
}

pub fn cases(suite: &mut Suite) {
    once!(suite, [nextest_has_the_same_lists]);
}

/// Compares the filters of the two overrides, whose patterns are the lists above.
fn nextest_has_the_same_lists() {
    let config: toml::Table = include_str!("../../.config/nextest.toml").parse().unwrap();
    let filters: Vec<&str> =
        config["profile"]["default"]["overrides"].as_array().unwrap().iter().map(|o| o["filter"].as_str().unwrap()).collect();
    let beside = format!("binary(live) & !test(/^({})/)", BESIDE_OTHERS.join("|"));
    assert!(filters.contains(&beside.as_str()), "{beside} is not among {filters:#?}");
    let alone = format!("binary(live) & test(/^({})/)", ALONE.join("|"));
    assert!(filters.contains(&alone.as_str()), "{alone} is not among {filters:#?}");
}

/// `live::cli::attach` without the name of the program.
fn short(module: &str) -> &str {
    module.split_once("::").map_or(module, |(_, rest)| rest)
}

/// The last of them, which is the newest, if there is one.
pub fn newest(interpreters: Vec<Interpreter>) -> Vec<Interpreter> {
    interpreters.into_iter().next_back().into_iter().collect()
}

/// `on!(suite, interpreters(), [check, another])`: each check on each interpreter.
#[macro_export]
macro_rules! on {
    ($suite:ident, $interpreters:expr, [$($check:ident),* $(,)?]) => {
        $($suite.on(module_path!(), stringify!($check), $interpreters, $check);)*
    };
}

/// The same for checks that take `&mut Complaints`.
#[macro_export]
macro_rules! complaining {
    ($suite:ident, $interpreters:expr, [$($check:ident),* $(,)?]) => {
        $($suite.complaining(module_path!(), stringify!($check), $interpreters, $check);)*
    };
}

/// Checks without an interpreter.
#[macro_export]
macro_rules! once {
    ($suite:ident, [$($check:ident),* $(,)?]) => {
        $($suite.once(module_path!(), stringify!($check), $check);)*
    };
}
