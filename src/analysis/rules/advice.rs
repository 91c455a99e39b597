//! How the code that holds the GIL can be moved to processes, for the way in which it was started.
//! Code shows it where the user's program has the names for that.

use super::{RuleInput, Step};
use crate::analysis::own_code::{origin, Origin};
use crate::analysis::phrases::{threads, verb};
use crate::analysis::report::Place;
use crate::analysis::shape::{Start, WebServer};

/// What the gain leaves out; the contract of reports asks every such advice to say so.
const NOT_COUNTED: &str = "the gain does not count the cost of moving data between processes, and each process needs memory of its own";
/// What that costs: `scripts/eval/moving_data.py` printed .7 ms for text and 2.9 ms for numbers.
pub(super) const MOVING: &str = "1 - 3 ms a megabyte";
/// The longest name in a line of code.
const MAX_NAME: usize = 20;
/// From this minor version of Python 3 on, a new process imports the main script on Linux too.
const IMPORTS_MAIN: u32 = 14;

/// The steps to processes.
pub(super) fn processes(e: &RuleInput<'_>) -> Vec<Step> {
    let own = e.culprit();
    let text = match e.shape.start {
        Start::Web(server) => web(e, server),
        _ if is_librarys(&e.own_holder()) => {
            format!("{own} is a library's code, and none of your functions calls it: check whether the library can run it in a process or less often; {NOT_COUNTED}.")
        }
        Start::Pool if of_a_loop(e) => format!(
            "Let the event loop run {} in a process: loop.run_in_executor with a ProcessPoolExecutor in place of the thread pool; {NOT_COUNTED}.",
            e.place(&task(e))
        ),
        Start::Pool => format!(
            "Use a process pool in place of the thread pool that runs {}: concurrent.futures.ProcessPoolExecutor, or multiprocessing.Pool for a ThreadPool; for calls of less than a few milliseconds, give map a chunksize; pass names of files or ranges rather than large data ({MOVING}); {NOT_COUNTED}.",
            e.place(&task(e))
        ),
        Start::Thread | Start::ThreadSubclass => {
            let (task, holder) = (task(e), e.own_holder());
            let whose = if task == holder { "" } else { ", where the thread starts," };
            format!(
                "Run {}{whose} in a multiprocessing.Process for each core, with queues for its input and output; {NOT_COUNTED}.",
                e.place(&task)
            )
        }
        Start::EventLoop => {
            format!("Let the event loop run {own} in a process: loop.run_in_executor with a ProcessPoolExecutor; {NOT_COUNTED}.")
        }
        Start::Other => {
            format!("Run {own} in a concurrent.futures.ProcessPoolExecutor or a multiprocessing.Pool; {NOT_COUNTED}.")
        }
    };
    let mut steps = vec![Step { text, sketch: sketch(e) }];
    steps.extend(conditions(e).into_iter().map(|text| Step { text, sketch: Vec::new() }));
    steps
}

/// What would run in a process of its own: the function that a thread or pool was given, with the
/// one that holds the GIL where that is another.
pub(super) fn subject(e: &RuleInput<'_>) -> String {
    let (task, holder) = (task(e), e.own_holder());
    match e.shape.start {
        Start::Web(_) => e.culprit(),
        _ if task == holder || is_librarys(&holder) => e.culprit(),
        _ => format!("{}, which runs {},", e.place(&task), e.place(&holder)),
    }
}

