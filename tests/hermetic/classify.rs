//! The classifier and the state machine on timelines drawn as text. A column is one sample; samples
//! are one millisecond apart.
//!
//! ```text
//!   sees   what the sample finds:
//!          W asleep on the GIL's futex      L asleep on another futex    I asleep in a system call
//!          B holder, asleep                 H holder, runnable           C holder, inside a C call
//!          R runnable                       U nothing could be read      l L inside a C call
//!          Q runnable, GIL requested (3.15)      q Q on a CPU           s Q in a system call
//!          with the kernel stack:
//!          n on a CPU        p preempted       o preempted while it released the GIL
//!          e o without a drop request          f o in a C call, drop request likely
//!          v e in a C call                     w woken from a futex
//!          x w, GIL not requested (3.15)       y x inside a C call without a drop request
//!          j x inside a C call, drop request likely
//!          z w inside a C call                 g w with the GIL off
//!   cpu    CPU time in that millisecond, in tenths; X is all of it
//!   queue  time in the run queue in that millisecond, in tenths; X is all of it
//! ```
//! The kernel's count of runs grows in every column with CPU time. The expected figures are
//! milliseconds per state.

use gilprof::estimate::classify::{classify, Classification, DropRequest, Observation};
use gilprof::estimate::rules::Rules;
use gilprof::estimate::state_machine::{GilView, ThreadStateMachine};
use gilprof::ids::ThreadId;
use gilprof::sample::{Evidence, RawTask, RawThread, RunnableState, SchedStat, Stack, State, StateTimes, TaskState};
use gilprof::units::Nanos;
use std::sync::Arc;

fn tenths(c: char) -> u64 {
    match c {
        'X' => 1_000_000,
        ' ' => 0,
        digit => u64::from(digit.to_digit(10).unwrap()) * 100_000,
    }
}

/// Plays a timeline and returns the milliseconds of each state.
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
        let in_c_call = "Cvfyjlz".contains(see);
        let drop_request = match see {
            'e' | 'v' | 'y' => DropRequest::No,
            'f' | 'j' => DropRequest::Likely,
            _ => DropRequest::Unknown,
        };
        let gil = GilView { held_before: held, held_after: held, is_off: see == 'g', drop_request };
        let runnable_state = match see {
            'n' | 'q' => Some(RunnableState::OnCpu),
            's' => Some(RunnableState::InSystemCall),
            'p' => Some(RunnableState::Preempted),
            'w' | 'g' | 'x' | 'y' | 'j' | 'z' => Some(RunnableState::WokenFromFutex),
            'o' | 'e' | 'v' | 'f' => Some(RunnableState::LeavingSyscall),
            _ => None,
        };
        let task = RawTask { task_state: place, stat: (see != 'U').then_some(stat), runnable_state, by_counts: None };
        let raw = RawThread { task, requested, in_c_call, ..RawThread::unread(stack.clone()) };
        let classification = machine.classify(&raw, &gil);
        let at = Nanos::from_millis(i as u64 + 1);
        machine.attribute(at, &task, classification, &stack, None, &mut |_, part, _| times.merge(&part));
    }
    machine.finish(Nanos::ZERO, None, &stack, &mut |_, part, _| times.merge(&part));
    assert!((times.total() / 1e6 - sees.len() as f64).abs() < 1e-6, "time was lost: {times:?}");
    times
}

