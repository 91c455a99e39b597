//! How the code that holds the GIL most was started: by a pool, as a thread, by a web server. What
//! the user can do about it depends on this.

use super::own_code::is_own;
use super::phrases::named;
use super::report::Place;
use crate::profile::{Profile, StackTime};
use crate::sample::{Frame, Function, Stack};
use std::collections::HashMap;

/// A server that calls the user's code to answer requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum WebServer {
    Gunicorn,
    Uvicorn,
    Hypercorn,
    Uwsgi,
    /// A server without worker processes.
    OneProcess,
}

/// What started the code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Start {
    Web(WebServer),
    /// A thread of a pool took the code as a task.
    Pool,
    /// An event loop runs the code as a callback.
    EventLoop,
    /// The code is the target of a `threading.Thread`.
    Thread,
    /// A subclass of `threading.Thread` runs the code.
    ThreadSubclass,
    /// The main thread, or it is not known.
    #[default]
    Other,
}

/// The start of the code that holds the GIL most.
#[derive(Debug, Default)]
pub(super) struct Shape {
    pub(super) start: Start,
    /// The user's function that was given to the pool or the thread.
    pub(super) task: Option<Place>,
    /// Threads in which a web server runs the user's code.
    pub(super) handlers: usize,
}

/// Parts of the paths of servers, the outer ones first: gunicorn may run uvicorn's workers.
const SERVERS: [(&str, WebServer); 10] = [
    ("/gunicorn/", WebServer::Gunicorn),
    ("/uvicorn/", WebServer::Uvicorn),
    ("/hypercorn/", WebServer::Hypercorn),
    ("/waitress/", WebServer::OneProcess),
    ("/cheroot/", WebServer::OneProcess),
    ("/werkzeug/serving.py", WebServer::OneProcess),
    ("/wsgiref/simple_server.py", WebServer::OneProcess),
    ("/wsgiref/handlers.py", WebServer::OneProcess),
    ("/http/server.py", WebServer::OneProcess),
    ("/socketserver.py", WebServer::OneProcess),
];
/// uWSGI is C code: only the names of its threads show it.
const UWSGI_THREAD: &str = "uWSGIWorker";
/// Frames below which code was started: what, the function's own name, the end of its file.
const STARTERS: [(Start, &str, &str); 6] = [
    (Start::Pool, "_worker", "concurrent/futures/thread.py"),
    (Start::Pool, "worker", "multiprocessing/pool.py"),
    (Start::Pool, "run", "anyio/_backends/_asyncio.py"),
    (Start::EventLoop, "_run_once", "asyncio/base_events.py"),
    (Start::Thread, "run", "threading.py"),
    (Start::ThreadSubclass, "_bootstrap_inner", "threading.py"),
];

impl Shape {
    /// The shape of the code with this function as the innermost one.
    pub(super) fn of(profile: &Profile, holder: &Place) -> Shape {
        let server = server_of_program(profile);
        let is_holder = |f: &Function| f.first_line == holder.line && f.name == holder.name && f.file == holder.file;
        let mut starts: HashMap<Start, f64> = HashMap::new();
        let mut tasks: HashMap<(Start, &Function), f64> = HashMap::new();
        let rows = profile.stack_times.iter().filter(|row| row.times.holding() > 0.0);
        for row in rows.filter(|row| is_holder(profile.function(profile.leaf(row.stack)))) {
            let (start, task) = started(profile, row, server);
            *starts.entry(start).or_default() += row.times.holding();
            if let Some(task) = task {
                *tasks.entry((start, task)).or_default() += row.times.holding();
            }
        }
        let start = starts.into_iter().max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0))).map_or(Start::Other, |most| most.0);
        let of_start = tasks.into_iter().filter(|((of, _), _)| *of == start);
        let task = of_start.max_by(|a, b| a.1.total_cmp(&b.1).then_with(|| b.0 .1.name.cmp(&a.0 .1.name)));
        let handlers = if matches!(start, Start::Web(_)) { handlers(profile, server) } else { 0 };
        Shape { start, task: task.map(|((_, task), _)| named(task)), handlers }
    }
}

/// The threads, except the main thread, in which a web server runs the user's code.
fn handlers(profile: &Profile, server: Option<WebServer>) -> usize {
    let is_handler = |row: &&StackTime| {
        profile.threads.get(row.thread).is_some_and(|thread| !thread.info.main)
            && matches!(started(profile, row, server), (Start::Web(_), Some(_)))
    };
    let mut threads: Vec<usize> = profile.stack_times.iter().filter(is_handler).map(|row| row.thread).collect();
    threads.dedup();
    threads.len()
}

/// The server with frames anywhere in the program, or with threads of its own.
fn server_of_program(profile: &Profile) -> Option<WebServer> {
    let has = |part: &str| profile.functions().any(|function| function.file.contains(part));
    let uwsgi = || profile.threads.iter().any(|thread| thread.info.name.starts_with(UWSGI_THREAD));
    SERVERS.iter().find(|(part, _)| has(part)).map(|(_, server)| *server).or_else(|| uwsgi().then_some(WebServer::Uwsgi))
}

/// The server in a stack, or around its thread.
fn server(profile: &Profile, row: &StackTime) -> Option<WebServer> {
    let stack = profile.stack(row.stack);
    let has = |part: &str| stack.frames.iter().any(|frame| frame.function.file.contains(part));
    let uwsgi = || profile.threads.get(row.thread).is_some_and(|thread| thread.info.name.starts_with(UWSGI_THREAD));
    SERVERS.iter().find(|(part, _)| has(part)).map(|(_, server)| *server).or_else(|| uwsgi().then_some(WebServer::Uwsgi))
}

