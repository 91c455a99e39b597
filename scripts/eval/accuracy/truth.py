"""The actual state of every thread of a process, from kernel events alone. Nothing here is shared
with gilprof.

Each period of time is recorded under two states at once:

    the GIL    a hardware watchpoint on the GIL's `locked` field records which thread is HOLDING and
               since when, to the instruction. Uprobes record which thread is inside `take_gil`
               (TAKING, until it sleeps) or `drop_gil` (DROPPING). A thread that sleeps in either is
               waiting, and in `take_gil` it stays WAITING from then on. In `drop_gil` it may sleep
               for the GIL's mutex and want nothing more when it wakes.
    the CPU    the scheduler's tracepoints: ON a CPU, QUEUED for one, ASLEEP. A thread's life ends
               with exit(2). The time that the kernel then spends on its removal (some tenths of a
               millisecond, mostly in the run queue) is not the thread's.

A thread that is preempted inside `drop_gil` by the thread it wakes there is waiting if the eval
loop made it drop the GIL (FORCED: it wants the GIL back at once), and starved if it dropped the GIL
by itself. TAKING on a CPU is kept apart from WAITING: it is the cost of the probes, and of an
uncontended lock. Where symbols are missing, futex calls on the GIL's addresses replace the uprobes:
a sleep there is a wait, and a drop was forced if the thread's `eval_breaker` had the drop request
(3.13+) and the thread does not continue with something else. bpftrace sums the time in the kernel,
so that a busy GIL costs no output. It prints single periods only around the ends of the window,
because the begin of gilprof's window is known only afterwards (`window.begin_ns`, same clock).

With uprobes, waits of the kernel engine are counted too: each `take_gil` that slept, from its begin
to the store that takes the GIL, or to the end of the window. futex(2) returns at once where the GIL
was released at the same moment; the scheduler does not see that.
"""
import collections
import json
import os
import re
import struct
import subprocess
import time

from common import Failed

UNSEEN, OUT, TAKING, WAITING, HOLDING, DROPPING, FORCED = range(7)
# Not a state: time in the watchpoint's traps, which is part of the other states.
TRAPS = 7
ON, QUEUED, ASLEEP = range(3)
SECOND = 1000000000
# Single periods are printed around each end of the window: from OUTER outside of it to INNER
# inside.
OUTER, INNER = SECOND // 4, SECOND // 2


def clock():
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


