//! What the screen shows and what keys do to it: a value and a pure function. Nothing here reads a
//! clock, a terminal or a process.

use super::analyst::Latest;
use super::filter::Filter;
use super::history::Span;
use super::lists::processes::{in_tree, HostRow};
use super::lists::{blame, functions, processes, sort, threads, Heading, ListRow, Listing, RowId, SortKey};
use super::picture::Picture;
use crate::output::collapsed::FlameMode;
use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use std::sync::Arc;
use tui_input::backend::crossterm::EventHandler;
use tui_input::Input;

/// Rows of one press of page up or page down.
const PAGE: isize = 10;

/// What the rows are about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum View {
    /// The threads, with a bar each.
    #[default]
    Threads,
    /// The functions, by the waiting that they inflict.
    Functions,
    /// Who waits behind whom.
    Blame,
    /// A flame graph with the root on top.
    Icicle,
    /// The Python processes of the host.
    #[value(skip)]
    Processes,
}

impl View {
    /// The views of one process, in the order of their tabs.
    pub const OF_PROCESS: [View; 4] = [View::Threads, View::Functions, View::Blame, View::Icicle];

    /// Its name on the tab, which begins with its key.
    pub fn name(self) -> &'static str {
        match self {
            View::Threads => "threads",
            View::Functions => "functions",
            View::Blame => "blame",
            View::Icicle => "icicle",
            View::Processes => "processes",
        }
    }

    /// The columns of its list.
    pub fn headings(self) -> &'static [Heading] {
        match self {
            View::Threads => threads::HEADINGS,
            View::Functions => functions::HEADINGS,
            View::Blame => blame::HEADINGS,
            View::Processes => processes::HEADINGS,
            View::Icicle => &[],
        }
    }

    /// The column that it is sorted by until the user chooses another one.
    fn default_sort(self) -> SortKey {
        match self {
            View::Functions => SortKey::OthersWait,
            View::Threads | View::Blame | View::Icicle | View::Processes => SortKey::Waiting,
        }
    }
}

/// What a key asks of the world outside the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// End.
    Quit,
    /// Stop like any program on Ctrl-Z.
    Suspend,
    /// Draw everything again.
    Redraw,
    /// Show another window.
    Span(Span),
    /// Begin the figures since the start anew.
    Reset,
    /// Begin or end a recording.
    Record,
    /// Write a report.
    Report,
    /// Write the threads' stacks of this moment.
    Dump,
    /// Measure this process.
    Enter(i32),
    /// Go back to the list of processes.
    Leave,
}

/// What covers the rows, or takes the keys.
#[derive(Clone, Debug, Default)]
pub enum Overlay {
    /// Nothing.
    #[default]
    None,
    /// The help.
    Help,
    /// The line in which a filter is written.
    FilterLine(Input),
}

/// The state of the screen.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// The newest picture.
    pub picture: Option<Arc<Picture>>,
    /// The picture that is shown instead while it is paused.
    pub paused: Option<Arc<Picture>>,
    /// The processes of the host, if they are shown.
    pub processes: Vec<HostRow>,
    /// Processes of which it may not be read whether they are Python.
    pub unreadable: usize,
    /// Whether the list of processes is one step back.
    pub from_list: bool,
    /// The view.
    pub view: View,
    /// The window.
    pub span: Span,
    /// The column that the user chose; `None`: the view's own.
    pub sort: Option<SortKey>,
    /// Whether the smallest is first.
    pub inverted: bool,
    /// The row with the cursor; `None`: the first.
    pub cursor: Option<RowId>,
    /// Levels of the icicle above its first visible one.
    pub scrolled: usize,
    /// Which time the icicle shows.
    pub flame: Flame,
    /// The filter.
    pub filter: Filter,
    /// Help, or the line of the filter.
    pub overlay: Overlay,
    /// The last message.
    pub message: Option<String>,
    /// Why the measurement has ended.
    pub ended: Option<String>,
    /// The name of the recording that is being written.
    pub recording: Option<String>,
}

/// Which time the icicle shows: one of three, by a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flame {
    /// Holding the GIL.
    #[default]
    Holding,
    /// Waiting for it.
    Waiting,
    /// All time.
    Wall,
}

impl Flame {
    /// The mode of flame graphs.
    pub fn mode(self) -> FlameMode {
        match self {
            Flame::Holding => FlameMode::Holding,
            Flame::Waiting => FlameMode::Waiting,
            Flame::Wall => FlameMode::Wall,
        }
    }

    fn next(self) -> Flame {
        match self {
            Flame::Holding => Flame::Waiting,
            Flame::Waiting => Flame::Wall,
            Flame::Wall => Flame::Holding,
        }
    }
}

