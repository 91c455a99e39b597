/* What is read of the target's memory: its GILs, the lists of waiters, and the frames. */

/* The index of the GIL that a futex belongs to; MAX_GILS: none. `forced`: who sleeps there was
 * forced to release the GIL, and waits until another thread has taken it. */
static __always_inline u32 gil_of_futex(struct target *c, u64 futex, bool *forced)
{
	for (u32 i = 0; i < MAX_GILS; i++) {
		u64 gil = c->gils[i];
		if (!gil)
			break;
		u64 offset = futex - gil;
		if (offset >= c->waits_from && offset < c->waits_to) {
			*forced = offset >= c->switch_from;
			return i;
		}
		for (u32 l = 0; l < LISTS; l++) {
			if (!c->lists[l])
				break;
			u64 node = word_at(gil + c->lists[l]);
			for (u32 n = 0; n < MAX_NODES && node; n++) {
				if (node + NODE_FUTEX == futex) {
					*forced = c->lists[l] >= c->switch_from;
					return i;
				}
				node = word_at(node + NODE_NEXT);
			}
		}
	}
	return MAX_GILS;
}

/* Reads the GILs: which one the thread holds, and the state of its own one. `asleep_on` as
 * `gil_of_futex` returned it. */
static __always_inline void see_gils(struct target *c, struct scratch *s, struct thread *t, u64 self, u32 asleep_on)
{
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
 * at the index of its step. That keeps the work of the kernel's verifier small. */
__attribute__((noinline)) int walk(u64 tstate)
{
	struct scratch *s = bpf_map_lookup_elem(&scratches, &zero);
	if (!s)
		return 0;
	struct record *r = &s->record;
	u32 tgid = r->tgid;
	struct target *c = bpf_map_lookup_elem(&targets, &tgid);
	if (!c)
		return 0;
	u64 at = word_at(tstate + c->anchor);
	if (c->cframe_inner != NONE && at)
		at = word_at(at + c->cframe_inner);
	u32 i;
	for (i = 0; i < MAX_FRAMES; i++) {
		if (!at)
			break;
		if (i >= c->max_frames) {
			r->flags |= TRUNCATED;
			break;
		}
		if (bpf_probe_read_user(s->bytes, c->frame_len & 127, (void *)(at + c->frame_from))) {
			r->flags |= UNREADABLE;
			break;
		}
		u64 code = PICK(u64, s, c->code) & c->code_mask;
		u64 position = PICK(u64, s, c->position);
		if (c->position_is_int)
			position = (s64)(int)position;
		if (c->owner != NONE && PICK(signed char, s, c->owner) >= (s64)c->first_not_python) {
			code = 0;
			position = ENTRY_FRAME;
		}
		s->frames[i].at = at;
		s->frames[i].code = code;
		s->frames[i].position = position;
		u64 back = PICK(u64, s, c->back);
		if (back == at) {
			r->flags |= UNREADABLE;
			i++;
			break;
		}
		at = back;
	}
	if (i == MAX_FRAMES && at)
		r->flags |= TRUNCATED;
	r->flags |= HAS_STACK;
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