# `@at[tid]`: begin of the period; `@is[tid]`: GIL * 4 + CPU. Macros are text replacements because
# bpftrace 0.17 has no functions.
ADD = """
    $a = FROM > %(inner_begin)d ? FROM : %(inner_begin)d;
    $b = TO < %(inner_end)d ? TO : %(inner_end)d;
    if ($b > $a) { @sum[TID, CODE] = sum($b - $a); }
    if ((TO > %(outer_begin)d && FROM < %(inner_begin)d) || TO > %(inner_end)d) { printf("%%d %%d %%lu %%lu\\n", TID, CODE, FROM, TO); }
"""
CHANGE = """
  $n = nsecs; $s = @at[TID]; $was = @is[TID];
  if ($s != 0) { ADD($s, $n, TID, $was) }
  @at[TID] = $n; @is[TID] = NEXT;
"""
SCHEDULER = """
tracepoint:sched:sched_switch {
  if (pid == PID && @at[args->prev_pid] != 0) {
    $sleeps = (args->prev_state & 255) != 0;
    SLEPT
    CHANGE(args->prev_pid; (INSIDE) + ($sleeps ? 2 : 1))
  }
  if (@at[args->next_pid] != 0) { CHANGE(args->next_pid; ($was & 28)) }
}
tracepoint:sched:sched_wakeup {
  if (@at[args->pid] != 0 && (@is[args->pid] & 3) == 2) { CHANGE(args->pid; ($was & 28) + 1) }
}
tracepoint:sched:sched_wakeup_new /pid == PID/ { CHANGE(args->pid; 5) }
tracepoint:sched:sched_process_exit /pid == PID/ { CHANGE(tid; 0) delete(@at[tid]); delete(@is[tid]); }
"""
# A thread that hits a uprobe is on a CPU. It leaves `take_gil` holding the GIL; `drop_gil` may wait
# for a forced switch. The watchpoint fires after the store, in the thread that made it, so that
# thread is ON a CPU.
WATCH = """
watchpoint:LOCKED:4:w /pid == PID/ {
  if (nsecs >= BEGIN_NS && nsecs < END_NS) { @traps[tid] = count(); }
  $gil = (int32)*uptr((int32 *)LOCKED);
  if ($gil == 1) { CHANGE(tid; 16) } else { CHANGE(tid; (FORCED ? 24 : 20)) }
  COUNTED
}
"""
# A `take_gil` that had to sleep: counted by thread, and printed around the ends of the window.
COUNTED = """
  if ($gil == 1 && @slept[tid] != 0) {
    $from = @slept[tid]; $to = nsecs;
    if ($from >= %(inner_begin)d && $to <= %(inner_end)d) { @waits[tid] = count(); }
    else if ($to > %(outer_begin)d) { printf("wait %%d %%lu %%lu\\n", tid, $from, $to); }
    @slept[tid] = 0;
  }
"""
SLEEPS = "if ($sleeps && @is[args->prev_pid] / 4 == 2 && @slept[args->prev_pid] == 0) { @slept[args->prev_pid] = nsecs; }"
# Nanoseconds that one trap takes from its thread: 11 to 15 us on the virtual machine this was
# written on (trap.py).
TRAP = 13000
UPROBES_TAKE = """
uprobe:LIB:TAKE /pid == PID/ { CHANGE(tid; 8) }
"""
UPROBES_DROP = """
uprobe:LIB:drop_gil /pid == PID/ { @forced[tid] = BY_EVAL_LOOP ? 1 : 0; }
uretprobe:LIB:drop_gil /pid == PID/ { CHANGE(tid; 4) }
"""
# Up to 3.11 the eval loop itself calls `drop_gil`. From 3.12 on `_Py_HandlePending` does.
CALLED_FROM = "*(uint64 *)reg(\"sp\") - %d < %d"
PENDING = """
uprobe:LIB:_Py_HandlePending /pid == PID/ { @pending[tid] = 1; }
uretprobe:LIB:_Py_HandlePending /pid == PID/ { delete(@pending[tid]); }
"""
# Only the operations that wait: 0, 6, 9, 11, 13 are FUTEX_WAIT, LOCK_PI, WAIT_BITSET,
# WAIT_REQUEUE_PI, LOCK_PI2. A holder that sleeps on the GIL's mutex is still the holder.
FUTEXES = """
tracepoint:syscalls:sys_enter_futex /pid == PID && args->uaddr >= GIL_FROM && args->uaddr < GIL_TO/ {
  $op = args->op & 127;
  if (($op == 0 || $op == 6 || $op == 9 || $op == 11 || $op == 13) && @is[tid] / 4 != 4) { CHANGE(tid; 12) }
}
tracepoint:syscalls:sys_exit_futex /pid == PID && @is[tid] / 4 == 3/ { CHANGE(tid; 8) }
"""
# Offsets that no interpreter publishes before 3.13, from its headers (x86-64): of the GIL in
# `_PyRuntime`, of `interpreters.head` there and of `ceval.gil` in an interpreter.
GIL_IN_RUNTIME = {"3.7": 1264, "3.8": 1152, "3.9": 352, "3.10": 352, "3.11": 360}
HEAD_IN_RUNTIME = {"3.12": 40}
GIL_IN_INTERPRETER = {"3.12": 384}
# With uprobes: a thread that sleeps inside `take_gil`, or in a forced `drop_gil`, waits until it
# has the GIL.
SLEEPS_INSIDE = "$sleeps && ($was / 4 == 2 || $was / 4 == 6) ? 12 : $was & 28"
FORCED_BY_EVAL_LOOP = "@forced[tid] == 1"
# Without uprobes: a thread with a drop request may have been about to drop the GIL anyway. Then it
# continues with something else, and more than this many nanoseconds pass before it asks again.
AT_ONCE = 100000
GOES_ON = "$was == 24 && $n - $s > %d ? 20 : $was & 28" % AT_ONCE
# The drop request: the lowest bit of `PyThreadState.eval_breaker` (3.13+, after `prev`, `next` and
# `interp`) of the GIL's `last_holder`, which is the thread that drops it.
FORCED_BY_REQUEST = "(*uptr((uint64 *)(*uptr((uint64 *)%d) + 24)) & 1) == 1"


