"""The pytest plugin of gilprof: limits on waiting for the GIL, for single tests and for the session.

    pytest [--gilprof]                                       # installed with gilprof: pip install .
    PYTHONPATH=src pytest -p pytest_gilprof [--gilprof]      # from a clone

It needs pytest 7 or newer, Python 3.9 or newer, Linux, and the command gilprof: $GILPROF, otherwise the
one on PATH, otherwise the one beside the interpreter.

A marked test is measured while its body runs. It fails if a limit is broken; the failure names the
function, its line and its stack:

    @pytest.mark.gil(max_waiting=0.2)                      # threads wait for the GIL at most 20 % of their time
    @pytest.mark.gil(max_gil_busy="90%", max_wait_ms_p99="25ms")
    @pytest.mark.gil(max=["waiting <= 20%", 'function("app.py:parse").inflicted_wait <= 0.5'])
    @pytest.mark.gil                                       # the limits of gilprof.toml

max_NAME=X means NAME <= X and min_NAME=X means NAME >= X, with gil_busy for gil.busy and so on. max=
takes expressions of `gilprof gate` (docs/gate.md). rate=5000 takes more samples, for tests of a few
tenths of a second. A mark on a class or module applies to each of its tests; the keywords of a test
take precedence.

A test whose limits could not be checked (shorter than 0.2 s, too close to its limit, no gilprof, no
permission) passes with a warning that says why. With --gilprof-strict, or gilprof_strict = true in
pytest's configuration, it fails. A test in which nothing runs keeps every upper limit. A mark that
makes no sense is an error of its test alone, before it runs. Marked tests are always measured, unless
--no-gilprof is given.

--gilprof also measures the session as a whole, prints the verdict, and checks the limits of gilprof.toml
(or of --gilprof-limits FILE) if the file exists: the session fails if a limit is broken. With
pytest-xdist each worker is measured and checked separately. --gilprof-dir DIR keeps the recordings for
`gilprof report`.

The gilprof that measures is a child of pytest. If Yama restricts ptrace, pytest allows only its own
descendants to read its memory.
"""
import ctypes
import json
import linecache
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time

import pytest

PR_SET_PTRACER = 0x59616D61
# Size of the header of a recording; the first record is written with the first sample.
HEADER_BYTES = 12
# How long gilprof may take to start, and to end, in seconds.
TIMEOUT = 30.0
# Metric prefixes in the keywords of a mark: gil_busy is gil.busy.
GROUPS = ("gil", "wait_ms", "hold_ms", "speedup")


class GilprofWarning(pytest.PytestWarning):
    """A limit could not be checked, or a limit with @warn is broken."""


class NotChecked(Exception):
    """Why a limit could not be checked."""


class BadLimit(Exception):
    """A limit that gilprof cannot parse."""


class BadMark(Exception):
    """A mark that makes no sense."""


class GilLimit(pytest.fail.Exception):
    """A limit is broken. The report shows `shown` and no frame of this plugin."""

    def __init__(self, shown):
        super().__init__(str(shown), pytrace=False)
        self.shown = shown


class GilMark(GilLimit):
    """A test is not run, because its mark makes no sense."""


def pytest_addoption(parser):
    group = parser.getgroup("gilprof", "contention on the GIL, measured by gilprof")
    group.addoption("--gilprof", action="store_true", help="measure the whole session, and check the limits of gilprof.toml")
    group.addoption("--no-gilprof", action="store_true", help="measure nothing; marks have no effect")
    group.addoption("--gilprof-strict", action="store_true", help="fail tests whose limits could not be checked, instead of warning")
    group.addoption("--gilprof-limits", metavar="FILE", help="limits of the session and of marks without arguments (default: gilprof.toml in the rootdir)")
    group.addoption("--gilprof-dir", metavar="DIR", help="keep the recordings in this directory")
    parser.addini("gilprof_strict", "fail tests whose limits could not be checked, instead of warning", type="bool", default=False)


def pytest_configure(config):
    config.addinivalue_line("markers", "gil(max_waiting=0.2, max='EXPRESSION', rate=1000): fail the test when its threads contend for the GIL")
    option = config.option
    if option.gilprof and option.no_gilprof:
        raise pytest.UsageError("--gilprof and --no-gilprof exclude each other")
    if option.gilprof_limits and not os.path.isfile(option.gilprof_limits):
        raise pytest.UsageError("--gilprof-limits: there is no file %s; write one with: gilprof gate --init" % option.gilprof_limits)
    if option.no_gilprof:
        return
    gilprof = Gilprof(config)
    if option.gilprof and gilprof.missing:
        raise pytest.UsageError("--gilprof: " + gilprof.missing)
    config.pluginmanager.register(Marks(gilprof), "gilprof-marks")
    if option.gilprof and not option.collectonly:
        config.pluginmanager.register(Session(gilprof), "gilprof-session")


