//! The model on threads with known shares.

use super::*;
use State::*;

fn thread(parts: &[(State, f64)]) -> StateTimes {
    let mut t = StateTimes::default();
    parts.iter().for_each(|&(s, share)| t.add(s, share));
    t
}

fn about(e: Estimate, want: f64) {
    assert!((e.estimate - want).abs() < 0.03, "{e:?}, wanted {want}");
    assert!(e.low <= e.estimate && e.estimate <= e.high, "{e:?}");
}

fn processes(threads: &[StateTimes], cores: f64) -> Estimate {
    super::processes(threads, &Program::plain(threads.len(), cores)).gain
}

fn release_in_native(threads: &[StateTimes], cores: f64) -> Estimate {
    super::release_in_native(threads, &Program::plain(threads.len(), cores))
}

fn free_threading(threads: &[StateTimes], cores: f64) -> Estimate {
    super::free_threading(threads, &Program::plain(threads.len(), cores))
}

fn contenders(n: usize, on: State) -> Vec<StateTimes> {
    let hold = 1.0 / n as f64;
    let mut all = vec![thread(&[(on, hold), (Waiting, 1.0 - hold)]); n];
    all.push(thread(&[(Lock, 1.0)]));
    all
}

#[test]
fn two_cpu_bound_threads_gain_two_on_two_cores_and_nothing_on_one() {
    about(processes(&contenders(2, HoldingPython), 2.0), 2.0);
    about(processes(&contenders(2, HoldingPython), 1.0), 1.0);
    about(processes(&contenders(2, HoldingPython), NO_LIMIT), 2.0);
    let e = processes(&contenders(2, HoldingPython), 2.0);
    assert!(e.low > 1.85 && e.high >= 2.45, "{e:?}");
}

#[test]
fn short_lived_threads_gain_as_much_as_lasting_ones() {
    let brief = thread(&[(HoldingPython, 0.005), (Waiting, 0.005)]);
    about(processes(&[brief; 200], 2.0), 2.0);
    let mut with_hog = vec![thread(&[(HoldingPython, 0.99), (Waiting, 0.01)])];
    with_hog.push(thread(&[(HoldingPython, 0.01), (Waiting, 0.01)]));
    assert!(processes(&with_hog, 1.0).estimate < 1.03);
}

#[test]
fn cores_are_the_cap() {
    about(processes(&contenders(3, HoldingPython), 2.0), 2.0);
    about(processes(&contenders(8, HoldingPython), 4.0), 4.0);
    about(processes(&contenders(3, HoldingPython), 1.5), 1.5);
}

#[test]
fn sleepers_and_released_work_gain_nothing() {
    let sleeper = thread(&[(Io, 0.97), (HoldingPython, 0.025), (Waiting, 0.005)]);
    about(processes(&[sleeper; 4], 2.0), 1.005);
    let hashing = thread(&[(Native, 0.96), (HoldingPython, 0.03), (Waiting, 0.01)]);
    about(processes(&[hashing; 2], 2.0), 1.01);
    let too_many = thread(&[(Native, 0.48), (Starved, 0.5), (HoldingPython, 0.02)]);
    about(processes(&[too_many; 4], 2.0), 1.0);
}

#[test]
fn one_hog_is_the_work() {
    let hog = thread(&[(HoldingPython, 0.98), (Waiting, 0.02)]);
    let victim = thread(&[(Waiting, 0.8), (HoldingPython, 0.01), (Io, 0.19)]);
    let e = processes(&[hog, victim, victim], 2.0);
    assert!(e.estimate < 1.15, "{e:?}");
}

#[test]
fn holders_that_sleep_gain_too() {
    about(processes(&contenders(2, HoldingBlocked), 2.0), 2.0);
}

#[test]
fn cycles_of_sleep_and_work_keep_the_measured_gain_inside() {
    let cyclic = thread(&[(HoldingPython, 0.13), (Io, 0.4), (Waiting, 0.47)]);
    let e = processes(&[cyclic; 4], 2.0);
    assert!(e.low <= 1.47 && e.estimate > 1.8, "{e:?}");
}

#[test]
fn releasing_frees_only_what_is_native() {
    about(release_in_native(&contenders(2, HoldingNative), 2.0), 2.0);
    about(release_in_native(&contenders(2, HoldingPython), 2.0), 1.0);
    about(release_in_native(&contenders(2, HoldingPython), 1.0), 1.0);
    let half = thread(&[(HoldingNative, 0.25), (HoldingPython, 0.25), (Waiting, 0.5)]);
    let e = release_in_native(&[half; 2], 2.0);
    assert!(e.estimate > 1.2 && e.high <= 2.0, "{e:?}");
    let many = thread(&[(HoldingNative, 0.0625), (HoldingPython, 0.0625), (Waiting, 0.875)]);
    assert!(release_in_native(&[many; 8], 8.0).high <= 2.1);
}

#[test]
fn free_threading_pays_for_speed() {
    about(free_threading(&contenders(2, HoldingPython), 2.0), 1.85);
}

