"""The labelled workloads: the verdicts that are right for each of them as threads, and why.

The fields of a case:
    verdicts    the codes that are right
    gain        whether the same work is done in processes too, to compare the predicted gain with
    burners     number of processes that compete for the CPUs
    calm        arguments with which one worker does not delay the others: the undisturbed time of a
                turn
    blamed      (waiter's function, holder's function) that must be first in the blame
    groups      workers whose gain is compared by themselves: the pattern of their names, and the
                first and one after the last of them
    calibrates  the program measures the amount of work in a unit; all compared processes must use
                one amount
"""
import collections

Case = collections.namedtuple("Case", "name program args workers verdicts gain burners calm blamed groups calibrates why")


def case(name, command, verdicts, why, workers=2, gain=True, burners=0, calm="", blamed=(), groups=None):
    program, *args = command.split()
    return Case(name, program, args, workers, verdicts.split(), gain, burners, calm.split(), blamed, groups or {}, program == "mix", why)


SWITCH, RELEASE, PARALLEL, KEEP = "switch-to-processes", "release-the-gil", "already-parallel", "keep-threads"
COMPUTES = " ".join([SWITCH, RELEASE])

CASES = [
    case("number crunching", "primes", SWITCH, "Python bytecode on the CPU in every thread"),
    case("number crunching, 4 threads", "primes", SWITCH, "the same with more threads than cores", workers=4),
    case("one thread crunching", "primes", "serial", "there is one thread, so nothing waits", workers=1),
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
    case("pickle", "held --what pickle", RELEASE, "the pickler keeps the GIL"),
    case("re", "held --what re", RELEASE, "the matcher keeps the GIL"),
    case("sorted", "held --what sorted", RELEASE, "list.sort keeps the GIL"),
    case("hashlib", "held --what sha256", PARALLEL, "blocks over 2047 bytes are hashed without the GIL"),
    case("zlib", "held --what zlib", PARALLEL, "compress releases the GIL"),
    case("a quarter released", "mix --released 25", SWITCH, "three quarters of the work is bytecode"),
    case("half released", "mix --released 50", SWITCH, "half of the work is bytecode, and two threads want the GIL all the time"),
    case("three quarters released", "mix --released 75", " ".join([PARALLEL, KEEP, SWITCH]), "the threads need the GIL a quarter of their time and seldom at once"),
    case("half asleep", "mix --asleep 50", SWITCH, "half of the time is bytecode, and four threads want the GIL", workers=4),
    case("three quarters asleep", "mix --asleep 75", " ".join([SWITCH, KEEP, "latency-victims"]), 
         "four threads want the GIL for a quarter of their time; on two cores processes gain a fifth", workers=4),
    case("web requests", "web", KEEP, "the threads wait for the server", workers=8),
    case("database on disk", "storage_pair --what sqlite", " ".join([KEEP, PARALLEL]), "the commit waits for the disk"),
    case("files", "storage_pair --what files", " ".join([KEEP, PARALLEL]), "the threads wait for the disk"),
    case("asyncio with a pool", "service", SWITCH, "the pool's threads compute in bytecode"),
    case("Flask, 8 threads", "flask_app", COMPUTES, "the pages compute in bytecode and in json"),
    case("Flask, 8 threads, 4 processes", "flask_app", COMPUTES, "the same, with more processes than cores", workers=4),
    case("batches of requests", "batches", " ".join([KEEP, SWITCH]), "the threads wait for the GIL for certain, but the server, which shares the cores, is the limit", workers=16),
    case("computing beside pollers", "pollers", "latency-victims", "the pollers wait a switch interval each time and do a hundredth of the work", workers=3,
         groups={"victim": (0, 1), "poller-*": (1, 3)}),
    case("zlib, 4 threads", "held --what zlib", PARALLEL, "the cores are full, by the program itself", workers=4),
    case("short tasks beside a hog", "hog", "latency-victims", "the tasks wait a switch interval each time and do little of the work", workers=3,
         groups={"hog": (0, 1), "task-*": (1, 3)}),
    case("FastAPI, 2 processes", "fastapi_app", COMPUTES, "the pages compute in the pool of threads"),
    case("FastAPI, 4 processes", "fastapi_app", COMPUTES, "the same, with more processes than cores", workers=4),
    case("crawler", "crawler --server fast", SWITCH, "the pages are parsed in bytecode, and the server answers at once", workers=4),
    case("crawler, slow server", "crawler --server slow", KEEP, "the threads wait for the server", workers=16),
    case("pandas", "frames", COMPUTES, "string methods and apply are Python, groupby is C that keeps the GIL"),
    case("BLAS", "blas", " ".join([PARALLEL, KEEP]), "products run without the GIL, in threads that the library has for itself"),
    case("logging to a slow reader", "logger", "lock-bound", "the lock of logging's handler is held while the pipe is full", workers=8),
    case("TLS contexts", "contexts", " ".join([PARALLEL, KEEP]), "OpenSSL reads the certificates without the GIL", workers=8),
    case("SQLite in memory", "sqlite_memory", " ".join([PARALLEL, KEEP, "lock-bound"]), "queries run without the GIL; what they lose is SQLite's own mutex"),
    case("convoy", "convoy_pair", "latency-victims", "a thread that needs the GIL for microseconds waits a switch interval behind a CPU-bound one", workers=3, gain=False,
         calm="--hog no", blamed=("reply", "crunch")),
    case("pipeline behind a lock", "pipeline", "lock-bound", "a lock held while its owner sleeps", workers=4, gain=False),
    case("sleepers", "resting", "idle keep-threads", "nothing runs", workers=4),
    case("a machine without cores", "primes", "cpu-starved inconclusive", "other processes use the CPUs", workers=4, gain=False, burners=4),
]
# The workloads of --sweep, run with 1, 2, 4 and 8 threads.
SWEEPS = ["a quarter released", "half asleep", "three quarters asleep"]
