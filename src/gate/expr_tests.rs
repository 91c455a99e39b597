//! The grammar of limits: accepted and rejected expressions, and the round trip through text.

use super::*;
use crate::gate::metric::{FunctionMetric, Gain, StateMetric, Statistic};
use proptest::prelude::*;

fn limit(text: &str) -> String {
    Limit::parse(text).unwrap_or_else(|e| panic!("{text}: {e}")).to_string()
}

#[test]
fn limits_are_parsed() {
    for (text, canonical) in [
        ("waiting <= 20%", "waiting <= 20%"),
        ("waiting<=0.2", "waiting <= 20%"),
        ("gil.busy <= 0.9 @warn", "gil.busy <= 90% @warn"),
        ("wait_ms.p99 <= 25ms", "wait_ms.p99 <= 25ms"),
        ("wait_ms.p99<.5 s", "wait_ms.p99 < 500ms"),
        ("thread(\"worker-*\").waiting <= 30%", "thread(\"worker-*\").waiting <= 30%"),
        ("function(\"app.py:parse\").inflicted_wait <= 0.5", "function(\"app.py:parse\").inflicted_wait <= 0.5"),
        ("speedup.processes < 1.3", "speedup.processes < 1.3x"),
        ("gil.switches_per_s > 1_000 /s", "gil.switches_per_s > 1000/s"),
        ("verdict not in [blocked-holding-gil, latency-victims]", "verdict not in [blocked-holding-gil, latency-victims]"),
        (" verdict  ==keep-threads@warn ", "verdict in [keep-threads] @warn"),
        ("verdict != idle @fail", "verdict not in [idle]"),
    ] {
        assert_eq!(limit(text), canonical);
    }
}

#[test]
fn errors_list_what_exists() {
    for (text, part) in [
        ("waitings <= 20%", "no metric \"waitings\"; there are: waiting, holding,"),
        ("waiting <= 20ms", "no unit \"ms\" for this metric; there are: %"),
        ("wait_ms.p99 <= 20%", "there are: ms, us, s"),
        ("wait_ms.p98 <= 20", "no metric"),
        ("thread(\"x\").busy <= 1", "it has: waiting, holding"),
        ("process(\"x\").busy <= 1", "no metric process(…); there are:"),
        ("thread(x).waiting <= 1", "a name in double quotes"),
        ("thread(\"\").waiting <= 1", "1 to 200 bytes"),
        ("waiting <= 20", "20 without a unit is a fraction: write 20%"),
        ("waiting 20%", "<=, <, >= or >"),
        ("waiting <= ", "the expression ends, expected a number"),
        ("waiting <= -3%", "a number"),
        ("waiting <= 2%%", "no unit"),
        ("waiting <= 2% @loud", "warn or fail"),
        ("waiting <= 2% or so", "the end"),
        ("verdict <= 3", "not in […]"),
        ("verdict not in []", "no verdict \"\"; there are: switch-to-processes"),
        ("verdict in [slow]", "no verdict \"slow\""),
        ("verdict in [idle", "a comma or ]"),
        ("", "a metric (waiting,"),
    ] {
        let error = Limit::parse(text).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
    assert!(Limit::parse(&"x".repeat(2000)).is_err());
}

#[test]
fn regressions_are_parsed() {
    for (text, canonical) in [
        ("waiting: +5pp, min 2pp", "waiting: +5pp, min 2pp"),
        ("waiting:+10%", "waiting: +10%, min 2pp"),
        ("wait_ms.p99: +5 ms,min 500us @warn", "wait_ms.p99: +5ms, min 0.5ms @warn"),
        ("gil.saturates_at: -1", "gil.saturates_at: -1, min 0.05"),
        ("speedup.processes: +20%, min .2x", "speedup.processes: +20%, min 0.2x"),
    ] {
        assert_eq!(Regression::parse(text).unwrap().to_string(), canonical);
    }
    for (text, part) in [
        ("waiting +5pp", "a colon"),
        ("waiting: 5pp", "+ or -"),
        ("waiting: +5", "at most 100pp; 5 without a unit is a fraction: write 5pp"),
        ("waiting: +5pp, min 218446744", "at most 100pp; 218446744 without a unit"),
        ("waiting: +5000pp", "a share changes by at most 100pp"),
        ("wait_ms.p99: +999999999s", "larger than any figure"),
        ("waiting: +5ms", "pp (percentage points), or % of the baseline"),
        ("waiting: +5pp, 2pp", "expected min"),
        ("waiting: +5pp, min 2%", "min 2pp"),
        ("verdict: +1", "no size"),
        ("nothing: +1", "no metric"),
    ] {
        let error = Regression::parse(text).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
}

fn metric() -> impl Strategy<Value = Metric> {
    let state = prop_oneof![Just(StateMetric::Waiting), Just(StateMetric::Native), Just(StateMetric::Io)];
    let statistic = prop_oneof![Just(Statistic::Mean), Just(Statistic::P99), Just(Statistic::Max)];
    let function_metric = prop_oneof![Just(FunctionMetric::Holding), Just(FunctionMetric::InflictedWait)];
    let glob = "[ -!#-~é]{1,30}";
    prop_oneof![
        state.clone().prop_map(Metric::Share),
        statistic.clone().prop_map(Metric::Hold),
        statistic.prop_map(Metric::Wait),
        Just(Metric::GilBusy),
        Just(Metric::GilSwitches),
        Just(Metric::Speedup(Gain::ReleaseInNative)),
        Just(Metric::GilSaturatesAt),
        (glob, state).prop_map(|(glob, state)| Metric::Thread(glob, state)),
        (glob, function_metric).prop_map(|(glob, function_metric)| Metric::Function(glob, function_metric)),
    ]
}

proptest! {
    #[test]
    fn written_expressions_are_read_back(metric in metric(), thousandths in 0..100_000u32, op in 0..4usize, warn: bool, grows: bool, relative: bool) {
        let level = if warn { Level::Warn } else { Level::Fail };
        let share = metric.unit() == Unit::Share;
        let number = f64::from(thousandths) / if share { 100_000.0 } else { 1_000.0 };
        let bound = Bound::Number([Op::AtMost, Op::Below, Op::AtLeast, Op::Above][op], number);
        let limit = Limit { metric: metric.clone(), bound, level };
        let again = Limit::parse(&limit.to_string()).unwrap();
        prop_assert_eq!(&again.metric, &limit.metric);
        prop_assert_eq!(again.to_string(), limit.to_string());
        let (Bound::Number(op, read), Bound::Number(was, _)) = (again.bound, limit.bound) else { panic!() };
        prop_assert!(op == was && (read - number).abs() < 1e-9);
        let allowed = if relative { Allowed::Relative(number) } else { Allowed::Absolute(number) };
        let regression = Regression { metric, grows, allowed, floor: number, level };
        prop_assert_eq!(Regression::parse(&regression.to_string()).unwrap().to_string(), regression.to_string());
    }

    #[test]
    fn no_text_causes_a_panic(text in "[ -~é\n\"]{0,60}") {
        let _ = (Limit::parse(&text), Regression::parse(&text));
    }
}
