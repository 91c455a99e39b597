"""What gilprof's programs in the kernel cost, by the kernel's own count. Their time is part of the
time of whatever they interrupt, and no part of gilprof's.
"""
import contextlib
import os
import time

import paired

SWITCH = "/proc/sys/kernel/bpf_stats_enabled"


@contextlib.contextmanager
def counted():
    """The kernel counts runs of programs until the `with` ends; the reason why it does not, or
    None.
    """
    if not os.access(SWITCH, os.W_OK):
        yield "%s cannot be written" % SWITCH
        return
    with open(SWITCH) as file:
        before = file.read()
    try:
        with open(SWITCH, "w") as file:
            file.write("1")
        yield None
    finally:
        with open(SWITCH, "w") as file:
            file.write(before)


def counters(pid):
    """Runs of all programs that a process has open, and the nanoseconds that they took."""
    runs = nanos = 0
    for name in os.listdir("/proc/%d/fdinfo" % pid):
        # A file may be closed meanwhile.
        with contextlib.suppress(FileNotFoundError), open("/proc/%d/fdinfo/%s" % (pid, name)) as file:
            facts = dict(line.split(":", 1) for line in file if ":" in line)
            runs, nanos = runs + int(facts.get("run_cnt", 0)), nanos + int(facts.get("run_time_ns", 0))
    return runs, nanos


def cost(command, settle, seconds=5):
    """Runs per second and CPU share of a profiler's programs; or the reason why there is no
    count.
    """
    with counted() as why:
        if why:
            return why
        with paired.Profiler(command, settle) as profiler:
            first = counters(profiler.child.pid)
            time.sleep(seconds)
            last = counters(profiler.child.pid)
    if last[0] == first[0]:
        return "the kernel counts no runs"
    return {"runs_per_s": (last[0] - first[0]) / seconds, "cpu_percent": (last[1] - first[1]) / seconds / 1e7}