class Gilprof:
    """The gilprof command, and the directory of the recordings."""

    def __init__(self, config):
        self.config = config
        self.strict = config.option.gilprof_strict or config.getini("gilprof_strict")
        self.keep = config.option.gilprof_dir
        self.binary, self.missing = find_gilprof()
        self._folder = getattr(config, "workerinput", {}).get("gilprof_folder")
        if self._folder is None:
            config.add_cleanup(self._clean_up)

    @property
    def folder(self):
        if self._folder is None:
            self._folder = os.path.abspath(self.keep) if self.keep else tempfile.mkdtemp(prefix="pytest-gilprof-")
            os.makedirs(self._folder, exist_ok=True)
        return self._folder

    def _clean_up(self):
        if self._folder and not self.keep:
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def limits(self):
        """The file of limits, or None."""
        given = self.config.option.gilprof_limits
        usual = os.path.join(str(self.config.rootpath), "gilprof.toml")
        return os.path.abspath(given) if given else usual if os.path.isfile(usual) else None

    def recording(self, name, rate=1000):
        """Starts a recording of this process."""
        if self.missing:
            raise NotChecked(self.missing)
        worker = os.environ.get("PYTEST_XDIST_WORKER")
        name = re.sub(r"[^\w.\-]+", "_", name if worker is None else "%s-%s" % (worker, name))[-120:]
        return Recording(self.binary, os.path.join(self.folder, name + ".gilprof"), rate)

    def drop(self, recording):
        if not self.keep:
            try:
                os.remove(recording.path)
            except OSError:
                pass

    def gate(self, path, arguments):
        """The outcome of `gilprof gate` for a recording, schema gilprof.gate/1."""
        # Runs in the directory of the recordings, so that gilprof reads no gilprof.toml by default.
        status, out, err = self._run(["gate", "--format", "json"] + arguments + [path])
        if status == 2:
            raise BadLimit(err)
        try:
            outcome = json.loads(out)
        except ValueError:
            raise NotChecked(err or "gilprof gate ended with exit code %d and no message" % status) from None
        if outcome.get("error"):
            raise NotChecked(outcome["error"])
        return outcome

    def refused(self, limits):
        """Of these lists of arguments, those that gilprof cannot parse, with its messages."""
        # One call for all, as long as no one is wrong.
        together = list(dict.fromkeys(argument for arguments in limits for argument in arguments))
        if not together or self._refusal(together) is None:
            return {}
        messages = {arguments: self._refusal(list(arguments)) for arguments in limits}
        return {arguments: why for arguments, why in messages.items() if why is not None}

    def _refusal(self, arguments):
        # The limits are parsed before the recording is read, and this file is none.
        status, _, err = self._run(["gate"] + arguments + [os.devnull])
        return (err or "gilprof cannot parse the limits") if status == 2 else None

    def verdict(self, path):
        """The verdict on a recording, in one line."""
        status, out, err = self._run(["report", "--format", "json", path])
        if status != 0:
            raise NotChecked(err)
        verdict = json.loads(out)["verdict"]
        return "%s: %s" % (verdict["code"], verdict["headline"])

    def _run(self, arguments):
        # Without the variable, gilprof does not add each test to the summary of the CI job.
        env = {name: value for name, value in os.environ.items() if name != "GITHUB_STEP_SUMMARY"}
        try:
            done = subprocess.run([self.binary] + arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                  cwd=self.folder, env=env, timeout=2 * TIMEOUT)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NotChecked("failed to run gilprof: %s" % error) from None
        return done.returncode, done.stdout.decode("utf-8", "replace"), message(done.stderr)


def find_gilprof():
    """The path of gilprof and None, or None and the reason."""
    if not sys.platform.startswith("linux"):
        return None, "gilprof measures on Linux only"
    wanted = os.environ.get("GILPROF") or "gilprof"
    # `pip install` puts gilprof beside the interpreter, on PATH only if the environment is active.
    beside = sysconfig.get_path("scripts") if wanted == "gilprof" else None
    # An absolute path, because gilprof is started in other directories.
    found = shutil.which(wanted) or (beside and shutil.which(wanted, path=beside))
    if found:
        return os.path.abspath(found), None
    return None, "failed to find gilprof (%s): install it, or set GILPROF to its path" % ("$GILPROF is " + wanted if wanted != "gilprof" else "not on PATH")


