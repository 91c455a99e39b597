//! The classifier and the ledger on timelines drawn as text: one column a look, one millisecond apart.
//!
//! ```text
//!   sees   what the look sees:  W asleep on the GIL's futex   L on another futex   I in a system call   R runnable
//!                               H runnable and the GIL's holder   B asleep and the GIL's holder   C holder inside a C call
//!                               Q runnable, has asked for the GIL (3.15)   q the same on a CPU   s the same in a system call   U nothing could be read
//!          and with its kernel stack: n on a CPU   p pushed off its CPU   o the same while it let go   w woken from a futex
//!                               x the same, and says that it has not asked (3.15)   y the same inside a C call
//!                               j the same, and can have been told to let go   z inside a C call, which says nothing
//!                               m the same, and may have had the GIL since the last look
//!          and where locks spin before they sleep (3.13+): k woken from a futex
//!          and inside a C call: l on another futex
//!   cpu    CPU time in that millisecond, in tenths; X is all of it
//!   queue  time in the run queue in that millisecond, in tenths; X is all of it
//! ```
//! The kernel's count of runs moves with every column that has CPU time. What is expected are the milliseconds per state.

use gilprof::capture::classify::{classify, Classification, DropRequest, Observation, TaskState};
use gilprof::capture::state_machine::{InterpreterView, KernelView, ThreadStateMachine};
use gilprof::ids::ThreadId;
use gilprof::process::kernel_stack::KernelStackState;
use gilprof::process::threads::SchedStat;
use gilprof::sample::{Evidence, Stack, State, StateTimes};
use gilprof::units::Nanos;
use std::sync::Arc;

fn tenths(c: char) -> u64 {
    match c {
        'X' => 1_000_000,
        ' ' => 0,
        digit => u64::from(digit.to_digit(10).unwrap()) * 100_000,
    }
}

/// Plays a timeline; the milliseconds of each state.
fn play(sees: &str, cpu: &str, queue: &str) -> StateTimes {
    let stack = Arc::new(Stack::empty());
    let mut stat = SchedStat { cpu: Nanos::from_millis(500), run_queue: Nanos::from_millis(50), runs: 10 };
    let mut machine = ThreadStateMachine::new(Nanos::ZERO, Some(stat), false);
    let mut times = StateTimes::default();
    let columns = sees.chars().zip(cpu.chars().chain(std::iter::repeat(' '))).zip(queue.chars().chain(std::iter::repeat(' ')));
    let (mut ran, mut slept) = (false, false);
    for (i, ((see, cpu), queue)) in columns.enumerate() {
        let runs = cpu != ' ' && cpu != '0';
        stat.cpu += Nanos::from_nanos(tenths(cpu));
        stat.run_queue += Nanos::from_nanos(tenths(queue));
        stat.runs += u64::from(runs && (slept || !ran));
        (ran, slept) = (runs, "WLlIB".contains(see));
        let place = match see {
            _ if machine.is_still_asleep(Some(stat)) => TaskState::NotRunSince,
            'W' => TaskState::GilFutex,
            'L' | 'l' => TaskState::OtherFutex,
            'I' | 'B' => TaskState::Syscall,
            'U' => TaskState::Unread,
            _ => TaskState::Runnable,
        };
        let held = "HBC".contains(see);
        let requested = "Qqsxyj".contains(see).then_some(!"xyj".contains(see));
        let in_c_call = "Cvfyjlzm".contains(see);
        let asked = match see {
            'e' | 'v' | 'y' => DropRequest::No,
            'f' | 'j' => DropRequest::Likely,
            _ => DropRequest::Unknown,
        };
        let claims = InterpreterView {
            held_before: held,
            held_after: held,
            requested,
            in_c_call,
            drop_request: asked,
            may_have_held: see == 'm',
            locks_spin: sees.contains('k'),
        };
        let whereabouts = match see {
            'n' | 'q' => Some(KernelStackState::OnCpu),
            's' => Some(KernelStackState::InSystemCall),
            'p' => Some(KernelStackState::Preempted),
            'w' | 'k' | 'x' | 'y' | 'j' | 'z' | 'm' => Some(KernelStackState::WokenFromFutex),
            'o' | 'e' | 'v' | 'f' => Some(KernelStackState::LeavingSyscall),
            _ => None,
        };
        let now = KernelView { task_state: place, assumed: false, stat: (see != 'U').then_some(stat), kernel_state: whereabouts };
        let classification = machine.classify(&now, &claims);
        let at = Nanos::from_millis(i as u64 + 1);
        machine.attribute(at, &now, classification, &stack, None, &mut |_, part, _| times.merge(&part));
    }
    machine.finish(Nanos::ZERO, None, &stack, &mut |_, part, _| times.merge(&part));
    assert!((times.total() / 1e6 - sees.len() as f64).abs() < 1e-6, "time was lost: {times:?}");
    times
}

