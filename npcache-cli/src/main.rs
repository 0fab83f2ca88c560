//! The `npcache` command: what is in a cache directory, whether it is whole, what it is worth, and what to drop.
//!
//! A command is one file and one function, `run`, which is given its own arguments and the [`Session`]. It looks at the
//! directory without changing it, unless changing it is what it is for. It returns whether the answer is yes; the exit
//! status says so to a script.

mod bench;
mod call;
mod config;
mod du;
mod export;
mod import;
mod ls;
mod man;
mod numbers;
mod picture;
mod prune;
mod report;
mod select;
mod session;
mod show;
mod stats;
mod terminal;
mod verify;
mod why;

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::session::{Common, Session};

/// What `main` makes an exit status of: an error, or the answer.
type Outcome = Result<bool, Box<dyn std::error::Error>>;

/// Look at, check and tidy a cache directory of npcache
///
/// npcache keeps the results of expensive functions as .npy files. This command says what is in such a directory, what it
/// cost to compute, whether it is whole, and why a call was not found in it; and drops what is not wanted.
#[derive(Parser)]
#[command(name = "npcache", version, after_help = EPILOGUE, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

const EPILOGUE: &str = "\
A KEY may be cut to its first digits, as long as they are those of one entry only.
Sizes are in bytes, or as 64K, 1.5G; times as 90s, 12h, 30d, 1y.

Exit status: 0 if it was done and the answer is yes; 1 if something was found damaged or
could not be read or removed, or the call is not stored, or over age; 2 for an error.

Examples:
  npcache -C results ls --sort cost -n 20      the dearest twenty
  npcache show 3f2a                            one entry: arguments, numbers, a picture
  npcache why solve 64 0.2                     why was this call computed again?
  npcache prune --unused-for 90d --dry-run     what would go
  npcache report -o report.html                charts, for a browser
  npcache ls --json | jq .bytes                for a script
";

#[derive(Subcommand)]
enum Command {
    Stats(stats::Stats),
    Ls(ls::Ls),
    Show(show::Show),
    Why(why::Why),
    Du(du::Du),
    Verify(verify::Verify),
    Prune(prune::Prune),
    Clear(prune::Clear),
    Config(config::Config),
    Export(export::Export),
    Import(import::Import),
    Report(report::Report),
    Watch(stats::Watch),
    Bench(bench::Bench),
    Completions(man::Completions),
    Man(man::Man),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse_from(std::env::args_os().map(as_value));
    let mut session = Session::new(arguments.common);
    let outcome = match arguments.command {
        Command::Stats(command) => command.run(&mut session),
        Command::Ls(command) => command.run(&mut session),
        Command::Show(command) => command.run(&mut session),
        Command::Why(command) => command.run(&mut session),
        Command::Du(command) => command.run(&mut session),
        Command::Verify(command) => command.run(&mut session),
        Command::Prune(command) => command.run(&mut session),
        Command::Clear(command) => command.run(&mut session),
        Command::Config(command) => command.run(&mut session),
        Command::Export(command) => command.run(&mut session),
        Command::Import(command) => command.run(&mut session),
        Command::Report(command) => command.run(&mut session),
        Command::Watch(command) => command.run(&mut session),
        Command::Bench(command) => command.run(&mut session),
        Command::Completions(command) => command.run(&mut session, Arguments::command()),
        Command::Man(command) => command.run(&mut session, Arguments::command()),
    };
    // What is left in the buffer counts as part of the command.
    match outcome.and_then(|yes| Ok(session.finish().map(|()| yes)?)) {
        Ok(yes) => ExitCode::from(if yes && !session.troubled() { 0 } else { 1 }),
        // `npcache ls | head` has seen enough.
        Err(e) if is_broken_pipe(&*e) => ExitCode::SUCCESS,
        Err(e) => {
            session.complain(&e.to_string());
            ExitCode::from(2)
        }
    }
}

/// Clap takes a negative number for options if it has a second sign, as `-1e-5` has: that is written in another way.
fn as_value(text: OsString) -> OsString {
    let is_number = |text: &&str| {
        text.starts_with('-') && text.contains(['e', 'E']) && text.parse::<f64>().is_ok_and(f64::is_finite)
    };
    match text.to_str().filter(is_number) {
        Some(number) => format!("float:{number}").into(),
        None => text,
    }
}

fn is_broken_pipe(e: &(dyn std::error::Error + 'static)) -> bool {
    e.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}
