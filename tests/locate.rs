//! Locating the interpreter in live processes: every interpreter that this machine has, and what is not one.
//!
//! Truth is the interpreter's own word: it prints its version and, by ctypes, the address of its `_PyRuntime`. Nothing sleeps; every
//! child says `ready` and then waits for the end of its standard input, so it ends with the test.

use gilprof::error::Error;
use gilprof::ids::{Addr, Pid};
use gilprof::process::elf::{Depth, Image};
use gilprof::process::live::LiveMemory;
use gilprof::process::maps::{Mapping, Maps};
use gilprof::process::memory::{Memory, ReadError};
use gilprof::process::{facts, find};
use gilprof::python::binary::{locate, Libc, Located, Python};
use gilprof::python::layout::Minor;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

const SAY: &str = "
import sys
try:
    import ctypes
    at = ctypes.addressof(ctypes.c_char.in_dll(ctypes.pythonapi, '_PyRuntime'))
except (ImportError, ValueError):
    at = 0
sys.stdout.write('ready %s %d\\n' % (sys.version.split()[0], at))
sys.stdout.flush()
sys.stdin.read()
";

/// Memory that the kernel refuses.
struct Refusing;

impl Memory for Refusing {
    fn read(&self, _: Addr, _: &mut [u8]) -> Result<(), ReadError> {
        Err(ReadError::Refused)
    }
}

struct Interpreter {
    label: String,
    root: Option<PathBuf>,
    path: PathBuf,
}

/// Those of `interpreters.tsv` (LABEL VERSION KIND ROOT PATH), or pyenv's where there is no such file.
fn interpreters() -> Vec<Interpreter> {
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    let list = std::env::var_os("GILPROF_PYTHONS").map_or_else(|| home.join(".cache/gilprof/pythons"), PathBuf::from);
    if let Ok(text) = std::fs::read_to_string(list.join("interpreters.tsv")) {
        let of = |line: &str| {
            let words: Vec<&str> = line.split('\t').collect();
            let [label, _, _, root, path] = words.as_slice() else { return None };
            let root = (*root != "-").then(|| PathBuf::from(root));
            Some(Interpreter { label: label.to_string(), root, path: PathBuf::from(path) })
        };
        return text.lines().filter_map(of).collect();
    }
    let Ok(entries) = std::fs::read_dir(home.join(".pyenv/versions")) else { return Vec::new() };
    let of = |entry: std::fs::DirEntry| {
        let path = entry.path().join("bin/python");
        path.exists().then(|| Interpreter { label: entry.file_name().to_string_lossy().into_owned(), root: None, path })
    };
    entries.flatten().filter_map(of).collect()
}

