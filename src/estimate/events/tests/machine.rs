//! A simulated machine: threads on CPUs, with CPython's `take_gil` and `drop_gil` step by step. It
//! knows each thread's state at every nanosecond, and records what the kernel programs would.

use super::program::{Dice, Mix, Nano, Sleep};
use crate::ids::{Addr, GilId};
use crate::sample::{CpuRun, GilView, OffCpu, State, StateTimes, ThreadNow, Wakeup};
use crate::units::Nanos;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

mod steps;

/// A thread to be simulated.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub mix: Mix,
    pub gil: usize,
    pub starts: Nano,
}

/// A machine to be simulated.
#[derive(Clone, Debug)]
pub struct Setup {
    pub seed: u64,
    pub cpus: usize,
    pub plans: Vec<Plan>,
    pub length: Nano,
    pub tick: Nano,
    /// How often a woken thread takes the CPU of another one.
    pub wakeup_preempts: f64,
}

/// What the kernel programs record of a thread.
#[derive(Clone, Copy, Debug)]
pub enum Record {
    Start,
    Run(CpuRun),
    Tick { view: GilView, in_c_call: bool },
    Now(ThreadNow),
    End,
}

/// A record of the thread with this index.
#[derive(Clone, Copy, Debug)]
pub struct Recorded {
    pub at: Nano,
    pub thread: usize,
    pub record: Record,
}

/// What a thread actually did.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    pub times: StateTimes,
    /// Waits in `take_gil` that slept and ended with the GIL.
    pub waits: u64,
    /// How often it asked for the GIL, and how often it released it.
    pub calls: u64,
    /// Waiting while each thread held the GIL.
    pub blame: Vec<f64>,
    pub life: (Nano, Nano),
    pub cpu: Nano,
    pub queued: Nano,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    Take,
    Native(Nano),
    Sleep(Sleep, Nano),
    Exit,
}

/// What a thread does on a CPU.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Eval,
    CCall,
    Native,
    Take,
    TakeWoken {
        timed_out: bool,
    },
    Drop(Then),
    /// In the futex call that wakes a waiter.
    DropCall(Then),
    SwitchWoken(Then),
    /// In `drop_gil`, where `pthread_cond_signal` sleeps until an earlier waiter has left.
    Signal(Then),
    SleepCall(Sleep, Nano),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Nowhere,
    OnCpu(usize),
    Queued,
    Asleep(OffCpu),
}

#[derive(Debug)]
struct Task {
    plan: Plan,
    place: Place,
    step: Step,
    left: Nano,
    /// Python code that a forced switch has interrupted.
    interrupted: Nano,
    holds: bool,
    wants: bool,
    slept_in_take: bool,
    saved_switches: u64,
    number: u32,
    run_begin: Nano,
    wakeup: Option<Wakeup>,
    sleep: u64,
    since: Nano,
    truth: Truth,
}

#[derive(Clone, Debug, Default)]
struct Gil {
    holder: Option<usize>,
    last_holder: Option<usize>,
    switches: u64,
    drop_request: bool,
    cond: VecDeque<usize>,
    switch_cond: VecDeque<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Start(usize),
    StepEnd { cpu: usize, turn: u64 },
    SliceEnd { cpu: usize, turn: u64 },
    Timer { task: usize, sleep: u64 },
    Dispatch(usize),
    Tick(usize),
    Drain,
}

#[derive(Clone, Copy, Debug, Default)]
struct Cpu {
    task: Option<usize>,
    turn: u64,
    step_began: Nano,
}

/// The machine.
pub struct Machine {
    now: Nano,
    order: u64,
    events: BinaryHeap<Reverse<(Nano, u64, Event)>>,
    dice: Dice,
    setup: Setup,
    tasks: Vec<Task>,
    cpus: Vec<Cpu>,
    queue: VecDeque<usize>,
    gils: Vec<Gil>,
    pub records: Vec<Recorded>,
}

/// Runs a machine to its end: its records, and what each thread did.
pub fn simulate(setup: &Setup) -> (Vec<Recorded>, Vec<Truth>) {
    let mut machine = Machine::new(setup);
    machine.run();
    (machine.records, machine.tasks.into_iter().map(|task| task.truth).collect())
}

/// The address of a thread's `PyThreadState`.
pub fn tstate(task: usize) -> Addr {
    Addr(0x7000_0000 + 0x100 * task as u64)
}

