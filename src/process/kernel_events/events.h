/* The events: a switch, a wakeup, execve, and a tick of the clock. */

/* A wakeup as `struct thread` has it. Rounded up, so that it is not before the end of a run. */
static __always_inline u64 wakeup_at(u64 now, bool by_peer)
{
	return ((now + 1) & ~1ull) | by_peer;
}

/* The time, if this switch or wakeup is one that is timed; 0 if not. */
static __always_inline u64 start_timer(struct counters *count)
{
	if (count->until_timed--)
		return 0;
	count->until_timed = TIMED - 1;
	return bpf_ktime_get_ns();
}

static __always_inline void stop_timer(struct counters *count, u64 begun)
{
	if (begun)
		count->nanos += (bpf_ktime_get_ns() - begun + NOT_TIMED) * TIMED;
}

/* Writes the record. Readers poll, so none is woken. */
static __always_inline void submit(struct scratch *s, struct thread *t, struct counters *count)
{
	u64 frames = s->record.frame_count;
	/* Keeps the compiler from comparing a copy, whose bound the verifier does not know. */
	asm volatile("" : "+r"(frames));
	if (frames > MAX_FRAMES)
		return;
	u64 len = sizeof(struct record) + frames * sizeof(struct frame);
	bool lost = bpf_ringbuf_output(&records, s, len, BPF_RB_NO_WAKEUP);
	count->events++;
	count->lost += lost;
	t->lost += lost;
}

static __always_inline void begin_record(struct scratch *s, struct thread *t, u8 kind, u64 at)
{
	s->record = (struct record){ .kind = kind, .tid = t->tid, .tgid = t->tgid, .number = t->number, .at = at };
	s->record.holds = NO_GIL;
	s->record.gil = t->gil;
	s->record.begin = t->begin;
	s->record.wakeup = t->wakeup & ~1ull;
	s->record.flags = t->wakeup & 1 ? BY_PEER : 0;
}

static __always_inline u64 max(u64 a, u64 b)
{
	return a > b ? a : b;
}

/* The kernel may not report a wakeup. (Seen on a 6.18 guest, in which no switch away from the
 * threads of one system process is reported, and no wakeup by an interrupt in their time.) */
static __always_inline void begin_run(struct thread *t, struct counters *count, u64 begin)
{
	t->number++;
	t->early = 0;
	if (t->off >= GIL_FUTEX && !t->wakeup && !queue_is_counted) {
		count->assumed++;
		t->wakeup = begin & ~1ull;
	}
	t->begin = begin;
}

/* Begins the run of a thread that is found on a CPU and is off it by the table. It began after the
 * last switch that was reported here. */
static __always_inline void assume_begin(struct thread *t, struct counters *count)
{
	count->assumed++;
	begin_run(t, count, max(max((t->end + 1) & ~1ull, t->wakeup & ~1ull), count->switched));
}

static __always_inline u32 why_off(struct task_struct *prev, bool runnable, u32 state, struct call *call, u32 *gil, struct target *c)
{
	if (state & TASK_DEAD)
		return EXITED;
	if (!runnable && (state & (TASK_STOPPED_OR_TRACED | TASK_FROZEN) || prev->jobctl & JOBCTL_TRAP_FREEZE))
		return STOPPED;
	struct numbers n = numbers();
	bool futex = is_futex(call->nr, n);
	u32 asleep = GIL_FUTEX;
	if (futex || call->nr == n.restart) {
		u32 found = gil_of_futex(c, call->arg);
		asleep = found & FORCED ? SWITCH_FUTEX : found & SIGNALS ? SIGNAL_FUTEX : GIL_FUTEX;
		*gil = found & ~(FORCED | SIGNALS);
	}
	bool of_gil = *gil < MAX_GILS;
	bool waits = of_gil && (!runnable || call->nr != n.futex || is_futex_wait(call->op));
	if (waits)
		return asleep;
	if (runnable)
		return of_gil ? PREEMPTED_IN_GIL_CALL : PREEMPTED;
	if (futex)
		return OTHER_FUTEX;
	return call->nr < 0 ? FAULT : SYSCALL;
}

