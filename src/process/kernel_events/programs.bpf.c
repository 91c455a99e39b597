/* The programs of the kernel engine: at every switch of a watched thread one record of the run that
 * ended, and at every tick of a clock on each CPU one record of the thread that it interrupted. Or
 * no records, but sums for each thread.
 *
 * They run in the context of the thread that they describe. So they read its registers and its
 * memory of that instant, and its stack cannot change meanwhile. They write nothing but their own
 * tables. `scripts/build-bpf` compiles this file; `abi.rs` has the Rust side of its structs. */
#include "kernel_types.h"
#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <stdbool.h>

typedef __u8 u8;
typedef __u32 u32;
typedef __u64 u64;
typedef __s64 s64;

#define MAX_GILS 4
#define MAX_FRAMES 128
/* A power of two. */
#define MAX_THREADS 16384
#define MAX_TARGETS 1024
/* Slots of the table of threads that are tried for one thread, and the step between them. */
#define TRIES 8
#define STRIDE 1237
/* A power of two. */
#define HINTS 4096
#define RING_BYTES (4 << 20)
/* Nodes of a musl condition variable that are compared. A waiter puts itself at the head. */
#define MAX_NODES 8
#define NODE_NEXT 8
#define NODE_FUTEX 20
#define LISTS 3
/* Sleeps of one thread whose last stack is remembered. */
#define SLEEPS 8
#define MAX_LEVELS 8
#define UPID_SIZE 16
/* A field that this version of CPython does not have. */
#define NONE (~0ull)
#define NO_GIL (~0u)
/* Nanoseconds from when a thread is about to sleep until it has lost its CPU. */
#define EARLY 50000
#define FORCED 0x100
#define SIGNALS 0x200
/* The futexes in a condition variable on which glibc up to 2.40 sleeps in pthread_cond_signal(),
 * until the waiters of an earlier signal have left. */
#define REFS_FROM 16
#define REFS_TO 24

char _license[] SEC("license") = "Dual MIT/GPL";

/* The inode of gilprof's PID namespace; 0: the root one, whose numbers the kernel uses itself. */
const volatile u32 own_namespace = 0;
/* Whether the programs make sums (`sums.h`) and no records. */
const volatile u32 only_sums = 0;
/* With `only_sums`: whether the scheduler counts each thread's time in the run queue. Then wakeups
 * are not needed, and `waking` is not attached. */
const volatile u32 queue_is_counted = 0;

/* What is watched in a process: `TargetConfig`. Offsets are in bytes. */
struct target {
	u64 gils[MAX_GILS];
	u64 gil_ids[MAX_GILS];
	/* The bytes of a GIL that are read, and the fields in them. */
	u64 gil_from, gil_len, locked, last_holder, switches;
	/* Futexes in a GIL on which a thread waits for it. */
	u64 waits_from, waits_to;
	/* Heads of musl's lists of waiters in a GIL; 0: none. */
	u64 lists[LISTS];
	/* The field of PyThreadState that tells the thread: by its kernel id, or by pthread_self(). */
	u64 identity, by_kernel_id, pthread_delta;
	u64 anchor, cframe_inner;
	/* The bytes of a frame that are read, and the fields in them. */
	u64 frame_from, frame_len, back, code, code_mask, position, position_is_int, owner, first_not_python;
	u64 stack_interval;
	/* The first futex in a GIL on which a thread waits that was forced to release it. */
	u64 switch_from;
	/* Its process in gilprof's PID namespace; 0: it is watched no longer. */
	u64 tgid;
};

/* What a thread did, in nanoseconds, up to its last switch: `Sums`. */
struct sums {
	u64 on_cpu;
	/* Asleep for a GIL, and in the run queue from there. */
	u64 waiting, queued_after_wait;
	/* In the run queue otherwise. */
	u64 queued;
	u64 asleep;
	/* Waits for a GIL that slept. */
	u64 waits;
	/* Ticks of the clock, and those of them at which it held a GIL. */
	u64 ticks, ticks_with_gil;
};
#define SUMS (sizeof(struct sums) / 8)

/* What threads waited for one GIL: `GilSums`. */
struct gil_waits {
	u64 waiting, queued_after_wait;
	u64 waits;
};

struct gil_sums {
	struct gil_waits waits;
	u64 ticks_with_gil;
};

