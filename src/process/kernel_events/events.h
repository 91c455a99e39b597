/* The events: a switch, a wakeup, execve, and a tick of the clock. */

/* A wakeup as `struct thread` has it. Rounded up, so that it is not before the end of a run. */
static __always_inline u64 wakeup_at(u64 now, bool by_peer)
{
	return ((now + 1) & ~1ull) | by_peer;
}

/* Writes the record. Readers poll, so none is woken. */
static __always_inline void submit(struct scratch *s, struct thread *t, u64 begun)
{
	u64 frames = s->record.frame_count;
	/* Keeps the compiler from comparing a copy, whose bound the verifier does not know. */
	asm volatile("" : "+r"(frames));
	if (frames > MAX_FRAMES)
		return;
	u64 len = sizeof(struct record) + frames * sizeof(struct frame);
	bool lost = bpf_ringbuf_output(&records, s, len, BPF_RB_NO_WAKEUP);
	struct counters *count = bpf_map_lookup_elem(&counts, &zero);
	if (count) {
		count->events++;
		count->lost += lost;
		count->nanos += bpf_ktime_get_ns() - begun;
	}
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

/* The kernel may not report an event. (Seen on a 6.18 guest, in which no switch away from the
 * threads of one system process is reported, and no wakeup by an interrupt in their time.) */
static __always_inline void count_assumed(void)
{
	struct counters *count = bpf_map_lookup_elem(&counts, &zero);
	if (count)
		count->assumed++;
}

static __always_inline void begin_run(struct thread *t, u64 begin)
{
	t->number++;
	t->early = 0;
	if (t->off >= GIL_FUTEX && !t->wakeup) {
		count_assumed();
		t->wakeup = begin & ~1ull;
	}
	t->begin = begin;
}

/* Begins the run of a thread that is found on a CPU and is off it by the table. It began after the
 * last switch that was reported here. */
static __always_inline void assume_begin(struct thread *t, struct scratch *s)
{
	count_assumed();
	begin_run(t, max(max((t->end + 1) & ~1ull, t->wakeup & ~1ull), s->switched));
}

static __always_inline u32 why_off(struct task_struct *prev, bool runnable, u32 state, struct call *call, u32 *gil, struct target *c)
{
	if (state & TASK_DEAD)
		return EXITED;
	if (!runnable && (state & (TASK_STOPPED_OR_TRACED | TASK_FROZEN) || prev->jobctl & JOBCTL_TRAP_FREEZE))
		return STOPPED;
	struct numbers n = numbers();
	bool futex = is_futex(call->nr, n);
	bool forced = false;
	if (futex || call->nr == n.restart) {
		u32 found = gil_of_futex(c, call->arg);
		forced = found & FORCED;
		*gil = found & ~FORCED;
	}
	bool of_gil = *gil < MAX_GILS;
	bool waits = of_gil && (!runnable || call->nr != n.futex || is_futex_wait(call->op));
	if (waits)
		return forced ? SWITCH_FUTEX : GIL_FUTEX;
	if (runnable)
		return of_gil ? PREEMPTED_IN_GIL_CALL : PREEMPTED;
	if (futex)
		return OTHER_FUTEX;
	return call->nr < 0 ? FAULT : SYSCALL;
}

/* A thread lost its CPU: the record of its run. */
static __always_inline void run_ends(struct task_struct *prev, struct target *c, struct thread *t, bool runnable, u32 state, u64 now)
{
	struct scratch *s = bpf_map_lookup_elem(&scratches, &zero);
	if (!s)
		return;
	u32 gil = MAX_GILS;
	struct call call = { -1 };
	if (!(state & TASK_DEAD))
		call = call_of(prev);
	if (!t->begin)
		assume_begin(t, s);
	u32 off = why_off(prev, runnable, state, &call, &gil, c);
	begin_record(s, t, RUN, now);
	s->record.off = off;
	t->off = off;
	t->end = now;
	t->wakeup = 0;
	/* A wakeup on another CPU either sees that the run has ended, or is seen here. */
	__sync_lock_test_and_set(&t->begin, 0);
	u64 early = __sync_lock_test_and_set(&t->early, 0);
	/* If the thread slept nevertheless, another wakeup replaces this one. */
	if (early && off >= GIL_FUTEX && !t->wakeup)
		t->wakeup = wakeup_at(now, early & 1);
	s->switched = now;
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
	submit(s, t, now);
}

static __always_inline int switched(bool preempt, struct task_struct *prev, struct task_struct *next, u32 state)
{
	u64 now = 0;
	struct target *c = target_of(prev);
	struct thread *t = 0;
	if (c || state & TASK_DEAD)
		t = thread_of(prev);
	if (t || c) {
		now = bpf_ktime_get_ns();
		u32 pid = prev->pid;
		u32 tgid = t ? t->tgid : 0;
		if (!c)
			c = bpf_map_lookup_elem(&targets, &tgid);
		if (!t && !(state & TASK_DEAD))
			t = add_thread(prev, now);
		if (t && c)
			run_ends(prev, c, t, preempt || !state, state, now);
		if (state & TASK_DEAD && t) {
			u32 tid = t->tid;
			bpf_map_delete_elem(&tstates, &tid);
			bpf_map_delete_elem(&threads, &pid);
		}
	}
	if (!target_of(next))
		return 0;
	if (!now)
		now = bpf_ktime_get_ns();
	struct scratch *s = bpf_map_lookup_elem(&scratches, &zero);
	if (s)
		s->switched = now;
	t = thread_of(next);
	if (t) {
		begin_run(t, now);
	} else {
		add_thread(next, now);
	}
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

/* It runs on the waker's CPU, also where the wakeup is completed on another one. */
SEC("tp_btf/sched_waking")
int waking(u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	if (!target_of(task))
		return 0;
	struct thread *t = thread_of(task);
	if (!t)
		return 0;
	bool peer = by_peer(task, t);
	u64 now = bpf_ktime_get_ns();
	if (t->begin)
		__sync_lock_test_and_set(&t->early, wakeup_at(now, peer));
	/* The run may have ended since the time was taken. */
	if (!t->begin && t->off >= GIL_FUTEX)
		t->wakeup = wakeup_at(max(now, t->end), peer);
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
	struct thread *t = bpf_map_lookup_elem(&threads, &old);
	if (!t)
		return 0;
	struct record gone = { .kind = EXIT, .tid = t->tid, .tgid = t->tgid, .number = t->number, .gil = NO_GIL, .holds = NO_GIL };
	gone.at = bpf_ktime_get_ns();
	struct counters *count = bpf_map_lookup_elem(&counts, &zero);
	bool lost = bpf_ringbuf_output(&records, &gone, sizeof(gone), BPF_RB_NO_WAKEUP);
	if (count) {
		count->events++;
		count->lost += lost;
	}
	bpf_map_delete_elem(&threads, &old);
	return 0;
}

SEC("perf_event")
int tick(void *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct target *c = target_of(task);
	if (!c)
		return 0;
	u64 now = bpf_ktime_get_ns();
	struct thread *t = thread_of(task);
	if (!t)
		t = add_thread(task, now);
	struct scratch *s = bpf_map_lookup_elem(&scratches, &zero);
	if (!t || !s)
		return 0;
	if (!t->begin)
		assume_begin(t, s);
	begin_record(s, t, TICK, now);
	if (task->mm) {
		u64 self = pthread_self(task, c);
		see_gils(c, s, t, self, MAX_GILS);
		u64 tstate = tstate_of(c, s, t, self);
		if (tstate) {
			if (c->gil_requested != NONE && int_at(tstate + c->gil_requested))
				s->record.flags |= GIL_REQUESTED;
			if (c->eval_breaker != NONE && word_at(tstate + c->eval_breaker) & DROP_REQUEST)
				s->record.flags |= DROP_REQUESTED;
			walk(c, s, tstate);
		}
	}
	submit(s, t, now);
	return 0;
}