#[track_caller]
fn expect(times: StateTimes, expected: &[(State, f64)]) {
    for state in State::ALL {
        let ms = times.get(state) / 1e6;
        let want = expected.iter().find(|(s, _)| *s == state).map_or(0.0, |(_, ms)| *ms);
        assert!((ms - want).abs() < 0.11, "{}: {ms:.2} ms, expected {want:.2} ms in {times:?}", state.label());
    }
}

#[test]
fn states_that_one_look_tells() {
    expect(play("WWWW", "1   ", ""), &[(State::Waiting, 4.0)]);
    expect(play("LLLL", "1   ", ""), &[(State::Lock, 4.0)]);
    expect(play("IIII", "1   ", ""), &[(State::Io, 4.0)]);
    expect(play("BBBB", "1   ", ""), &[(State::HoldingBlocked, 4.0)]);
    expect(play("UUUU", "    ", ""), &[(State::Unknown, 4.0)]);
    expect(play("QQQQ", "1   ", ""), &[(State::Waiting, 4.0)]);
}

#[test]
fn who_begins_to_ask_during_the_look_did_something_else_before() {
    expect(play("nnq", "XXX", ""), &[(State::Native, 3.0)]);
    expect(play("nWs", "XXX", ""), &[(State::Native, 2.0), (State::Waiting, 1.0)]);
    expect(play("nWq", "XX0", ""), &[(State::Native, 1.0), (State::Waiting, 2.0)]);
}

#[test]
fn who_is_woken_from_a_lock_does_not_ask_for_the_gil_yet() {
    // It last slept for the GIL, as far as looks have met it, then for a lock between two of them.
    expect(play("Ww", "11", " 9"), &[(State::Waiting, 2.0)]);
    expect(play("Wy", "11", " 9"), &[(State::Waiting, 1.0), (State::Starved, 1.0)]);
    // Forced to let go, it sleeps until another has taken the GIL, and has not asked either.
    expect(play("Wx", "11", " 9"), &[(State::Waiting, 2.0)]);
    // So it is at the end of a call that kept the GIL, unless it is known to sleep for locks there.
    expect(play("BBj", "1 1", "  9"), &[(State::HoldingBlocked, 2.0), (State::Waiting, 1.0)]);
    let locks = play(&("Cl".repeat(8) + "Cj"), &"X1".repeat(9), &(" ".repeat(17) + "9"));
    assert!(locks.get(State::Starved) > 0.9e6 && locks.get(State::Waiting) == 0.0, "{locks:?}");
}