impl Machine {
    fn new(setup: &Setup) -> Machine {
        let count = setup.plans.len();
        let task = |plan: &Plan| Task {
            plan: *plan,
            place: Place::Nowhere,
            step: Step::Take,
            left: 1_000,
            interrupted: 0,
            holds: false,
            wants: false,
            slept_in_take: false,
            saved_switches: 0,
            number: 0,
            run_begin: 0,
            wakeup: None,
            sleep: 0,
            since: plan.starts,
            truth: Truth { blame: vec![0.0; count], ..Truth::default() },
        };
        let gils = 1 + setup.plans.iter().map(|plan| plan.gil).max().unwrap_or(0);
        let mut machine = Machine {
            now: 0,
            order: 0,
            events: BinaryHeap::new(),
            dice: Dice::new(setup.seed),
            setup: setup.clone(),
            tasks: setup.plans.iter().map(task).collect(),
            cpus: vec![Cpu::default(); setup.cpus],
            queue: VecDeque::new(),
            gils: vec![Gil::default(); gils],
            records: Vec::new(),
        };
        (0..count).for_each(|task| machine.at(setup.plans[task].starts, Event::Start(task)));
        for cpu in 0..setup.cpus {
            let phase = machine.dice.between(0, setup.tick);
            machine.at(phase, Event::Tick(cpu));
        }
        machine.at(100_000_000, Event::Drain);
        machine
    }

    fn at(&mut self, time: Nano, event: Event) {
        self.order += 1;
        self.events.push(Reverse((time, self.order, event)));
    }

    fn record(&mut self, thread: usize, record: Record) {
        self.records.push(Recorded { at: self.now, thread, record });
    }

    fn run(&mut self) {
        while let Some(Reverse((time, _, event))) = self.events.pop() {
            if time >= self.setup.length {
                break;
            }
            self.now = time;
            match event {
                Event::Start(task) => self.start(task),
                Event::StepEnd { cpu, turn } if self.cpus[cpu].turn == turn => self.end_step(cpu),
                Event::SliceEnd { cpu, turn } if self.cpus[cpu].turn >= turn => self.end_slice(cpu, turn),
                Event::Timer { task, sleep } if self.tasks[task].sleep == sleep => self.wake(task, false),
                Event::Dispatch(cpu) => self.dispatch(cpu),
                Event::Tick(cpu) => {
                    if let Some(task) = self.cpus[cpu].task {
                        let in_c_call = self.tasks[task].step == Step::CCall;
                        let view = self.view(task);
                        self.record(task, Record::Tick { view, in_c_call });
                    }
                    self.at(time + self.setup.tick, Event::Tick(cpu));
                }
                Event::Drain => {
                    self.drain();
                    self.at(time + 100_000_000, Event::Drain);
                }
                _ => {}
            }
        }
        self.now = self.setup.length;
        self.drain();
        for task in 0..self.tasks.len() {
            if self.tasks[task].place != Place::Nowhere {
                self.account(task);
                // A wait in progress counts.
                self.tasks[task].truth.waits += u64::from(self.tasks[task].slept_in_take);
                self.finish(task);
            }
        }
    }

    fn finish(&mut self, task: usize) {
        self.tasks[task].truth.life = (self.tasks[task].plan.starts, self.now);
        self.record(task, Record::End);
    }

    fn drain(&mut self) {
        for index in 0..self.tasks.len() {
            let task = &self.tasks[index];
            let (number, wakeup) = (task.number, task.wakeup);
            let now = match task.place {
                Place::Nowhere => continue,
                Place::OnCpu(_) => ThreadNow::OnCpu { number: number + 1, wakeup, begin: Nanos::from_nanos(task.run_begin) },
                Place::Queued | Place::Asleep(_) => ThreadNow::OffCpu { number, wakeup },
            };
            self.record(index, Record::Now(now));
        }
    }

    /// The thread's state up to now, which is about to change.
    fn account(&mut self, index: usize) {
        let holder = self.gils[self.tasks[index].plan.gil].holder;
        let task = &mut self.tasks[index];
        let nanos = (self.now - std::mem::replace(&mut task.since, self.now)) as f64;
        let state = match (task.wants, task.holds, task.place) {
            (true, ..) | (.., Place::Asleep(OffCpu::SignalFutex)) => State::Waiting,
            (_, true, Place::OnCpu(_)) if task.step == Step::CCall => State::HoldingNative,
            (_, true, Place::OnCpu(_)) => State::HoldingPython,
            (_, true, Place::Asleep(_)) => State::HoldingBlocked,
            (_, true, _) => State::HoldingStarved,
            (_, _, Place::OnCpu(_)) => State::Native,
            (_, _, Place::Asleep(OffCpu::OtherFutex)) => State::Lock,
            (_, _, Place::Asleep(_)) => State::Io,
            _ => State::Starved,
        };
        task.truth.times.add(state, nanos);
        match task.place {
            Place::OnCpu(_) => task.truth.cpu += nanos as Nano,
            Place::Queued => task.truth.queued += nanos as Nano,
            _ => {}
        }
        if let (State::Waiting, Some(holder)) = (state, holder) {
            task.truth.blame[holder] += nanos;
        }
    }

    /// The holder of the GIL is about to change.
    fn account_waiters(&mut self, gil: usize) {
        for index in 0..self.tasks.len() {
            if self.tasks[index].wants && self.tasks[index].plan.gil == gil {
                self.account(index);
            }
        }
    }

