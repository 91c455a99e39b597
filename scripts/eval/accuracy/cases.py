"""The workloads of the accuracy measurement: each next to its mirror image, which lacks the effect
of the first.

A case is (name, workload, arguments, burners). Burners are other processes that use the CPUs
meanwhile, pinned to one CPU after the other.
"""
import collections

Case = collections.namedtuple("Case", "name workload args burners")


def case(name, command, burners=0):
    workload, *args = command.split()
    return Case(name, workload, tuple(args), burners)


CASES = [
    case("cpu 1", "cpu --threads 1"),
    case("cpu 2", "cpu --threads 2"),
    case("cpu 3", "cpu --threads 3"),
    case("cpu 8", "cpu --threads 8"),
    case("cpu 32", "cpu --threads 32"),
    case("interval 0.5 ms", "cpu --threads 3 --interval-us 500"),
    case("interval 50 ms", "cpu --threads 3 --interval-us 50000"),
    case("cpu 3, burner", "cpu --threads 3", burners=1),
    case("convoy", "convoy --hogs 1 --short 2"),
    case("convoy, no hog", "convoy --hogs 0 --short 2"),
    case("re", "held --re --threads 2"),
    case("re alone", "held --re --threads 1"),
    case("json", "held --json --threads 2"),
    case("json alone", "held --json --threads 1"),
    case("sorted", "held --sorted --threads 2"),
    case("sorted alone", "held --sorted --threads 1"),
    case("pickle", "held --pickle --threads 2"),
    case("pickle alone", "held --pickle --threads 1"),
    case("gc storm", "held --gc --threads 2"),
    case("gc alone", "held --gc --threads 1"),
    case("sha256", "released --sha --threads 2"),
    case("sha256 half", "released --sha --half --threads 2"),
    case("sha256 half alone", "released --sha --half --threads 1"),
    case("sha256 60 kB", "hashing --threads 2 --bytes 60000"),
    case("zlib", "released --zlib --threads 2"),
    case("zlib half", "released --zlib --half --threads 2"),
    case("asleep, GIL held", "asleep --threads 2"),
    case("asleep, released", "asleep --threads 2 --release"),
    case("Lock", "handover --lock"),
    case("Lock, hog", "handover --lock --hogs 1"),
    case("Queue", "handover --queue"),
    case("Queue, hog", "handover --queue --hogs 1"),
    case("Condition", "handover --condition"),
    case("Condition, hog", "handover --condition --hogs 1"),
    case("short threads", "churn --threads 2"),
    case("8 ms threads", "churn --threads 0 --work 200000"),
    case("4 ms threads", "churn --threads 0 --rate 20 --work 100000"),
    case("0.8 ms threads", "churn --threads 0 --work 20000"),
    case("0.4 ms threads", "churn --threads 0 --rate 800"),
    case("executor computes", "executor"),
    case("executor sleeps", "executor --sleep"),
    case("sqlite3", "storage --sqlite"),
    case("sqlite3, hog", "storage --sqlite --hogs 1"),
    case("sockets", "storage --sockets"),
    case("sockets, hog", "storage --sockets --hogs 1"),
    case("files", "storage --files"),
    case("files, hog", "storage --files --hogs 1"),
    case("mixed", "mixed"),
    case("only sleepers", "sleepers"),
]
# Measured and shown without a bound: threads that live for a few sampling periods or less. One
# sample takes a noticeable part of such a life, and so do the probes. In 5 s there are so few
# samples of them that chance alone makes an error of some hundredths.
LIMITS = ["4 ms threads", "0.8 ms threads", "0.4 ms threads"]
# One of each kind, for --quick and CI.
QUICK = ["cpu 3", "convoy", "convoy, no hog", "json", "sha256 half", "asleep, GIL held", "asleep, released", "Lock, hog", "short threads"]


def loaded(cases, cpus):
    """The same with a burner on each CPU."""
    return [c._replace(name=c.name + " +load", burners=cpus) for c in cases if not c.burners]