/// What runs the code in a process, in a few words.
pub(super) fn means(e: &RuleInput<'_>) -> &'static str {
    match e.shape.start {
        Start::Web(_) => "more worker processes with fewer threads each",
        Start::Pool if of_a_loop(e) => "loop.run_in_executor with a ProcessPoolExecutor",
        Start::Pool => "a ProcessPoolExecutor in place of the thread pool",
        Start::Thread | Start::ThreadSubclass => "a multiprocessing.Process with queues for its input and output",
        Start::EventLoop => "loop.run_in_executor with a ProcessPoolExecutor",
        Start::Other => "concurrent.futures.ProcessPoolExecutor",
    }
}

/// The code that shows it, three lines at most.
pub(super) fn sketch(e: &RuleInput<'_>) -> Vec<String> {
    let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_string()).collect::<Vec<String>>();
    match e.shape.start {
        Start::Web(server) => vec![command(e, server)],
        _ if is_librarys(&e.own_holder()) => Vec::new(),
        Start::Thread | Start::ThreadSubclass => match own_class(e, &task(e)) {
            Some(class) => {
                lines(&["from multiprocessing import Process", &format!("class {class}(Process):  # in place of threading.Thread")])
            }
            None => lines(&[
                "from multiprocessing import JoinableQueue, Process, Queue",
                "jobs, results = JoinableQueue(), Queue()  # in place of queue.Queue",
                &format!("Process(target={}, args=(jobs, results)).start()", callee(&task(e))),
            ]),
        },
        Start::EventLoop => on_loop(&e.own_holder()),
        Start::Pool if of_a_loop(e) => on_loop(&task(e)),
        Start::Pool | Start::Other => lines(&[
            "from concurrent.futures import ProcessPoolExecutor",
            "with ProcessPoolExecutor() as pool:",
            &format!("    results = list(pool.map({}, items))", callee(&task(e))),
        ]),
    }
}

/// Whether the pool is the one that an event loop has for itself, by the names of its threads.
fn of_a_loop(e: &RuleInput<'_>) -> bool {
    let named = |name: &str| ["asyncio_", "uvloop_", "AnyIO worker thread"].iter().any(|own| name.starts_with(own));
    e.program.groups.iter().any(|group| group.main && named(&group.name))
}

/// The code that lets an event loop run a function in a process.
fn on_loop(function: &Place) -> Vec<String> {
    let call = format!("result = await loop.run_in_executor(pool, {}, item)", callee(function));
    vec!["pool = concurrent.futures.ProcessPoolExecutor()  # once".into(), "loop = asyncio.get_running_loop()".into(), call]
}

/// Whether no function of the user's runs the code, or none with a name.
fn is_librarys(holder: &Place) -> bool {
    origin(&holder.file) != Origin::Own || holder.file.is_empty() && !holder.name.is_empty()
}

/// The function that a pool or thread was given; else the user's function that holds the GIL.
fn task(e: &RuleInput<'_>) -> Place {
    let given = matches!(e.shape.start, Start::Pool | Start::Thread | Start::ThreadSubclass);
    e.shape.task.clone().filter(|_| given).unwrap_or_else(|| e.own_holder())
}

/// The name of a function in code. A method, a lambda or a function inside another one cannot stand
/// there by its name.
fn callee(p: &Place) -> &str {
    let fits = !p.name.is_empty() && p.name.len() <= MAX_NAME && p.name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if fits {
        &p.name
    } else {
        "work"
    }
}

/// The user's subclass of `threading.Thread` of which a function is the `run`; `Worker` where the
/// name of the class is not known or long.
fn own_class<'p>(e: &RuleInput<'_>, p: &'p Place) -> Option<&'p str> {
    let before = p.name.strip_suffix("run").filter(|before| before.is_empty() || before.ends_with('.'))?;
    let fits = |class: &&str| !class.is_empty() && class.len() <= MAX_NAME && class.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let class = before.strip_suffix('.').filter(fits).unwrap_or("Worker");
    (e.shape.start == Start::ThreadSubclass).then_some(class)
}

/// What must hold before a function can run in another process.
fn conditions(e: &RuleInput<'_>) -> Vec<String> {
    if matches!(e.shape.start, Start::Web(_)) || is_librarys(&e.own_holder()) {
        return Vec::new();
    }
    let task = task(e);
    let place = e.place(&task);
    let mut steps = Vec::new();
    if is_cell(&task.file) {
        steps
            .push(format!("Put {place} into a module (a .py file) and import it first: a new process cannot import a cell of a notebook."));
    } else if task.name == "<module>" {
        steps.push(format!("Put the code at the level of the module, in {place}, into a function first: a process runs a function."));
    } else if task.name.contains('<') {
        steps.push(format!("Move {place} out of the function around it first: a process finds a function by its module and name."));
    } else if task.name.contains('.') && own_class(e, &task).is_none() {
        steps.push(format!(
            "Write work, a function of a module, around {place}: with a method, each call would copy its object to the process."
        ));
    }
    if imports_main(&e.profile.target.python) {
        steps.push("Start processes below `if __name__ == \"__main__\":`, because each of them imports the main script.".into());
    }
    steps
}

/// Whether a file is a cell of a notebook.
fn is_cell(file: &str) -> bool {
    file.starts_with("<ipython-input") || file.contains("/ipykernel_")
}