class Recording:
    """A running gilprof that records this process from the first sample until `end`."""

    def __init__(self, binary, path, rate):
        self.path = path
        allow_descendants()
        if os.path.exists(path):
            os.remove(path)
        self._errors = tempfile.TemporaryFile()
        command = [binary, "record", "--pid", str(os.getpid()), "--rate", str(rate), "--output", path]
        try:
            # In a session of its own, so that Ctrl-C reaches only pytest.
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._errors, start_new_session=True)
        except OSError as error:
            raise NotChecked("failed to start gilprof: %s" % error) from None
        try:
            self._wait_for_start()
        except BaseException:  # Ctrl-C too: otherwise gilprof would go on until pytest ends
            self._kill()
            raise

    def _wait_for_start(self):
        deadline = time.monotonic() + TIMEOUT
        while not self._has_started():
            if self._process.poll() is not None:
                raise NotChecked(self._error())
            if time.monotonic() > deadline:
                raise NotChecked("gilprof did not start to measure within %d s" % TIMEOUT)
            time.sleep(0.002)

    def _kill(self):
        self._process.kill()
        self._process.wait()

    def _has_started(self):
        try:
            return os.path.getsize(self.path) > HEADER_BYTES
        except OSError:
            return False

    def end(self):
        """Ends the recording. Raises NotChecked if gilprof had ended before."""
        early = self._process.poll() is not None
        if not early:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(TIMEOUT)
            except subprocess.TimeoutExpired:
                self._kill()
                raise NotChecked("gilprof did not end") from None
        if early or self._process.returncode != 0:
            raise NotChecked(self._error())

    def _error(self):
        self._errors.seek(0)
        return message(self._errors.read()) or "gilprof ended by itself with exit code %d" % self._process.returncode


def allow_descendants():
    """Yama's scope 1 allows only ancestors to read a process, and the process it names; its own pid stands
    for all its descendants."""
    try:
        own = ctypes.c_ulong(os.getpid())
        zero = ctypes.c_ulong(0)
        ctypes.CDLL(None).prctl(PR_SET_PTRACER, own, zero, zero, zero)
    except (AttributeError, OSError):
        pass  # gilprof reports the missing permission


def message(stderr):
    """The text that gilprof wrote to stderr, without its prefix and without the hint at --help."""
    text = stderr.decode("utf-8", "replace").partition("\n\nFor more information, try")[0].strip()
    return re.sub(r"^(gilprof: )?(error: )?", "", text)


class Limits:
    """The limits in the marks of an item. Raises BadMark."""

    def __init__(self, item):
        self.keywords, self.expressions, self.rate = {}, [], 1000
        # From the module inwards: the mark that is nearer to the test takes precedence.
        for mark in reversed(list(item.iter_markers("gil"))):
            self._add(mark)

    def _add(self, mark):
        for expression in mark.args:
            self._add_expressions(expression)
        for name, value in mark.kwargs.items():
            if name == "max":
                self._add_expressions(value)
            elif name == "rate":
                self.rate = number(value) or refuse("rate=%r is not a number" % (value,))
            elif name.startswith(("max_", "min_")):
                self.keywords[name] = limit(name, value) or refuse("%s=%r is neither a number nor text" % (name, value))
            else:
                refuse("there is no %s=; limits are max_NAME=, min_NAME= and max='EXPRESSION'" % name)

    def _add_expressions(self, value):
        for expression in [value] if isinstance(value, str) else value if isinstance(value, (list, tuple)) else [None]:
            if not isinstance(expression, str):
                refuse("%r is no expression; an example is 'waiting <= 20%%'" % (value,))
            if expression not in self.expressions:
                self.expressions.append(expression)

    def arguments(self, file):
        """The arguments for `gilprof gate`."""
        expressions = list(self.keywords.values()) + self.expressions
        if expressions:
            # --max=EXPRESSION, because an expression may begin with a dash.
            return ["--max=" + expression for expression in expressions]
        if file is None:
            refuse("it has no limits, and there is no gilprof.toml; write max_waiting=0.2, or run: gilprof gate --init")
        return ["--limits", file]


