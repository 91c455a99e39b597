"""The labelled workloads: what gilprof must say of each as threads, and why."""
import collections

# `verdicts`: those that are right. `gain`: whether the same work is done in processes, so that what was predicted can be compared. `burners`: processes
# that compete for each CPU. `calm`: arguments with which one worker does not hold up the others, so that what it costs each of them is known.
# `blamed`: (waiter's function, holder's function) that must be blamed most. `calibrates`: the program measures how much work a unit is, which all that are
# compared must then be told.
Case = collections.namedtuple("Case", "name program args workers verdicts gain burners calm blamed calibrates why")


def case(name, command, verdicts, why, workers=2, gain=True, burners=0, calm="", blamed=()):
    program, *args = command.split()
    return Case(name, program, args, workers, verdicts.split(), gain, burners, calm.split(), blamed, program == "mix", why)


SWITCH, RELEASE, PARALLEL, KEEP = "switch-to-processes", "release-the-gil", "already-parallel", "keep-threads"

CASES = [
    case("number crunching", "primes", SWITCH, "Python bytecode on the CPU in every thread"),
    case("number crunching, 4 threads", "primes", SWITCH, "the same with more threads than cores", workers=4),
    case("one thread crunching", "primes", "serial", "nobody waits: there is one thread", workers=1),
    case("image blur in Python", "blur", SWITCH, "pixel by pixel in bytecode"),
    case("image blur by Pillow", "pillow", PARALLEL, "Pillow releases the GIL in filters and in resize"),
    case("Pool over a dataset", "dataset", SWITCH, "rows are parsed in bytecode; moving a chunk costs little against it"),
    case("NumPy's own loops", "numpy_array --what numpy", PARALLEL, "ufuncs and sort release the GIL"),
    case("Python over an array", "numpy_array --what python", SWITCH, "each element becomes a Python object"),
    case("Cython with the GIL", "extension --what cython --keeps yes", RELEASE, "no `nogil`: one call runs at a time"),
    case("Cython nogil", "extension --what cython --keeps no", PARALLEL, "`with nogil`"),
    case("C extension, keeps", "extension --what c --keeps yes", RELEASE, "no Py_BEGIN_ALLOW_THREADS"),
    case("C extension, releases", "extension --what c --keeps no", PARALLEL, "Py_BEGIN_ALLOW_THREADS"),
    case("json", "held --what json", RELEASE, "the C encoder keeps the GIL"),
    case("pickle", "held --what pickle", RELEASE, "so does the pickler"),
    case("re", "held --what re", RELEASE, "and the matcher"),
    case("sorted", "held --what sorted", RELEASE, "and list.sort"),
    case("hashlib", "held --what sha256", PARALLEL, "blocks over 2047 bytes are hashed without the GIL"),
    case("zlib", "held --what zlib", PARALLEL, "compress releases the GIL"),
    case("a quarter released", "mix --released 25", SWITCH, "three quarters of the work is bytecode"),
    case("half released", "mix --released 50", SWITCH, "half of the work is bytecode, and two threads want it all the time"),
    case("three quarters released", "mix --released 75", " ".join([PARALLEL, KEEP, SWITCH]), "what little needs the GIL seldom meets"),
    case("half asleep", "mix --asleep 50", SWITCH, "half of the time is bytecode, and four threads want it", workers=4),
    case("three quarters asleep", "mix --asleep 75", " ".join([SWITCH, KEEP, "latency-victims"]), "four threads that want the GIL for a quarter of their time; on two cores processes gain a fifth", workers=4),
    case("web requests", "web", KEEP, "the threads wait for the server", workers=8),
    case("database on disk", "storage_pair --what sqlite", " ".join([KEEP, PARALLEL]), "the commit waits for the disk"),
    case("files", "storage_pair --what files", " ".join([KEEP, PARALLEL]), "the threads wait for the disk"),
    case("asyncio with a pool", "service", SWITCH, "the pool's threads compute in bytecode"),
    case("convoy", "convoy_pair", "latency-victims", "who wants the GIL for microseconds pays a switch interval behind who computes", workers=3, gain=False,
         calm="--hog no", blamed=("reply", "crunch")),
    case("pipeline behind a lock", "pipeline", "lock-bound", "a lock held while its owner sleeps", workers=4, gain=False),
    case("sleepers", "resting", "idle keep-threads", "nothing runs", workers=4),
    case("a machine without cores", "primes", "cpu-starved inconclusive", "others have the CPUs", workers=4, gain=False, burners=4),
]
# Where the number of threads is tried out: 1, 2, 4, 8.
SWEEPS = ["a quarter released", "half asleep", "three quarters asleep"]