#[test]
fn who_may_have_had_the_gil_since_it_waited_may_have_slept_for_a_lock() {
    let then = |last: &str| play(&("Cl".repeat(8) + last), &("X1".repeat(8) + "11"), &(" ".repeat(17) + "9"));
    // It takes the GIL, sleeps for a lock in a C call and is woken, all between two looks; that is what it is known to do.
    let (had, had_not) = (then("Wm"), then("Wz"));
    assert!(had.get(State::Starved) > 0.9e6, "{had:?}");
    assert_eq!(had.get(State::Waiting) / 1e6, 1.0, "{had:?}");
    assert_eq!(had_not.get(State::Waiting) / 1e6, 2.0, "{had_not:?}");
    // The next look finds it still woken, and the GIL has not changed hands meanwhile.
    let on = play(&("Cl".repeat(8) + "Wmz"), &("X1".repeat(8) + "111"), &(" ".repeat(17) + "99"));
    assert!(on.get(State::Starved) > 1.8e6, "{on:?}");
    // Of one that is not known to sleep for locks it is supposed that it wants the GIL.
    expect(play("Wm", "11", " 9"), &[(State::Waiting, 2.0)]);
}

#[test]
fn a_waiter_behind_the_same_holder_still_waits() {
    let observation = Observation {
        task_state: TaskState::StillWaiting,
        held_before: false,
        held_after: false,
        requested: None,
        in_c_call: false,
        drop_request: DropRequest::Unknown,
        off_cpu_state: None,
        near_wait: true,
        wants_gil: true,
        kernel_state: None,
        was_scheduled: Some(true),
    };
    assert_eq!(classify(&observation), Classification::Known(State::Waiting, Evidence::SameHolder));
}

#[test]
fn who_ran_after_it_was_supposed_to_wait_is_asked_again() {
    // The same thread held when the look began, so the waiter still waited; by the time its counts are read it has had the GIL and sleeps.
    let stack = Arc::new(Stack::empty());
    let stat = |runs| Some(SchedStat { runs, ..SchedStat::default() });
    let mut machine = ThreadStateMachine::new(Nanos::ZERO, stat(4), false);
    for (i, (place, supposed, runs)) in [(TaskState::GilFutex, false, 5), (TaskState::StillWaiting, true, 7)].into_iter().enumerate() {
        let now = KernelView { task_state: place, assumed: supposed, stat: stat(runs), kernel_state: None };
        let classification = machine.classify(&now, &InterpreterView::default());
        assert!(matches!(classification, Classification::Known(State::Waiting, _)));
        machine.attribute(Nanos::from_millis(i as u64 + 1), &now, classification, &stack, None, &mut |_, _, _| {});
    }
    assert!(!machine.is_still_asleep(stat(7)));
}

#[test]
fn who_cannot_have_had_the_gil_is_not_asked() {
    let (stack, stat) = (Arc::new(Stack::empty()), SchedStat { runs: 5, ..SchedStat::default() });
    let mut machine = ThreadStateMachine::new(Nanos::ZERO, Some(stat), false);
    assert!(!machine.was_waiting());
    look(&mut machine, 1, TaskState::GilFutex, stat, &stack, &mut StateTimes::default());
    assert!(machine.was_waiting());
    assert_eq!(machine.extend_wait(Nanos::from_millis(4)), Nanos::from_millis(3));
    assert_eq!((machine.last_state(), machine.was_waiting()), ((State::Waiting, Evidence::SameHolder), true));
    // It woke and went to sleep again meanwhile, as waiters do: the next look that asks sees that it ran, and from when on it speaks.
    assert!(!machine.is_still_asleep(Some(SchedStat { runs: 6, ..stat })));
    assert_eq!(machine.last_sampled(), Nanos::from_millis(4));
}

/// One look at a thread that does not hold the GIL.
fn look(machine: &mut ThreadStateMachine, ms: u64, place: TaskState, stat: SchedStat, stack: &Arc<Stack>, times: &mut StateTimes) {
    let place = if machine.is_still_asleep(Some(stat)) { TaskState::NotRunSince } else { place };
    let now = KernelView { task_state: place, assumed: false, stat: Some(stat), kernel_state: None };
    let classification = machine.classify(&now, &InterpreterView::default());
    machine.attribute(Nanos::from_millis(ms), &now, classification, stack, None, &mut |_, part, _| times.merge(&part));
}

