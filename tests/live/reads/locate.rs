//! Locating the interpreter in live processes: every interpreter of this machine, and processes
//! without one.
//!
//! The target itself prints its version and, by ctypes, the address of its `_PyRuntime`
//! (`workloads/identity.py`).

use crate::harness::Suite;
use crate::support;
use crate::{on, once};
use gilprof::error::Error;
use gilprof::ids::{Addr, Pid, Tid};
use gilprof::process::c_library::CLibrary;
use gilprof::process::elf::{Depth, Image};
use gilprof::process::live::LiveMemory;
use gilprof::process::maps::{Mapping, Maps};
use gilprof::process::memory::{Memory, ReadError};
use gilprof::process::{mapped_file, proc_info};
use gilprof::python::attach::PythonProcess;
use gilprof::python::binary::{locate, Located, LocatedPython};
use gilprof::python::layout::Minor;
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;
use support::{free_threaded_interpreters, interpreters, legacy_interpreters, repository, skip, Folder, Interpreter, Target, PATIENCE};

/// The checks of this file, and their interpreters.
pub fn cases(suite: &mut Suite) {
    on!(suite, interpreters().into_iter().chain(free_threaded_interpreters()), [every_interpreter_is_located]);
    suite.by_hand(module_path!(), "how_long_it_takes", interpreters().into_iter().chain(legacy_interpreters()), how_long_it_takes);
    on!(suite, legacy_interpreters(), [legacy_interpreters_are_located_as_such]);
    on!(suite, in_this_root(), [a_renamed_and_deleted_interpreter_is_located, of_two_runtimes_the_one_in_use_is_taken]);
    once!(
        suite,
        [
            an_interpreter_whose_file_was_replaced_is_located,
            a_shell_names_its_python_child,
            cat_is_not_python,
            a_process_that_is_not_there,
            a_zombie_is_gone,
            a_kernel_thread_is_recognised,
            a_refusal_is_explained,
            the_file_behind_a_mapping_in_a_chroot,
            an_interpreter_without_section_headers_is_located,
            broken_images_are_refused_not_followed,
            thread_ids_in_another_pid_namespace
        ]
    );
    on!(suite, interpreters(), [an_image_read_from_memory_agrees_with_its_file]);
    on!(suite, interpreters().into_iter().filter(Interpreter::has_static_names), [unexported_symbols_are_found_in_an_unstripped_file]);
}

/// Memory that the kernel refuses to read.
struct Refusing;

impl Memory for Refusing {
    fn read(&self, _: Addr, _: &mut [u8]) -> Result<(), ReadError> {
        Err(ReadError::Refused)
    }
}

fn run(interpreter: &Interpreter) -> Target {
    Target::start(interpreter, "identity", &[])
}

fn pid(target: &Target) -> Pid {
    Pid(target.pid())
}

fn located(target: &Target) -> Result<Located, Error> {
    locate(pid(target), &LiveMemory::new(pid(target)))
}

/// The version and the address that the interpreter prints; 0 where it has no ctypes.
fn says(target: &Target) -> (&str, u64) {
    (target.fact("version").as_str().unwrap(), target.fact("runtime").as_u64().unwrap())
}

/// Locates a Python of 3.7 or later, and compares the result with the target's own.
fn located_where_the_target_says(label: &str, target: &Target) -> LocatedPython {
    let (version, at) = says(target);
    let Located::Python(python) = located(target).unwrap() else { panic!("{label}: legacy") };
    eprintln!("{label}: {} at {} in {}, checked against ctypes: {}", python.version, python.runtime, python.path, at != 0);
    assert_eq!(python.version, version, "{label}");
    assert!(at == 0 || python.runtime == Addr(at), "{label}: {} is not {at:#x}", python.runtime);
    python
}

/// Interpreters whose files can be copied and run elsewhere: all that they need is in this root.
fn in_this_root() -> Vec<Interpreter> {
    interpreters().into_iter().filter(|i| i.root.is_none()).collect()
}

/// The oldest of 3.10 or later in this root.
fn modern(what: &str) -> Option<Interpreter> {
    let found = in_this_root().into_iter().find(|i| i.minor() >= (3, 10));
    if found.is_none() {
        skip(&format!("{what}: no Python 3.10 or later in this root"));
    }
    found
}

/// The folder of an interpreter's library, which is beside its executable's `bin`.
fn home(interpreter: &Interpreter) -> &Path {
    interpreter.path.parent().and_then(Path::parent).unwrap()
}