/* A thread lost its CPU: the record of its run, or its sums. */
static __always_inline void run_ends(struct task_struct *prev, struct target *c, struct thread *t, struct counters *count, bool runnable, u32 state, u64 now)
{
	struct scratch *s = bpf_map_lookup_elem(&scratches, &zero);
	if (!s)
		return;
	u32 gil = MAX_GILS;
	struct call call = { -1 };
	if (!(state & TASK_DEAD))
		call = call_of(prev);
	if (!t->begin)
		assume_begin(t, count);
	u32 off = why_off(prev, runnable, state, &call, &gil, c);
	if (only_sums) {
		add_run(prev, t, now);
		if (prev->mm && (off == GIL_FUTEX || off == SWITCH_FUTEX))
			count_wait(c, s, t, pthread_self(prev, c), gil);
	} else {
		begin_record(s, t, RUN, now);
		s->record.off = off;
	}
	t->off = off;
	t->end = now;
	t->wakeup = 0;
	/* A wakeup on another CPU either sees that the run has ended, or is seen here. */
	__sync_lock_test_and_set(&t->begin, 0);
	u64 early = t->early ? __sync_lock_test_and_set(&t->early, 0) : 0;
	/* If the thread slept nevertheless, another wakeup replaces this one. An old one is of another
	 * sleep, which did not come about. */
	if (early && now - (early & ~1ull) < EARLY && off >= GIL_FUTEX && !t->wakeup)
		t->wakeup = wakeup_at(now, early & 1);
	count->switched = now;
	count->switches++;
	if (only_sums)
		return;
	if (prev->mm && off != EXITED) {
		u64 self = pthread_self(prev, c);
		see_gils(c, s, t, self, gil);
		bool sleeps = off >= GIL_FUTEX && off <= SYSCALL;
		if (sleeps && stack_is_due(c, t, &call, now)) {
			u64 tstate = tstate_of(c, s, t, self);
			if (tstate)
				walk(c, s, tstate);
		}
	}
	submit(s, t, count);
}

/* A watched thread lost its CPU. */
static __always_inline void leaves(struct task_struct *prev, u32 slot, struct counters *count, bool runnable, u32 state, u64 now)
{
	struct thread *t = thread_at(slot, prev);
	if (!t && state & TASK_DEAD) {
		free_slot(slot);
		return;
	}
	if (!t)
		t = add_thread(prev, count, now);
	if (!t)
		return;
	struct target *c = target_of_thread(t);
	if (c)
		run_ends(prev, c, t, count, runnable, state, now);
	if (state & TASK_DEAD)
		remove_thread(t, slot);
}

static __always_inline void enters(struct task_struct *next, u32 slot, struct counters *count, u64 now)
{
	count->switched = now;
	struct thread *t = thread_at(slot, next);
	if (t)
		begin_run(t, count, now);
	else
		add_thread(next, count, now);
}

static __always_inline int switched(bool preempt, struct task_struct *prev, struct task_struct *next, u32 state)
{
	struct counters *count = bpf_map_lookup_elem(&counts, &zero);
	if (!count)
		return 0;
	u64 begun = start_timer(count);
	u32 leaving = slot_of(prev);
	u32 entering = slot_of(next);
	if (leaving != NOT_WATCHED || entering != NOT_WATCHED) {
		u64 now = bpf_ktime_get_ns();
		if (leaving != NOT_WATCHED)
			leaves(prev, leaving, count, preempt || !state, state, now);
		if (entering != NOT_WATCHED)
			enters(next, entering, count, now);
	}
	stop_timer(count, begun);
	return 0;
}

/* Linux 5.18 and later. */
SEC("tp_btf/sched_switch")
int switch_with_state(u64 *ctx)
{
	return switched(ctx[0], (void *)ctx[1], (void *)ctx[2], ctx[3]);
}

SEC("tp_btf/sched_switch")
int switch_before_5_18(u64 *ctx)
{
	struct task_struct *prev = (void *)ctx[1];
	u32 state;
	if (bpf_core_field_exists(((struct task_struct___new *)0)->__state))
		state = ((struct task_struct___new *)prev)->__state;
	else
		state = ((struct task_struct___old *)prev)->state;
	return switched(ctx[0], prev, (void *)ctx[2], state);
}

