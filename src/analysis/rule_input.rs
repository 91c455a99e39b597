//! The input of the rules: every figure with its interval, and the functions that cause waiting.

use super::bootstrap::Bootstrap;
use super::children;
use super::collector;
use super::file_names::FileNames;
use super::lock_waits::LockWaits;
use super::phrases;
use super::report::{Children, Estimate, FunctionRow, Gil, Place, Thread};
use super::scaling::{self, Prediction, Program};
use super::shape::Shape;
use super::shares::on_cpu;
use crate::profile::Profile;
use crate::sample::{State, StateTimes};
use std::collections::HashMap;

/// Share of its time from which the sentences count a thread as waiting.
const WAITER_SHARE: f64 = 0.05;

/// Cores in use by other programs, from which sentences mention them.
const OTHERS: f64 = 0.2;

/// How much more of the time the GIL is waited for than held before a sentence explains it.
const HANDOVER_NOTED: f64 = 0.01;

/// Rates are thread-seconds per second, shares are shares.
pub(super) struct RuleInput<'a> {
    pub(super) profile: &'a Profile,
    pub(super) gil: &'a Gil,
    pub(super) threads: &'a [Thread],
    pub(super) functions: &'a [FunctionRow],
    pub(super) rates: Rates,
    pub(super) gains: Gains,
    pub(super) holder_mix: HolderMix,
    pub(super) lock_waits: LockWaits,
    /// The number of threads at which the GIL saturates; zero when no thread holds it.
    pub(super) saturation: Estimate,
    /// What the predictions use of the program.
    pub(super) program: Program,
    /// How the code that holds the GIL most was started.
    pub(super) shape: Shape,
    /// How sentences name files.
    pub(super) names: FileNames,
    /// The processes below the target, if they used CPU time.
    pub(super) children: Option<Children>,
    /// Whether the other processes of its service were measured too.
    pub(super) in_service: bool,
}

/// Thread-seconds per second, with intervals.
pub(super) struct Rates {
    pub(super) holding: Estimate,
    pub(super) waiting: Estimate,
    pub(super) native: Estimate,
    pub(super) unknown: Estimate,
    pub(super) lock: Estimate,
    pub(super) on_cpu: Estimate,
    /// Holding, waiting, native and starved: all that is not asleep.
    pub(super) active: Estimate,
    /// Time without a CPU of threads that work, less what the idle cores could have given them on
    /// average, as a share of the time in which a thread had a CPU or could have used one.
    pub(super) starvation: Estimate,
    /// The same time, as a share of the time of threads that work, without their waiting for the
    /// GIL and for locks.
    pub(super) cpu_shortage: Estimate,
    /// Share of the work that is done outside the GIL.
    pub(super) off_gil_share: Estimate,
    /// Share of the work that the busiest thread does.
    pub(super) top_thread_share: Estimate,
}

/// Predicted gains.
pub(super) struct Gains {
    pub(super) processes: Estimate,
    /// Of processes, by group of threads.
    pub(super) groups: Vec<Estimate>,
    pub(super) unlimited_cores: Estimate,
    pub(super) free_threading: Estimate,
    pub(super) release_in_native: Estimate,
}

/// Share of the waiting from which the garbage collector is what threads wait for.
const COLLECTING: f64 = 0.25;

/// Share of a function's holding from which an activity describes the function.
const DOMINANT: f64 = 0.7;

/// What the holders did while others waited, as shares of the waiting that has a known holder.
#[derive(Default)]
pub(super) struct HolderMix {
    pub(super) python: f64,
    pub(super) native: f64,
    pub(super) blocked: f64,
    /// The part of the waiting during which the garbage collector ran.
    pub(super) collecting: f64,
    /// The function that held the GIL during most of the waiting.
    pub(super) worst: Option<WorstHolder>,
}

impl HolderMix {
    /// Whether the holders are mostly asleep.
    pub(super) fn is_asleep(&self) -> bool {
        self.blocked > 0.0 && self.blocked >= self.python.max(self.native)
    }

    /// Whether much of the waiting is for the garbage collector.
    pub(super) fn is_collecting(&self) -> bool {
        self.collecting >= COLLECTING
    }

    /// Whether a lower switch interval makes waits shorter: only Python code obeys a drop request.
    /// A C call, a collection and a sleep keep the GIL to their end.
    pub(super) fn obeys_drop_requests(&self) -> bool {
        !self.in_c_calls() && !self.is_asleep() && !self.is_collecting()
    }

    /// Whether the holders are mostly inside C calls. Python code that calls a builtin on every
    /// line is about half of either.
    pub(super) fn in_c_calls(&self) -> bool {
        self.native > DOMINANT * (self.native + self.python) && self.native > self.blocked
    }
}