impl Model {
    /// The picture that is shown.
    pub fn shown(&self) -> Option<&Picture> {
        self.paused.as_deref().or(self.picture.as_deref())
    }

    /// How old the shown picture is, in seconds of the measurement; `None` if it is not paused.
    pub fn age(&self) -> Option<f64> {
        let paused = self.paused.as_ref()?;
        Some(self.picture.as_ref().map_or(0.0, |now| now.measured - paused.measured).max(0.0))
    }

    /// The column that rows are sorted by: the user's, if the view has it.
    pub fn sort_key(&self) -> SortKey {
        let has = |key: &SortKey| *key == SortKey::Name || self.view.headings().iter().any(|heading| heading.key == *key);
        self.sort.filter(has).unwrap_or(self.view.default_sort())
    }

    /// The rows of the view; of the icicle, none.
    pub fn listing(&self) -> Listing {
        let (mut rows, hidden) = match (self.view, self.shown()) {
            (View::Processes, _) => processes::rows(&self.processes, &self.filter),
            (View::Threads, Some(picture)) => threads::rows(picture, &self.filter),
            (View::Functions, Some(picture)) => functions::rows(picture, &self.filter),
            (View::Blame, Some(picture)) => blame::rows(picture, &self.filter),
            (View::Icicle, _) | (_, None) => (Vec::new(), 0),
        };
        sort(&mut rows, self.view.headings(), self.sort_key(), self.inverted);
        let (name, place) = match self.view {
            View::Threads => ("thread", ""),
            View::Functions => ("function", "defined at"),
            View::Blame => ("waits", "while this holds the GIL"),
            View::Processes => ("process", "user"),
            View::Icicle => ("", ""),
        };
        if self.view == View::Processes {
            rows = in_tree(rows, &self.processes);
        }
        Listing { name, place, headings: self.view.headings(), rows, hidden }
    }

    /// The index of the row with the cursor; of a row that is gone, the first.
    pub fn cursor_index(&self, rows: &[ListRow]) -> usize {
        rows.iter().position(|row| Some(&row.id) == self.cursor.as_ref()).unwrap_or(0)
    }

    /// Takes what there is to show. True if anything is new.
    pub fn take(&mut self, latest: &mut Latest) -> bool {
        let picture = latest.picture.take();
        let recording = latest.recording.as_ref().map(|path| path.display().to_string());
        let message = latest.messages.drain(..).next_back();
        let changed = picture.is_some() || message.is_some() || recording != self.recording || latest.ended != self.ended;
        self.picture = picture.or(self.picture.take());
        self.message = message.or(self.message.take());
        self.recording = recording;
        self.ended.clone_from(&latest.ended);
        changed
    }

    /// Shows a process that was chosen from the list.
    pub fn enter_process(&mut self) {
        self.forget_process();
        (self.from_list, self.filter) = (true, Filter::default());
        self.show(View::Threads);
    }

    /// Shows the list of processes again, with the cursor on the process that was shown.
    pub fn leave(&mut self) {
        let pid = self.shown().map(|picture| picture.report.target.pid);
        self.forget_process();
        self.show(View::Processes);
        self.cursor = pid.map(RowId::Process);
    }

    fn forget_process(&mut self) {
        (self.picture, self.paused, self.ended, self.recording, self.message) = (None, None, None, None, None);
    }

    /// What a key does.
    pub fn update(&mut self, key: KeyEvent) -> Option<Action> {
        if key.kind == KeyEventKind::Release {
            return None;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            match key.code {
                KeyCode::Char('c') => return Some(Action::Quit),
                KeyCode::Char('z') => return Some(Action::Suspend),
                KeyCode::Char('l') => return Some(Action::Redraw),
                _ => {}
            }
        }
        match std::mem::take(&mut self.overlay) {
            Overlay::FilterLine(line) => {
                self.edit(line, key);
                None
            }
            Overlay::Help => (key.code == KeyCode::Char('q')).then_some(Action::Quit),
            Overlay::None => self.command(key.code),
        }
    }

