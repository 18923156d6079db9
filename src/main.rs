//! The program: everything is in the library.

fn main() -> std::process::ExitCode {
    pantheonfs::cli::main()
}