/* Whether the running thread wakes a thread of its own process by a system call. An interrupt may
 * come in its time, so that the process alone tells nothing. */
static __always_inline bool by_peer(struct task_struct *woken, struct thread *t)
{
	struct task_struct *waker = bpf_get_current_task_btf();
	if (waker->tgid != woken->tgid || waker->pid == woken->pid)
		return false;
	struct call call = call_of(waker);
	if (t->off < GIL_FUTEX || t->off > OTHER_FUTEX)
		return call.nr >= 0;
	struct numbers n = numbers();
	return call.nr == 454 || call.nr == 456 || call.nr == n.exit || (call.nr == n.futex && !is_futex_wait(call.op));
}

static __always_inline void woken(struct task_struct *task, struct thread *t)
{
	bool peer = !only_sums && by_peer(task, t);
	u64 now = bpf_ktime_get_ns();
	if (t->begin)
		__sync_lock_test_and_set(&t->early, wakeup_at(now, peer));
	/* The run may have ended since the time was taken. */
	if (!t->begin && t->off >= GIL_FUTEX)
		t->wakeup = wakeup_at(max(now, t->end), peer);
}

/* It runs on the waker's CPU, also where the wakeup is completed on another one. */
SEC("tp_btf/sched_waking")
int waking(u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	struct counters *count = bpf_map_lookup_elem(&counts, &zero);
	if (!count)
		return 0;
	u64 begun = start_timer(count);
	u32 slot = slot_of(task);
	struct thread *t = slot < MAX_THREADS ? thread_at(slot, task) : 0;
	if (t)
		woken(task, t);
	stop_timer(count, begun);
	return 0;
}

/* A thread that is not the first of its process takes over the first one's id. */
SEC("tp_btf/sched_process_exec")
int executes(u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	u32 old = ctx[1];
	if (!target_of(task) || old == task->pid)
		return 0;
	struct counters *count = bpf_map_lookup_elem(&counts, &zero);
	u32 slot = slot_of_pid(old, 0);
	struct thread *t = thread_at(slot, task);
	if (!t || !count)
		return 0;
	if (!only_sums) {
		struct record gone = { .kind = EXIT, .tid = t->tid, .tgid = t->tgid, .number = t->number, .gil = NO_GIL, .holds = NO_GIL };
		gone.at = bpf_ktime_get_ns();
		count->events++;
		count->lost += !!bpf_ringbuf_output(&records, &gone, sizeof(gone), BPF_RB_NO_WAKEUP);
	}
	remove_thread(t, slot);
	return 0;
}

/* The clock interrupted a watched thread. */
static __always_inline void interrupted(struct task_struct *task, u32 slot, struct counters *count, u64 now)
{
	struct thread *t = thread_at(slot, task);
	if (!t)
		t = add_thread(task, count, now);
	struct target *c = t ? target_of_thread(t) : 0;
	struct scratch *s = bpf_map_lookup_elem(&scratches, &zero);
	if (!c || !s)
		return;
	if (!t->begin)
		assume_begin(t, count);
	begin_record(s, t, TICK, now);
	u64 self = 0;
	if (task->mm) {
		self = pthread_self(task, c);
		see_gils(c, s, t, self, MAX_GILS);
	}
	if (only_sums) {
		add_tick(c, s, t);
		return;
	}
	u64 tstate = task->mm ? tstate_of(c, s, t, self) : 0;
	if (tstate)
		walk(c, s, tstate);
	submit(s, t, count);
}

SEC("perf_event")
int tick(void *ctx)
{
	struct counters *count = bpf_map_lookup_elem(&counts, &zero);
	if (!count)
		return 0;
	u64 now = bpf_ktime_get_ns();
	struct task_struct *task = bpf_get_current_task_btf();
	u32 slot = slot_of(task);
	if (slot != NOT_WATCHED)
		interrupted(task, slot, count, now);
	count->tick_nanos += bpf_ktime_get_ns() - now;
	return 0;
}
