//! What a simulated thread does on a CPU, step by step: its program, `take_gil` and `drop_gil`.

use super::{is_python, Event, Machine, Place, Step, Then};
use crate::estimate::events::tests::program::{Nano, Op, Sleep};
use crate::sample::OffCpu;

/// The switch interval.
const INTERVAL: Nano = 5_000_000;

impl Machine {
    pub(super) fn set_step(&mut self, task: usize, step: Step, left: Nano) {
        self.account(task);
        (self.tasks[task].step, self.tasks[task].left) = (step, left);
    }

    pub(super) fn take(&mut self, task: usize) {
        self.set_step(task, Step::Take, 700);
        self.tasks[task].wants = true;
        self.tasks[task].truth.calls += 1;
    }

    pub(super) fn drop_for(&mut self, task: usize, then: Then) {
        self.tasks[task].truth.calls += 1;
        self.set_step(task, Step::Drop(then), 500);
    }

    pub(super) fn sleep(&mut self, cpu: usize, task: usize, off: OffCpu, timeout: Option<Nano>) {
        self.tasks[task].sleep += 1;
        let sleep = self.tasks[task].sleep;
        if let Some(after) = timeout {
            self.at(self.now + after, Event::Timer { task, sleep });
        }
        self.switch_out(cpu, task, off);
    }

    /// The thread on this CPU has completed its step.
    pub(super) fn end_step(&mut self, cpu: usize) {
        let Some(task) = self.cpus[cpu].task else { return };
        let gil = self.tasks[task].plan.gil;
        match self.tasks[task].step {
            // A C function may release the GIL before the eval loop sees the request.
            Step::CCall if self.dice.chance(0.3) => self.next_op(task),
            Step::Eval | Step::CCall if self.gils[gil].drop_request => self.drop_for(task, Then::Take),
            Step::Eval | Step::CCall => self.next_op(task),
            Step::Native if is_python(&self.tasks[task].plan) => self.take(task),
            Step::Native => self.next_op(task),
            Step::Take | Step::TakeWoken { .. } => return self.try_take(cpu, task),
            Step::Drop(then) => {
                self.release(task, then);
                if self.cpus[cpu].task != Some(task) {
                    return;
                }
            }
            Step::DropCall(then) => {
                if self.gils[gil].drop_request && self.gils[gil].last_holder == Some(task) {
                    self.gils[gil].drop_request = false;
                    self.set_step(task, Step::SwitchWoken(then), 1_000);
                    self.tasks[task].wants = true;
                    self.gils[gil].switch_cond.push_back(task);
                    return self.sleep(cpu, task, OffCpu::SwitchFutex, None);
                }
                return self.go_on(cpu, task, then);
            }
            Step::Signal(then) => {
                let (cost, patience) = (self.dice.between(700, 2_000), self.dice.between(20_000, 2_000_000));
                self.set_step(task, Step::DropCall(then), cost);
                return self.sleep(cpu, task, OffCpu::SignalFutex, Some(patience));
            }
            Step::SwitchWoken(then) => {
                self.account(task);
                self.tasks[task].wants = false;
                return self.go_on(cpu, task, then);
            }
            Step::SleepCall(kind, nanos) => {
                if self.tasks[task].holds || !is_python(&self.tasks[task].plan) {
                    self.set_step(task, if self.tasks[task].holds { Step::Eval } else { Step::Native }, 800);
                } else {
                    self.set_step(task, Step::Native, 800);
                }
                let off = match kind {
                    Sleep::Io => OffCpu::Syscall,
                    Sleep::Lock => OffCpu::OtherFutex,
                    Sleep::Fault => OffCpu::Fault,
                };
                return self.sleep(cpu, task, off, Some(nanos));
            }
        }
        self.begin_step(cpu);
    }