/// The user's function that held the GIL during most of the waiting, itself or in the code that it
/// calls.
pub(super) struct WorstHolder {
    /// The innermost function with most of it, whose caller is the user's function.
    pub(super) place: Place,
    /// Whether the innermost function has all of it.
    pub(super) alone: bool,
    pub(super) share: f64,
    /// The activity while it holds the GIL, as a predicate.
    pub(super) doing: &'static str,
}

impl<'a> RuleInput<'a> {
    /// Everything that the rules use of a profile.
    pub(super) fn new(profile: &'a Profile, gil: &'a Gil, threads: &'a [Thread], functions: &'a [FunctionRow]) -> RuleInput<'a> {
        let program = Program::new(profile, cores(profile));
        let drawn = Bootstrap::new(profile, |threads| Figures::measure(threads, &program));
        let (rates, gains) = (Rates::from_draws(&drawn), Gains::from_draws(&drawn));
        let saturation = drawn.interval(|figures| figures.saturation);
        let holder_mix = HolderMix { collecting: collector::share_of_waiting(profile), ..holder_mix(functions) };
        let lock_waits = LockWaits::of(profile);
        let shape = holder(&holder_mix, functions).map(|holder| Shape::of(profile, &holder)).unwrap_or_default();
        let (names, children) = (file_names(functions), children::of(profile));
        RuleInput {
            profile,
            gil,
            threads,
            functions,
            rates,
            gains,
            holder_mix,
            lock_waits,
            saturation,
            program,
            shape,
            names,
            children,
            in_service: false,
        }
    }

    /// The other processes of its service were measured too: what its Python children do is said in
    /// their own reports.
    pub(super) fn set_in_service(&mut self) {
        self.in_service = true;
        self.children = self.children.take().map(Children::without_python);
    }

    /// CPUs that the target may use; one when that is not known.
    pub(super) fn cores(&self) -> f64 {
        cores(self.profile)
    }

    /// The cores that other programs use of those that the target may use, if they are worth
    /// mentioning. `None` also where it is not known how many cores are idle.
    pub(super) fn others_cores(&self) -> Option<f64> {
        self.program.idle.map(|idle| self.cores() - self.rates.on_cpu.estimate - idle).filter(|others| *others >= OTHERS)
    }

    /// The share of the program's CPU time that switches of the GIL take.
    pub(super) fn switching(&self) -> f64 {
        self.program.switching(self.rates.on_cpu.estimate)
    }

    /// Share of the threads' time that is unknown, apart from stops of the whole program.
    pub(super) fn unknown_share(&self, python_only: bool) -> Option<f64> {
        let (stopped, mut unknown, mut total) = (self.profile.stopped_seconds(), 0.0, 0.0);
        for thread in self.threads.iter().filter(|thread| thread.python || !python_only) {
            unknown += (thread.seconds * thread.states.unknown - stopped).max(0.0);
            total += (thread.seconds - stopped).max(0.0);
        }
        (total > 0.0).then(|| unknown / total)
    }

    /// How many threads wait for the GIL, and for what share of their time.
    pub(super) fn waiters(&self) -> (usize, f64) {
        let waiting: Vec<&Thread> = self.threads.iter().filter(|t| t.states.waiting >= WAITER_SHARE && t.seconds > 0.0).collect();
        let seconds: f64 = waiting.iter().map(|t| t.seconds).sum();
        let waited: f64 = waiting.iter().map(|t| t.seconds * t.states.waiting).sum();
        (waiting.len(), if seconds > 0.0 { waited / seconds } else { 0.0 })
    }

    /// The first sentence of every diagnosis of contention: how many threads wait, for how long,
    /// and what the function does that holds the GIL meanwhile.
    pub(super) fn waiting_summary(&self) -> String {
        let (count, share) = self.waiters();
        let waiting = format!(
            "{} {} for the GIL {} of {} time",
            phrases::threads(count),
            phrases::verb(count, "wait"),
            phrases::percent(share),
            possessive(count)
        );
        match &self.holder_mix.worst {
            Some(w) => {
                let (share, doing) = (phrases::percent(w.share), w.doing);
                let own = phrases::own_caller(&w.place).filter(|_| !w.alone);
                match own {
                    Some(own) => format!(
                        "{waiting}, {share} of that while {} holds it, mostly in {}; {} {doing}.",
                        self.place(&own),
                        self.place(&w.place),
                        phrases::clean(&own.name)
                    ),
                    None => format!(
                        "{waiting}, {share} of that while {} holds it; {} {doing}.",
                        self.place_and_caller_clause(&w.place),
                        phrases::clean(&w.place.name)
                    ),
                }
            }
            None => format!("{waiting}."),
        }
    }

    /// The sentence on the GIL as a whole, with its switches.
    pub(super) fn contention_summary(&self) -> String {
        let switches = self.gil.switches_per_s.map_or(String::new(), |n| format!("; it switches between threads {n:.0} times a second"));
        self.usage_with(&switches)
    }

    /// The sentence on the GIL as a whole.
    pub(super) fn usage_summary(&self) -> String {
        self.usage_with("")
    }

    fn usage_with(&self, switches: &str) -> String {
        let (busy, contended) = (self.gil.busy, self.gil.contended);
        let (held, waited) = (phrases::percent(busy), phrases::percent(contended));
        // Without this a reader wonders how a thread can wait for a GIL that is free.
        let note = if contended - busy < HANDOVER_NOTED {
            ""
        } else {
            " Waiting includes the moments in which the GIL passes to the next thread."
        };
        format!("Some thread holds the GIL {held} of the time, and at least one thread waits for it {waited} of the time{switches}.{note}")
    }
}