class Unaligned(Exception):
    """bpftrace or gilprof was too late for the planned window, or the events have a gap."""


def python_library(pid):
    """The mapped file with the code of `take_gil`, as a path of this process."""
    best = None
    with open("/proc/%d/maps" % pid) as maps:
        for line in maps:
            path = line.split(None, 5)[5].strip() if line.count("/") else ""
            if re.search(r"/libpython[23][^/]*\.so", path):
                return "/proc/%d/root%s" % (pid, path)
            if best is None and re.search(r"/python[23][^/]*$", path):
                best = path
    return "/proc/%d/exe" % pid if best else None


def symbols(path, dynamic=False):
    """Name -> (value, size, type) of the symbols that an ELF file defines."""
    with open(path, "rb") as file:
        data = file.read()
    start, = struct.unpack_from("<Q", data, 40)
    size, count = struct.unpack_from("<HH", data, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, start + i * size) for i in range(count)]
    found = {}
    for _, kind, _, _, offset, length, link, _, _, entry in sections:
        if kind != (11 if dynamic else 2):
            continue
        names = sections[link][4]
        for at in range(offset, offset + length, entry):
            name, info, _, section, value, extent = struct.unpack_from("<IBBHQQ", data, at)
            if section:
                found[data[names + name:data.index(b"\0", names + name)].decode()] = (value, extent, info & 15)
    return found


def base_of(pid, path):
    """The address of the file's first page in the process; 0 for an executable with fixed
    addresses.
    """
    with open(path, "rb") as file:
        if struct.unpack_from("<H", file.read(18), 16)[0] != 3:
            return 0
    want = os.stat(path).st_ino
    with open("/proc/%d/maps" % pid) as maps:
        return min(int(line.split("-")[0], 16) for line in maps if int(line.split()[4]) == want)


def uprobes(pid, path):
    """Probes on `take_gil` and `drop_gil`; "" where their symbols are missing."""
    table = symbols(path)
    # The compiler makes copies such as `take_gil.constprop.0`.
    takes = [name for name, (_, _, kind) in table.items() if kind == 2 and re.match(r"take_gil(\.(constprop|isra|part)\.\d+)*$", name)]
    if not takes or "drop_gil" not in table:
        return ""
    text = "".join(UPROBES_TAKE.replace("TAKE", '"%s"' % name) for name in takes)
    if "_Py_HandlePending" in table:
        return text + PENDING + UPROBES_DROP.replace("BY_EVAL_LOOP", "@pending[tid] == 1")
    value, extent, _ = table["_PyEval_EvalFrameDefault"]
    return text + UPROBES_DROP.replace("BY_EVAL_LOOP", CALLED_FROM % (base_of(pid, path) + value, extent))


def gil_of(pid, path, version):
    """The address of the main interpreter's GIL."""
    base = base_of(pid, path)
    runtime = base + symbols(path, dynamic=True)["_PyRuntime"][0]
    minor = ".".join(version.split(".")[:2])
    if minor in GIL_IN_RUNTIME:
        return runtime + GIL_IN_RUNTIME[minor]
    with open("/proc/%d/mem" % pid, "rb") as mem:
        def word(at):
            mem.seek(at)
            return struct.unpack("<Q", mem.read(8))[0]
        published = word(runtime) == struct.unpack("<Q", b"xdebugpy")[0]
        if not published and minor not in HEAD_IN_RUNTIME:
            raise Failed("_PyRuntime publishes no offsets")
        interpreter = word(runtime + (word(runtime + 40) if published else HEAD_IN_RUNTIME[minor]))
        return word(interpreter + GIL_IN_INTERPRETER.get(minor, 16))  # +16: seen in 3.13.0, 3.14.10, 3.15.2