#[test]
fn long_sleepers_are_looked_at_seldom_and_lose_no_time() {
    for who in 0..20 {
        let (stack, mut stat) = (Arc::new(Stack::empty()), SchedStat { runs: 5, ..SchedStat::default() });
        let (mut machine, mut times, mut samples) = (ThreadStateMachine::new(Nanos::ZERO, Some(stat), false), StateTimes::default(), 0);
        let mut last = 0;
        for ms in 1..=4000 {
            if machine.next_poll_at(ThreadId(who)) <= Nanos::from_millis(ms) {
                assert!(ms - last <= 1 + last / 64, "a rest of {} ms after {last}", ms - last);
                (samples, last) = (samples + 1, ms);
                look(&mut machine, ms, TaskState::Syscall, stat, &stack, &mut times);
            }
        }
        assert!((200..=700).contains(&samples), "{samples} samples of 4000");
        // The GIL says that it holds, so that it is looked at.
        machine.fill_idle_until(Nanos::from_millis(4000), &stack, &mut |_, part, _| times.merge(&part));
        stat = SchedStat { cpu: Nanos::from_millis(3), runs: 6, ..stat };
        let now = KernelView { task_state: TaskState::Runnable, assumed: false, stat: Some(stat), kernel_state: None };
        let claims = InterpreterView { held_before: true, held_after: true, ..InterpreterView::default() };
        let classification = machine.classify(&now, &claims);
        machine.attribute(Nanos::from_millis(4003), &now, classification, &stack, None, &mut |_, part, _| times.merge(&part));
        assert!(machine.next_poll_at(ThreadId(who)) <= Nanos::from_millis(4004));
        machine.finish(Nanos::from_millis(4003), Some(stat), &stack, &mut |_, part, _| times.merge(&part));
        assert!((times.get(State::Io) - 4000e6).abs() < 1e3 && (times.get(State::HoldingPython) - 3e6).abs() < 1e3, "{times:?}");
    }
}

#[test]
fn holding_in_turns() {
    // Two rounds of a pure-Python thread: it holds for 5 ms and waits for 5.
    let times = play("WWWWWHHHHHWWWWWHHHHHW", "1    XXXXX1    XXXXX1", "");
    expect(times, &[(State::Waiting, 11.0), (State::HoldingPython, 10.0)]);
}

#[test]
fn holding_inside_a_c_call() {
    expect(play("WCCCCHHW", "1XXXXXX1", ""), &[(State::Waiting, 2.0), (State::HoldingNative, 4.0), (State::HoldingPython, 2.0)]);
}

#[test]
fn a_newborn_that_never_ran_is_starved() {
    let stack = Arc::new(Stack::empty());
    let mut stat = SchedStat::default();
    let mut machine = ThreadStateMachine::new(Nanos::ZERO, Some(stat), false);
    let mut times = StateTimes::default();
    for (i, place) in
        [TaskState::Runnable, TaskState::Runnable, TaskState::Runnable, TaskState::GilFutex, TaskState::GilFutex].into_iter().enumerate()
    {
        if place == TaskState::GilFutex && stat.runs == 0 {
            stat = SchedStat { cpu: Nanos::from_micros(50), run_queue: Nanos::from_millis(3), runs: 1 };
        }
        let now = KernelView { task_state: place, assumed: false, stat: Some(stat), kernel_state: None };
        let classification = machine.classify(&now, &InterpreterView::default());
        machine.attribute(Nanos::from_millis(i as u64 + 1), &now, classification, &stack, None, &mut |_, part, _| times.merge(&part));
    }
    machine.finish(Nanos::ZERO, None, &stack, &mut |_, part, _| times.merge(&part));
    expect(times, &[(State::Starved, 3.0), (State::Waiting, 2.0)]);
}