    fn view(&self, index: usize) -> GilView {
        let task = &self.tasks[index];
        if !is_python(&task.plan) {
            return GilView::default();
        }
        let (id, gil) = (GilId(task.plan.gil as u32), &self.gils[task.plan.gil]);
        GilView {
            holds: task.holds.then_some(id),
            gil: id,
            locked: gil.holder.is_some(),
            last_holder: gil.last_holder.map_or(Addr(0), tstate),
            switches: gil.switches,
        }
    }

    fn start(&mut self, task: usize) {
        self.record(task, Record::Start);
        (self.tasks[task].step, self.tasks[task].left) = (Step::Native, 5_000);
        self.wake(task, false);
    }

    /// The thread becomes runnable.
    fn wake(&mut self, index: usize, by_peer: bool) {
        self.account(index);
        let timed_out = !by_peer;
        // Some are interrupted on the way.
        let interrupt = if self.dice.chance(0.03) { self.dice.between(10_000, 80_000) } else { 0 };
        let cost = self.dice.between(1_000, 3_000) + interrupt;
        let (asleep, gil) = (self.tasks[index].place, self.tasks[index].plan.gil);
        let task = &mut self.tasks[index];
        task.sleep += 1;
        task.place = Place::Queued;
        task.wakeup = Some(Wakeup { at: Nanos::from_nanos(self.now), by_peer });
        if matches!(asleep, Place::Asleep(OffCpu::GilFutex | OffCpu::SwitchFutex)) {
            if matches!(task.step, Step::TakeWoken { .. }) {
                task.step = Step::TakeWoken { timed_out };
                self.gils[gil].cond.retain(|other| *other != index);
            } else {
                self.gils[gil].switch_cond.retain(|other| *other != index);
            }
            self.tasks[index].left = cost;
        }
        self.queue.push_back(index);
        if let Some(idle) = self.cpus.iter().position(|cpu| cpu.task.is_none()) {
            let latency = self.dice.between(1_000, 20_000);
            self.at(self.now + latency, Event::Dispatch(idle));
        } else if self.dice.chance(self.setup.wakeup_preempts) {
            let cpu = (self.dice.next() * self.cpus.len() as f64) as usize;
            if let Some(current) = self.cpus[cpu].task {
                self.queue.retain(|other| *other != index);
                self.queue.push_front(index);
                self.preempt(cpu, current);
            }
        }
    }

    fn preempt(&mut self, cpu: usize, current: usize) {
        let ran = self.now - self.cpus[cpu].step_began;
        self.tasks[current].left = self.tasks[current].left.saturating_sub(ran).max(1);
        let in_call = matches!(self.tasks[current].step, Step::DropCall(_) | Step::Signal(_));
        self.queue.push_back(current);
        self.switch_out(cpu, current, if in_call { OffCpu::PreemptedInGilCall } else { OffCpu::Preempted });
    }

    fn end_slice(&mut self, cpu: usize, turn: u64) {
        let Some(current) = self.cpus[cpu].task.filter(|task| self.tasks[*task].number as u64 == turn >> 32) else { return };
        if self.queue.is_empty() {
            let again = self.now + 1_000_000;
            return self.at(again, Event::SliceEnd { cpu, turn });
        }
        self.preempt(cpu, current);
    }

    fn switch_out(&mut self, cpu: usize, index: usize, off: OffCpu) {
        self.account(index);
        let view = self.view(index);
        let task = &mut self.tasks[index];
        task.number += 1;
        let run = CpuRun {
            number: task.number,
            wakeup: task.wakeup.take(),
            begin: Nanos::from_nanos(task.run_begin),
            end: Nanos::from_nanos(self.now),
            off,
            view,
        };
        task.place = match off {
            OffCpu::Preempted | OffCpu::PreemptedInGilCall => Place::Queued,
            off => Place::Asleep(off),
        };
        self.record(index, Record::Run(run));
        self.cpus[cpu].task = None;
        if off == OffCpu::Exited {
            self.tasks[index].place = Place::Nowhere;
            self.finish(index);
        }
        self.dispatch(cpu);
    }

    fn dispatch(&mut self, cpu: usize) {
        if self.cpus[cpu].task.is_some() {
            return;
        }
        let Some(next) = self.queue.pop_front() else { return };
        self.account(next);
        self.cpus[cpu].task = Some(next);
        (self.tasks[next].place, self.tasks[next].run_begin) = (Place::OnCpu(cpu), self.now);
        let slice = self.dice.between(1_000_000, 4_000_000);
        let turn = u64::from(self.tasks[next].number) << 32;
        self.at(self.now + slice, Event::SliceEnd { cpu, turn });
        self.begin_step(cpu);
    }

    fn begin_step(&mut self, cpu: usize) {
        let Some(task) = self.cpus[cpu].task else { return };
        self.cpus[cpu].turn = (self.cpus[cpu].turn.max(u64::from(self.tasks[task].number) << 32)) + 1;
        self.cpus[cpu].step_began = self.now;
        let turn = self.cpus[cpu].turn;
        self.at(self.now + self.tasks[task].left.max(1), Event::StepEnd { cpu, turn });
    }
}

fn is_python(plan: &Plan) -> bool {
    plan.mix.python.0 > 0.0
}
