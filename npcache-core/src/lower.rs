//! The cache below: somebody else's directory, which is asked for what this cache does not have and never written to.

use std::sync::Arc;

use crate::fork::PerProcess;
use crate::log::{Level, say_once};
use crate::options::{Mode, Options};
use crate::state::State;
use crate::store::Directory;

pub(crate) struct Lower {
    directory: Arc<Directory>,
    state: PerProcess<Arc<State>>,
}

impl Lower {
    /// The cache that the options name. One that cannot be opened, since it is not mounted just now, say, has nothing: it
    /// costs no program its results.
    pub(crate) fn open(above: &Directory, options: &Options) -> Option<Lower> {
        let path = options.lower.as_ref()?;
        let options = Options { mode: Mode::ReadOnly, ..options.clone() };
        match Directory::open(path, &options) {
            Ok(directory) if directory.identity() == above.identity() => None,
            Ok(directory) => Some(Lower { directory: Arc::new(directory), state: PerProcess::new() }),
            Err(e) => {
                say_once(Level::Warning, path, "lower", || format!("the cache below has nothing: {e}"));
                None
            }
        }
    }

    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }

    /// What the processes that use it tell each other, to be read alone.
    pub(crate) fn state(&self) -> &Arc<State> {
        self.state.get(|state| state.is_current(), || State::of(self.directory.clone(), false, 0))
    }
}
