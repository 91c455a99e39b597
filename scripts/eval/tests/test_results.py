"""Results files, rendered documents, and the command line, without a measurement."""
import contextlib
import io
import json
import os
import subprocess
import sys
import re
import unittest
from unittest import mock

import common
import gate
import kernel
import paired
import recording
import render
import results
from overhead import profilers, table as overhead
from verdicts import table as verdicts


def measurement(part, value):
    return {"date": "2026-01-01", "commit": value, "checks": [common.check(part, True, "a check")], "rows": [{"part": part, "value": value}]}


class Files(unittest.TestCase):
    def test_a_new_measurement_replaces_its_parts_only(self):
        document = {"schema": results.SCHEMA, "name": "x", "measurements": [measurement("a", "old"), measurement("b", "old")]}
        merged = results.merge(document, measurement("a", "new"))
        self.assertEqual([(row["part"], row["value"]) for row in results.entries(merged, "rows")], [("b", "old"), ("a", "new")])
        self.assertEqual([one["commit"] for one in merged["measurements"]], ["old", "new"])

    def test_the_text_is_json_with_a_row_a_line(self):
        document = {"schema": results.SCHEMA, "name": "x", "measurements": [measurement("a", "ä"), dict(measurement("b", 1), rows=[])]}
        text = results.text_of(document)
        self.assertEqual(json.loads(text), document)
        self.assertIn('\n  {"part": "a", "value": "ä"}\n', text)

    def test_every_results_file_states_its_circumstances(self):
        for name in sorted(os.listdir(results.FOLDER)):
            document = results.load(name[:-len(".json")])
            self.assertEqual(name, document["name"] + ".json")
            for one in document["measurements"]:
                self.assertLessEqual({"date", "commit", "machine", "versions", "options", "checks", "rows"}, set(one), name)
                self.assertTrue(all("part" in entry for kind in ("checks", "rows") for entry in one[kind]), name)


class Documents(unittest.TestCase):
    def test_they_agree_with_the_results(self):
        for path, text in render.documents():
            self.assertEqual(render.rendered(text), text, path)

    def test_a_changed_figure_is_found(self):
        path, text = next((path, text) for path, text in render.documents() if path.endswith("accuracy.md"))
        changed = re.sub(r"(\| waiting \| idle machine \| 0\.)\d+", r"\g<1>9999", text)
        self.assertNotEqual(changed, text)
        self.assertEqual(render.rendered(changed), text)

    def test_an_unknown_table_is_refused(self):
        with self.assertRaises(common.UsageError):
            render.rendered("<!-- table:nonsense -->\n<!-- /table -->")

    def test_the_three_documents_stay_short(self):
        """Their prose does; a table grows with what is measured."""
        for name, most in (("accuracy", 64), ("performance", 44), ("verdicts", 40)):
            with open(os.path.join(render.FOLDER, name + ".md")) as file:
                self.assertLessEqual(sum(not line.startswith("|") for line in file), most, name)