    fn command(&mut self, code: KeyCode) -> Option<Action> {
        self.message = None;
        match code {
            KeyCode::Char('q') => return Some(Action::Quit),
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.overlay = Overlay::Help,
            KeyCode::Char('/') => self.overlay = Overlay::FilterLine(Input::new(self.filter.text().into())),
            KeyCode::Char('<' | ',') => self.sort_by(-1),
            KeyCode::Char('>' | '.') => self.sort_by(1),
            KeyCode::Char('o') => self.inverted = !self.inverted,
            KeyCode::Esc => return self.back(),
            KeyCode::Enter => return self.enter(),
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::PageUp => self.step(-PAGE),
            KeyCode::PageDown => self.step(PAGE),
            KeyCode::Home | KeyCode::Char('g') => self.step(-(isize::MAX / 2)),
            KeyCode::End | KeyCode::Char('G') => self.step(isize::MAX / 2),
            _ if self.view != View::Processes => return self.command_of_process(code),
            _ => {}
        }
        None
    }

    /// The keys that need a measurement.
    fn command_of_process(&mut self, code: KeyCode) -> Option<Action> {
        match code {
            KeyCode::Char('t') => self.show(View::Threads),
            KeyCode::Char('f') => self.show(View::Functions),
            KeyCode::Char('b') => self.show(View::Blame),
            KeyCode::Char('i') => self.show(View::Icicle),
            KeyCode::Tab => self.turn(1),
            KeyCode::BackTab => self.turn(View::OF_PROCESS.len() - 1),
            KeyCode::Char('m') if self.view == View::Icicle => self.flame = self.flame.next(),
            KeyCode::Char(' ') if self.paused.is_some() => self.paused = None,
            KeyCode::Char(' ') => self.paused = self.picture.clone(),
            KeyCode::Char('1') => return self.window(Span::Second),
            KeyCode::Char('0') => return self.window(Span::TenSeconds),
            KeyCode::Char('a') => return self.window(Span::Start),
            KeyCode::Char('z') => return Some(Action::Reset),
            KeyCode::Char('r') => return Some(Action::Record),
            KeyCode::Char('w') => return Some(Action::Report),
            KeyCode::Char('d') => return Some(Action::Dump),
            _ => {}
        }
        None
    }

    fn window(&mut self, span: Span) -> Option<Action> {
        // The paused picture covers one window only.
        self.paused = None;
        self.span = span;
        Some(Action::Span(span))
    }

    fn show(&mut self, view: View) {
        (self.view, self.cursor, self.scrolled) = (view, None, 0);
    }

    fn turn(&mut self, by: usize) {
        let now = View::OF_PROCESS.iter().position(|view| *view == self.view).unwrap_or(0);
        self.show(View::OF_PROCESS[(now + by) % View::OF_PROCESS.len()]);
    }

    /// Sorts by the next column to the right or to the left; the name is left of all.
    fn sort_by(&mut self, step: isize) {
        let keys: Vec<SortKey> = std::iter::once(SortKey::Name).chain(self.view.headings().iter().map(|heading| heading.key)).collect();
        let now = keys.iter().position(|key| *key == self.sort_key()).unwrap_or(0);
        self.sort = keys.get(now.saturating_add_signed(step).min(keys.len() - 1)).copied();
    }

    fn step(&mut self, by: isize) {
        if self.view == View::Icicle {
            self.scrolled = self.scrolled.saturating_add_signed(by).min(self.icicle_depth().saturating_sub(1));
            return;
        }
        let rows = self.listing().rows;
        let to = self.cursor_index(&rows).saturating_add_signed(by).min(rows.len().saturating_sub(1));
        self.cursor = rows.get(to).map(|row| row.id.clone());
    }

    /// Levels of the icicle; 0 in other views.
    pub fn icicle_depth(&self) -> usize {
        let picture = self.shown().filter(|_| self.view == View::Icicle);
        picture.map_or(0, |picture| super::icicle::tree(picture, self.flame.mode(), &self.filter).depth())
    }

    fn enter(&mut self) -> Option<Action> {
        if self.view != View::Processes {
            return None;
        }
        let rows = self.listing().rows;
        match rows.get(self.cursor_index(&rows))?.id {
            RowId::Process(pid) => Some(Action::Enter(pid)),
            _ => None,
        }
    }

    fn back(&mut self) -> Option<Action> {
        if self.filter.is_set() {
            self.filter = Filter::default();
            return None;
        }
        (self.from_list && self.view != View::Processes).then_some(Action::Leave)
    }

    fn edit(&mut self, mut line: Input, key: KeyEvent) {
        match key.code {
            KeyCode::Esc => {}
            KeyCode::Enter => match Filter::parse(line.value()) {
                Ok(filter) => (self.filter, self.cursor, self.scrolled) = (filter, None, 0),
                Err(why) => {
                    self.message = Some(why);
                    self.overlay = Overlay::FilterLine(line);
                }
            },
            _ => {
                line.handle_event(&Event::Key(key));
                self.overlay = Overlay::FilterLine(line);
            }
        }
    }
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
