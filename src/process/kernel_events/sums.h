/* The sums of each thread, each GIL, and of the threads that have ended. They need neither records
 * nor stacks, and are read at any distance. */

static __always_inline void add(u64 *sum, u64 more)
{
	/* Clocks read on two CPUs may disagree by a few nanoseconds. */
	if ((s64)more > 0)
		*sum += more;
}

/* Adds to a sum of the whole process, as other CPUs do. */
static __always_inline void add_shared(u64 *sum, u64 more)
{
	__sync_fetch_and_add(sum, more);
}

static __always_inline struct process *process_of(struct thread *t)
{
	u32 index = t->target;
	return bpf_map_lookup_elem(&processes, &index);
}

/* Adds to the sums of the GIL that a thread last slept for what they lack of the thread's. */
static __always_inline void add_to_gil(struct thread *t, struct process *process)
{
	struct gil_waits *added = &t->added;
	struct sums *sums = &t->sums;
	u64 index = t->waits_for;
	if (index < MAX_GILS) {
		struct gil_waits *gil = &process->gils[index].waits;
		add_shared(&gil->waiting, sums->waiting - added->waiting);
		add_shared(&gil->queued_after_wait, sums->queued_after_wait - added->queued_after_wait);
		add_shared(&gil->waits, sums->waits - added->waits);
	}
	added->waiting = sums->waiting;
	added->queued_after_wait = sums->queued_after_wait;
	added->waits = sums->waits;
}

/* The time of the run queue in the time off the CPU before this run. */
static __always_inline u64 time_in_queue(struct task_struct *task, struct thread *t, u64 off_cpu)
{
	u64 queued = t->begin - (t->wakeup & ~1ull);
	if (queue_is_counted) {
		u64 counted = task->sched_info.run_delay;
		queued = counted - t->run_delay;
		t->run_delay = counted;
	}
	return t->off < GIL_FUTEX || queued > off_cpu ? off_cpu : queued;
}

/* The thread ran until `now`. Before, it was off its CPU from the end of its last run. */
static __always_inline void add_run(struct task_struct *task, struct thread *t, u64 now)
{
	add(&t->sums.on_cpu, now - t->begin);
	u64 off_cpu = t->begin - t->end;
	u64 queued = time_in_queue(task, t, off_cpu);
	u64 asleep = off_cpu - queued;
	if (!t->end || (s64)off_cpu < 0)
		return;
	if (t->off == PREEMPTED || t->off >= OTHER_FUTEX) {
		add(&t->sums.asleep, asleep);
		add(&t->sums.queued, queued);
		return;
	}
	add(&t->sums.waiting, asleep);
	add(&t->sums.queued_after_wait, queued);
}

/* The thread falls asleep for a GIL: a new wait, unless it cannot have had the GIL since it last
 * slept for it. Had it had it, it would be the last holder, or the GIL has switched twice. */
static __always_inline void count_wait(struct target *c, struct scratch *s, struct thread *t, u64 self, u32 index)
{
	if (index >= MAX_GILS)
		return;
	u64 gil = c->gils[index];
	if (bpf_probe_read_user(s->bytes, c->gil_len & 63, (void *)(gil + c->gil_from)))
		return;
	u64 switches = PICK(u64, s, c->switches) - t->wait_switches;
	bool same = t->waits_for == index && (switches == 0 || (switches == 1 && !is_own(c, t, self, PICK(u64, s, c->last_holder))));
	t->wait_switches += switches;
	if (same)
		return;
	if (t->waits_for != index) {
		struct process *process = process_of(t);
		if (process)
			add_to_gil(t, process);
		t->waits_for = index;
	}
	t->sums.waits++;
}

/* The clock interrupted the thread, and `see_gils` has filled the record. */
static __always_inline void add_tick(struct target *c, struct scratch *s, struct thread *t)
{
	add(&t->sums.ticks, 1);
	u32 held = s->record.holds;
	if (held == NO_GIL)
		return;
	add(&t->sums.ticks_with_gil, 1);
	struct process *process = process_of(t);
	for (u32 i = 0; i < MAX_GILS && process; i++) {
		if (c->gils[i] && c->gil_ids[i] == held) {
			add_shared(&process->gils[i].ticks_with_gil, 1);
			break;
		}
	}
}

/* The thread ends: its sums are those of the process from now on. */
static __always_inline void add_ended(struct thread *t)
{
	struct process *process = target_of_thread(t) ? process_of(t) : 0;
	if (!process)
		return;
	add_to_gil(t, process);
	u64 *ended = (u64 *)&process->ended;
	u64 *sums = (u64 *)&t->sums;
	for (u32 i = 0; i < SUMS; i++)
		add_shared(&ended[i], sums[i]);
}

/* Takes a thread out of the table. */
static __always_inline void remove_thread(struct thread *t, u32 slot)
{
	u32 tid = t->tid;
	if (only_sums)
		add_ended(t);
	bpf_map_delete_elem(&tstates, &tid);
	t->group = 0;
	free_slot(slot);
}