class CommandLine(unittest.TestCase):
    def ended(self, *arguments):
        command = [sys.executable, "-B", os.path.join(common.REPOSITORY, "scripts", "eval"), *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        return done.returncode, done.stdout + done.stderr

    def test_exit_codes(self):
        for arguments, code in ((["render", "--check"], common.HOLDS), (["nonsense"], common.USAGE), (["accuracy", "--cases", "nonsense"], common.USAGE),
                                (["html", "--quick", "--write"], common.USAGE), (["verdicts", "--cases", "json", "--write"], common.USAGE),
                                (["gate", "--python", "/nonexistent/python"], common.NOT_MEASURED),
                                (["diff", "--quick", "--gilprof", "/bin/false"], common.FAILED)):
            found, text = self.ended(*arguments)
            self.assertEqual(found, code, (arguments, text))

    def test_each_subcommand_explains_the_exit_codes(self):
        for name in ("accuracy", "verdicts", "overhead", "kernel", "gate", "diff", "html", "recording", "service", "trees", "top", "render"):
            code, text = self.ended(name, "--help")
            self.assertEqual(code, 0, text)
            self.assertIn("exit codes:", text)


class Figures(unittest.TestCase):
    def test_the_interval_of_a_median_has_binomial_ranks(self):
        self.assertEqual(paired.interval(range(1, 21)), (6, 15))
        self.assertIsNone(paired.spread([1, 2, 3])["low"])

    def test_the_report_is_read_by_its_present_keys(self):
        window = {"samples": 1000, "missed": 4, "failed": 1, "torn": 2, "seconds": 1.0}
        self.assertEqual(profilers.read_gilprof(json.dumps({"window": window}), ""), {"samples": 999, "missed": 4, "failed": 3, "seconds": 1.0})

    def test_costs_are_medians_with_their_ends(self):
        runs = {"gilprof": [{"cpu": 0.08}, {"cpu": 0.09}, {"cpu": 0.07}], "Austin": "failed  with\na reason"}
        ours, austin = overhead.cost_rows("8 busy", 1000, runs)
        self.assertEqual(ours["cpu_percent"], {"median": 8.0, "low": 7.000000000000001, "high": 9.0})
        self.assertEqual(austin["failed"], "failed with a reason")

    def test_a_recording_is_judged_by_the_hour(self):
        row = {"program": "p", "seconds": 1800.0, "samples": 1, "mb": 49.0, "writer_mb": 10.0, "report_mb": 10.0, "report_s": 9.0}
        self.assertTrue(recording.row_check(row)["holds"])
        self.assertFalse(recording.row_check(dict(row, mb=51.0))["holds"])
        self.assertFalse(recording.row_check(dict(row, report_mb=151.0))["holds"])

    def test_a_gate_must_name_the_new_function(self):
        change = {"median": 16.0, "low": 15.0, "high": 17.0}
        row = {"part": "worse", "trials": 20, "pass": 0, "fail": 20, "inconclusive": 0, "change": change, "named": 20}
        self.assertTrue(gate.row_check(row)["holds"])
        self.assertFalse(gate.row_check(dict(row, named=19))["holds"])

    def test_the_kernel_engine_is_compared_with_no_profiler(self):
        def rounds(lowered):
            return [{(name, a, b): lowered for name, _ in kernel.FIGURES for _, a, b in kernel.PAIRS}] * 6
        self.assertFalse(common.Measurement(kernel.checks(rounds(0.4), "no count")).broken())
        self.assertTrue(common.Measurement(kernel.checks(rounds(0.6), "no count")).broken())
        self.assertTrue(common.Measurement(kernel.checks(rounds(0.4), {"runs_per_s": 1e3, "cpu_percent": 1.1})).broken())


class Verdicts(unittest.TestCase):
    def workload(self, verdict="serial", predicted=1.0, loaded=False):
        rounds = [{"verdict": verdict, "predicted": {"estimate": predicted, "low": predicted - 0.1, "high": predicted + 0.1},
                   "threads": 100.0, "processes": 100.0, "stolen": 0.0}] * 3
        return {"name": "w", "label": ["serial"], "loaded": loaded, "rounds": rounds}

    def broken(self, one):
        return common.Measurement(verdicts.checks([one])).broken()

    def test_a_verdict_outside_the_label_is_wrong(self):
        self.assertFalse(self.broken(self.workload()))
        self.assertTrue(self.broken(self.workload("keep-threads")))

    def test_with_load_too_few_cores_are_a_right_verdict(self):
        self.assertFalse(self.broken(self.workload("cpu-starved", loaded=True)))
        self.assertTrue(self.broken(self.workload("cpu-starved")))

    def test_a_predicted_gain_far_off_is_wrong(self):
        self.assertTrue(self.broken(self.workload(predicted=1.3)))

    def test_the_saturation_may_be_off_by_its_factor(self):
        one = {"name": "w", "sweep": {"predicted": 1.4, "measured": 1.0, "rates": {"1": 10.0}}}
        self.assertFalse(self.broken(one))
        self.assertTrue(self.broken(dict(one, sweep=dict(one["sweep"], predicted=1.6))))

    def test_a_row_is_printed_as_it_is_kept(self):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            verdicts.print_workload(self.workload())
        self.assertIn("1.00 [0.90, 1.10]", out.getvalue())


class Choice(unittest.TestCase):
    def test_unknown_names_are_refused_with_those_there_are(self):
        self.assertEqual(common.choose(["a", "b"], ""), ["a", "b"])
        self.assertEqual(common.choose(["a", "b"], " b ;"), ["b"])
        with self.assertRaisesRegex(common.UsageError, "c; there are: a; b"):
            common.choose(["a", "b"], "b;c")

    def test_quick_replaces_defaults_only(self):
        parser = mock.Mock(get_default={"seconds": 5.0, "repeat": 1}.get)
        options = mock.Mock(seconds=5.0, repeat=3)
        common.apply_quick(options, parser, {"seconds": 1.0, "repeat": 2})
        self.assertEqual((options.seconds, options.repeat), (1.0, 3))


if __name__ == "__main__":
    unittest.main()