/// What started the code of a stack, and the user's outermost function above that.
fn started<'p>(profile: &'p Profile, row: &StackTime, server_of_program: Option<WebServer>) -> (Start, Option<&'p Function>) {
    let stack: &'p Stack = profile.stack(row.stack);
    let own = |frames: &'p [Frame]| -> Option<&'p Function> {
        frames.iter().map(|frame| &*frame.function).find(|function| is_own(&function.name, &function.file))
    };
    if let Some(server) = server_of_program.and_then(|_| server(profile, row)) {
        // The user's main script may be below the server.
        let above = |frame: &Frame| SERVERS.iter().any(|(part, _)| frame.function.file.contains(part));
        let from = stack.frames.iter().rposition(above).map_or(0, |at| at + 1);
        return (Start::Web(server), own(&stack.frames[from..]));
    }
    let starter = |frame: &Frame| {
        let name = frame.function.name.rsplit('.').next();
        STARTERS.iter().find(|(_, starter, file)| name == Some(*starter) && frame.function.file.ends_with(file))
    };
    // The innermost starter: a pool's worker is itself a thread.
    match stack.frames.iter().enumerate().rev().find_map(|(at, frame)| Some((at, starter(frame)?))) {
        // Frameworks run handlers in anyio's threads, without a frame of the server.
        Some((at, (Start::Pool, "run", _))) if server_of_program.is_some() => {
            (server_of_program.map_or(Start::Pool, Start::Web), own(&stack.frames[at + 1..]))
        }
        Some((at, (start, ..))) => (*start, own(&stack.frames[at + 1..])),
        None => (Start::Other, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::testing::Scene;

    const THREAD: &str = "Thread._bootstrap@/lib/python3.11/threading.py>Thread._bootstrap_inner@/lib/python3.11/threading.py";

    /// The shape of two threads that hold the GIL in turn, below these frames.
    fn shape(frames: &str) -> Shape {
        let [holds, waits] = ["P", "W"].map(|state| -> &'static str { Box::leak(format!("{state} {frames}>burn").into_boxed_str()) });
        let turns = move |t: u64| if t % 10 < 5 { vec!["I main", holds, waits] } else { vec!["I main", waits, holds] };
        let profile = Scene::new(2.0).without_main().run(100, turns);
        let place = Place { name: "burn".into(), file: "/srv/app.py".into(), line: 12, called_from: None };
        Shape::of(&profile, &place)
    }

    fn task(shape: &Shape) -> &str {
        shape.task.as_ref().map_or("", |task| task.name.as_str())
    }

    #[test]
    fn a_thread_is_a_task_of_a_pool_only_below_its_worker() {
        let thread = shape(&format!("{THREAD}>Thread.run@/lib/python3.11/threading.py>crawl"));
        assert_eq!((thread.start, task(&thread)), (Start::Thread, "crawl"));
        let subclass = shape(&format!("{THREAD}>Crawler.run"));
        assert_eq!((subclass.start, task(&subclass)), (Start::ThreadSubclass, "Crawler.run"));
        let worker = "_worker@/lib/python3.11/concurrent/futures/thread.py>_WorkItem.run@/lib/python3.11/concurrent/futures/thread.py";
        let pool = shape(&format!("{THREAD}>{worker}>get"));
        assert_eq!((pool.start, task(&pool)), (Start::Pool, "get"));
        let submits = shape("main>submit@/lib/python3.11/concurrent/futures/thread.py");
        assert_eq!((submits.start, task(&submits)), (Start::Other, ""));
    }

    #[test]
    fn servers_are_known_by_their_frames_and_handlers_are_counted() {
        let pool = "_worker@/lib/python3.11/concurrent/futures/thread.py";
        let web =
            shape(&format!("{THREAD}>{pool}>handle@/v/site-packages/gunicorn/workers/gthread.py>wsgi@/v/site-packages/flask/app.py>page"));
        assert_eq!((web.start, task(&web), web.handlers), (Start::Web(WebServer::Gunicorn), "page", 2));
        let loops = "run_forever@/lib/python3.11/asyncio/base_events.py>_run_once@/lib/python3.11/asyncio/base_events.py";
        assert_eq!(shape(&format!("{loops}>_run@/lib/python3.11/asyncio/events.py>answer")).start, Start::EventLoop);
        assert_eq!(shape(&format!("serve@/v/site-packages/uvicorn/server.py>{loops}>answer")).start, Start::Web(WebServer::Uvicorn));
    }

    #[test]
    fn anyio_runs_handlers_only_beside_a_server() {
        let handler = format!("{THREAD}>WorkerThread.run@/v/site-packages/anyio/_backends/_asyncio.py>page");
        assert_eq!(shape(&handler).start, Start::Pool);
        let holds: &'static str = Box::leak(format!("P {handler}").into_boxed_str());
        let profile = Scene::new(2.0).run(100, |_| vec!["I serve@/v/site-packages/uvicorn/server.py", holds]);
        let place = Place { name: "page".into(), file: "/srv/app.py".into(), line: 12, called_from: None };
        assert_eq!(Shape::of(&profile, &place).start, Start::Web(WebServer::Uvicorn));
    }
}