/// A thread of which the kernel says this.
fn of(task: RawTask) -> RawThread {
    RawThread { task, ..RawThread::unread(Arc::new(Stack::empty())) }
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
fn states_that_one_sample_shows() {
    expect(play("WWWW", "1   ", ""), &[(State::Waiting, 4.0)]);
    expect(play("LLLL", "1   ", ""), &[(State::Lock, 4.0)]);
    expect(play("IIII", "1   ", ""), &[(State::Io, 4.0)]);
    expect(play("BBBB", "1   ", ""), &[(State::HoldingBlocked, 4.0)]);
    expect(play("UUUU", "    ", ""), &[(State::Unknown, 4.0)]);
    expect(play("QQQQ", "1   ", ""), &[(State::Waiting, 4.0)]);
}

#[test]
fn a_request_that_begins_during_the_sample_does_not_change_the_time_before_it() {
    expect(play("nnq", "XXX", ""), &[(State::Native, 3.0)]);
    expect(play("nWs", "XXX", ""), &[(State::Native, 2.0), (State::Waiting, 1.0)]);
    expect(play("nWq", "XX0", ""), &[(State::Native, 1.0), (State::Waiting, 2.0)]);
}

#[test]
fn a_thread_woken_from_a_lock_has_not_requested_the_gil() {
    // By the samples, the thread last slept for the GIL. Between two samples it slept for a lock.
    expect(play("Ww", "11", " 9"), &[(State::Waiting, 2.0)]);
    expect(play("Wy", "11", " 9"), &[(State::Waiting, 1.0), (State::Starved, 1.0)]);
    // After a forced switch, a thread sleeps until another thread has taken the GIL. It has not
    // requested the GIL either.
    expect(play("Wx", "11", " 9"), &[(State::Waiting, 2.0)]);
    // So it is at the end of a call that kept the GIL, unless it has been seen to sleep for locks
    // there.
    expect(play("BBj", "1 1", "  9"), &[(State::HoldingBlocked, 2.0), (State::Waiting, 1.0)]);
    let locks = play(&("Cl".repeat(8) + "Cj"), &"X1".repeat(9), &(" ".repeat(17) + "9"));
    let preempted = play(&("Cl".repeat(8) + "Cf"), &"X1".repeat(9), &(" ".repeat(17) + "9"));
    assert!(preempted.get(State::Starved) > 0.89e6 && preempted.get(State::Waiting) == 0.0, "{preempted:?}");
    // It has slept for the GIL since it held it.
    let waited = play(&("Cl".repeat(8) + "CWz"), &("X1".repeat(8) + "X11"), &(" ".repeat(18) + "9"));
    assert_eq!(waited.get(State::Waiting) / 1e6, 2.0, "{waited:?}");
    assert!(locks.get(State::Starved) > 0.89e6 && locks.get(State::Waiting) == 0.0, "{locks:?}");
}

#[test]
fn a_thread_behind_the_same_holder_is_still_waiting() {
    let observation = Observation {
        task_state: TaskState::StillWaiting,
        held_before: false,
        held_after: false,
        requested: None,
        in_c_call: false,
        drop_request: DropRequest::Unknown,
        held_last: false,
        off_cpu_state: None,
        near_wait: true,
        wants_gil: true,
        sleeps_for_lock: false,
        sleeps_for_other: false,
        is_resolved: true,
        runnable_state: None,
        was_scheduled: Some(true),
    };
    assert_eq!(classify(&observation, Rules::default()), Classification::Known(State::Waiting, Evidence::SameHolder));
}

#[test]
fn the_evidence_says_what_a_holder_sleeps_in() {
    let (stack, stat) = (Arc::new(Stack::empty()), Some(SchedStat { runs: 5, ..SchedStat::default() }));
    let holds = GilView { held_before: true, held_after: true, ..GilView::default() };
    for (place, evidence) in [
        (TaskState::OtherFutex, Evidence::HolderLock),
        (TaskState::OutsideSyscall, Evidence::HolderFault),
        (TaskState::Syscall, Evidence::GilHolder),
    ] {
        let mut machine = ThreadStateMachine::new(Nanos::ZERO, stat, false);
        for (n, task_state) in [place, TaskState::NotRunSince].into_iter().enumerate() {
            let now = RawTask { task_state, stat, runnable_state: None, by_counts: None };
            let classification = machine.classify(&of(now), &holds);
            assert_eq!(classification, Classification::Known(State::HoldingBlocked, evidence));
            machine.attribute(Nanos::from_millis(n as u64 + 1), &now, classification, &stack, None, &mut |_, _, _| {});
        }
    }
}

#[test]
fn a_thread_that_cannot_have_held_the_gil_is_not_polled() {
    let (stack, stat) = (Arc::new(Stack::empty()), SchedStat { runs: 5, ..SchedStat::default() });
    let mut machine = ThreadStateMachine::new(Nanos::ZERO, Some(stat), false);
    assert!(!machine.was_waiting());
    sample(&mut machine, 1, TaskState::GilFutex, stat, &stack, &mut StateTimes::default());
    assert!(machine.was_waiting());
    assert_eq!(machine.extend_wait(Nanos::from_millis(4)), Nanos::from_millis(3));
    assert_eq!((machine.last_state(), machine.was_waiting()), ((State::Waiting, Evidence::SameHolder), true));
    // It woke and fell asleep again between the samples, as a waiting thread does. The next poll
    // sees that it ran, and accounts from the last poll on.
    assert!(!machine.is_still_asleep(Some(SchedStat { runs: 6, ..stat })));
    assert_eq!(machine.last_sampled(), Nanos::from_millis(4));
}

/// One sample of a thread that does not hold the GIL.
fn sample(machine: &mut ThreadStateMachine, ms: u64, place: TaskState, stat: SchedStat, stack: &Arc<Stack>, times: &mut StateTimes) {
    let place = if machine.is_still_asleep(Some(stat)) { TaskState::NotRunSince } else { place };
    let now = RawTask { task_state: place, stat: Some(stat), runnable_state: None, by_counts: None };
    let classification = machine.classify(&of(now), &GilView::default());
    machine.attribute(Nanos::from_millis(ms), &now, classification, stack, None, &mut |_, part, _| times.merge(&part));
}

#[test]
fn long_sleepers_are_polled_seldom_and_lose_no_time() {
    for thread in 0..20 {
        let (stack, mut stat) = (Arc::new(Stack::empty()), SchedStat { runs: 5, ..SchedStat::default() });
        let (mut machine, mut times, mut samples) = (ThreadStateMachine::new(Nanos::ZERO, Some(stat), false), StateTimes::default(), 0);
        let mut last = 0;
        for ms in 1..=4000 {
            if machine.next_poll_at(ThreadId(thread)) <= Nanos::from_millis(ms) {
                assert!(ms - last <= 1 + last / 64, "no poll for {} ms after {last}", ms - last);
                (samples, last) = (samples + 1, ms);
                sample(&mut machine, ms, TaskState::Syscall, stat, &stack, &mut times);
            }
        }
        assert!((200..=700).contains(&samples), "{samples} samples of 4000");
        // The GIL names the thread as its holder, so the thread is polled.
        machine.fill_idle_until(Nanos::from_millis(4000), &stack, &mut |_, part, _| times.merge(&part));
        stat = SchedStat { cpu: Nanos::from_millis(3), runs: 6, ..stat };
        let now = RawTask { task_state: TaskState::Runnable, stat: Some(stat), runnable_state: None, by_counts: None };
        let gil = GilView { held_before: true, held_after: true, ..GilView::default() };
        let classification = machine.classify(&of(now), &gil);
        machine.attribute(Nanos::from_millis(4003), &now, classification, &stack, None, &mut |_, part, _| times.merge(&part));
        assert!(machine.next_poll_at(ThreadId(thread)) <= Nanos::from_millis(4004));
        machine.finish(Nanos::from_millis(4003), Some(stat), &stack, &mut |_, part, _| times.merge(&part));
        assert!((times.get(State::Io) - 4000e6).abs() < 1e3 && (times.get(State::HoldingPython) - 3e6).abs() < 1e3, "{times:?}");
    }
}

#[test]
fn holding_in_turns() {
    // Two rounds of a pure-Python thread: it holds for 5 ms and waits for 5 ms.
    let times = play("WWWWWHHHHHWWWWWHHHHHW", "1    XXXXX1    XXXXX1", "");
    expect(times, &[(State::Waiting, 11.0), (State::HoldingPython, 10.0)]);
}

#[test]
fn holding_inside_a_c_call() {
    expect(play("WCCCCHHW", "1XXXXXX1", ""), &[(State::Waiting, 2.0), (State::HoldingNative, 4.0), (State::HoldingPython, 2.0)]);
}

#[test]
fn a_new_thread_that_never_ran_is_starved() {
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
        let now = RawTask { task_state: place, stat: Some(stat), runnable_state: None, by_counts: None };
        let classification = machine.classify(&of(now), &GilView::default());
        machine.attribute(Nanos::from_millis(i as u64 + 1), &now, classification, &stack, None, &mut |_, part, _| times.merge(&part));
    }
    machine.finish(Nanos::ZERO, None, &stack, &mut |_, part, _| times.merge(&part));
    expect(times, &[(State::Starved, 3.0), (State::Waiting, 2.0)]);
}

