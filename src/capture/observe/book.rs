//! The end of a look: every thread judged and its time booked, and what the look says of each GIL.

use super::Observer;
use crate::capture::classify::Judgement;
use crate::capture::tracked::GilSaid;
use crate::ids::Addr;
use crate::python::gil::GilReading;
use crate::python::layout::Minor;
use crate::sample::{GilLook, Holder, Sink, State};
use crate::units::Nanos;

/// The first minor version whose locks are `PyMutex` (Python/lock.c).
const LOCKS_SPIN: Minor = Minor(3, 13);

impl Observer {
    pub(super) fn book(&mut self, sink: &mut dyn Sink) {
        let (span, at) = ((self.booked, self.until), self.until);
        self.find_holders();
        for n in 0..self.awake.count() {
            let index = self.awake.nth(n);
            let thread = &mut self.threads[index];
            let Some(g) = self.gils.0.iter().position(|gil| gil.at == thread.gil) else {
                let judgement = thread.judge(at, &GilSaid::default());
                thread.book(span, judgement, None, sink);
                self.awake.rest(index, thread.rests_until());
                continue;
            };
            let (gil, reading) = (&mut self.gils.0[g], self.roster.gils[g].1);
            let behind = gil.holder.as_ref().filter(|(holder, ..)| *holder != index).map(|(_, id, stack)| (*id, stack));
            if thread.still_waits() {
                thread.book_wait(at, behind, sink);
                (gil.waiters, gil.wanted) = (gil.waiters + 1, true);
                continue;
            }
            let holder = reading.and_then(|r| r.holder);
            let holds = |holder: Option<Addr>| !thread.tstate.is_null() && holder == Some(thread.tstate);
            let said = GilSaid {
                held_before: holds(holder),
                held_after: holds(self.after.get(g).and_then(|after| after.as_ref()?.holder)),
                other_holds: holder.is_some_and(|holder| holder != thread.tstate),
                may_have_held: reading.is_none_or(|now| gil.may_have_had(&now, thread.tstate)),
                unwanted: gil.unwanted,
                interval: reading.map_or(Nanos::ZERO, |r| Nanos::from_micros(r.interval_us)),
                locks_spin: self.python.layout.minor >= LOCKS_SPIN,
            };
            let judgement = thread.judge(at, &said);
            let waits = matches!(judgement, Judgement::Told(State::Waiting, _));
            let may_wait = matches!(judgement, Judgement::Undecided { .. }) || said.held_before && !said.held_after;
            (gil.waiters, gil.wanted) = (gil.waiters + u32::from(waits), gil.wanted || waits || may_wait);
            thread.book(span, judgement, behind, sink);
            self.awake.rest(index, thread.rests_until());
        }
        if !self.halt.now() {
            self.tell_of_gils(span, sink);
        }
    }

    /// Who held each GIL when the look began, and where.
    fn find_holders(&mut self) {
        for (gil, (_, reading)) in self.gils.0.iter_mut().zip(&self.roster.gils) {
            let index = reading.and_then(|r| r.holder).and_then(|holder| self.by_tstate.get(&holder)).copied();
            gil.holder = index.map(|index| (index, self.threads[index].facts.id, self.threads[index].stack.stack().clone()));
            (gil.waiters, gil.wanted) = (0, false);
        }
    }

    fn tell_of_gils(&mut self, (begin, at): (Nanos, Nanos), sink: &mut dyn Sink) {
        let span = at.since(begin);
        for (g, (gil, (_, reading))) in self.gils.0.iter_mut().zip(&self.roster.gils).enumerate() {
            let Some(GilReading { holder, switches, .. }) = *reading else { continue };
            if !gil.wanted {
                gil.unwanted = Some(at);
            }
            let holder = match (holder, &gil.holder) {
                (None, _) => Holder::Nobody,
                (Some(_), Some((_, id, _))) => Holder::Thread(*id),
                (Some(_), None) => Holder::Unmatched,
            };
            let collecting = self.roster.collects(gil.at);
            sink.gil(&GilLook { gil: self.numbers.at(g), at, span, holder, switches: Some(switches), waiters: gil.waiters, collecting });
        }
    }
}
