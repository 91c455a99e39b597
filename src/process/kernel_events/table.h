/* The table of threads: where a task is in it, and how it comes there and leaves. */

/* Instead of a slot. */
#define NOT_WATCHED (MAX_THREADS + 1)
#define NOT_THERE MAX_THREADS

/* The slot of a thread, by the kernel's number. With `claim`, a free one becomes its slot. */
__noinline u32 slot_of_pid(u32 pid, u32 claim)
{
	struct slots *s = bpf_map_lookup_elem(&slots, &zero);
	if (!s)
		return NOT_THERE;
	for (u32 i = 0; i < TRIES; i++) {
		u32 slot = (pid + i * STRIDE) & (MAX_THREADS - 1);
		if (s->pids[slot] == pid)
			return slot;
	}
	for (u32 i = 0; i < TRIES && claim; i++) {
		u32 slot = (pid + i * STRIDE) & (MAX_THREADS - 1);
		if (__sync_val_compare_and_swap(&s->pids[slot], 0, pid) == 0)
			return slot;
	}
	return NOT_THERE;
}

static __always_inline u32 *target_of(struct task_struct *task)
{
	u32 tgid = own_tgid(task);
	u32 hint = tgid & (HINTS - 1);
	u32 *some = bpf_map_lookup_elem(&hints, &hint);
	if (!some || !*some || !tgid)
		return 0;
	return bpf_map_lookup_elem(&watched, &tgid);
}

/* The slot of a task, NOT_THERE or NOT_WATCHED. */
static __always_inline u32 slot_of(struct task_struct *task)
{
	u32 pid = task->pid;
	struct slots *s = bpf_map_lookup_elem(&slots, &zero);
	if (!pid || !s)
		return NOT_WATCHED;
	u32 slot = pid & (MAX_THREADS - 1);
	if (s->pids[slot] == pid)
		return slot;
	return target_of(task) ? slot_of_pid(pid, 0) : NOT_WATCHED;
}

/* The thread in a slot, if it is this task. The kernel may not have reported the end of one. */
static __always_inline struct thread *thread_at(u32 slot, struct task_struct *task)
{
	struct thread *t = bpf_map_lookup_elem(&threads, &slot);
	return t && t->group == task->tgid ? t : 0;
}

/* What is watched in a thread's process, if that is still watched. */
static __always_inline struct target *target_of_thread(struct thread *t)
{
	u32 index = t->target;
	struct target *c = bpf_map_lookup_elem(&targets, &index);
	return c && c->tgid == t->tgid ? c : 0;
}

/* A thread that is not in the table yet, if its process is watched, with its first run, which
 * begins at `begin`. */
static __always_inline struct thread *add_thread(struct task_struct *task, struct counters *count, u64 begin)
{
	u32 *target = target_of(task);
	if (!target)
		return 0;
	u32 slot = slot_of_pid(task->pid, 1);
	struct thread *t = bpf_map_lookup_elem(&threads, &slot);
	if (!t) {
		count->lost++;
		return 0;
	}
	/* From here on it is no entry, until all is there. */
	t->group = 0;
	asm volatile("" ::: "memory");
	*t = (struct thread){ .begin = begin, .gil = NO_GIL, .waits_for = MAX_GILS };
	t->target = *target;
	t->tid = own_tid(task);
	t->tgid = own_tgid(task);
	t->inner_tid = innermost_tid(task);
	asm volatile("" ::: "memory");
	t->group = task->tgid;
	return t;
}

static __always_inline void free_slot(u32 slot)
{
	struct slots *s = bpf_map_lookup_elem(&slots, &zero);
	if (s && slot < MAX_THREADS)
		__sync_lock_test_and_set(&s->pids[slot], 0);
}