    pub(super) fn next_op(&mut self, task: usize) {
        let interrupted = std::mem::take(&mut self.tasks[task].interrupted);
        if interrupted > 0 {
            return self.set_step(task, Step::Eval, interrupted);
        }
        let (mix, holds) = (self.tasks[task].plan.mix, self.tasks[task].holds);
        match mix.next(&mut self.dice) {
            Op::Python(nanos) => self.set_step(task, Step::Eval, nanos),
            Op::CCall(nanos) => self.set_step(task, Step::CCall, nanos),
            Op::Native(nanos) if holds => self.drop_for(task, Then::Native(nanos)),
            Op::Native(nanos) => self.set_step(task, Step::Native, nanos),
            Op::Sleep(kind, nanos) if holds => self.drop_for(task, Then::Sleep(kind, nanos)),
            Op::Sleep(kind, nanos) | Op::HoldingSleep(kind, nanos) => self.set_step(task, Step::SleepCall(kind, nanos), 800),
            Op::Exit if holds => self.drop_for(task, Then::Exit),
            Op::Exit => self.set_step(task, Step::SwitchWoken(Then::Exit), 800),
        }
    }

    pub(super) fn go_on(&mut self, cpu: usize, task: usize, then: Then) {
        match then {
            Then::Take => self.take(task),
            Then::Native(nanos) => self.set_step(task, Step::Native, nanos),
            Then::Sleep(kind, nanos) => self.set_step(task, Step::SleepCall(kind, nanos), 800),
            Then::Exit => return self.switch_out(cpu, task, OffCpu::Exited),
        }
        self.begin_step(cpu);
    }

    pub(super) fn release(&mut self, task: usize, then: Then) {
        let gil = self.tasks[task].plan.gil;
        self.account_waiters(gil);
        let cost = self.dice.between(700, 2_000);
        let signals = !self.gils[gil].cond.is_empty() && self.dice.chance(0.05);
        self.set_step(task, if signals { Step::Signal(then) } else { Step::DropCall(then) }, cost);
        self.tasks[task].holds = false;
        // A forced release: the thread wants the GIL back at once.
        self.tasks[task].wants = then == Then::Take;
        self.gils[gil].holder = None;
        if let Some(waiter) = self.gils[gil].cond.front().copied() {
            self.wake(waiter, true);
        }
    }

    pub(super) fn try_take(&mut self, cpu: usize, task: usize) {
        let g = self.tasks[task].plan.gil;
        let timed_out = self.tasks[task].step == Step::TakeWoken { timed_out: true };
        if self.gils[g].holder.is_some() {
            let saved = self.tasks[task].saved_switches;
            if timed_out && self.gils[g].switches == saved {
                self.request_drop(g);
            }
            self.set_step(task, Step::TakeWoken { timed_out: false }, 1_500);
            (self.tasks[task].saved_switches, self.tasks[task].slept_in_take) = (self.gils[g].switches, true);
            self.gils[g].cond.push_back(task);
            return self.sleep(cpu, task, OffCpu::GilFutex, Some(INTERVAL));
        }
        self.account(task);
        self.account_waiters(g);
        let gil = &mut self.gils[g];
        gil.holder = Some(task);
        if gil.last_holder != Some(task) {
            (gil.last_holder, gil.switches) = (Some(task), gil.switches + 1);
        }
        gil.drop_request = false;
        let taken = gil.switch_cond.front().copied();
        let waited = std::mem::take(&mut self.tasks[task].slept_in_take);
        self.tasks[task].truth.waits += u64::from(waited);
        (self.tasks[task].holds, self.tasks[task].wants) = (true, false);
        self.next_op(task);
        self.begin_step(cpu);
        if let Some(released) = taken {
            self.wake(released, true);
        }
    }

    /// The eval loop of the holder sees the request within microseconds.
    pub(super) fn request_drop(&mut self, gil: usize) {
        self.gils[gil].drop_request = true;
        let Some(holder) = self.gils[gil].holder.filter(|holder| self.tasks[*holder].step == Step::Eval) else { return };
        let soon = self.dice.between(200, 5_000);
        let cpu = match self.tasks[holder].place {
            Place::OnCpu(cpu) => Some(cpu),
            _ => None,
        };
        let ran = cpu.map_or(0, |cpu| self.now - self.cpus[cpu].step_began);
        let task = &mut self.tasks[holder];
        task.left = task.left.saturating_sub(ran);
        let soon = soon.min(task.left);
        (task.interrupted, task.left) = (task.left - soon, soon);
        if let Some(cpu) = cpu {
            self.begin_step(cpu);
        }
    }
}