fn every_interpreter_is_located(interpreter: &Interpreter) {
    let target = run(interpreter);
    let python = located_where_the_target_says(&interpreter.label, &target);
    let free_threaded = PythonProcess::open(pid(&target)).unwrap().free_threaded;
    assert_eq!(free_threaded, interpreter.free_threaded(), "{}", interpreter.label);
    let expected = if interpreter.has_musl() { CLibrary::Musl } else { CLibrary::Glibc };
    assert_eq!(python.abi.c_library, expected, "{}", interpreter.label);
}

fn legacy_interpreters_are_located_as_such(interpreter: &Interpreter) {
    let target = run(interpreter);
    let Located::Legacy { version, .. } = located(&target).unwrap() else { panic!("{}: not legacy", interpreter.label) };
    assert_eq!((version.as_str(), 0), says(&target), "{}", interpreter.label);
    eprintln!("{}: legacy {version}", interpreter.label);
}

fn file_with(name: &str, maps: &Maps) -> Option<PathBuf> {
    maps.mappings.iter().find(|m| m.file_name().is_some_and(|file| file.starts_with(name))).and_then(|m| m.file()).map(PathBuf::from)
}

/// A command that runs a copy of an interpreter's executable outside of its home.
fn command_of(copy: &Path, interpreter: &Interpreter) -> Command {
    let mut command = Command::new(copy);
    command.env("PYTHONHOME", home(interpreter)).arg("-B").arg(repository().join("tests/workloads/identity.py"));
    command
}

/// Copies executable and libpython under other names, runs the copy, deletes or replaces both
/// files, and locates.
fn renamed_then(interpreter: &Interpreter, spoil: fn(&Path)) {
    let folder = Folder::new("renamed");
    let original = run(interpreter);
    // Where an executable that names its library relative to itself finds it.
    let [bin, lib] = ["bin", "lib"].map(|name| folder.path().join(name));
    [&bin, &lib].into_iter().for_each(|folder| std::fs::create_dir(folder).unwrap());
    let exe = bin.join("my-server");
    std::fs::copy(proc_info::exe(pid(&original)).unwrap(), &exe).unwrap();
    let mut command = command_of(&exe, interpreter);
    let mut spoiled = vec![exe];
    if let Some(library) = file_with("libpython", &Maps::from_pid(pid(&original)).unwrap()) {
        let copy = lib.join(library.file_name().unwrap());
        std::fs::copy(&library, &copy).unwrap();
        // Only LD_PRELOAD puts the directory of the copy before the executable's own run path.
        command.env("LD_PRELOAD", &copy);
        spoiled.push(copy);
    }
    let target = Target::start_command(command);
    spoiled.iter().for_each(|path| spoil(path));
    let python = located_where_the_target_says(&interpreter.label, &target);
    assert!(Path::new(&python.path).starts_with(folder.path()), "{}", python.path);
}

fn a_renamed_and_deleted_interpreter_is_located(interpreter: &Interpreter) {
    renamed_then(interpreter, |path| std::fs::remove_file(path).unwrap());
}

fn an_interpreter_whose_file_was_replaced_is_located() {
    let Some(interpreter) = modern("a replaced file") else { return };
    renamed_then(&interpreter, |path| {
        std::fs::remove_file(path).unwrap();
        std::fs::copy("/proc/self/exe", path).unwrap();
    });
}

/// `sh -c SCRIPT`, which must print `ready`.
fn shell(script: &str) -> Target {
    let mut sh = Command::new("sh");
    sh.arg("-c").arg(script);
    Target::start_command(sh)
}

fn a_shell_names_its_python_child() {
    let Some(interpreter) = modern("a shell's child") else { return };
    let file = repository().join("tests/workloads/identity.py");
    let shell = shell(&format!("'{}' -B '{}'; true", interpreter.path.display(), file.display()));
    let child = proc_info::children(pid(&shell))[0];
    let error = located(&shell).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::NotPython { .. }), "{text}");
    assert!(text.contains("it is a shell") && text.contains(&format!("gilprof attach --pid {child}")), "{text}");
    eprintln!("{text}");
}

fn cat_is_not_python() {
    let folder = Folder::new("cat");
    let file = folder.path().join("ready");
    std::fs::write(&file, "ready\n").unwrap();
    let mut command = Command::new("cat");
    command.arg(file).arg("-"); // prints its own version and address, then waits for its stdin
    let cat = Target::start_command(command);
    let error = located(&cat).unwrap_err();
    assert!(matches!(&error, Error::NotPython { what, .. } if what == "cat" || what == "coreutils" || what == "busybox"), "{error}");
    eprintln!("{error}");
}