/// The function that held the GIL during most of the waiting, else the one that holds it most.
pub(super) fn holder(mix: &HolderMix, functions: &[FunctionRow]) -> Option<Place> {
    let most = || functions.iter().max_by(|a, b| a.holding.total_cmp(&b.holding)).map(FunctionRow::place);
    mix.worst.as_ref().map(|worst| worst.place.clone()).or_else(most)
}

/// A function with its caller.
pub(super) fn with_caller(functions: &[FunctionRow], place: Place) -> Place {
    let row = functions.iter().find(|f| f.line == place.line && f.name == place.name && f.file == place.file);
    row.map_or(place, FunctionRow::place)
}

/// Names for the files of all functions and their callers.
fn file_names(functions: &[FunctionRow]) -> FileNames {
    let callers = functions.iter().filter_map(|f| f.called_from.as_ref()).map(|caller| caller.file.as_str());
    FileNames::new(functions.iter().map(|f| f.file.as_str()).chain(callers))
}

fn possessive(count: usize) -> &'static str {
    if count == 1 {
        "its"
    } else {
        "their"
    }
}

fn cores(profile: &Profile) -> f64 {
    if profile.target.cpus > 0.0 {
        profile.target.cpus
    } else {
        1.0
    }
}

/// Every figure that gets an interval, for one draw of the window.
struct Figures {
    holding: f64,
    waiting: f64,
    native: f64,
    unknown: f64,
    lock: f64,
    on_cpu: f64,
    active: f64,
    starvation: f64,
    cpu_shortage: f64,
    off_gil_share: f64,
    top_thread_share: f64,
    saturation: f64,
    processes: Prediction,
    unlimited_cores: Estimate,
    free_threading: Estimate,
    release_in_native: Estimate,
}

impl Figures {
    fn measure(threads: &[StateTimes], program: &Program) -> Figures {
        let sum = |part: &dyn Fn(&StateTimes) -> f64| threads.iter().map(part).sum::<f64>();
        let state = |state| sum(&|t| t.get(state));
        let (holding, waiting, native) = (sum(&|t| t.holding()), state(State::Waiting), state(State::Native));
        let (work, on_cpu) = (sum(&scaling::work), sum(&on_cpu));
        let most = threads.iter().map(scaling::work).fold(0.0, f64::max);
        // Threads that do next to nothing do not count: there may be any number of them, and each
        // is late for a core by microseconds whenever it wakes. A thread that mostly lacks a core
        // would do more.
        let without_core = |t: &StateTimes| t.get(State::Starved) + t.get(State::HoldingStarved);
        let works = |t: &&StateTimes| scaling::work(t) > 0.01 * most || without_core(t) > 0.5 * t.total();
        // Nor does a delay beside an idle core: the scheduler may wake threads that take turns on
        // one core. Other load is no cause of it.
        let lacked = threads.iter().filter(works).map(without_core).sum::<f64>() * (1.0 - program.woken(threads));
        let own = threads.iter().filter(works).map(|t| t.total() - t.get(State::Waiting) - t.get(State::Lock)).sum::<f64>();
        let ratio = |part: f64, of: f64| if of > 0.0 { part / of } else { 0.0 };
        Figures {
            holding,
            waiting,
            native,
            unknown: state(State::Unknown),
            lock: state(State::Lock),
            on_cpu,
            active: holding + waiting + native + state(State::Starved),
            starvation: ratio(lacked, lacked + on_cpu),
            cpu_shortage: ratio(lacked, own),
            off_gil_share: ratio(native, work),
            top_thread_share: ratio(most, work),
            saturation: scaling::saturation(threads),
            processes: scaling::processes(threads, program),
            unlimited_cores: scaling::unlimited_cores(threads, program),
            free_threading: scaling::free_threading(threads, program),
            release_in_native: scaling::release_in_native(threads, program),
        }
    }
}