#[test]
fn kernel_stacks_distinguish_waiting_from_native_code() {
    // Without kernel stacks, time next to a wait is divided by the CPU time.
    expect(play("WwwwHHWnnnW", "1   XX1XXX1", "1XXX       "), &[(State::Waiting, 6.0), (State::HoldingPython, 2.0), (State::Native, 3.0)]);
    // Preempted by the thread that it woke, while the eval loop is about to request the GIL again:
    // the wait has begun.
    expect(play("HHooWWHH", "XX  1 XX", "  XX    "), &[(State::HoldingPython, 4.0), (State::Waiting, 4.0)]);
    // The same of a thread without a drop request: it does something else, or has ended.
    expect(
        play("HHeeennI", "XX   XX1", "  XXX   "),
        &[(State::HoldingPython, 2.0), (State::Starved, 3.0), (State::Native, 2.0), (State::Io, 1.0)],
    );
    // At the instruction of a call: either on the way back into the eval loop, or on the way to
    // native work.
    expect(play("CCffWWHH", "XX  1 XX", "  XX    "), &[(State::HoldingNative, 2.0), (State::Waiting, 4.0), (State::HoldingPython, 2.0)]);
    expect(
        play("CCvvnnHH", "XX  XXXX", "  XX    "),
        &[(State::HoldingNative, 2.0), (State::Starved, 2.0), (State::Native, 2.0), (State::HoldingPython, 2.0)],
    );
    // In native code without a CPU.
    expect(play("WnnppppnnW", " XX    XX ", "   XXXX   "), &[(State::Waiting, 2.0), (State::Native, 4.0), (State::Starved, 4.0)]);
    // Woken from a lock.
    expect(
        play("WHLwwwHL", "1XX1  X1", "    XXX "),
        &[(State::Waiting, 1.0), (State::HoldingPython, 2.0), (State::Lock, 2.0), (State::Starved, 3.0)],
    );
}