fn a_process_that_is_not_there() {
    let error = locate(Pid(i32::MAX), &Refusing).unwrap_err();
    assert!(matches!(error, Error::NoSuchProcess { .. }), "{error}");
}

fn a_zombie_is_gone() {
    let ended = shell("echo ready");
    let since = Instant::now();
    // The process ends some time after it printed, so wait for the state. A zombie stays one until
    // its parent, the test, reaps it.
    while proc_info::Status::from_pid(pid(&ended)).unwrap().state() != Some('Z') {
        assert!(since.elapsed() < PATIENCE, "it never ended");
        std::thread::yield_now();
    }
    let error = locate(pid(&ended), &Refusing).unwrap_err();
    assert!(matches!(error, Error::Gone { .. }), "{error}");
}

fn a_kernel_thread_is_recognised() {
    if proc_info::comm(Tid(2)).as_deref() != Some("kthreadd") {
        return skip("kernel threads: not seen from a pid namespace");
    }
    let error = locate(Pid(2), &Refusing).unwrap_err();
    assert!(error.to_string().contains("kernel thread"), "{error}");
}

fn a_refusal_is_explained() {
    let Some(interpreter) = modern("a refusal") else { return };
    let target = run(&interpreter);
    let error = locate(pid(&target), &Refusing).unwrap_err();
    assert!(matches!(error, Error::Permission { .. }), "{error}");
}

fn the_file_behind_a_mapping_in_a_chroot() {
    let Some(interpreter) = interpreters().into_iter().find(|i| i.root.is_some()) else {
        return skip("files behind mappings in another root: no interpreter in one");
    };
    let target = run(&interpreter);
    let maps = Maps::from_pid(pid(&target)).unwrap();
    let exe = maps.mappings.iter().find(|m| mapped_file::is_exe(pid(&target), m)).unwrap();
    assert!(mapped_file::open(pid(&target), exe).unwrap()[0].same_inode);
}

/// The image's file, by the kernel's link to it: the interpreter may be in another root.
fn image_file(target: &Target, python: &LocatedPython, maps: &Maps) -> File {
    let mapping = maps.mappings.iter().find(|m| m.path.as_deref() == Some(&python.path)).unwrap();
    mapped_file::open(pid(target), mapping).unwrap().remove(0).file
}

fn an_interpreter_without_section_headers_is_located() {
    // A shared build would need a changed library.
    let Some(interpreter) = in_this_root().into_iter().find(|i| i.kind.contains("static")) else {
        return skip("no section headers: no static interpreter in this root");
    };
    let folder = Folder::new("sectionless");
    let exe = folder.path().join("changed");
    let mut bytes = std::fs::read(&interpreter.path).unwrap();
    // e_shoff; e_shnum and e_shstrndx.
    bytes[40..48].fill(0);
    bytes[60..64].fill(0);
    std::fs::write(&exe, bytes).unwrap();
    std::fs::set_permissions(&exe, std::fs::Permissions::from_mode(0o755)).unwrap();
    located_where_the_target_says(&interpreter.label, &Target::start_command(command_of(&exe, &interpreter)));
}

/// Compiles an embedding program that names `_PyRuntime`. In a non-PIE program, the linker moves
/// that variable into the executable (a copy relocation), and the library's own, still exported, is
/// unused.
fn embedding(interpreter: &Interpreter, folder: &Folder) -> Option<PathBuf> {
    let (major, minor) = interpreter.minor();
    let library = format!("-lpython{major}.{minor}{}", if minor < 8 { "m" } else { "" });
    let lib = home(interpreter).join("lib");
    let (source, exe) = (folder.path().join("embed.c"), folder.path().join("embed"));
    let code = "extern char _PyRuntime[]; void Py_Initialize(void); int PyRun_SimpleString(const char *); char *volatile used;\n\
        int main(int c, char **v) { used = _PyRuntime; Py_Initialize(); return PyRun_SimpleString(v[1]); }";
    std::fs::write(&source, code).unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-no-pie", "-fno-pie", "-o"]).arg(&exe).arg(source).arg("-L").arg(&lib).arg(library);
    let built = cc.arg(format!("-Wl,-rpath,{}", lib.display())).stderr(Stdio::null()).status();
    built.is_ok_and(|status| status.success()).then_some(exe)
}