def refuse(why):
    raise BadMark(why)


def number(value):
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        return None
    return ("%.6f" % value).rstrip("0").rstrip(".")


def limit(name, value):
    """The expression for a keyword: max_gil_busy=0.9 is gil.busy <= 0.9."""
    metric = name[4:]
    for group in GROUPS:
        if metric.startswith(group + "_"):
            metric = "%s.%s" % (group, metric[len(group) + 1:])
    value = value if isinstance(value, str) else number(value)
    return value and "%s %s %s" % (metric, "<=" if name.startswith("max_") else ">=", value)


class Marks:
    """Measures marked tests."""

    def __init__(self, gilprof):
        self.gilprof = gilprof
        # Why the mark of a test makes no sense, by the test.
        self.bad = {}

    @pytest.hookimpl(trylast=True)  # after a conftest.py that adds marks
    def pytest_collection_modifyitems(self, items):
        limits = {}
        for item in items:
            if item.get_closest_marker("gil") is None:
                continue
            try:
                limits[item] = tuple(Limits(item).arguments(self.gilprof.limits))
            except BadMark as error:
                self.bad[item] = str(error)
        if limits and not self.gilprof.missing:
            try:
                refused = self.gilprof.refused(set(limits.values()))
            except NotChecked:
                return  # each test says why it could not be checked
            self.bad.update((item, refused[arguments]) for item, arguments in limits.items() if arguments in refused)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item):
        if item in self.bad:
            lines = [line for line in ("gil mark: " + self.bad[item]).splitlines() if line.strip()]
            raise GilMark(Shown(lines, place_of(item), kind="GilMark"))

    @pytest.hookimpl(hookwrapper=True, trylast=True)
    def pytest_runtest_call(self, item):
        if item.get_closest_marker("gil") is None:
            yield
            return
        recording = unchecked = wrong = None
        try:
            limits = Limits(item)
            recording = self.gilprof.recording(item.nodeid, limits.rate)
        except NotChecked as error:
            unchecked = str(error)
        except BadMark as error:  # a mark may be added after the collection
            wrong = str(error)
        outcome = yield
        try:
            if recording is not None:
                recording.end()
                self._check(item, outcome, self.gilprof.gate(recording.path, limits.arguments(self.gilprof.limits)))
        except NotChecked as error:
            unchecked = str(error)
        except (BadLimit, BadMark) as error:
            wrong = str(error)
        finally:
            if recording is not None:
                self.gilprof.drop(recording)
        if wrong is not None:
            fail(item, outcome, Shown(["gil mark: " + wrong], place_of(item)))
        elif unchecked is not None:
            self._unchecked(item, outcome, [unchecked])

    def _check(self, item, outcome, gate):
        checks = gate["checks"]
        for check in checks:
            item.user_properties.append(("gil: " + check["expression"], "%s: %s" % (check["verdict"], check["measured_text"])))
        failed = [check for check in checks if check["verdict"] == "fail"]
        if failed:
            fail(item, outcome, shown(failed, item))
            return
        if not checks:
            raise NotChecked(gate["headline"])
        if undecided(gate):
            self._unchecked(item, outcome, [sentence(check) for check in undecided(gate)])
        for check in checks:
            if check["verdict"] == "warn":
                warn(item, outcome, sentence(check))

    def _unchecked(self, item, outcome, why):
        text = "the GIL limits of this test could not be checked: " + "; ".join(why)
        if self.gilprof.strict:
            fail(item, outcome, Shown([text], place_of(item)))
        else:
            warn(item, outcome, text)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item, call):
        outcome = yield
        if call.excinfo is not None and isinstance(call.excinfo.value, GilLimit):
            report = outcome.get_result()
            if report.outcome == "failed":
                report.longrepr = call.excinfo.value.shown.native()


def warn(item, outcome, text):
    try:
        item.warn(GilprofWarning(text))
    except GilprofWarning as error:  # -W error
        if outcome.excinfo is None:
            force(outcome, error)


def fail(item, outcome, shown):
    """Fails the test. If it has failed already, its own failure is shown, with this one as a section."""
    if outcome.excinfo is None:
        force(outcome, GilLimit(shown))
    else:
        item.add_report_section("call", "gilprof", str(shown))


def force(outcome, error):
    if hasattr(outcome, "force_exception"):
        outcome.force_exception(error)
    else:  # pluggy before 1.1
        outcome._result, outcome._excinfo = None, (type(error), error, None)