/// Whether a new process of this Python imports the main script.
fn imports_main(python: &str) -> bool {
    let mut parts = python.split('.').map(|part| part.parse::<u32>().ok());
    matches!((parts.next().flatten(), parts.next().flatten()), (Some(3), Some(minor)) if minor >= IMPORTS_MAIN)
}

fn web(e: &RuleInput<'_>, server: WebServer) -> String {
    let (workers, per_worker) = workers(e);
    let own = e.place(&e.own_holder());
    let in_each = if server == WebServer::Uvicorn || server == WebServer::Hypercorn {
        String::new()
    } else {
        format!(" with {} each", threads(per_worker))
    };
    let now = match e.shape.handlers {
        0 => String::new(),
        n => format!(" ({} {} requests in this process now)", threads(n), verb(n, "answer")),
    };
    let which = match server {
        WebServer::OneProcess => "Use a server with worker processes",
        _ => "Let the server run more worker processes with fewer threads",
    };
    format!("{which}, such as {workers} workers{in_each}{now}, so that requests in {own} are answered at the same time; {NOT_COUNTED}.")
}

fn command(e: &RuleInput<'_>, server: WebServer) -> String {
    let (workers, per_worker) = workers(e);
    match server {
        WebServer::Gunicorn | WebServer::OneProcess => format!("gunicorn --workers {workers} --threads {per_worker} …"),
        WebServer::Uvicorn => format!("uvicorn --workers {workers} …"),
        WebServer::Hypercorn => format!("hypercorn --workers {workers} …"),
        WebServer::Uwsgi => format!("uwsgi --processes {workers} --threads {per_worker} …"),
    }
}

/// Worker processes for all cores, and the threads of each that make as many as there are now.
fn workers(e: &RuleInput<'_>) -> (usize, usize) {
    let workers = (e.cores().ceil() as usize).clamp(2, 64);
    (workers, e.shape.handlers.div_ceil(workers).max(1))
}

#[cfg(test)]
mod tests {
    use crate::analysis::report;
    use crate::analysis::report::{Code, Verdict};
    use crate::analysis::testing::Scene;

    const THREAD: &str = "Thread._bootstrap_inner@/lib/python3.11/threading.py>Thread.run@/lib/python3.11/threading.py";
    const POOL: &str = "Thread._bootstrap_inner@/lib/python3.11/threading.py>_worker@/lib/python3.11/concurrent/futures/thread.py";
    const ENCODE: &str = "JSONEncoder.iterencode@/lib/python3.11/json/encoder.py";