struct process {
	/* Of threads that have ended. */
	struct sums ended;
	/* As `gils` of `struct target`. What a thread waited for the GIL that it last slept for is
	 * added once it sleeps for another one, or ends. */
	struct gil_sums gils[MAX_GILS];
};

struct sleep {
	u64 call;
	u64 at;
};

enum off { PREEMPTED, PREEMPTED_IN_GIL_CALL, GIL_FUTEX, SWITCH_FUTEX, SIGNAL_FUTEX, OTHER_FUTEX, SYSCALL, FAULT, STOPPED, EXITED };

/* All but the wakeups is written only by the CPU that the thread is on. */
struct thread {
	/* It is on a CPU since then; 0: off. */
	u64 begin;
	/* The wakeup before the run, or since it ended; the lowest bit as BY_PEER; 0: none. */
	u64 wakeup;
	/* A wakeup that came in this run: when the thread was about to sleep, as a rule. */
	u64 early;
	/* The end of its last run. */
	u64 end;
	u32 number, off;
	/* The process by the kernel's own number; 0: no entry. And its place in `targets`. */
	u32 group, target;
	/* The GIL that it last slept for, as an index, and its `switch_number` of then. */
	u64 waits_for, wait_switches;
	/* The scheduler's count of its time in the run queue, at its last switch. */
	u64 run_delay;
	struct sums sums;
	/* The part of the sums that is in the sums of GILs. */
	struct gil_waits added;
	u64 lost;
	u64 tstate;
	u32 tid, tgid;
	u32 inner_tid, gil;
	struct sleep sleeps[SLEEPS];
};

enum kind { RUN, TICK, EXIT };
enum flags {
	LOCKED = 1,
	BY_PEER = 2,
	HAS_STACK = 4,
	TRUNCATED = 8,
	UNREADABLE = 16,
};

struct frame {
	u64 at;
	u64 code;
	/* INT64_MIN: an entry frame. */
	s64 position;
};
#define ENTRY_FRAME (1ull << 63)

struct record {
	u8 kind, off, flags, frame_count;
	u32 tid, tgid, number;
	/* The end of the run, or the tick. */
	u64 at;
	u64 begin;
	/* 0: none. */
	u64 wakeup;
	u64 last_holder;
	u64 switches;
	u32 holds, gil;
};

struct scratch {
	struct record record;
	struct frame frames[MAX_FRAMES];
	u8 bytes[128 + 8];
};

struct counters {
	/* Records, and those of them that were lost. */
	u64 events, lost;
	/* Begins and wakeups that are assumed. */
	u64 assumed;
	/* Runs of watched threads that ended. */
	u64 switches;
	/* The time of switches and wakeups, and of ticks. */
	u64 nanos, tick_nanos;
	/* Switches and wakeups until the next one is timed. */
	u64 until_timed;
	/* The last switch on this CPU of which the time was taken. */
	u64 switched;
};
/* One of so many switches and wakeups, of any program, is timed: a prime, so that it keeps no step
 * with threads that take turns. Reading the clock twice takes as long as most of them. */
#define TIMED 31
/* Nanoseconds of a run of a program before and after it reads the clock. */
#define NOT_TIMED 40

/* The kernel's numbers of the threads in `threads`; 0: free. A thread is in the slot of its number,
 * modulo their count, or where that is taken in one of some others: no search, as a rule. */
struct slots {
	u32 pids[MAX_THREADS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_TARGETS);
	__type(key, u32);
	__type(value, struct target);
} targets SEC(".maps");

/* The place of a process in `targets` and `processes`, by its id in gilprof's PID namespace. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_TARGETS);
	__type(key, u32);
	__type(value, u32);
} watched SEC(".maps");

/* How many processes of `watched` have an id with this remainder: most tasks need no search. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, HINTS);
	__type(key, u32);
	__type(value, u32);
} hints SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct slots);
} slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_THREADS);
	__type(key, u32);
	__type(value, struct thread);
} threads SEC(".maps");

/* Thread states that gilprof knows, by its own thread ids: for threads that have not held a GIL. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_THREADS);
	__type(key, u32);
	__type(value, u64);
} tstates SEC(".maps");

/* With `only_sums`. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_TARGETS);
	__type(key, u32);
	__type(value, struct process);
} processes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, RING_BYTES);
} records SEC(".maps");

/* A switch and a tick use it with interrupts off, so that neither meets the other's. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct counters);
} counts SEC(".maps");

struct call {
	s64 nr;
	u64 arg, op;
};

static const u32 zero = 0;

/* ---- Registers ---- */