#[test]
fn the_kernels_stack_tells_waiting_from_native_code() {
    // Without it, what stands next to a wait is split by the CPU time.
    expect(play("WwwwHHWnnnW", "1   XX1XXX1", "1XXX       "), &[(State::Waiting, 6.0), (State::HoldingPython, 2.0), (State::Native, 3.0)]);
    // Pushed off by the thread that was woken, with the eval loop about to ask again: the wait has begun.
    expect(play("HHooWWHH", "XX  1 XX", "  XX    "), &[(State::HoldingPython, 4.0), (State::Waiting, 4.0)]);
    // The same of a thread that nobody told to let go: it wants something else, or has ended.
    expect(
        play("HHeeennI", "XX   XX1", "  XXX   "),
        &[(State::HoldingPython, 2.0), (State::Starved, 3.0), (State::Native, 2.0), (State::Io, 1.0)],
    );
    // In the instruction of a call: on its way back into the eval loop, or out into work of its own.
    expect(play("CCffWWHH", "XX  1 XX", "  XX    "), &[(State::HoldingNative, 2.0), (State::Waiting, 4.0), (State::HoldingPython, 2.0)]);
    expect(
        play("CCvvnnHH", "XX  XXXX", "  XX    "),
        &[(State::HoldingNative, 2.0), (State::Starved, 2.0), (State::Native, 2.0), (State::HoldingPython, 2.0)],
    );
    // In native code without a CPU.
    expect(play("WnnppppnnW", " XX    XX ", "   XXXX   "), &[(State::Waiting, 2.0), (State::Native, 4.0), (State::Starved, 4.0)]);
    // Woken from a lock.
    expect(
        play("WHLwwwHL", "1XX1  X1", "    XX  "),
        &[(State::Waiting, 1.0), (State::HoldingPython, 2.0), (State::Lock, 2.0), (State::Starved, 3.0)],
    );
}

#[test]
fn who_lets_go_to_sleep_for_a_lock_and_is_woken_wants_the_lock() {
    // It holds, sleeps for a lock where no look meets it, is woken, and then waits for the GIL: found asleep for the lock now and then, it does
    // not want the GIL each time that it was not.
    let times = play(&("WHlW".repeat(8) + "WHzWWHzW"), &"1X11".repeat(10), &(" ".repeat(32) + "  X   X "));
    expect(times, &[(State::Waiting, 20.0), (State::HoldingPython, 10.0), (State::Lock, 8.0), (State::Starved, 2.0)]);
    // One that has never been met so wants the GIL.
    let times = play(&("WHW".to_owned() + "WHzWWHzW"), &("1X1".to_owned() + &"1X11".repeat(2)), &("   ".to_owned() + "  X   X "));
    expect(times, &[(State::Waiting, 8.0), (State::HoldingPython, 3.0)]);
}

#[test]
fn who_has_run_since_it_slept_for_a_lock_that_spins_wants_the_gil() {
    // It sleeps for work, is woken, asks for the GIL and sleeps for that; it is then met woken, and has run.
    let sees = "LWH".repeat(8) + "Lk";
    expect(play(&sees, &"11X".repeat(9), ""), &[(State::Lock, 9.0), (State::Waiting, 9.0), (State::HoldingPython, 8.0)]);
    // Where it was met asleep on other locks too, nothing is supposed; nor where locks do not spin.
    let mixed = play(&("LWHLLH".repeat(4) + "Lk"), &"11X".repeat(9), &(" ".repeat(25) + "X"));
    assert!(mixed.get(State::Starved) > 0.9e6 && mixed.get(State::Waiting) == 4e6, "{mixed:?}");
    let older = play(&sees.replace('k', "w"), &"11X".repeat(9), &(" ".repeat(25) + "X"));
    assert!(older.get(State::Starved) > 0.9e6 && older.get(State::Waiting) == 8e6, "{older:?}");
}

#[test]
fn a_look_that_pushes_off_whom_it_finds_in_the_queue_does_not_starve_it() {
    // Each look finds it woken and without a CPU, but the kernel counts a tenth of that time.
    let seen = "IeIe".repeat(100);
    let times = play(&seen, &"1919".repeat(100), &" 1 1".repeat(100));
    let starved = times.get(State::Starved) / 1e6;
    assert!((15.0..=30.0).contains(&starved), "{starved} ms of 20");
}