#[test]
fn a_thread_that_released_the_gil_to_sleep_for_a_lock_is_not_waiting_when_woken() {
    // The thread holds, sleeps for a lock between samples, is woken, and then waits for the GIL.
    // Some samples have found it asleep for the lock, so it does not count as waiting for the GIL
    // whenever they do not.
    let times = play(&("WHlW".repeat(8) + "WHzWWHzW"), &"1X11".repeat(10), &(" ".repeat(32) + "  X   X "));
    expect(times, &[(State::Waiting, 20.0), (State::HoldingPython, 10.0), (State::Lock, 8.0), (State::Starved, 2.0)]);
    // A thread that was never found asleep for a lock counts as waiting for the GIL.
    let times = play(&("WHW".to_owned() + "WHzWWHzW"), &("1X1".to_owned() + &"1X11".repeat(2)), &("   ".to_owned() + "  X   X "));
    expect(times, &[(State::Waiting, 8.0), (State::HoldingPython, 3.0)]);
}

#[test]
fn nobody_waits_for_a_gil_that_is_off() {
    // A thread that was never seen asleep. What it was woken from is the GIL's futex if there is a
    // GIL to wait for.
    expect(play("www", "000", "XXX"), &[(State::Waiting, 3.0)]);
    expect(play("ggg", "000", "XXX"), &[(State::Starved, 3.0)]);
}

#[test]
fn a_sample_that_preempts_a_thread_does_not_starve_it() {
    // Each sample finds the thread woken and without a CPU, but the kernel counts a tenth of that
    // time in the run queue.
    let seen = "IeIe".repeat(100);
    let times = play(&seen, &"1919".repeat(100), &" 1 1".repeat(100));
    let starved = times.get(State::Starved) / 1e6;
    assert!((15.0..=30.0).contains(&starved), "{starved} ms of 20");
}