#[test]
fn starvation_lowers_the_low_end() {
    let pressed = processes(&[thread(&[(HoldingPython, 0.17), (HoldingStarved, 0.16), (Waiting, 0.67)]); 3], 2.0);
    let free = processes(&[thread(&[(HoldingPython, 0.33), (Waiting, 0.67)]); 3], 2.0);
    assert!(pressed.low / pressed.estimate < 0.8 * free.low / free.estimate, "{pressed:?} {free:?}");
    let queued = thread(&[(Native, 0.5), (Starved, 0.5)]);
    about(processes(&[queued; 2], 2.0), 1.0);
}

#[test]
fn the_gil_saturates_where_holds_fill_the_cycle() {
    assert!((saturation(&contenders(3, HoldingPython)) - 1.0).abs() < 1e-9);
    let io = thread(&[(HoldingPython, 0.05), (Io, 0.95)]);
    assert!((saturation(&[io; 4]) - 20.0).abs() < 1e-9);
    assert_eq!(saturation(&[thread(&[(Io, 1.0)])]), 0.0);
}

#[test]
fn threads_that_poll_do_not_make_the_program_fast() {
    // The thread that computes loses a hundredth to two that poll.
    let times = [thread(&[(HoldingPython, 0.99), (Waiting, 0.01)]), thread(&[(HoldingPython, 0.005), (Waiting, 0.985), (Io, 0.01)])];
    let mut program = Program::plain(2, 2.0);
    program.group_of = vec![0, 1];
    program.groups = vec![
        Group { name: "victim".into(), threads: 1, work: 0.995, main: true, python: true },
        Group { name: "poller-*".into(), threads: 1, work: 0.005, main: false, python: true },
    ];
    let found = super::processes(&times, &program);
    about(found.gain, 1.01);
    assert!(found.groups[1].low > 5.0, "{:?}", found.groups);
}

#[test]
fn what_other_programs_use_is_not_to_be_had() {
    let mut program = Program::plain(3, 2.0);
    for (idle, gain) in [(1.0, 2.0), (0.5, 1.5), (0.0, 1.0)] {
        program.idle = Some(idle);
        about(super::processes(&contenders(2, HoldingPython), &program).gain, gain);
    }
    // A pool whose threads wait for the GIL and for the end of a batch; their server has the rest.
    program.idle = Some(0.05);
    let batch = thread(&[(HoldingPython, 0.17), (Waiting, 0.3), (Lock, 0.5), (Io, 0.03)]);
    let e = super::processes(&[batch; 3], &program).gain;
    assert!(e.estimate < 1.15 && e.low < 1.05, "{e:?}");
}

#[test]
fn one_question_has_one_answer() {
    let threads = [contenders(2, HoldingPython), vec![thread(&[(HoldingPython, 0.1), (Waiting, 0.5), (Io, 0.4)])]].concat();
    let program = Program::plain(4, 2.0);
    let question = Alternative { processes: Some(3), ..Alternative::default() };
    assert_eq!(asked(&threads, &program, &question), Some(super::processes(&threads, &program).gain));
    let nothing = asked(&threads, &program, &Alternative::default()).unwrap();
    assert!((nothing.estimate - 1.0).abs() < 0.1, "{nothing:?}");
}

#[test]
fn half_of_the_processes_leave_half_of_the_contention() {
    let (four, program) = (vec![thread(&[(HoldingPython, 0.25), (Waiting, 0.75)]); 4], Program::plain(4, 4.0));
    for (processes, gain) in [(1, 1.0), (2, 2.0), (4, 4.0)] {
        let question = Alternative { processes: Some(processes), ..Alternative::default() };
        about(asked(&four, &program, &question).unwrap(), gain);
    }
    // Two GILs of one process are as good as two processes.
    let mut program = Program::plain(4, 4.0);
    program.gils = vec![0, 0, 1, 1];
    let two = vec![thread(&[(HoldingPython, 0.5), (Waiting, 0.5)]); 4];
    about(super::processes(&two, &program).gain, 2.0);
}

#[test]
fn threads_without_any_time_change_nothing() {
    let eight = contenders(8, HoldingPython);
    let with_absent = [eight.clone(), vec![StateTimes::default(); 3]].concat();
    let pool = vec![thread(&[(HoldingPython, 0.2), (Waiting, 0.3), (Lock, 0.5)]); 4];
    let pool_with_absent = [pool.clone(), vec![StateTimes::default()]].concat();
    for (few, more) in [(eight, with_absent), (pool, pool_with_absent)] {
        assert_eq!(processes(&few, 2.0), processes(&more, 2.0));
        let asked = |threads: &[StateTimes]| {
            let change = Alternative { processes: Some(2), ..Alternative::default() };
            super::asked(threads, &Program::plain(threads.len(), 2.0), &change).unwrap()
        };
        assert_eq!(asked(&few), asked(&more));
    }
}

#[test]
fn a_lone_thread_on_a_busy_machine_is_as_fast_as_it_was() {
    let mut program = Program::plain(1, 2.0);
    (program.idle, program.used) = (Some(0.05), Some(0.1));
    about(super::processes(&[thread(&[(HoldingPython, 0.1), (Io, 0.9)])], &program).gain, 1.0);
}