def expand(text, macro, body, names, separator):
    """Replaces each `MACRO(a; b)` by the body with its parameters replaced.

    Parentheses within arguments must be balanced.
    """
    out = []
    while True:
        before, found, rest = text.partition(macro + "(")
        out.append(before)
        if not found:
            return "".join(out)
        depth, end = 1, 0
        while depth:
            depth += {"(": 1, ")": -1}.get(rest[end], 0)
            end += 1
        one = body
        for name, value in zip(names, rest[:end - 1].split(separator)):
            one = re.sub(r"\b%s\b" % name, lambda _: value.strip(), one)
        out.append(one)
        text = rest[end:]


def program(pid, version, window, tids, wanted, counted):
    """The bpftrace program for one process and window, and its source: the `wanted` one, or the
    best for "".

    `counted`: count waits.
    """
    path = python_library(pid)
    if path is None:
        raise Failed("failed to find a Python in the maps of the workload")
    begin, end = window
    ends = {"outer_begin": begin - OUTER, "inner_begin": begin + INNER, "inner_end": end - INNER}
    gil = gil_of(pid, path, version)
    text = "" if wanted == "futex" else uprobes(pid, path)
    source = "uprobes" if text else "futex"
    if wanted not in ("", source):
        raise Failed("the interpreter has no symbols, which %s need" % wanted)
    if text:
        forced, inside = FORCED_BY_EVAL_LOOP, SLEEPS_INSIDE
    else:
        if tuple(map(int, version.split(".")[:2])) < (3, 13):
            raise Failed("before 3.13 futex events do not show forced switches, and the interpreter has no symbols")
        with open("/proc/%d/maps" % pid) as maps:
            if "/ld-musl-" in maps.read():
                raise Failed("with musl no thread waits at an address in the GIL, and the interpreter has no symbols")
        text = FUTEXES.replace("GIL_FROM", str(gil + 32)).replace("GIL_TO", str(gil + 208))
        forced, inside = FORCED_BY_REQUEST % (gil + 8), GOES_ON
    counted = counted and source == "uprobes"
    text += WATCH.replace("LOCKED", hex(gil + 16)).replace("FORCED", forced).replace("BEGIN_NS", str(begin)).replace(
        "END_NS", str(end)).replace("COUNTED", COUNTED % ends if counted else "") + SCHEDULER.replace("INSIDE", inside).replace(
        "SLEPT", SLEEPS if counted else "")
    text = expand(expand(text, "CHANGE", CHANGE, ["TID", "NEXT"], ";"), "ADD", ADD % ends, ["FROM", "TO", "TID", "CODE"], ",")
    known = " ".join("@at[%d] = nsecs; @is[%d] = %d;" % (tid, tid, 4 * UNSEEN + ASLEEP) for tid in tids)
    text = "BEGIN { @pending[0] = 0; @forced[0] = 0; %s }\n%s\ninterval:ms:50 { if (@up == 0) { @up = 1; printf(\"up\\n\"); } }\nEND { printf(\"end %%lu\\n\", nsecs); }\n" % (known, text)
    return source, text.replace("LIB", path).replace("PID", str(pid))