impl Rates {
    fn from_draws(drawn: &Bootstrap<Figures>) -> Rates {
        Rates {
            holding: drawn.interval(|figures| figures.holding),
            waiting: drawn.interval(|figures| figures.waiting),
            native: drawn.interval(|figures| figures.native),
            unknown: drawn.interval(|figures| figures.unknown),
            lock: drawn.interval(|figures| figures.lock),
            on_cpu: drawn.interval(|figures| figures.on_cpu),
            active: drawn.interval(|figures| figures.active),
            starvation: drawn.interval(|figures| figures.starvation),
            cpu_shortage: drawn.interval(|figures| figures.cpu_shortage),
            off_gil_share: drawn.interval(|figures| figures.off_gil_share),
            top_thread_share: drawn.interval(|figures| figures.top_thread_share),
        }
    }
}

impl Gains {
    fn from_draws(drawn: &Bootstrap<Figures>) -> Gains {
        let groups = drawn.whole().processes.groups.len();
        Gains {
            processes: drawn.prediction(|figures| figures.processes.gain),
            groups: (0..groups).map(|group| drawn.prediction(|figures| figures.processes.groups[group])).collect(),
            unlimited_cores: drawn.prediction(|figures| figures.unlimited_cores),
            free_threading: drawn.prediction(|figures| figures.free_threading),
            release_in_native: drawn.prediction(|figures| figures.release_in_native),
        }
    }
}

/// The waiting for each holder, split by the activity of that function while it holds the GIL.
fn holder_mix(functions: &[FunctionRow]) -> HolderMix {
    let mut out = HolderMix::default();
    let (mut known, waiting) = (0.0, functions.iter().map(|f| f.waiting).sum::<f64>());
    for f in functions.iter().filter(|f| f.inflicted_wait > 0.0) {
        let part = |time: f64| if f.holding > 0.0 { f.inflicted_wait * (time / f.holding).min(1.0) } else { 0.0 };
        let (native, blocked) = (part(f.holding_native), part(f.holding_blocked));
        out.native += native;
        out.blocked += blocked;
        out.python += (f.inflicted_wait - native - blocked).max(0.0);
        known += f.inflicted_wait;
    }
    if known > 0.0 {
        [&mut out.python, &mut out.native, &mut out.blocked].into_iter().for_each(|part| *part /= known);
    }
    out.worst = worst_holder(functions, waiting);
    out
}

/// The user's function behind most of the waiting, with all library code that it calls: the time of
/// a library is often in many small functions.
fn worst_holder(functions: &[FunctionRow], waiting: f64) -> Option<WorstHolder> {
    let mut groups: Vec<Vec<&FunctionRow>> = Vec::new();
    let mut known: HashMap<(&str, &str, u32), usize> = HashMap::new();
    for f in functions.iter().filter(|f| f.inflicted_wait > 0.0 && waiting > 0.0) {
        let own = f.called_from.as_ref().map_or((&f.name, &f.file, f.line), |c| (&c.name, &c.file, c.line));
        let group = *known.entry((own.0, own.1, own.2)).or_insert(groups.len());
        groups.resize_with(groups.len().max(group + 1), Vec::new);
        groups[group].push(f);
    }
    let sum = |group: &[&FunctionRow], part: fn(&FunctionRow) -> f64| group.iter().map(|f| part(f)).sum::<f64>();
    let inflicted = |group: &[&FunctionRow]| sum(group, |f| f.inflicted_wait);
    let worst = groups.iter().max_by(|a, b| inflicted(a).total_cmp(&inflicted(b)))?;
    let innermost = worst.iter().max_by(|a, b| a.inflicted_wait.total_cmp(&b.inflicted_wait))?;
    Some(WorstHolder {
        place: innermost.place(),
        alone: worst.len() == 1,
        share: (inflicted(worst) / waiting).min(1.0),
        doing: doing(sum(worst, |f| f.holding), sum(worst, |f| f.holding_native), sum(worst, |f| f.holding_blocked)),
    })
}

/// What happens for most of the time in which the GIL is held.
fn doing(holding: f64, native: f64, blocked: f64) -> &'static str {
    let most = |time: f64| time > DOMINANT * holding;
    if most(native) {
        "is inside a C call that keeps the GIL"
    } else if most(blocked) {
        "sleeps in the kernel and keeps the GIL"
    } else if most(holding - native - blocked) {
        "runs Python code"
    } else {
        "runs partly Python code, partly C calls that keep the GIL"
    }
}
