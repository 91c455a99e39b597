//! Span types by number: a state, a function, and the holder that the thread waits for. The page
//! has each type once.

use crate::ids::ThreadId;
use crate::output::collapsed::{frame_text, NO_PYTHON};
use crate::output::columns;
use crate::output::timeline::Span;
use crate::sample::{Function, Stack, State};
use rustc_hash::FxHashMap;
use serde_json::{json, Value};
use std::sync::Arc;

/// Texts, at most; a function beyond has none.
const MAX_TEXTS: usize = 1 << 13;
/// Span types, at most; a span beyond has only its state.
const MAX_SPAN_TYPES: usize = 1 << 15;
/// Functions that are cached by address. A full cache is cleared.
const MAX_CACHED: usize = 1 << 13;
/// Longer texts are cut in their middle.
const LONGEST_TEXT: usize = 120;

/// The numbers that are assigned so far. Type 0 is time without a sample of the thread.
#[derive(Debug)]
pub struct SpanTypes {
    texts: FxHashMap<String, u32>,
    text_list: Vec<String>,
    cache: FxHashMap<usize, (Arc<Function>, u32)>,
    holders: FxHashMap<(ThreadId, u32), u32>,
    names: FxHashMap<ThreadId, String>,
    numbers: FxHashMap<(State, u32, u32), u64>,
    types: Vec<[u32; 3]>,
}

impl SpanTypes {
    /// The types that every page has: each state without a function.
    pub fn new() -> SpanTypes {
        let (texts, cache, holders, names, numbers) = Default::default();
        let mut new = SpanTypes { texts, text_list: vec![String::new()], cache, holders, names, numbers, types: vec![[0; 3]] };
        for state in State::ALL {
            new.number(state, 0, 0);
        }
        new
    }

    /// What a thread is called from now on.
    pub fn name(&mut self, thread: ThreadId, name: String) {
        self.names.insert(thread, name);
        self.holders.retain(|(id, _), _| *id != thread);
    }

    /// The number of what a span is.
    pub fn number_of(&mut self, span: &Span) -> u64 {
        let place = self.place(&span.stack);
        let holder = match span.holder.as_ref().filter(|_| span.state == State::Waiting) {
            Some((thread, stack)) => self.holder(*thread, stack),
            None => 0,
        };
        self.number(span.state, place, holder)
    }

    fn number(&mut self, state: State, place: u32, holder: u32) -> u64 {
        let key = (state, place, holder);
        if let Some(&known) = self.numbers.get(&key) {
            return known;
        }
        if self.types.len() >= MAX_SPAN_TYPES {
            return self.numbers.get(&(state, 0, 0)).copied().unwrap_or(0);
        }
        let number = self.types.len() as u64;
        self.types.push([state as u32, place, holder]);
        self.numbers.insert(key, number);
        number
    }

    fn place(&mut self, stack: &Stack) -> u32 {
        let Some(leaf) = stack.leaf() else { return self.text(NO_PYTHON.into()) };
        let object = Arc::as_ptr(&leaf.function) as usize;
        if let Some((_, known)) = self.cache.get(&object) {
            return *known;
        }
        let text = self.text(frame_text(leaf));
        if self.cache.len() >= MAX_CACHED {
            self.cache.clear();
        }
        // The reference prevents another function from getting the same address.
        self.cache.insert(object, (Arc::clone(&leaf.function), text));
        text
    }

    fn holder(&mut self, thread: ThreadId, stack: &Stack) -> u32 {
        let place = self.place(stack);
        if let Some(&known) = self.holders.get(&(thread, place)) {
            return known;
        }
        let name = self.names.get(&thread).map_or("?", String::as_str);
        let text = format!("{name}: {}", self.text_list.get(place as usize).map_or("", String::as_str));
        let text = self.text(text);
        if self.holders.len() < MAX_SPAN_TYPES {
            self.holders.insert((thread, place), text);
        }
        text
    }

    fn text(&mut self, text: String) -> u32 {
        let text = columns::fit(&text, LONGEST_TEXT);
        if let Some(&known) = self.texts.get(&text) {
            return known;
        }
        if self.text_list.len() >= MAX_TEXTS {
            return 0;
        }
        let number = self.text_list.len() as u32;
        self.text_list.push(text.clone());
        self.texts.insert(text, number);
        number
    }

    /// `[texts, types]`: a type is its state and the numbers of its function's and holder's text.
    pub fn finish(self) -> (Value, Value) {
        (json!(self.text_list), json!(self.types))
    }
}