#[test]
fn a_woken_waiter_without_a_core_still_waits() {
    // Its count of runs has not moved since it slept on the GIL's futex.
    expect(play("WWRRRHHHHHW", "1    XXXXX1", "     X     "), &[(State::Waiting, 6.0), (State::HoldingPython, 5.0)]);
}

#[test]
fn pushed_off_the_core_by_the_thread_it_woke_is_waiting_too() {
    // Between holding and waiting it is runnable and uses no CPU: the way into `drop_gil`'s wait, again and again.
    let times = play("HHHHRWWWWHHHHRWWWWHHHHRWWWW", "XXXX     XXXX     XXXX     ", "    9        9        9    ");
    expect(times, &[(State::HoldingPython, 12.0), (State::Waiting, 15.0)]);
}

#[test]
fn native_code_that_released_the_gil() {
    // Hashing: short holds, long native runs, no wait.
    let times = play("HRRRRRRRRRHRRRRRRRRRI", "XXXXXXXXXXXXXXXXXXXX1", "");
    expect(times, &[(State::HoldingPython, 2.0), (State::Native, 18.0), (State::Io, 1.0)]);
}

#[test]
fn native_code_that_shares_its_core_is_half_starved() {
    let times = play("RRRRRRRRRRRRRRRRRRRRI", "X X X X X X X X X X 1", " X X X X X X X X X X ");
    expect(times, &[(State::Native, 10.0), (State::Starved, 10.0), (State::Io, 1.0)]);
}

#[test]
fn native_code_after_a_wait_is_not_waiting() {
    let times = play("WRRRRRRRRRWRRRRRRRRRWRRRRRRRRRW", "1XXXXXXXXX1XXXXXXXXX1XXXXXXXXX1", "");
    expect(times, &[(State::Waiting, 4.0), (State::Native, 27.0)]);
}

#[test]
fn a_holder_without_a_core() {
    let times = play("HHHHHHHHHHI", "XX  XX  XX1", "  XX  XX   ");
    expect(times, &[(State::HoldingPython, 6.0), (State::HoldingStarved, 4.0), (State::Io, 1.0)]);
}

#[test]
fn the_counter_that_moves_at_the_tick_makes_no_starvation() {
    // 4 ms of CPU time are booked at every fourth look; no time in the queue.
    let stack = Arc::new(Stack::empty());
    let mut stat = SchedStat { runs: 1, ..SchedStat::default() };
    let mut machine = ThreadStateMachine::new(Nanos::ZERO, Some(stat), false);
    let mut times = StateTimes::default();
    for i in 1..=2000u64 {
        if i % 4 == 0 {
            stat.cpu += Nanos::from_millis(4);
        }
        let now = KernelView { task_state: TaskState::Runnable, assumed: false, stat: Some(stat), kernel_state: None };
        let classification = machine.classify(&now, &InterpreterView::default());
        machine.attribute(Nanos::from_millis(i), &now, classification, &stack, None, &mut |_, part, _| times.merge(&part));
    }
    machine.finish(Nanos::ZERO, None, &stack, &mut |_, part, _| times.merge(&part));
    assert!(times.get(State::Native) / times.total() > 0.99, "{times:?}");
}

#[test]
fn without_the_kernels_counts_nothing_is_guessed() {
    let stack = Arc::new(Stack::empty());
    let mut machine = ThreadStateMachine::new(Nanos::ZERO, None, false);
    let mut times = StateTimes::default();
    for i in 1..=100u64 {
        let now = KernelView { task_state: TaskState::Runnable, assumed: false, stat: None, kernel_state: None };
        let classification = machine.classify(&now, &InterpreterView::default());
        machine.attribute(Nanos::from_millis(i), &now, classification, &stack, None, &mut |_, part, _| times.merge(&part));
    }
    machine.finish(Nanos::ZERO, None, &stack, &mut |_, part, _| times.merge(&part));
    expect(times, &[(State::Unknown, 100.0)]);
}
