"""Shares, errors and bounds of the accuracy measurement, on rows made by hand."""
import unittest

from accuracy import measure, table, truth
from common import Measurement

SECOND = truth.SECOND


def thread(tid, seconds, waiting, native=0.0):
    return {"tid": tid, "name": "worker", "seconds": seconds, "states": {"waiting": waiting, "native": native}, "holding": {}, "cpu": native}


def run(case, error, label="3.13-pyenv", **more):
    """A run with one thread whose waiting is off by `error`."""
    shares = {"waiting": 0.5, "holding": 0.25, "native": 0.25, "starved": 0.0}
    row = {"tid": 7, "name": "worker", "reported": dict(shares, waiting=0.5 + error), "actual": shares}
    return dict({"case": case, "label": label, "version": "3.13.0", "loaded": False, "threads": [row],
                 "facts": {"source": "uprobes", "stolen": 0.0}}, **more)


class Compare(unittest.TestCase):
    def test_a_thread_that_ends_within_the_window_has_shares_of_its_own_life(self):
        actual = {7: {(truth.WAITING, truth.ASLEEP): 2 * SECOND, (truth.OUT, truth.ON): SECOND}}
        row, = measure.compare([thread(7, 3.0, 2 / 3, 1 / 3)], actual, 5 * SECOND, "uprobes")
        for state, share in (("waiting", 2 / 3), ("native", 1 / 3)):
            self.assertAlmostEqual(row["reported"][state], share)
            self.assertAlmostEqual(row["actual"][state], share)

    def test_a_gap_in_the_events_is_no_result(self):
        with self.assertRaises(truth.Unaligned):
            measure.compare([thread(7, 5.0, 1.0)], {7: {(truth.WAITING, truth.ASLEEP): 4 * SECOND}}, 5 * SECOND, "uprobes")

    def test_brief_threads_share_a_row_of_their_actual_lifetime(self):
        actual = {tid: {(truth.WAITING, truth.ASLEEP): SECOND} for tid in (7, 8)}
        row, = measure.compare([thread(7, 1.0, 1.0)], actual, 5 * SECOND, "uprobes")
        self.assertEqual(row["name"], "1 brief threads")
        # gilprof did not see the second thread: half of the waiting is missing.
        self.assertAlmostEqual(row["reported"]["waiting"], 0.5)
        self.assertAlmostEqual(row["actual"]["waiting"], 1.0)

    def test_the_nearest_possible_share_counts(self):
        row = {"reported": {"waiting": 0.50}, "actual": {"waiting": 0.52, "doubt": 0.015}}
        self.assertAlmostEqual(table.error(row, "waiting"), -0.005)
        row["actual"]["doubt"] = 0.03
        self.assertEqual(table.error(row, "waiting"), 0)


class Bounds(unittest.TestCase):
    def check_of(self, runs, state="waiting"):
        return next(one for one in table.checks(runs) if one.get("state") == state)

    def test_a_thread_beyond_the_bound_breaks_it(self):
        self.assertTrue(self.check_of([run("cpu 2", 0.005)])["holds"])
        self.assertFalse(self.check_of([run("cpu 2", 0.031)])["holds"])
        self.assertTrue(Measurement(table.checks([run("cpu 2", 0.031)])).broken())

    def test_a_workload_without_a_bound_breaks_none(self):
        self.assertFalse(Measurement(table.checks([run("0.4 ms threads", 0.2)])).broken())

    def test_the_median_of_the_runs_of_a_workload_counts(self):
        runs = [run("cpu 2", error) for error in (0.04, 0.001, 0.002)]
        checks = list(table.checks(runs))
        self.assertFalse(Measurement(checks).broken())
        self.assertTrue(any("one run of 3 beyond the bound" in one["text"] for one in checks))

    def test_the_kernel_engine_has_its_own_bound(self):
        self.assertFalse(self.check_of([run("cpu 2", 0.006, engine="kernel")])["holds"])
        self.assertFalse(table.beyond(run("cpu 2", 0.006)))
        self.assertTrue(table.beyond(run("cpu 2", 0.006, engine="kernel")))

    def test_a_failed_run_breaks_its_condition(self):
        self.assertTrue(Measurement(table.checks([{"case": "cpu 2", "version": "3.13.0", "label": "", "loaded": True, "failed": "why"}])).broken())

    def test_a_wait_at_an_end_of_the_window_is_excused(self):
        facts = {"source": "uprobes", "stolen": 0.0, "waits": (99, 100)}
        self.assertEqual(table.miscounted({"facts": facts}), 0)
        self.assertAlmostEqual(table.miscounted({"facts": dict(facts, waits=(97, 100))}), 0.02)


class Macros(unittest.TestCase):
    def test_arguments_with_parentheses_are_replaced_whole(self):
        self.assertEqual(truth.expand("a ADD(f(x); y) b", "ADD", "<FROM|TO>", ["FROM", "TO"], ";"), "a <f(x)|y> b")


if __name__ == "__main__":
    unittest.main()
