"""What every script that measures needs: interpreters, gilprof's binary, a workload at work, and how much of the machine was there."""
import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WORKLOADS = os.path.join(REPOSITORY, "tests", "workloads")
# Seconds for a workload to end by itself.
PATIENCE = 1
BURNER = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass"
# Mounts of its own, so that nothing is left behind: profilers that join the target need /proc, which its folder has not.
ENTER = 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"'


class Failed(Exception):
    """What was to be measured or to measure has ended, or said nothing that can be read."""


def interpreters(wanted):
    """Those whose label begins with one of `wanted` (separated by commas), as dicts; `root` is the folder that is its root, or ""."""
    listed = subprocess.run([os.path.join(REPOSITORY, "scripts", "setup-pythons"), "--list"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    found = []
    for line in listed.stdout.decode().splitlines():
        label, version, kind, root, path = line.split("\t")
        if any(label.startswith(w) for w in wanted.split(",")) and "free-threaded" not in kind:
            found.append({"label": label, "version": version, "root": "" if root == "-" else root, "path": path})
    return found


@functools.lru_cache(maxsize=None)
def built(kind, name):
    """Where cargo puts a release build: `kind` is "bin" or "example". Makes it, once."""
    subprocess.run(["cargo", "build", "--release", "--quiet", "--" + kind, name], cwd=REPOSITORY, check=True)
    target = os.environ.get("CARGO_TARGET_DIR") or os.path.join(REPOSITORY, "target")
    return os.path.join(target, "release", *(["examples"] if kind == "example" else []), name)


def gilprof(given):
    """gilprof's binary: the one given, else the release build."""
    return os.path.abspath(given) if given else built("bin", "gilprof")


def ticks():
    """Time that a hypervisor took from the CPUs so far, and all time, in the kernel's ticks."""
    with open("/proc/stat") as file:
        words = [int(word) for word in file.readline().split()[1:9]]
    return words[7], sum(words)


def stolen(before, after):
    """The share of the CPUs' time that a hypervisor took between two `ticks()`."""
    return (after[0] - before[0]) / max(after[1] - before[1], 1)


class Burners:
    """Processes that compete for the CPUs, one on each in turn, until the `with` ends."""

    def __init__(self, count):
        cpus = sorted(os.sched_getaffinity(0))
        self.commands = [[sys.executable, "-c", BURNER, str(cpus[n % len(cpus)])] for n in range(count)]

    def __enter__(self):
        self.children = [subprocess.Popen(command) for command in self.commands]
        return self

    def __exit__(self, *_):
        for child in self.children:
            child.kill()
            child.wait()


class Target:
    """A workload of tests/workloads at work, which says when it is ready. Ends with the `with`."""

    def __init__(self, interpreter, workload, *args):
        self.copy, folder, command = "", WORKLOADS, []
        if interpreter["root"]:
            self.copy = tempfile.mkdtemp(prefix="gilprof-", dir=os.path.join(interpreter["root"], "tmp"))
            os.chmod(self.copy, 0o755)
            for name in os.listdir(WORKLOADS):
                if name.endswith(".py"):
                    shutil.copy(os.path.join(WORKLOADS, name), self.copy)
            folder = "/" + os.path.relpath(self.copy, interpreter["root"])
            command = ["unshare", "--mount", "sh", "-c", ENTER, interpreter["root"]]
        self.command = command + [interpreter["path"], "-B", os.path.join(folder, workload + ".py")] + [str(a) for a in args]

    def __enter__(self):
        env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        env["PATH"] = env.get("PATH", "") + ":/usr/sbin:/sbin"
        # A group of its own, so that its processes can be paused with it; the kernel resumes and ends them if this program dies meanwhile.
        self.child = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, preexec_fn=os.setpgrp)
        self.pid = self.child.pid
        while True:
            line = self.child.stdout.readline()
            if line == b"ready\n":
                return self
            if not line:
                self.__exit__()
                raise Failed("the workload ended before it was ready: %s" % " ".join(self.command))

    def __exit__(self, *_):
        # The end of its stdin ends it, and lets it clean up; not all can notice.
        try:
            self.resume()
            self.child.stdin.close()
            self.child.wait(PATIENCE)
        except (OSError, subprocess.TimeoutExpired):
            self.child.kill()
            self.child.wait()
        if self.copy:
            shutil.rmtree(self.copy, ignore_errors=True)

    def pause(self):
        """Stops all its processes."""
        os.killpg(self.pid, signal.SIGSTOP)

    def resume(self):
        os.killpg(self.pid, signal.SIGCONT)

    def ask(self, line):
        """Writes a line to its main thread, which then wants the GIL for a moment."""
        self.child.stdin.write(line + b"\n")
        self.child.stdin.flush()