class Crash:
    """The part of a failure that pytest's short summary, JUnit and --tb=line show."""

    def __init__(self, path, lineno, message):
        self.path, self.lineno, self.message = path, lineno, message

    def __str__(self):
        return "%s:%s: %s" % (self.path, self.lineno, self.message)


class Shown:
    """A failure in pytest's own form: source lines, messages and a location."""

    def __init__(self, lines, place, source=(), kind="GilLimit"):
        self.lines = list(source) + [""] + ["E   " + line for line in lines]
        self.reprcrash = Crash(place[0], place[1], lines[0])
        self.kind = kind

    def native(self):
        """The failure in pytest's own classes, with colours, and complete through pytest-xdist. The classes
        are not public; without them the failure is plain text."""
        try:
            from _pytest._code.code import ReprEntry, ReprExceptionInfo, ReprFileLocation, ReprTraceback
            path, line, message = self.reprcrash.path, self.reprcrash.lineno, self.reprcrash.message
            entry = ReprEntry(self.lines, None, None, ReprFileLocation(path, line, self.kind), "long")
            return ReprExceptionInfo(reprtraceback=ReprTraceback([entry], None, "long"), reprcrash=ReprFileLocation(path, line, message))
        except (ImportError, TypeError):
            return self

    def toterminal(self, tw):
        tw.line(str(self))

    def __str__(self):
        return "\n".join(self.lines + ["", "%s:%s: %s" % (self.reprcrash.path, self.reprcrash.lineno, self.kind)])


def shown(failed, item):
    """The failure for broken checks of an item."""
    lines, source, place = [], [], None
    for check in failed:
        lines.append(sentence(check))
        culprit = check.get("culprit")
        if culprit is None:
            continue
        lines.append("  " + culprit_sentence(culprit, item.config))
        lines += ["    " + where(frame["name"], frame["file"], frame["line"], item.config) for frame in frames_of_test(culprit["stack"], item)[-12:]]
        file, first, line = own_place(culprit)
        if place is None and os.path.isfile(file) and line:
            place = relative(file, item.config), line
            source = snippet(file, first, line)
    return Shown(lines, place or place_of(item), source)


def frames_of_test(stack, item):
    """The frames of a stack that are not of pytest: those above the test, which call it, are left out."""
    if not any(is_of_pytest(frame) for frame in stack):
        return stack  # of another thread
    begin = next((n for n, frame in enumerate(stack) if frame["file"] == str(item.path)), 0)
    return [frame for frame in stack[begin:] if not is_of_pytest(frame)]


def is_of_pytest(frame):
    modules = [sys.modules.get(name) for name in ("_pytest", "pytest", "pluggy", "xdist", "execnet", __name__)]
    folders = [os.path.join(os.path.dirname(module.__file__), "") for module in modules if getattr(module, "__file__", None)]
    return frame["file"].startswith(tuple(folders))


def sentence(check):
    measured = "is unknown" if check["measured_text"] == "-" else "is " + check["measured_text"]
    return plain("%s %s, limit %s: %s" % (check["metric"], measured, check["limit_text"], check["why"]))


def undecided(gate):
    """The inconclusive checks. If nothing ran, no thread waited, and no upper limit can be broken, except on the
    length of a hold, nor a limit on the verdict. A process whose child processes work is idle by its verdict, but the work was not measured."""
    idle = gate["runs"] and all(run.get("unusable", {}).get("code") == "idle" for run in gate["runs"])
    kept = lambda check: idle and not check["metric"].startswith("hold_ms") and check["expression"].startswith((check["metric"] + " <", check["metric"] + " not in "))
    return [check for check in gate["checks"] if check["verdict"] == "inconclusive" and not kept(check)]


def culprit_sentence(culprit, config):
    thread = ", thread %s" % culprit["thread"] if culprit.get("thread") else ""
    name = def_place(culprit["name"], culprit["file"], culprit["first_line"], culprit["line"], config)
    caller = culprit.get("called_from")
    if caller:
        name += ", called from " + def_place(caller["name"], caller["file"], caller["line"], caller["call_line"], config)
    return plain("%s%s: %s" % (name, thread, culprit["what"]))


def own_place(culprit):
    """The file, the first line and the line of the culprit; of its caller, if it is a library's function."""
    caller = culprit.get("called_from")
    if caller:
        return caller["file"], caller["line"], caller["call_line"] or caller["line"]
    return culprit["file"], culprit["first_line"], culprit["line"] or culprit["first_line"]