    /// The verdict on two threads that hold the GIL in turn, with these frames.
    fn verdict(python: &str, frames: &str) -> Verdict {
        let [holds, waits] = ["P", "W"].map(|state| -> &'static str { Box::leak(format!("{state} {frames}").into_boxed_str()) });
        let turns = move |t: u64| if t % 10 < 5 { vec!["I main", holds, waits] } else { vec!["I main", waits, holds] };
        let scene = Scene::new(2.0).without_main().with(|target, _| target.python = python.into());
        let verdict = report(&scene.run(3000, turns)).verdict;
        assert_eq!(verdict.code, Code::SwitchToProcesses);
        assert_eq!((verdict.sketches[0].step, &verdict.sketches[0].lines), (0, &verdict.sketch));
        verdict
    }

    #[test]
    fn a_thread_becomes_a_process_with_queues() {
        let v = verdict("3.11.7", &format!("{THREAD}>crawl>parse>{ENCODE}"));
        let step = "Run crawl (app.py:12), where the thread starts, in a multiprocessing.Process for each core, with queues";
        assert!(v.next_steps[0].starts_with(step), "{:?}", v.next_steps);
        assert!(v.sketch[2].starts_with("Process(target=crawl, args=(jobs, results)).start()"), "{:?}", v.sketch);
        let v = verdict("3.11.7", "Thread._bootstrap_inner@/lib/python3.11/threading.py>Crawler.run>parse");
        assert_eq!(v.sketch[1], "class Crawler(Process):  # in place of threading.Thread");
    }

    #[test]
    fn a_pools_task_is_given_to_a_process_pool_and_never_a_librarys_method() {
        let v = verdict("3.11.7", &format!("{POOL}>get>parse>{ENCODE}"));
        assert!(
            v.next_steps[0].starts_with("Use a process pool in place of the thread pool that runs get (app.py:12)"),
            "{:?}",
            v.next_steps
        );
        assert_eq!(v.sketch[2], "    results = list(pool.map(get, items))");
        let v = verdict("3.11.7", &format!("{POOL}>Client.get>{ENCODE}"));
        assert_eq!(v.sketch[2], "    results = list(pool.map(work, items))");
        assert!(v.next_steps[1].starts_with("Write work, a function of a module, around Client.get"), "{:?}", v.next_steps);
        let v = verdict("3.11.7", &format!("{POOL}>main.<locals».get>{ENCODE}"));
        assert!(v.next_steps[1].starts_with("Move main.<locals>.get"), "{:?}", v.next_steps);
    }

    #[test]
    fn the_pool_of_an_event_loop_is_left_to_the_loop() {
        let [holds, waits] = ["P", "W"].map(|state| -> &'static str { Box::leak(format!("{state} {POOL}>get").into_boxed_str()) });
        let turns = move |t: u64| if t % 10 < 5 { vec!["I main", holds, waits] } else { vec!["I main", waits, holds] };
        for workers in ["asyncio_", "uvloop_", "AnyIO worker thread "] {
            let v = report(&Scene::new(2.0).without_main().workers(workers).run(3000, turns)).verdict;
            assert!(v.next_steps[0].starts_with("Let the event loop run get (app.py:12) in a process"), "{workers}: {:?}", v.next_steps);
            assert!(v.sketch[2].contains("run_in_executor(pool, get, item)"), "{workers}: {:?}", v.sketch);
        }
    }

    #[test]
    fn a_librarys_own_thread_is_not_the_users_to_move() {
        let [holds, waits] = ["P", "W"]
            .map(|state| -> &'static str { Box::leak(format!("{state} {THREAD}>poll@/v/site-packages/lib/poll.py").into_boxed_str()) });
        let turns = move |t: u64| if t % 10 < 5 { vec!["I main", holds, waits] } else { vec!["I main", waits, holds] };
        let v = report(&Scene::new(2.0).without_main().run(3000, turns)).verdict;
        assert!(v.next_steps[0].starts_with("poll (lib/poll.py:12) is a library's code"), "{:?}", v.next_steps);
        assert!(v.sketches.is_empty() && v.sketch.is_empty(), "{:?}", v.sketches);
    }

    #[test]
    fn a_web_server_gets_more_workers() {
        let v = verdict("3.11.7", &format!("{POOL}>handle@/v/site-packages/gunicorn/workers/gthread.py>page>{ENCODE}"));
        let step = "Let the server run more worker processes with fewer threads, such as 2 workers with 1 thread each (2 threads answer requests in this process now), so that requests in page (app.py:12) are answered at the same time";
        assert!(v.next_steps[0].starts_with(step), "{:?}", v.next_steps);
        assert_eq!(v.sketch, ["gunicorn --workers 2 --threads 1 …"]);
        let v = verdict("3.11.7", "serve_forever@/lib/python3.11/socketserver.py>page");
        assert!(v.next_steps[0].starts_with("Use a server with worker processes"), "{:?}", v.next_steps);
    }

    #[test]
    fn a_cell_and_a_main_script_need_a_step_of_their_own() {
        let v = verdict("3.11.7", &format!("{POOL}>get@/ipykernel_7/1.py"));
        assert!(v.next_steps[1].contains("cannot import a cell of a notebook"), "{:?}", v.next_steps);
        let imports = |python: &str| verdict(python, &format!("{POOL}>get")).next_steps.iter().any(|step| step.contains("__main__"));
        assert_eq!(["3.13.1", "3.14.0", "3.15.0a2"].map(imports), [false, true, true]);
    }

    #[test]
    fn an_event_loop_and_the_main_thread_keep_running_beside_the_processes() {
        let v = verdict("3.11.7", "_run_once@/lib/python3.11/asyncio/base_events.py>answer");
        assert!(v.sketch[2].contains("run_in_executor(pool, answer, item)"), "{:?}", v.sketch);
        let v = verdict("3.11.7", "main>burn");
        assert!(v.next_steps[0].starts_with("Run burn (app.py:12) in a concurrent.futures.ProcessPoolExecutor"), "{:?}", v.next_steps);
    }
}