fn of_two_runtimes_the_one_in_use_is_taken(interpreter: &Interpreter) {
    let run =
        format!("import sys; sys.dont_write_bytecode = True; sys.path[:0] = [{:?}]; import identity", repository().join("tests/workloads"));
    let folder = Folder::new("embedding");
    let Some(exe) = embedding(interpreter, &folder) else {
        skip(&format!("{}: embedding it needs cc and a libpython to link with", interpreter.label));
        return;
    };
    let mut command = Command::new(&exe);
    command.env("PYTHONHOME", home(interpreter)).arg(&run);
    located_where_the_target_says(&interpreter.label, &Target::start_command(command));
}

fn an_image_read_from_memory_agrees_with_its_file(interpreter: &Interpreter) {
    let target = run(interpreter);
    let mem = LiveMemory::new(pid(&target));
    let python = located_where_the_target_says(&interpreter.label, &target);
    let maps = Maps::from_pid(pid(&target)).unwrap();
    let own: Vec<&Mapping> = maps.mappings.iter().filter(|m| m.path.as_deref() == Some(&python.path)).collect();
    let file = Image::from_file(image_file(&target, &python, &maps)).unwrap();
    let loaded = Image::from_memory(&mem, own[0].start).unwrap();
    let names = ["_PyRuntime", "Py_GetVersion", "no_such_symbol"];
    let symbols = file.symbols(&names, Depth::Exported);
    assert_eq!(symbols, loaded.symbols(&names, Depth::All), "{}", interpreter.label);
    assert!(symbols[0].is_some() && symbols[1].is_some() && symbols[2].is_none());
    assert_eq!((file.biases(&own), loaded.biases(&own)), (vec![python.bias], vec![python.bias]));
    // python-build-standalone links without one.
    assert!(file.build_id().is_some() || interpreter.label.ends_with("-pbs"));
    assert_eq!(file.build_id(), loaded.build_id());
    assert_eq!(file.same_as_loaded(&mem, python.bias), Some(true));
    assert_eq!(file.runtime_section().is_some(), python.minor >= Minor(3, 10), "{}", interpreter.label);
}

fn unexported_symbols_are_found_in_an_unstripped_file(interpreter: &Interpreter) {
    let target = run(interpreter);
    let python = located_where_the_target_says(&interpreter.label, &target);
    let maps = Maps::from_pid(pid(&target)).unwrap();
    let image = Image::from_file(image_file(&target, &python, &maps)).unwrap();
    let symbols = image.symbols(&["take_gil", "_PyRuntime", "no_such_symbol"], Depth::All);
    assert!(symbols[0].is_some_and(|symbol| symbol.size > 0), "{}", interpreter.label);
    assert_eq!(symbols[1].map(|symbol| Addr(symbol.vaddr + python.bias)), Some(python.runtime));
    assert_eq!(symbols[2], None);
}

fn broken_images_are_refused_not_followed() {
    let Some(interpreter) = modern("broken images") else { return };
    let python = located_where_the_target_says(&interpreter.label, &run(&interpreter));
    let whole = std::fs::read(&python.path).unwrap();
    let folder = Folder::new("broken");
    let path = folder.path().join("image");
    // Every byte of the header and of the first program headers, inverted, and the file cut at many
    // lengths.
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

/// A measurement, not a test: `cargo test --release --test live -- --ignored how_long_it_takes`.
fn how_long_it_takes(interpreter: &Interpreter) {
    let target = run(interpreter);
    let mut times: Vec<_> = (0..50)
        .map(|_| {
            let start = Instant::now();
            located(&target).unwrap();
            start.elapsed()
        })
        .collect();
    times.sort();
    eprintln!("{}: median {:?}, worst {:?}", interpreter.label, times[25], times[49]);
}

fn thread_ids_in_another_pid_namespace() {
    let namespace = ["--pid", "--fork"];
    if !Command::new("unshare").args(namespace).arg("true").stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        return skip("pid namespaces: unshare is not there or refused");
    }
    let mut unshare = Command::new("unshare");
    unshare.args(namespace).args(["sh", "-c", "echo '{\"pid\": '$$'}'; echo ready; cat"]);
    let outer = Target::start_command(unshare);
    assert_eq!(outer.fact("pid"), 1);
    let shell = proc_info::children(pid(&outer))[0];
    assert_eq!(proc_info::is_in_inner_namespace(shell), Some(true));
    assert_eq!(proc_info::inner_tid(Tid(shell.0)), Some(1));
    assert_eq!(proc_info::inner_tid(Tid(shell.0)), Some(1));
}
