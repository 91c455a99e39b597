"""Interpreters, release builds, running workloads, and how much of the machine was available."""
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile

from common import REPOSITORY, WORKLOADS, Failed, NotMeasured

# Seconds that a workload has to end after its stdin is closed.
END_TIMEOUT = 1
BURNER = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass"
# A private mount namespace, so that no mount is left behind: profilers that enter the target's root
# need /proc, which its directory does not have.
ENTER = 'mount -t proc proc "$0/proc" && exec chroot %s "$0" "$@"'
# The user `nobody`, who may only pass through directories, so as to find interpreters that are
# root's.
NOBODY = 65534
AS_USER = ["setpriv", "--reuid=%d" % NOBODY, "--regid=%d" % NOBODY, "--clear-groups"] + [
    "--%s=-all,+dac_read_search" % which for which in ("inh-caps", "ambient-caps", "bounding-set")]


def interpreters(wanted):
    """Interpreters whose label begins with one of `wanted` (separated by commas), as dicts.

    `root` is the directory that is the interpreter's root, or "".
    """
    listed = subprocess.run([os.path.join(REPOSITORY, "scripts", "setup-pythons"), "--list"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    found = []
    for line in listed.stdout.decode().splitlines():
        label, version, kind, root, path = line.split("\t")
        if any(label.startswith(prefix) for prefix in wanted.split(",")) and "free-threaded" not in kind:
            found.append({"label": label, "version": version, "root": "" if root == "-" else root, "path": path})
    if not found:
        raise NotMeasured("failed to find an interpreter %s; `scripts/setup-pythons --list` prints those that are there" % wanted)
    return found


def this_python(path):
    """A Python outside any chroot, as a dict like those of `interpreters`."""
    return {"label": path, "version": "", "root": "", "path": path}


def python_version(path):
    try:
        return subprocess.check_output([path, "-c", "import platform; print(platform.python_version())"], text=True).strip()
    except (OSError, subprocess.CalledProcessError) as e:
        raise NotMeasured("failed to run the Python %s: %s" % (path, e))


@functools.lru_cache(maxsize=None)
def built(kind, name):
    """The path of a release build, made if it is missing or old. `kind` is "bin" or "example"."""
    try:
        subprocess.run(["cargo", "build", "--release", "--quiet", "--" + kind, name], cwd=REPOSITORY, check=True)
    except (OSError, subprocess.CalledProcessError) as e:
        raise NotMeasured("failed to build %s: %s" % (name, e))
    target = os.environ.get("CARGO_TARGET_DIR") or os.path.join(REPOSITORY, "target")
    return os.path.join(target, "release", *(["examples"] if kind == "example" else []), name)


def gilprof(options):
    """The binary to measure: `--gilprof`, else the release build."""
    return os.path.abspath(options.gilprof) if options.gilprof else built("bin", "gilprof")


def example(options, name):
    """A measuring tool built from scripts/eval: beside the binary of `--gilprof` if it is there,
    else the release build.
    """
    if options.gilprof:
        beside = os.path.join(os.path.dirname(os.path.abspath(options.gilprof)), "examples", name)
        if os.path.exists(beside):
            return beside
    return built("example", name)


def report_of(command, as_user=False):
    """The report that a gilprof command prints as JSON."""
    done = subprocess.run(AS_USER + command if as_user else command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode:
        raise Failed("gilprof ended with %d: %s" % (done.returncode, done.stderr.decode()[-500:]))
    return json.loads(done.stdout)


def run_gilprof(command, **how):
    """Runs a gilprof command whose output on stdout is not needed."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **how)
    if done.returncode:
        raise Failed("gilprof ended with %d: %s" % (done.returncode, done.stderr.decode()[-500:]))


def record(binary, target, seconds, path):
    run_gilprof([binary, "record", "--pid", str(target.pid), "--duration", "%gs" % seconds, "-o", path])


def ticks():
    """Time that the hypervisor stole from the CPUs so far, and all time, in the kernel's ticks."""
    with open("/proc/stat") as file:
        fields = [int(field) for field in file.readline().split()[1:9]]
    return fields[7], sum(fields)


def stolen(before, after):
    """The share of the CPUs' time that the hypervisor stole between two `ticks()`."""
    return (after[0] - before[0]) / max(after[1] - before[1], 1)


class Burners:
    """Processes that compete for the CPUs, pinned to one after the other, until the `with` ends."""

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
    """A running workload of tests/workloads, which reports when its threads are at work.

    Ends with the `with`. `as_user` of the interpreter: it runs as an ordinary user.
    """

    def __init__(self, interpreter, workload, *args):
        as_user = interpreter.get("as_user")
        self.copy, folder, command = "", WORKLOADS, []
        if interpreter["root"]:
            self.copy = tempfile.mkdtemp(prefix="gilprof-", dir=os.path.join(interpreter["root"], "tmp"))
            os.chmod(self.copy, 0o755)
            for name in os.listdir(WORKLOADS):
                if name.endswith(".py"):
                    shutil.copy(os.path.join(WORKLOADS, name), self.copy)
            folder = "/" + os.path.relpath(self.copy, interpreter["root"])
            enter = ENTER % ("--userspec=%d:%d --groups=" % (NOBODY, NOBODY) if as_user else "")
            command = ["unshare", "--mount", "sh", "-c", enter, interpreter["root"]]
        elif as_user:
            command = AS_USER
        self.command = command + [interpreter["path"], "-B", os.path.join(folder, workload + ".py")] + [str(arg) for arg in args]

    def __enter__(self):
        env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        env["PATH"] = env.get("PATH", "") + ":/usr/sbin:/sbin"
        # A process group of its own, so that all its processes can be stopped together. If this
        # program dies meanwhile, the kernel continues and ends them.
        try:
            self.child = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, preexec_fn=os.setpgrp)
        except OSError as e:
            raise Failed("failed to start the workload: %s" % e)
        self.pid = self.child.pid
        while True:
            line = self.child.stdout.readline()
            if line == b"ready\n":
                return self
            if not line:
                self.__exit__()
                raise Failed("the workload ended before it was ready: %s" % " ".join(self.command))

    def __exit__(self, *_):
        # Closing its stdin lets a workload clean up and end. A workload whose main thread is busy
        # does not notice.
        try:
            self.resume()
            self.child.stdin.close()
            self.child.wait(END_TIMEOUT)
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

    def write_line(self, line):
        """Writes a line to its main thread, which then wants the GIL for a moment."""
        self.child.stdin.write(line + b"\n")
        self.child.stdin.flush()

    def progress(self):
        """The work done since the target was ready, and the seconds it took, by the target's own
        clocks.
        """
        self.write_line(b"?")
        line = self.child.stdout.readline()
        if not line:
            raise Failed("the workload ended: %s" % " ".join(self.command))
        return json.loads(line)
