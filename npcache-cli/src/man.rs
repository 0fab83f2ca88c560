//! `npcache completions` and `npcache man`: what `make install` puts beside the command, made from the same text as
//! `--help`.

use std::path::PathBuf;

use clap::Command;
use clap_complete::Shell;

use crate::Outcome;
use crate::session::Session;

/// Print the completions of this command for a shell
///
/// `make install` puts them in place for bash, zsh and fish. By hand: npcache completions bash >> ~/.bash_completion
#[derive(clap::Args)]
pub struct Completions {
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub fn run(self, session: &mut Session, mut command: Command) -> Outcome {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut command, "npcache", &mut text);
        session.write_raw(&[&text])?;
        Ok(true)
    }
}

/// Print this command's manual page, or write all of them, one a subcommand
#[derive(clap::Args)]
pub struct Man {
    /// Write npcache.1, npcache-ls.1, … into this directory
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

impl Man {
    pub fn run(self, session: &mut Session, command: Command) -> Outcome {
        let command = command.disable_help_subcommand(true);
        match self.directory {
            Some(directory) => clap_mangen::generate_to(command, &directory)
                .map_err(|e| format!("cannot write into {}: {e}", directory.display()))?,
            None => {
                let mut page = Vec::new();
                clap_mangen::Man::new(command).render(&mut page)?;
                session.write_raw(&[&page])?;
            }
        }
        Ok(true)
    }
}