/* System calls by their numbers on this machine. */
struct numbers {
	s64 futex, restart, exit;
};

static __always_inline bool is_x86(void)
{
	return bpf_core_field_exists(((struct pt_regs___x86 *)0)->orig_ax);
}

static __always_inline struct numbers numbers(void)
{
	if (is_x86())
		return (struct numbers){ 202, 219, 60 };
	return (struct numbers){ 98, 128, 93 };
}

/* The system call that a thread is in, or has just left. `nr` is -1 outside of any. */
static __always_inline struct call call_of(struct task_struct *task)
{
	void *regs = (void *)bpf_task_pt_regs(task);
	if (is_x86()) {
		struct pt_regs___x86 *r = regs;
		return (struct call){ r->orig_ax, r->di, r->si };
	}
	struct pt_regs___arm64 *r = regs;
	return (struct call){ r->syscallno, r->orig_x0, r->regs[1] };
}

static __always_inline u64 pthread_self(struct task_struct *task, struct target *c)
{
	u64 base;
	if (is_x86())
		base = ((struct task_struct___x86 *)task)->thread.fsbase;
	else
		base = ((struct task_struct___arm64 *)task)->thread.uw.tp_value;
	return base + c->pthread_delta;
}

/* FUTEX_WAIT, _WAIT_BITSET, _LOCK_PI, _WAIT_REQUEUE_PI, _LOCK_PI2. */
static __always_inline bool is_futex_wait(u64 op)
{
	op &= 0x7f;
	return op == 0 || op == 9 || op == 6 || op == 11 || op == 13;
}

static __always_inline bool is_futex(s64 nr, struct numbers n)
{
	/* futex_waitv, futex_wake, futex_wait, futex_requeue: the same numbers on both machines. */
	return nr == n.futex || nr == 449 || (nr >= 454 && nr <= 456);
}

/* ---- Ids ---- */

/* The number of a task in gilprof's PID namespace; 0: it has none there. */
static __always_inline u32 number_in_own(struct task_struct *task)
{
	struct pid *pid = task->thread_pid;
	if (!pid)
		return 0;
	void *numbers = __builtin_preserve_access_index(&pid->numbers);
	u32 level = pid->level;
	for (u32 i = 0; i < MAX_LEVELS && i <= level; i++) {
		struct upid *upid = numbers + i * UPID_SIZE;
		if (BPF_CORE_READ(upid, ns, ns.inum) == own_namespace)
			return BPF_CORE_READ(upid, nr);
	}
	return 0;
}

static __always_inline u32 own_tid(struct task_struct *task)
{
	return own_namespace ? number_in_own(task) : task->pid;
}

static __always_inline u32 own_tgid(struct task_struct *task)
{
	return own_namespace ? number_in_own(task->group_leader) : task->tgid;
}

/* The number of a task in the PID namespace that it is in itself. */
static __always_inline u32 innermost_tid(struct task_struct *task)
{
	struct pid *pid = task->thread_pid;
	if (!pid)
		return 0;
	void *numbers = __builtin_preserve_access_index(&pid->numbers);
	struct upid *upid = numbers + (pid->level & 31) * UPID_SIZE;
	return BPF_CORE_READ(upid, nr);
}

#include "table.h"

/* ---- The target's memory ---- */

static __always_inline u64 word_at(u64 at)
{
	u64 word = 0;
	bpf_probe_read_user(&word, sizeof(word), (void *)at);
	return word;
}

static __always_inline u32 int_at(u64 at)
{
	u32 word = 0;
	bpf_probe_read_user(&word, sizeof(word), (void *)at);
	return word;
}

#define PICK(type, scratch, offset) (*(type *)((scratch)->bytes + ((offset) & 127)))

/* Whether a PyThreadState is the running thread's. */
static __always_inline bool is_own(struct target *c, struct thread *t, u64 self, u64 tstate)
{
	return tstate && word_at(tstate + c->identity) == (c->by_kernel_id ? t->inner_tid : self);
}

#include "views.h"
#include "sums.h"
#include "events.h"