#[test]
fn a_woken_waiter_without_a_core_still_waits() {
    // Its count of runs has not changed since it slept on the GIL's futex.
    expect(play("WWRRRHHHHHW", "1    XXXXX1", "     X     "), &[(State::Waiting, 6.0), (State::HoldingPython, 5.0)]);
}

#[test]
fn a_thread_preempted_by_the_thread_that_it_woke_is_waiting() {
    // Between holding and waiting the thread is runnable and uses no CPU: the way into the wait of
    // `drop_gil`, in each round.
    let rounds = ("HHHHoWWWW".repeat(3), "XXXX     ".repeat(3), "    9    ".repeat(3));
    expect(play(&rounds.0, &rounds.1, &rounds.2), &[(State::HoldingPython, 12.0), (State::Waiting, 15.0)]);
    // The same where nothing ever says why the thread has no CPU.
    let times = play(&rounds.0.replace('o', "R"), &rounds.1, &rounds.2);
    expect(times, &[(State::HoldingPython, 12.0), (State::Waiting, 12.0), (State::Unknown, 3.0)]);
}

#[test]
fn native_code_that_released_the_gil() {
    // Hashing: short holds, long native runs, no wait.
    let times = play("HnnnnnnnnnHnnnnnnnnnI", "XXXXXXXXXXXXXXXXXXXX1", "");
    expect(times, &[(State::HoldingPython, 2.0), (State::Native, 18.0), (State::Io, 1.0)]);
}

#[test]
fn native_code_that_shares_its_core_is_half_starved() {
    let times = play("RRRRRRRRRRRRRRRRRRRRI", "X X X X X X X X X X 1", " X X X X X X X X X X ");
    expect(times, &[(State::Native, 10.0), (State::Starved, 10.0), (State::Io, 1.0)]);
}

#[test]
fn native_code_after_a_wait_is_not_waiting() {
    let times = play("WnnnnnnnnnWnnnnnnnnnWnnnnnnnnnW", "1XXXXXXXXX1XXXXXXXXX1XXXXXXXXX1", "");
    expect(times, &[(State::Waiting, 4.0), (State::Native, 27.0)]);
    // By CPU time alone, all but what is carried as credit.
    let times = play(&("W".to_owned() + &"R".repeat(300)), &("1".to_owned() + &"X".repeat(300)), "");
    assert!(times.get(State::Native) > 285e6 && times.get(State::Waiting) == 1e6, "{times:?}");
}

#[test]
fn a_holder_without_a_core() {
    let times = play("HHHHHHHHHHI", "XX  XX  XX1", "  XX  XX   ");
    expect(times, &[(State::HoldingPython, 6.0), (State::HoldingStarved, 4.0), (State::Io, 1.0)]);
}

#[test]
fn a_counter_that_moves_at_the_tick_makes_no_starvation() {
    // The kernel adds 4 ms of CPU time at every fourth sample, and no time in the run queue.
    let stack = Arc::new(Stack::empty());
    let mut stat = SchedStat { runs: 1, ..SchedStat::default() };
    let mut machine = ThreadStateMachine::new(Nanos::ZERO, Some(stat), false);
    let mut times = StateTimes::default();
    for i in 1..=2000u64 {
        if i % 4 == 0 {
            stat.cpu += Nanos::from_millis(4);
        }
        let now = RawTask { task_state: TaskState::Runnable, stat: Some(stat), runnable_state: None, by_counts: None };
        let classification = machine.classify(&of(now), &GilView::default());
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
        let now = RawTask { task_state: TaskState::Runnable, stat: None, runnable_state: None, by_counts: None };
        let classification = machine.classify(&of(now), &GilView::default());
        machine.attribute(Nanos::from_millis(i), &now, classification, &stack, None, &mut |_, part, _| times.merge(&part));
    }
    machine.finish(Nanos::ZERO, None, &stack, &mut |_, part, _| times.merge(&part));
    expect(times, &[(State::Unknown, 100.0)]);
}
