//! The command `gilprof`.

fn main() -> std::process::ExitCode {
    gilprof::cli::main()
}