class Tracer:
    """A bpftrace at work on one process. `window`: the planned window of gilprof."""

    def __init__(self, pid, version, window, folder, wanted="", counted=False):
        tids = [int(t) for t in os.listdir("/proc/%d/task" % pid)]
        self.pid, self.window, self.alive = pid, window, []
        # Number of waits of each thread; empty where they are not counted.
        self.waits = collections.Counter()
        self.source, text = program(pid, version, window, tids, wanted, counted)
        script, self.path = os.path.join(folder, "truth.bt"), os.path.join(folder, "truth.json")
        with open(script, "w") as file:
            file.write(text)
        # Output is buffered: a wakeup of bpftrace for each period would load the machine like a
        # burner.
        env = dict(os.environ, BPFTRACE_MAP_KEYS_MAX="65536", BPFTRACE_PERF_RB_PAGES="1024", BPFTRACE_MAX_PROBES="64")
        self.errors = open(os.path.join(folder, "truth.err"), "w+")
        self.child = subprocess.Popen(["bpftrace", "-B", "none", "-f", "json", "-o", self.path, script], env=env, stdin=subprocess.DEVNULL,
                                      stdout=subprocess.DEVNULL, stderr=self.errors)

    def wait_until_up(self):
        while True:
            if self.child.poll() is not None:
                self.errors.seek(0)
                raise Failed("bpftrace ended with %d: %s" % (self.child.returncode, self.errors.read()[-400:]))
            if os.path.exists(self.path):
                with open(self.path) as file:
                    if '"up\\n"' in file.read():
                        return
            if clock() > self.window[0] - OUTER - SECOND // 2:
                self.stop()
                raise Unaligned("bpftrace did not start in time")
            time.sleep(0.02)

    def stop(self):
        if self.child.poll() is None:
            # The kernel now and then drops an event that comes while another is handled. A thread
            # whose exit event was lost would seem to live on.
            self.alive = os.listdir("/proc/%d/task" % self.pid) if os.path.exists("/proc/%d/task" % self.pid) else []
            self.child.send_signal(2)
            try:
                self.child.wait(60)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
        self.errors.close()

    def read(self, begin, end):
        """{tid: {(gil, cpu): ns}} within [begin, end], which must contain the part that was summed
        in the kernel.
        """
        inner = self.window[0] + INNER, self.window[1] - INNER
        if not self.window[0] - OUTER <= begin <= inner[0] or not inner[1] <= end:
            raise Unaligned("gilprof's window began %.3f s from the planned one" % ((begin - self.window[0]) / SECOND))
        states = collections.defaultdict(collections.Counter)

        def add(tid, code, start, stop):
            if stop > start:
                states[tid][code // 4, code % 4] += stop - start
        at, is_, ended = {}, {}, None
        with open(self.path) as file:
            for line in file:
                event = json.loads(line)
                kind, data = event["type"], event.get("data")
                if kind == "lost_events":
                    raise Failed("bpftrace lost events: %s" % data)
                if kind == "printf" and data.startswith("end"):
                    ended = int(data.split()[1])
                elif kind == "printf" and data.startswith("wait"):
                    tid, start, stop = map(int, data.split()[1:])
                    self.waits[tid] += start < end and stop > begin
                elif kind == "printf" and data != "up\n":
                    tid, code, start, stop = map(int, data.split())
                    # The part within `inner` is summed in the kernel.
                    add(tid, code, max(start, begin), min(stop, inner[0]))
                    add(tid, code, max(start, inner[1]), min(stop, end))
                elif kind == "map":
                    at.update(data.get("@at", {}))
                    is_.update(data.get("@is", {}))
                    for tid, count in data.get("@waits", {}).items():
                        self.waits[int(tid)] += count
                    for tid, start in data.get("@slept", {}).items():
                        self.waits[int(tid)] += 0 < start < end  # the wait continues
                    for tid, count in data.get("@traps", {}).items():
                        states[int(tid)][TRAPS, ON] += count * TRAP
                    for key, ns in data.get("@sum", {}).items():
                        tid, code = map(int, key.split(","))
                        states[tid][code // 4, code % 4] += ns
        if ended is None or ended < end:
            raise Failed("bpftrace ended before the window")
        for tid, start in at.items():
            if start and tid in self.alive:
                add(int(tid), int(is_.get(tid, 0)), max(int(start), begin), end)
        return states
