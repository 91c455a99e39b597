/* What is read of the target's memory: its GILs, the lists of waiters, and the frames.
 *
 * The kernel's verifier checks a global function once, and an inlined one again for every path that
 * leads there. So what has a loop of many steps is global. Its pointers are never null. */

/* The index of the GIL that a futex belongs to; MAX_GILS: none. With FORCED: who sleeps there was
 * forced to release the GIL, and waits until another thread has taken it. With SIGNALS: who sleeps
 * there has released it and wakes a waiter. */
__noinline u32 gil_of_futex(struct target *c, u64 futex)
{
	if (!c)
		return MAX_GILS;
	for (u32 i = 0; i < MAX_GILS; i++) {
		u64 gil = c->gils[i];
		if (!gil)
			break;
		u64 offset = futex - gil;
		if (offset >= c->waits_from && offset < c->waits_to) {
			u64 in_cond = offset - c->waits_from;
			if (offset >= c->switch_from)
				return i | FORCED;
			return in_cond >= REFS_FROM && in_cond < REFS_TO ? i | SIGNALS : i;
		}
		for (u32 l = 0; l < LISTS; l++) {
			if (!c->lists[l])
				break;
			u64 node = word_at(gil + c->lists[l]);
			for (u32 n = 0; n < MAX_NODES && node; n++) {
				if (node + NODE_FUTEX == futex)
					return c->lists[l] >= c->switch_from ? i | FORCED : i;
				node = word_at(node + NODE_NEXT);
			}
		}
	}
	return MAX_GILS;
}

/* Reads the GILs: which one the thread holds, and the state of its own one. `asleep_on` as
 * `gil_of_futex` returned it. */
__noinline int see_gils(struct target *c, struct scratch *s, struct thread *t, u64 self, u32 asleep_on)
{
	if (!c || !s || !t)
		return 0;
	struct record *r = &s->record;
	u32 last = t->gil;
	bool found = false;
	r->holds = NO_GIL;
	r->gil = c->gil_ids[0];
	for (u32 i = 0; i < MAX_GILS; i++) {
		u64 gil = c->gils[i];
		if (!gil)
			break;
		u32 id = c->gil_ids[i];
		if (bpf_probe_read_user(s->bytes, c->gil_len & 63, (void *)(gil + c->gil_from)))
			continue;
		u64 holder = PICK(u64, s, c->last_holder);
		bool locked = PICK(u32, s, c->locked) == 1;
		bool holds = locked && is_own(c, t, self, holder);
		bool own = asleep_on < MAX_GILS ? asleep_on == i : last == id;
		if (holds || own || !found) {
			found = true;
			r->gil = id;
			r->last_holder = holder;
			r->switches = PICK(u64, s, c->switches);
			r->flags = locked ? r->flags | LOCKED : r->flags & ~LOCKED;
		}
		if (holds) {
			r->holds = id;
			t->gil = id;
			t->tstate = holder;
			break;
		}
	}
	return 0;
}

/* The thread's PyThreadState, if it is known; 0 if not. */
static __always_inline u64 tstate_of(struct target *c, struct scratch *s, struct thread *t, u64 self)
{
	if (s->record.holds != NO_GIL)
		return t->tstate;
	if (is_own(c, t, self, t->tstate))
		return t->tstate;
	u32 tid = t->tid;
	u64 *known = bpf_map_lookup_elem(&tstates, &tid);
	t->tstate = known && is_own(c, t, self, *known) ? *known : 0;
	return t->tstate;
}

/* Reads the frames, leaf first. Entry frames and cleared ones are kept, so that each frame stands
 * at the index of its step, and choices are made by masks: every branch multiplies the work of the
 * verifier. */
__noinline int walk(struct target *c, struct scratch *s, u64 tstate)
{
	if (!c || !s)
		return 0;
	struct record *r = &s->record;
	u64 at = word_at(tstate + c->anchor);
	if (c->cframe_inner != NONE && at)
		at = word_at(at + c->cframe_inner);
	u8 flags = HAS_STACK;
	u32 i;
	for (i = 0; i < MAX_FRAMES; i++) {
		if (!at)
			break;
		if (bpf_probe_read_user(s->bytes, c->frame_len & 127, (void *)(at + c->frame_from))) {
			flags |= UNREADABLE;
			break;
		}
		u64 code = PICK(u64, s, c->code) & c->code_mask;
		u64 word = PICK(u64, s, c->position);
		s64 number = PICK(int, s, c->position);
		u64 is_int = 0 - c->position_is_int;
		/* All ones for an entry frame. */
		u64 entry = (s64)(c->first_not_python - 1 - (s64)PICK(signed char, s, c->owner)) >> 63;
		s->frames[i].at = at;
		s->frames[i].code = code & ~entry;
		s->frames[i].position = (((number & is_int) | (word & ~is_int)) & ~entry) | (ENTRY_FRAME & entry);
		at = PICK(u64, s, c->back);
	}
	if (i == MAX_FRAMES && at)
		flags |= TRUNCATED;
	r->flags |= flags;
	r->frame_count = i;
	return 0;
}

/* Whether the stack of this sleep is due: none was taken for the same call within the interval. */
static __always_inline bool stack_is_due(struct target *c, struct thread *t, struct call *call, u64 now)
{
	u64 key = ((u64)call->nr << 48) ^ call->arg;
	u32 place = ((key * 0x9e3779b97f4a7c15ull) >> 61) & (SLEEPS - 1);
	struct sleep *sleep = &t->sleeps[place];
	if (sleep->call == key && now - sleep->at < c->stack_interval)
		return false;
	sleep->call = key;
	sleep->at = now;
	return true;
}