/// A child that is killed with the test.
struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Running {
    fn start(command: &mut Command) -> Running {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Running { child, out }
    }

    fn pid(&self) -> Pid {
        Pid(self.child.id() as i32)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The version and the address that the interpreter says.
    fn says(&mut self) -> (String, u64) {
        let line = self.line();
        let words: Vec<&str> = line.split(' ').collect();
        let ["ready", version, at] = words.as_slice() else { panic!("not ready: {line:?}") };
        (version.to_string(), at.parse().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_root() -> bool {
    facts::Status::own().unwrap().number("Uid") == Some(0)
}

/// Starts an interpreter; `None` where it needs a chroot and we may not.
fn run(interpreter: &Interpreter) -> Option<Running> {
    let mut command = match &interpreter.root {
        Some(_) if !is_root() => return None,
        Some(root) => {
            let mut command = Command::new("chroot");
            command.arg(root).arg(&interpreter.path);
            command
        }
        None => Command::new(&interpreter.path),
    };
    Some(Running::start(command.arg("-c").arg(SAY)))
}

fn check(label: &str, running: &mut Running) -> Located {
    let (version, at) = running.says();
    let located = locate(running.pid(), &LiveMemory::new(running.pid())).unwrap();
    match &located {
        Located::Python(python) => {
            assert_eq!(python.version, version, "{label}");
            assert!(at == 0 || python.runtime == Addr(at), "{label}: {} is not {at:#x}", python.runtime);
            assert_eq!(python.free_threaded, Some(false), "{label}");
            assert_eq!(python.libc, Libc::Glibc, "{label}");
            println!("{label}: {} at {} in {}, checked against ctypes: {}", python.version, python.runtime, python.path, at != 0);
        }
        Located::Legacy { version: found, .. } => {
            assert_eq!((found, at), (&version, 0), "{label}");
            println!("{label}: legacy {found}");
        }
    }
    located
}

fn modern() -> Option<(Interpreter, Python)> {
    interpreters().into_iter().filter(|i| i.root.is_none()).find_map(|interpreter| {
        let mut running = run(&interpreter)?;
        running.says();
        match locate(running.pid(), &LiveMemory::new(running.pid())) {
            Ok(Located::Python(python)) if python.minor >= Minor(3, 10) => Some((interpreter, python)),
            _ => None,
        }
    })
}

#[test]
fn every_interpreter_is_located() {
    for interpreter in interpreters() {
        let Some(mut running) = run(&interpreter) else { continue };
        let legacy = matches!(check(&interpreter.label, &mut running), Located::Legacy { .. });
        assert_eq!(legacy, interpreter.label.starts_with("2.") || interpreter.label.starts_with("3.6"), "{}", interpreter.label);
    }
}

/// A directory that goes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("gilprof-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn file_with(name: &str, maps: &Maps) -> Option<PathBuf> {
    maps.mappings.iter().find(|m| m.file_name().is_some_and(|file| file.starts_with(name))).and_then(|m| m.file()).map(PathBuf::from)
}

/// Copies executable and libpython under other names, runs the copy, deletes or replaces both files, and locates.
fn renamed_then(interpreter: &Interpreter, spoil: fn(&Path)) {
    let scratch = Scratch::new(&format!("renamed-{}-{}", interpreter.label, spoil as usize));
    let mut original = run(interpreter).unwrap();
    original.says();
    let maps = Maps::of(original.pid()).unwrap();
    let exe = scratch.0.join("my-server");
    std::fs::copy(facts::exe(original.pid()).unwrap(), &exe).unwrap();
    let mut command = Command::new(&exe);
    let mut spoiled = vec![exe.clone()];
    if let Some(library) = file_with("libpython", &maps) {
        let copy = scratch.0.join(library.file_name().unwrap());
        std::fs::copy(&library, &copy).unwrap();
        // The directory of the copy comes before the executable's own run path only by LD_PRELOAD.
        command.env("LD_PRELOAD", &copy);
        spoiled.push(copy);
    }
    let prefix = interpreter.path.parent().and_then(Path::parent).unwrap();
    let mut running = Running::start(command.env("PYTHONHOME", prefix).arg("-c").arg(SAY));
    let (version, at) = running.says();
    spoiled.iter().for_each(|path| spoil(path));
    let located = locate(running.pid(), &LiveMemory::new(running.pid())).unwrap();
    let Located::Python(python) = located else { panic!("legacy") };
    assert_eq!(python.version, version, "{}", interpreter.label);
    assert!(at == 0 || python.runtime == Addr(at), "{}", interpreter.label);
    assert!(python.path.starts_with(scratch.0.to_str().unwrap()), "{}", python.path);
}

#[test]
fn a_renamed_and_deleted_interpreter_is_located() {
    for interpreter in interpreters().iter().filter(|i| i.root.is_none() && (i.label.starts_with("3.9") || i.label.starts_with("3.1"))) {
        renamed_then(interpreter, |path| std::fs::remove_file(path).unwrap());
    }
}

#[test]
fn an_interpreter_whose_file_was_replaced_is_located() {
    let Some((interpreter, _)) = modern() else { return };
    renamed_then(&interpreter, |path| {
        std::fs::remove_file(path).unwrap();
        std::fs::copy("/proc/self/exe", path).unwrap();
    });
}

#[test]
fn a_shell_names_its_python_child() {
    let Some((interpreter, _)) = modern() else { return };
    let script = format!("'{}' -c \"$0\"; true", interpreter.path.display());
    let mut shell = Running::start(Command::new("sh").arg("-c").arg(script).arg(SAY));
    shell.says();
    let child = facts::children(shell.pid())[0];
    let error = locate(shell.pid(), &LiveMemory::new(shell.pid())).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::NotPython { .. }), "{text}");
    assert!(text.contains("it is a shell") && text.contains(&format!("gilprof attach --pid {child}")), "{text}");
    println!("{text}");
}

#[test]
fn cat_is_not_python() {
    let running = Running::start(&mut Command::new("cat"));
    let error = locate(running.pid(), &LiveMemory::new(running.pid())).unwrap_err();
    assert!(matches!(&error, Error::NotPython { what, .. } if what == "cat" || what == "coreutils" || what == "busybox"), "{error}");
    println!("{error}");
}

#[test]
fn a_process_that_is_not_there() {
    let error = locate(Pid(i32::MAX), &Refusing).unwrap_err();
    assert!(matches!(error, Error::NoSuchProcess { .. }), "{error}");
}

#[test]
fn a_zombie_is_gone() {
    let mut running = Running::start(&mut Command::new("true"));
    // End of output comes before the end of the process, so wait for the state, by the process's own parent.
    running.line();
    while facts::Status::of(running.pid()).unwrap().state() != Some('Z') {
        std::thread::yield_now();
    }
    let error = locate(running.pid(), &Refusing).unwrap_err();
    assert!(matches!(error, Error::Gone { .. }), "{error}");
}

#[test]
fn a_kernel_thread_is_said_to_be_one() {
    if facts::comm(gilprof::ids::Tid(2)).as_deref() != Some("kthreadd") {
        return;
    }
    let error = locate(Pid(2), &Refusing).unwrap_err();
    assert!(error.to_string().contains("kernel thread"), "{error}");
}

#[test]
fn a_refusal_is_explained() {
    let Some((interpreter, _)) = modern() else { return };
    let mut running = run(&interpreter).unwrap();
    running.says();
    let error = locate(running.pid(), &Refusing).unwrap_err();
    assert!(matches!(error, Error::Permission { .. }), "{error}");
}

#[test]
fn the_file_behind_a_mapping_in_a_chroot() {
    let Some(interpreter) = interpreters().into_iter().find(|i| i.root.is_some()) else { return };
    let Some(mut running) = run(&interpreter) else { return };
    running.says();
    let maps = Maps::of(running.pid()).unwrap();
    let exe = maps.mappings.iter().find(|m| find::is_exe(running.pid(), m)).unwrap();
    assert!(find::open(running.pid(), exe).unwrap()[0].certain);
}

/// Runs a copy of a static interpreter after its bytes have been changed.
fn changed(interpreter: &Interpreter, name: &str, change: fn(&mut Vec<u8>)) -> (String, Addr, Python) {
    let scratch = Scratch::new(name);
    let exe = scratch.0.join("changed");
    let mut bytes = std::fs::read(&interpreter.path).unwrap();
    change(&mut bytes);
    std::fs::write(&exe, bytes).unwrap();
    std::fs::set_permissions(&exe, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut running = Running::start(Command::new(&exe).env("PYTHONHOME", "/usr").arg("-c").arg(SAY));
    let (version, at) = running.says();
    let Located::Python(python) = locate(running.pid(), &LiveMemory::new(running.pid())).unwrap() else { panic!("legacy") };
    (version, Addr(at), python)
}

#[test]
fn an_interpreter_without_section_headers_is_located() {
    for interpreter in interpreters().iter().filter(|i| i.root.is_none() && i.path.starts_with("/usr")) {
        let (version, at, python) = changed(interpreter, "sectionless", |bytes| {
            // e_shoff; e_shnum and e_shstrndx.
            bytes[40..48].fill(0);
            bytes[60..64].fill(0);
        });
        assert_eq!((python.version, python.runtime), (version, at));
    }
}

/// Compiles an embedding program that names `_PyRuntime`: linked non-PIE, the linker moves that variable into the executable (a copy
/// relocation), and the library's own, still exported, is dead.
fn embedding(interpreter: &Interpreter, scratch: &Scratch) -> Option<PathBuf> {
    let version = interpreter.path.file_name()?.to_str()?;
    let lib = interpreter.path.parent()?.parent()?.join("lib");
    let source = scratch.0.join("embed.c");
    let code = "#include <stdio.h>\nextern char _PyRuntime[]; void Py_Initialize(void); int PyRun_SimpleString(const char *);\n\
        int main(int c, char **v) { fprintf(stderr, \"%p\", (void *)_PyRuntime); Py_Initialize(); return PyRun_SimpleString(v[1]); }";
    std::fs::write(&source, code).unwrap();
    let exe = scratch.0.join("embed");
    let mut cc = Command::new("cc");
    cc.args(["-no-pie", "-fno-pie", "-o"]).arg(&exe).arg(source).arg("-L").arg(&lib).arg(format!("-l{version}"));
    let built = cc.arg(format!("-Wl,-rpath,{}", lib.display())).stderr(Stdio::null()).status();
    built.is_ok_and(|status| status.success()).then_some(exe)
}

#[test]
fn of_two_runtimes_the_one_in_use_is_taken() {
    for interpreter in interpreters().iter().filter(|i| i.root.is_none()) {
        let scratch = Scratch::new(&format!("embed-{}", interpreter.label));
        let Some(exe) = embedding(interpreter, &scratch) else { continue };
        let home = interpreter.path.parent().and_then(Path::parent).unwrap();
        let mut running = Running::start(Command::new(&exe).env("PYTHONHOME", home).arg(SAY));
        let (version, at) = running.says();
        let Located::Python(python) = locate(running.pid(), &LiveMemory::new(running.pid())).unwrap() else { panic!("legacy") };
        println!("{}: {} at {} in {}, by ctypes {at:#x}", interpreter.label, python.version, python.runtime, python.path);
        assert_eq!(python.version, version);
        assert!(at == 0 || python.runtime == Addr(at));
    }
}

/// The mappings of the interpreter's image and the image's file.
fn image_file(python: &Python, maps: &Maps) -> File {
    let mapping = maps.mappings.iter().find(|m| m.path.as_deref() == Some(&python.path)).unwrap();
    File::open(mapping.file().unwrap()).unwrap()
}

#[test]
fn an_image_read_from_memory_agrees_with_its_file() {
    for interpreter in interpreters().iter().filter(|i| i.root.is_none()) {
        let mut running = run(interpreter).unwrap();
        running.says();
        let mem = LiveMemory::new(running.pid());
        let Located::Python(python) = locate(running.pid(), &mem).unwrap() else { continue };
        let maps = Maps::of(running.pid()).unwrap();
        let own: Vec<&Mapping> = maps.mappings.iter().filter(|m| m.path.as_deref() == Some(&python.path)).collect();
        let file = Image::from_file(image_file(&python, &maps)).unwrap();
        let loaded = Image::from_memory(&mem, own[0].start).unwrap();
        let names = ["_PyRuntime", "Py_GetVersion", "no_such_symbol"];
        let symbols = file.symbols(&names, Depth::Exported);
        assert_eq!(symbols, loaded.symbols(&names, Depth::All), "{}", interpreter.label);
        assert!(symbols[0].is_some() && symbols[1].is_some() && symbols[2].is_none());
        assert_eq!((file.biases(&own), loaded.biases(&own)), (vec![python.bias], vec![python.bias]));
        assert!(file.build_id().is_some() && file.build_id() == loaded.build_id());
        assert_eq!(file.same_as_loaded(&mem, python.bias), Some(true));
        assert_eq!(file.runtime_section().is_some(), python.minor >= Minor(3, 10), "{}", interpreter.label);
    }
}

#[test]
fn unexported_symbols_are_found_in_an_unstripped_file() {
    let unstripped = |i: &&Interpreter| i.label.starts_with("3.13") && i.root.is_none();
    for interpreter in interpreters().iter().filter(unstripped) {
        let mut running = run(interpreter).unwrap();
        let (_, at) = running.says();
        let Located::Python(python) = locate(running.pid(), &LiveMemory::new(running.pid())).unwrap() else { panic!("legacy") };
        let maps = Maps::of(running.pid()).unwrap();
        let image = Image::from_file(image_file(&python, &maps)).unwrap();
        let symbols = image.symbols(&["take_gil", "_PyRuntime", "no_such_symbol"], Depth::All);
        assert!(symbols[0].is_some_and(|symbol| symbol.size > 0), "{}", interpreter.label);
        assert_eq!(symbols[1].map(|symbol| symbol.vaddr + python.bias), Some(at));
        assert_eq!(symbols[2], None);
    }
}

#[test]
fn broken_images_are_refused_not_followed() {
    let Some((_, python)) = modern() else { return };
    let scratch = Scratch::new("broken");
    let whole = std::fs::read(&python.path).unwrap();
    let path = scratch.0.join("image");
    // Every byte of the header and the first program headers, turned over, and the file cut short at many lengths.
    let turned = (0..512).map(|at| {
        let mut bytes = whole[..whole.len().min(1 << 20)].to_vec();
        bytes[at] ^= 0xff;
        bytes
    });
    let cut = [0, 1, 63, 64, 65, 700, 4096, 100_000, whole.len() / 2, whole.len() - 1].into_iter().map(|len| whole[..len].to_vec());
    for bytes in turned.chain(cut) {
        std::fs::write(&path, bytes).unwrap();
        if let Ok(image) = Image::from_file(File::open(&path).unwrap()) {
            let _ = image.symbols(&["_PyRuntime", "no_such_symbol"], Depth::Exported);
        }
    }
}

#[test]
#[ignore = "a measurement, not a test: run it in a release build"]
fn how_long_it_takes() {
    for interpreter in interpreters() {
        let Some(mut running) = run(&interpreter) else { continue };
        running.says();
        let mem = LiveMemory::new(running.pid());
        let mut times: Vec<_> = (0..50)
            .map(|_| {
                let start = std::time::Instant::now();
                locate(running.pid(), &mem).unwrap();
                start.elapsed()
            })
            .collect();
        times.sort();
        println!("{}: median {:?}, worst {:?}", interpreter.label, times[25], times[49]);
    }
}

#[test]
fn thread_ids_in_another_pid_namespace() {
    if !is_root() {
        return;
    }
    let mut outer = Running::start(Command::new("unshare").args(["--pid", "--fork", "sh", "-c", "echo ready $$; cat"]));
    if outer.line() != "ready 1" {
        return;
    }
    let shell = facts::children(outer.pid())[0];
    assert_eq!(facts::inner_namespace(shell), Some(true));
    assert_eq!(facts::outer_tids(shell).get(&1).map(|tid| tid.0), Some(shell.0));
    assert_eq!(facts::inner_tid(gilprof::ids::Tid(shell.0)), Some(1));
}