def def_place(name, file, first, line, config):
    """A function with the line of its def, and the line that runs: `crunch (app.py:12) at line 16`."""
    return where(name, file, first, config) + (" at line %d" % line if line and line != first else "")


def where(name, file, line, config):
    if not file:
        return plain(name)
    return plain("%s (%s%s)" % (name, relative(file, config), ":%d" % line if line else ""))


def relative(file, config):
    """A path relative to the directory in which pytest was started, if it is below that."""
    base = os.path.join(str(config.invocation_params.dir), "")
    return file[len(base):] if file.startswith(base) else file


def place_of(item):
    file, line, _ = item.location
    return file, (line or 0) + 1


def plain(text):
    """Escapes text from the measured program, which may contain control characters."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def snippet(file, first, line):
    """The head of the function and the culprit's line, marked as in pytest."""
    begin = first if first and line - first < 8 else max(first or 1, line - 2)
    numbers = ([first] if first and first < begin else []) + list(range(begin, line + 1))
    out = []
    for at in numbers:
        text = plain(linecache.getline(file, at).rstrip().expandtabs())
        out.append(("> " if at == line else "  ") + "  " + text)
        if at == first and first < begin - 1:
            out.append("        ...")
    return out


class Session:
    """Measures the session."""

    def __init__(self, gilprof):
        self.gilprof, self.config = gilprof, gilprof.config
        self.recordings, self.lines = [], []
        self.worker = hasattr(self.config, "workerinput")
        self.controller = not self.worker and getattr(self.config.option, "dist", "no") != "no"

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node):
        node.workerinput["gilprof_folder"] = self.gilprof.folder

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node):
        result = getattr(node, "workeroutput", {}).get("gilprof")
        if result:
            self.recordings.append((node.gateway.id, result))

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtestloop(self, session):
        recording = None
        if not self.controller:
            try:
                recording = self.gilprof.recording("session")
            except NotChecked as error:
                self.recordings.append(("session", {"error": str(error)}))
        outcome = yield
        if recording is not None:
            result = {"path": recording.path}
            try:
                recording.end()
            except NotChecked as error:
                result = {"error": str(error)}
            self.recordings.append(("session", result))
        if self.worker:
            self.config.workeroutput["gilprof"] = self.recordings[0][1]
        elif outcome.excinfo is None or not issubclass(outcome.excinfo[0], KeyboardInterrupt):
            # pytest derives its exit code from this count.
            session.testsfailed += sum([not self._check(name, result) for name, result in sorted(self.recordings, key=lambda one: one[0])])

    def _check(self, name, result):
        """Whether this recording allows the session to pass."""
        try:
            if "error" in result:
                raise NotChecked(result["error"])
            self.lines.append(("%s: %s" % (name, self.gilprof.verdict(result["path"])), {"bold": True}))
            if self.gilprof.keep:
                self.lines.append(("  recording: " + result["path"], {}))
            if self.gilprof.limits is None:
                self.lines.append(("  not checked: there is no gilprof.toml; write one with: gilprof gate --init", {}))
                return True
            return self._report_checks(self.gilprof.gate(result["path"], ["--limits", self.gilprof.limits]))
        except NotChecked as error:
            self.lines.append(("%s: could not be checked: %s" % (name, error), {"yellow": True}))
            return not self.gilprof.strict
        except BadLimit as error:
            self.lines += [("%s: %s" % (name, line), {"red": True}) for line in str(error).splitlines() if line.strip()]
            return False

    def _report_checks(self, gate):
        colours = {"pass": {"green": True}, "fail": {"red": True}}
        marks = {"pass": "ok  ", "fail": "FAIL", "warn": "warn", "inconclusive": "?   "}
        for check in gate["checks"]:
            verdict = check["verdict"]
            self.lines.append(("  %s %s" % (marks.get(verdict, "?"), sentence(check)), colours.get(verdict, {"yellow": True})))
            if verdict != "pass" and check.get("culprit"):
                self.lines.append(("       " + culprit_sentence(check["culprit"], self.config), {}))
        return gate["verdict"] != "fail" and not (self.gilprof.strict and undecided(gate))

    def pytest_terminal_summary(self, terminalreporter):
        if self.lines:
            terminalreporter.section("gilprof")
            for line, style in self.lines:
                terminalreporter.write_line(line, **style)
