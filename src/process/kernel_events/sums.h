/* The sums of each thread, each GIL, and of the threads that have ended. They need neither records
 * nor stacks, and are read at any distance. */

static __always_inline void add(u64 *sum, u64 more)
{
	/* Clocks read on two CPUs may disagree by a few nanoseconds. */
	if ((s64)more > 0)
		__sync_fetch_and_add(sum, more);
}

static __always_inline struct gil_sums *sums_of_gil(u32 tgid, u64 gil)
{
	struct process *process = bpf_map_lookup_elem(&processes, &tgid);
	if (!process || gil >= MAX_GILS)
		return 0;
	return &process->gils[gil];
}

/* The thread ran until `now`. */
static __always_inline void add_on_cpu(struct thread *t, u64 now)
{
	add(&t->sums.on_cpu, now - t->begin);
}

/* The thread was off its CPU until `now`. */
static __always_inline void add_off_cpu(struct thread *t, u64 now)
{
	u64 end = t->end;
	if (!end)
		return;
	u64 wakeup = t->off >= GIL_FUTEX ? t->wakeup & ~1ull : end;
	u64 asleep = wakeup - end;
	u64 queued = now - wakeup;
	if (t->off == PREEMPTED || t->off >= OTHER_FUTEX) {
		add(&t->sums.asleep, asleep);
		add(&t->sums.queued, queued);
		return;
	}
	add(&t->sums.waiting, asleep);
	add(&t->sums.queued_after_wait, queued);
	struct gil_sums *gil = sums_of_gil(t->tgid, t->waits_for);
	if (gil) {
		add(&gil->waiting, asleep);
		add(&gil->queued_after_wait, queued);
	}
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
	t->waits_for = index;
	t->wait_switches += switches;
	if (same)
		return;
	add(&t->sums.waits, 1);
	struct gil_sums *sums = sums_of_gil(t->tgid, index);
	if (sums)
		add(&sums->waits, 1);
}

/* The clock interrupted the thread, and `see_gils` has filled the record. */
static __always_inline void add_tick(struct target *c, struct scratch *s, struct thread *t)
{
	add(&t->sums.ticks, 1);
	u32 held = s->record.holds;
	if (held == NO_GIL)
		return;
	add(&t->sums.ticks_with_gil, 1);
	for (u32 i = 0; i < MAX_GILS; i++) {
		struct gil_sums *gil = c->gils[i] && c->gil_ids[i] == held ? sums_of_gil(t->tgid, i) : 0;
		if (gil) {
			add(&gil->ticks_with_gil, 1);
			break;
		}
	}
}

/* Removes an entry of the table of threads. */
static __always_inline void remove_thread(struct thread *t, u32 pid)
{
	u32 tid = t->tid;
	u32 tgid = t->tgid;
	struct process *process = only_sums ? bpf_map_lookup_elem(&processes, &tgid) : 0;
	if (process) {
		u64 *ended = (u64 *)&process->ended;
		u64 *sums = (u64 *)&t->sums;
		for (u32 i = 0; i < SUMS; i++)
			add(&ended[i], sums[i]);
	}
	bpf_map_delete_elem(&tstates, &tid);
	bpf_map_delete_elem(&threads, &pid);
}
