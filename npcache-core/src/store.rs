//! Where entries live: a directory, what is in it, and the only code that changes it.
//!
//! ```text
//! ROOT/CACHEDIR.TAG                          backup programs leave the directory out
//! ROOT/.npcache-format                       the disk format's number
//! ROOT/.npcache/lock, state-…, tmp/          see state.rs; temporaries of file systems without O_TMPFILE
//! ROOT/.npcache/statistics                   see statistics.rs
//! ROOT/.npcache/config                       see bounds.rs
//! ROOT/<function>/<2 hex>/<64 hex>.npy       entries
//! ```
//!
//! The directory is the truth: no index, nothing to repair. An entry is written without a name, or under a temporary
//! one, and gets its own name when it is whole; from then on it is never modified, only unlinked or renamed
//! over. The root is held as a descriptor and everything below is reached from it, following no link at
//! the last step.

use std::ffi::{CStr, CString, OsStr};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{
    AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, RawDir, RenameFlags, ResolveFlags, Statx,
    StatxFlags, StatxTimestamp, Timespec, Timestamps, UTIME_OMIT, chmodat, fchmod, flock, fstat, fstatvfs,
    futimens, linkat, mkdirat, openat, openat2, renameat, renameat_with, statat, statx, unlinkat,
};
use rustix::io::Errno;
use rustix::process::{Resource, Uid, geteuid, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::digest::hex;
use crate::entry::{FORMAT, Origin, TAIL, time_of_tail};
use crate::error::{Error, Result, Unstored};
use crate::key::Key;
use crate::map::statx_of;
use crate::options::{self, Map, Options, Trust};
use crate::policy::{RECENCY, WINDOW, stamp};

/// The names at the root that are not functions.
const FORMAT_FILE: &CStr = c".npcache-format";
const CACHEDIR_TAG: &CStr = c"CACHEDIR.TAG";
/// Of the administrative directory, and of the temporaries in it.
pub(crate) const ADMIN: &CStr = c".npcache";
const TMP: &CStr = c".npcache/tmp";
/// See [`crate::state`].
pub(crate) const LOCK_FILE: &CStr = c".npcache/lock";
pub(crate) const STATE_PREFIX: &str = "state-";
/// See [`crate::statistics`].
pub(crate) const STATISTICS_FILE: &CStr = c".npcache/statistics";

/// Entries are read-only for everybody, so that an accident with a mapped one takes intent.
const ENTRY_MODE: Mode = Mode::from_raw_mode(0o444);
const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o777);
/// Where nobody else is trusted.
const OWNER_DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o755);
/// With the bit that gives new files the directory's group.
const GROUP_DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o2775);

/// A name longer than this is cut and its hash appended: directories have names of at most 255 bytes.
pub(crate) const MAX_DIRECTORY_NAME: usize = 200;

/// How often an entry's directory is made again at most while sweeps remove it.
const MAX_SWEPT: usize = 32;

/// Set once the system has said that it has no `openat2`.
static WITHOUT_OPENAT2: AtomicBool = AtomicBool::new(false);

/// Set once the system has linked a file by its name in /proc that it would not link by its descriptor.
static ONLY_BY_PROC: AtomicBool = AtomicBool::new(false);

/// The root of a cache, open.
pub(crate) struct Directory {
    root: OwnedFd,
    /// Absolute, for messages.
    path: PathBuf,
    /// The same with a slash, for handing out the paths of entries.
    prefix: Vec<u8>,
    /// Whether what is made is for the whole group, whatever the umask.
    group: bool,
    /// The user who opened it, if nobody else is trusted but root.
    trusted: Option<Uid>,
    /// Whether it is on a file system of this machine alone.
    local: bool,
    /// Whether large entries are mapped, or read.
    pub(crate) maps: bool,
}

impl Directory {
    /// Opens `path`, and makes it a cache if it is not one and the options allow it.
    pub(crate) fn open(path: &Path, options: &Options) -> Result<Directory> {
        let create = options.mode != options::Mode::ReadOnly;
        let trusted = (options.trust == Trust::Owner).then(geteuid);
        if trusted.is_some() && options.group {
            let message = "trust=owner and umask=group exclude each other: the group could plant results";
            return Err(Error::Argument(message.to_owned()));
        }
        let mut made = false;
        match std::fs::metadata(path) {
            Ok(found) if !found.is_dir() => return Err(unusable(path, "is a file; a cache is a directory")),
            Err(e) if e.kind() == io::ErrorKind::NotFound && create => {
                let mode = if trusted.is_some() { OWNER_DIRECTORY_MODE } else { DIRECTORY_MODE };
                std::fs::DirBuilder::new()
                    .recursive(true)
                    .mode(mode.as_raw_mode())
                    .create(path)
                    .map_err(|e| Error::io("create the cache directory", path, e))?;
                made = true;
            }
            _ => {}
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = retry(|| rustix::fs::open(path, flags, Mode::empty()))
            .map_err(|e| Error::io("open the cache directory", path, e))?;
        if made && options.group {
            // Another may have been faster, and only its owner may.
            let _ = fchmod(&root, GROUP_DIRECTORY_MODE);
        }
        let path = std::fs::canonicalize(path).map_err(|e| Error::io("find the cache directory", path, e))?;
        let mut prefix = path.as_os_str().as_bytes().to_vec();
        prefix.push(b'/');
        let local = is_local(&root);
        let maps = match options.map {
            Map::Auto => local,
            Map::Always => true,
            Map::Never => false,
        };
        let directory = Directory { root, path, prefix, group: options.group, trusted, local, maps };
        if trusted.is_some() {
            directory.check_owners()?;
        }
        directory.check_format(create)?;
        Ok(directory)
    }

    /// Whether a file or directory is one that no other user but root can have made or changed, or `trust=owner` was not
    /// asked for.
    pub(crate) fn trusts(&self, owner: Uid, mode: Mode) -> bool {
        let Some(trusted) = self.trusted else { return true };
        // This process may have changed its user since.
        let ours = owner == trusted || owner.is_root() || owner == geteuid();
        ours && !mode.intersects(Mode::WGRP | Mode::WOTH)
    }

    /// Whether `trust=owner` was asked for.
    pub(crate) fn trusts_owner(&self) -> bool {
        self.trusted.is_some()
    }

    /// Whether what is made is for the whole group.
    pub(crate) fn is_for_group(&self) -> bool {
        self.group
    }

    /// Whether an open file is trusted: one system call, where `trust=owner` was asked for.
    pub(crate) fn trusts_file(&self, file: &OwnedFd) -> rustix::io::Result<bool> {
        if self.trusted.is_none() {
            return Ok(true);
        }
        let stat = fstat(file)?;
        Ok(self.trusts(Uid::from_raw(stat.st_uid), Mode::from_raw_mode(stat.st_mode)))
    }

    /// An error where somebody else could have written the root or what is administrative. Below a root that nobody else
    /// can write to, that holds until its owner changes it. Entries are looked at when they are opened.
    fn check_owners(&self) -> Result<()> {
        let mut names = vec![c".".to_owned(), FORMAT_FILE.to_owned(), ADMIN.to_owned()];
        if let Ok(admin) = self.open_directory(&self.root, ADMIN) {
            let inside = entries(&admin).map(|name| [ADMIN.to_bytes(), name.to_bytes()].join(&b'/'));
            names.extend(inside.map(|name| CString::new(name).expect("made of names")));
        }
        for name in names {
            let stat = match statat(&self.root, &*name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                other => other.map_err(|e| Error::io("look at what is in", &self.path, e))?,
            };
            let mode = Mode::from_raw_mode(stat.st_mode);
            if !self.trusts(Uid::from_raw(stat.st_uid), mode) {
                let path = match name.to_bytes() {
                    b"." => self.path.clone(),
                    below => self.path.join(OsStr::from_bytes(below)),
                };
                let reason = format!(
                    "belongs to user {} and has mode {:o}; with trust=owner it is used only if it belongs to user {} or \
                     root, and its group and others cannot write it (chmod go-w)",
                    stat.st_uid,
                    stat.st_mode & 0o7777,
                    geteuid().as_raw(),
                );
                return Err(Error::Directory { path, reason });
            }
        }
        Ok(())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The path with a slash: what the paths of entries start with.
    pub(crate) fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// What identifies the directory, whatever path led to it.
    pub(crate) fn identity(&self) -> (u64, u64) {
        fstat(&self.root).map_or((0, 0), |stat| (stat.st_dev, stat.st_ino))
    }

    /// Whether all processes that can write here share this kernel, so that a page mapped by two of them is one.
    pub(crate) fn is_local(&self) -> bool {
        self.local
    }

    fn check_format(&self, create: bool) -> Result<()> {
        let found = match self.read_small(FORMAT_FILE, 64) {
            Ok(found) => found,
            Err(Errno::NOENT) if create => {
                self.make_admin().map_err(|e| match e {
                    Errno::ACCESS | Errno::PERM | Errno::ROFS => unusable(
                        &self.path,
                        "is not an npcache directory yet and cannot be written; make it writable or choose another",
                    ),
                    e => Error::io("create .npcache in the cache directory", &self.path, e),
                })?;
                let format = format!("npcache {FORMAT}\n");
                for (name, text) in [(CACHEDIR_TAG, CACHEDIR_TAG_TEXT), (FORMAT_FILE, format.as_str())] {
                    let write =
                        |file: &OwnedFd, _: &Origin| write_all(file, &mut [IoSlice::new(text.as_bytes())]);
                    match self.publish(name, false, Made::now(Duration::ZERO), write, |_| Ok(())) {
                        Ok(_) => {}
                        Err(_) if self.read_small(name, 64).is_ok() => {}
                        Err(why) => return Err(unusable(&self.path, &format!("cannot be set up: {why}"))),
                    }
                }
                return Ok(());
            }
            // A directory without entries that may not be made a cache: every call computes.
            Err(Errno::NOENT) => return Ok(()),
            Err(e) => return Err(Error::io("read .npcache-format in", &self.path, e)),
        };
        let number = found
            .strip_prefix("npcache ")
            .and_then(|n| n.strip_suffix('\n'))
            .and_then(|n| n.parse::<u32>().ok());
        match number {
            Some(FORMAT) => Ok(()),
            Some(newer) if newer > FORMAT => Err(unusable(
                &self.path,
                &format!(
                    "was written by a newer npcache (format {newer}; this library reads {FORMAT}); update this \
                     library, or choose another directory"
                ),
            )),
            _ => Err(unusable(
                &self.path,
                "has a .npcache-format that no npcache wrote; choose another directory",
            )),
        }
    }

    /// The first bytes of a small administrative file.
    pub(crate) fn read_small(&self, name: &CStr, at_most: usize) -> rustix::io::Result<String> {
        let file = self.open_file(name, OFlags::RDONLY)?;
        let mut bytes = vec![0; at_most];
        let n = retry(|| rustix::io::read(&file, &mut bytes[..]))?;
        Ok(String::from_utf8_lossy(&bytes[..n]).into_owned())
    }

    /// All of an administrative file; nothing where there is none.
    pub(crate) fn read_whole(&self, name: &CStr) -> rustix::io::Result<Vec<u8>> {
        use std::io::Read;
        let file = match self.open_file(name, OFlags::RDONLY) {
            Err(Errno::NOENT) => return Ok(Vec::new()),
            other => other?,
        };
        let mut bytes = Vec::new();
        let read = std::fs::File::from(file).read_to_end(&mut bytes);
        read.map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
        Ok(bytes)
    }

    /// The names of the files for what processes of one boot share, of any boot.
    pub(crate) fn state_files(&self) -> Vec<CString> {
        let Ok(admin) = self.open_directory(&self.root, ADMIN) else { return Vec::new() };
        let ours = |name: &CString| name.to_bytes().starts_with(STATE_PREFIX.as_bytes());
        let names = entries(&admin).filter(ours);
        names.map(|name| CString::new([b".npcache/", name.to_bytes()].concat()).expect("no NUL")).collect()
    }

    /// When the administrative directory was last changed, by the system's own account, which nobody can set; in nanoseconds
    /// since 1970, 0 where that is not known.
    pub(crate) fn admin_changed(&self) -> i64 {
        let stat = statat(&self.root, ADMIN, AtFlags::SYMLINK_NOFOLLOW);
        stat.map_or(0, |stat| {
            stat.st_ctime.wrapping_mul(1_000_000_000).wrapping_add(stat.st_ctime_nsec as i64)
        })
    }

    /// Puts another file in the place of a small administrative one.
    pub(crate) fn replace_small(&self, name: &CStr, text: &str) -> Result<(), Refused> {
        let write = |file: &OwnedFd, _: &Origin| write_all(file, &mut [IoSlice::new(text.as_bytes())]);
        self.publish(name, true, Made::now(Duration::ZERO), write, |_| Ok(())).map(drop)
    }

    /// The administrative directory, open.
    pub(crate) fn open_admin(&self) -> rustix::io::Result<OwnedFd> {
        self.open_directory(&self.root, ADMIN)
    }

    /// Opens a file below the root, never through a link, never waiting for a pipe.
    pub(crate) fn open_file(&self, name: &CStr, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        self.open_below(name, flags | OFlags::NONBLOCK)
    }

    /// Opens an entry to look at it, without that being a use of it: the system would set its access time.
    pub(crate) fn open_unnoticed(&self, entry: &CStr) -> rustix::io::Result<OwnedFd> {
        match self.open_file(entry, OFlags::RDONLY | OFlags::NOATIME) {
            // For owners only.
            Err(Errno::PERM) => self.open_file(entry, OFlags::RDONLY),
            other => other,
        }
    }

    fn open_below(&self, name: &CStr, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let created = if self.trusted.is_some() { 0o644 } else { 0o666 };
        let mode = if flags.contains(OFlags::CREATE) { Mode::from_raw_mode(created) } else { Mode::empty() };
        if !WITHOUT_OPENAT2.load(Ordering::Relaxed) {
            // Not BENEATH, which takes 40 ns: no name here starts with a slash or has two dots.
            let resolve = ResolveFlags::NO_SYMLINKS;
            match retry(|| openat2(&self.root, name, flags, mode, resolve)) {
                // Kernels before 5.6 have no openat2, and some sandboxes forbid what they do not know.
                Err(Errno::NOSYS) => WITHOUT_OPENAT2.store(true, Ordering::Relaxed),
                Err(Errno::PERM) => {}
                // A directory was renamed meanwhile.
                Err(Errno::AGAIN) => {}
                other => return other,
            }
        }
        // One step at a time.
        let mut at = None;
        let mut steps = name.to_bytes().split(|byte| *byte == b'/').peekable();
        while let Some(step) = steps.next() {
            let directory = at.as_ref().unwrap_or(&self.root);
            let (flags, mode) = match steps.peek() {
                Some(_) => {
                    (OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
                }
                None => (flags, mode),
            };
            at = Some(match retry(|| openat(directory, step, flags, mode)) {
                // What a link to be taken for a directory is.
                Err(Errno::NOTDIR) if steps.peek().is_some() => return Err(Errno::LOOP),
                other => other?,
            });
        }
        at.ok_or(Errno::NOENT)
    }

    /// Opens an administrative file below the root to write it, and makes it if it is not there.
    pub(crate) fn open_admin_file(&self, name: &CStr) -> rustix::io::Result<OwnedFd> {
        let file = self.open_file(name, OFlags::RDWR | OFlags::CREATE)?;
        if self.group {
            // Only its owner may, and has.
            let _ = fchmod(&file, Mode::from_raw_mode(0o664));
        }
        Ok(file)
    }

    /// Makes the administrative directory, if it is not there.
    pub(crate) fn make_admin(&self) -> rustix::io::Result<()> {
        self.make_directory(ADMIN)
    }

    /// Makes a directory whose parent is there, if it is not.
    fn make_directory<P: rustix::path::Arg + Copy>(&self, name: P) -> rustix::io::Result<()> {
        let mode = if self.trusted.is_some() { OWNER_DIRECTORY_MODE } else { DIRECTORY_MODE };
        match mkdirat(&self.root, name, mode) {
            Ok(()) if self.group => chmodat(&self.root, name, GROUP_DIRECTORY_MODE, AtFlags::empty()),
            Err(Errno::EXIST) => Ok(()),
            other => other,
        }
    }

    /// Gives a file its name once it is whole.
    ///
    /// `write` is given the file and its identity; `permit` is asked when that is done, just before the file gets the
    /// name, is told the length of the file that is replaced, and what it returns is held until the file has the name. A file
    /// that has it already stays, unless `replace`.
    pub(crate) fn publish<G>(
        &self,
        name: &CStr,
        replace: bool,
        made: Made,
        write: impl FnOnce(&OwnedFd, &Origin) -> rustix::io::Result<()>,
        permit: impl FnOnce(Option<u64>) -> Result<G, Unstored>,
    ) -> Result<Published, Refused> {
        let slash = name.to_bytes().iter().rposition(|byte| *byte == b'/');
        let parent = slash.map_or(c".".to_owned(), |slash| {
            CString::new(&name.to_bytes()[..slash]).expect("a part of a C string")
        });
        let leaf = slash.map_or(name, |slash| &name[slash + 1..]);
        let unnamed = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let made_in = self.in_parent(&parent, |in_parent| {
            match retry(|| openat(in_parent, c".", unnamed, ENTRY_MODE)) {
                // What ext4 says where the directory was removed just now.
                Err(Errno::PERM) if fstat(in_parent)?.st_nlink == 0 => Err(Errno::NOENT),
                other => other,
            }
        });
        let (in_parent, mut temporary) = match made_in {
            Ok((in_parent, file)) => (in_parent, Temporary { file, name: None, directory: self }),
            // The file system has no unnamed files (EISDIR: nor does the kernel).
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOSYS) => {
                (self.in_parent(&parent, |_| Ok(()))?.0, self.named_temporary()?)
            }
            Err(e) => return Err(e.into()),
        };
        let stat = statx_of(temporary.file.as_fd())?;
        let mtime = stamp(made.at, made.took.as_secs_f64());
        let origin = Origin { inode: stat.stx_ino, mtime, born: born(&stat), boot: crate::state::boot_id() };
        write(&temporary.file, &origin)?;
        if self.group {
            fchmod(&temporary.file, ENTRY_MODE)?;
        }
        let times = Timestamps { last_access: timespec(now()), last_modification: timespec(mtime) };
        futimens(&temporary.file, &times)?;
        let _permission = permit(if replace { length_of(&in_parent, leaf) } else { None })?;
        let mut give_name = |parent: &OwnedFd| {
            if replace { temporary.rename_over(parent, leaf) } else { temporary.link(parent, leaf) }
        };
        let named = match give_name(&in_parent) {
            // Its directory was swept since; only the directory has to be made again.
            Err(Errno::NOENT) => self.in_parent(&parent, give_name).map(|(_, named)| named),
            other => other,
        };
        match named {
            Ok(()) => Ok(Published::Now),
            Err(Errno::EXIST) => Ok(Published::Already),
            Err(e) => Err(e.into()),
        }
    }

    /// Does something in the directory of an entry, one or two levels below the root, which is made if it is not there.
    fn in_parent<T>(
        &self,
        parent: &CStr,
        mut work: impl FnMut(&OwnedFd) -> rustix::io::Result<T>,
    ) -> rustix::io::Result<(OwnedFd, T)> {
        // A sweep may remove it again at any moment, and if all that is stored is cleared all the time, at each.
        for _ in 0..MAX_SWEPT {
            let done = self
                .open_below(parent, OFlags::PATH | OFlags::DIRECTORY)
                .and_then(|directory| work(&directory).map(|done| (directory, done)));
            match done {
                Err(Errno::NOENT) => {}
                other => return other,
            }
            match self.make_directories(parent) {
                // Or the root was removed.
                Err(Errno::NOENT) => {}
                other => other?,
            }
        }
        Err(Errno::NOENT)
    }

    /// Makes `path`, one or two levels below the root.
    fn make_directories(&self, path: &CStr) -> rustix::io::Result<()> {
        let bytes = path.to_bytes();
        let slashes = (0..bytes.len()).filter(|i| bytes[*i] == b'/');
        slashes.chain([bytes.len()]).try_for_each(|end| self.make_directory(&bytes[..end]))
    }

    /// A new file with a name in `.npcache/tmp`, locked for as long as it is open: one that is not locked was
    /// left by a process that died.
    fn named_temporary(&self) -> Result<Temporary<'_>, Refused> {
        for _ in 0..4 {
            let (tmp, name) = (self.in_parent(TMP, |_| Ok(()))?.0, temporary_name());
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = match retry(|| openat(&tmp, &name, flags, ENTRY_MODE)) {
                Err(Errno::NOENT | Errno::EXIST) => continue,
                other => other?,
            };
            let temporary = Temporary { file, name: Some((tmp, name)), directory: self };
            // A file system without locks leaves temporaries to be collected by `clear` alone.
            let _ = flock(&temporary.file, FlockOperation::NonBlockingLockExclusive);
            // The collector may have been there between the two calls.
            if fstat(&temporary.file)?.st_nlink > 0 {
                return Ok(temporary);
            }
        }
        Err(Errno::EXIST.into())
    }

    /// Removes the temporaries of processes that died. With `all`, those too whose file system cannot tell.
    pub(crate) fn collect_temporaries(&self, all: bool) {
        let Ok(directory) = self.open_below(TMP, OFlags::RDONLY | OFlags::DIRECTORY) else { return };
        for name in entries(&directory) {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let Ok(file) = openat(&directory, &*name, flags, Mode::empty()) else { continue };
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => continue,
                Err(_) if !all => continue,
                Err(_) => {}
            }
            let _ = unlinkat(&directory, &*name, AtFlags::empty());
        }
    }

    fn open_directory(&self, at: impl AsFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        retry(|| openat(&at, name, flags, Mode::empty()))
    }

    /// Unlinks the entries of `function` (a directory's name), or of all, and what directories that leaves empty.
    /// Touches nothing whose name npcache would not have given it.
    ///
    /// `gone` is told the first byte of the key and the length of each, where it wants to know.
    pub(crate) fn sweep(
        &self,
        function: Option<&CStr>,
        mut gone: Option<&mut dyn FnMut(u8, u64)>,
    ) -> Result<()> {
        let failed = |e: Errno| Error::io("remove entries from", &self.path, e);
        let functions: Vec<CString> = match function {
            Some(function) => vec![function.to_owned()],
            None => self.functions().map_err(failed)?,
        };
        // What cannot be removed keeps nothing else.
        let mut outcome = Ok(());
        for name in functions {
            outcome = self.sweep_function(&name, &mut gone).and(outcome);
        }
        outcome.map_err(failed)
    }

    fn sweep_function(
        &self,
        name: &CStr,
        gone: &mut Option<&mut dyn FnMut(u8, u64)>,
    ) -> rustix::io::Result<()> {
        let function = match self.open_directory(&self.root, name) {
            // A file of the user's, a link, or gone.
            Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => return Ok(()),
            other => other?,
        };
        let mut ours = false;
        for shard_name in list(&function)?.iter().filter(|name| is_hex(name.to_bytes(), 2)) {
            let shard = match self.open_directory(&function, shard_name) {
                Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => continue,
                other => other?,
            };
            for entry in list(&shard)?.iter().filter(|name| key_of(name).is_some()) {
                let len = gone.as_ref().and_then(|_| length_of(&shard, entry));
                match unlinkat(&shard, entry.as_c_str(), AtFlags::empty()) {
                    Ok(()) => {
                        if let (Some(gone), Some(len)) = (&mut *gone, len) {
                            gone(hex_byte(shard_name), len);
                        }
                    }
                    Err(Errno::NOENT | Errno::ISDIR) => {}
                    Err(e) => return Err(e),
                }
            }
            ours |= unlinkat(&function, shard_name.as_c_str(), AtFlags::REMOVEDIR).is_ok();
        }
        // An empty directory that held no shard may be the user's.
        if ours {
            let _ = unlinkat(&self.root, name, AtFlags::REMOVEDIR);
        }
        Ok(())
    }

    /// Unlinks a file in a directory below the root, reached through no link, and tells its length, 0 of what was no
    /// file; `None` where it is gone.
    pub(crate) fn unlink(&self, path: &CStr) -> rustix::io::Result<Option<u64>> {
        let slash = path.to_bytes().iter().rposition(|byte| *byte == b'/').ok_or(Errno::INVAL)?;
        let parent = CString::new(&path.to_bytes()[..slash]).expect("a part of a C string");
        let name = &path[slash + 1..];
        let unlinked = self.open_below(&parent, OFlags::PATH | OFlags::DIRECTORY).and_then(|parent| {
            let len = length_of(&parent, name);
            unlinkat(&parent, name, AtFlags::empty()).map(|()| len.unwrap_or(0))
        });
        match unlinked {
            Ok(len) => Ok(Some(len)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Unlinks an entry, if `goes` says so of what the system says of it; its length, if it is gone by this. An error is
    /// that of the removal.
    pub(crate) fn evict(
        &self,
        function: &[u8],
        key: &Key,
        goes: impl FnOnce(&Statx) -> bool,
    ) -> rustix::io::Result<Option<u64>> {
        let path = shard_path(function, key.as_bytes()[0]);
        let Ok(shard) = self.open_below(&path, OFlags::PATH | OFlags::DIRECTORY) else { return Ok(None) };
        let shard = Shard(shard);
        let Some(stat) = shard.stat(key).filter(goes) else { return Ok(None) };
        match unlinkat(&shard.0, &entry_name(key)[..], AtFlags::empty()) {
            Ok(()) => Ok(Some(stat.stx_size)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The names at the root that may be functions' directories, sorted.
    pub(crate) fn functions(&self) -> rustix::io::Result<Vec<CString>> {
        let root = self.open_directory(&self.root, c".")?;
        let mut names = list(&root)?;
        names.sort();
        // As `function_directory` makes them. `lost+found` is none, which nobody else can read.
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.%".contains(byte);
        names.retain(|name| {
            let bytes = name.to_bytes();
            bytes.iter().all(plain) && bytes[0] != b'.' && **name != *CACHEDIR_TAG
        });
        Ok(names)
    }

    /// The names of a function's shards, sorted.
    pub(crate) fn shards(&self, function: &CStr) -> rustix::io::Result<Vec<CString>> {
        let mut names = list(&self.open_directory(&self.root, function)?)?;
        names.sort();
        names.retain(|name| is_hex(name.to_bytes(), 2));
        Ok(names)
    }

    /// An open shard, by its path below the root, and the keys that files in it are named by, sorted.
    pub(crate) fn keys(&self, shard: &CStr) -> rustix::io::Result<(OwnedFd, Vec<Key>)> {
        let shard = self.open_below(shard, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut keys: Vec<Key> = list(&shard)?.iter().filter_map(|name| key_of(name)).collect();
        keys.sort_by_key(|key| *key.as_bytes());
        Ok((shard, keys))
    }

    /// A function's directory of entries whose keys begin with `byte`.
    pub(crate) fn shard(&self, function: &[u8], byte: u8) -> rustix::io::Result<Shard> {
        self.open_below(&shard_path(function, byte), OFlags::RDONLY | OFlags::DIRECTORY).map(Shard)
    }

    /// Bytes of the file system that this process may still use; `None` where it does not tell.
    pub(crate) fn free_space(&self) -> Option<u64> {
        fstatvfs(&self.root).ok().map(|found| found.f_bavail.saturating_mul(found.f_frsize))
    }

    /// Calls `visit` with the key and the path of up to `at_most` entries of a function, by its directory's name. `false`:
    /// there are more.
    pub(crate) fn entries_of(
        &self,
        function: &str,
        at_most: usize,
        mut visit: impl FnMut(Key, CString),
    ) -> rustix::io::Result<bool> {
        let shards = match self.shards(&CString::new(function).expect("a directory's name")) {
            Err(Errno::NOENT) => return Ok(true),
            other => other?,
        };
        let mut count = 0;
        for shard in shards {
            let path = CString::new([function.as_bytes(), b"/", shard.to_bytes()].concat());
            let Ok((_, keys)) = self.keys(&path.expect("made of names")) else { continue };
            for key in keys {
                if count == at_most {
                    return Ok(false);
                }
                count += 1;
                visit(key, entry_path(function, &key));
            }
        }
        Ok(true)
    }

    /// Removes an emptied cache with its administrative files; an error names what keeps it from going, and then
    /// nothing was removed.
    pub(crate) fn remove(&self) -> Result<()> {
        let failed = |e: Errno| Error::io("remove", &self.path, e);
        let root = self.open_directory(&self.root, c".").map_err(failed)?;
        let mut foreign: Vec<String> = list(&root)
            .map_err(failed)?
            .iter()
            .filter(|name| ![ADMIN, FORMAT_FILE, CACHEDIR_TAG].contains(&name.as_c_str()))
            .map(|name| name.to_string_lossy().into_owned())
            .collect();
        let admin = self.open_directory(&root, ADMIN);
        if let Ok(admin) = &admin {
            let ours = |name: &CString| {
                [&b"lock"[..], b"statistics", b"tmp", b"config"].contains(&name.to_bytes())
                    || name.to_bytes().starts_with(STATE_PREFIX.as_bytes())
            };
            let others = entries(admin).filter(|name| !ours(name));
            foreign.extend(others.map(|name| format!(".npcache/{}", name.to_string_lossy())));
        }
        if !foreign.is_empty() {
            foreign.sort();
            foreign.truncate(5);
            return Err(Error::NotEmpty { path: self.path.clone(), files: foreign });
        }
        self.collect_temporaries(true);
        if let Ok(admin) = &admin {
            let _ = unlinkat(&root, TMP, AtFlags::REMOVEDIR);
            for name in entries(admin).filter(|name| name.to_bytes() != b"tmp") {
                let _ = unlinkat(admin, &*name, AtFlags::empty());
            }
            let _ = unlinkat(&root, ADMIN, AtFlags::REMOVEDIR);
        }
        let _ = unlinkat(&root, CACHEDIR_TAG, AtFlags::empty());
        let _ = unlinkat(&root, FORMAT_FILE, AtFlags::empty());
        // The path may lead elsewhere by now; only the directory that was opened is to go.
        let there = std::fs::metadata(&self.path).map(|found| {
            use std::os::unix::fs::MetadataExt;
            (found.dev(), found.ino())
        });
        match there {
            Ok(there) if there == self.identity() => {
                std::fs::remove_dir(&self.path).map_err(|e| Error::io("remove", &self.path, e))
            }
            _ => Ok(()),
        }
    }
}

/// An entry's path below the root.
pub(crate) fn entry_path(function_directory: impl AsRef<[u8]>, key: &Key) -> CString {
    path_of(b"", function_directory, key)
}

/// An entry's path, after `prefix`, which holds no NUL: a path's or nothing.
pub(crate) fn path_of(prefix: &[u8], function_directory: impl AsRef<[u8]>, key: &Key) -> CString {
    let (function, hex) = (function_directory.as_ref(), key.hex());
    let mut path = Vec::with_capacity(prefix.len() + function.len() + 4 + hex.len() + 5);
    path.extend_from_slice(prefix);
    path.extend_from_slice(function);
    path.extend_from_slice(&[b'/', hex[0], hex[1], b'/']);
    path.extend_from_slice(&hex);
    path.extend_from_slice(b".npy\0");
    CString::from_vec_with_nul(path).expect("no NUL in a directory's name")
}

/// What [`entry_path`] made of a path that [`path_of`] made after whatever prefix.
pub(crate) fn below_prefix(path: &CStr) -> Option<&CStr> {
    let bytes = path.to_bytes();
    let mut slashes = (0..bytes.len()).rev().filter(|i| bytes[*i] == b'/');
    slashes.nth(2).map(|slash| &path[slash + 1..])
}

/// The directory of a function: its name, with every byte that is no letter, digit, `_`, `-` or `.` as `%` and two
/// hex digits, and so for a `.` at the start. A name that gets too long ends in `%` and 32 digits of its SHA-256.
pub(crate) fn function_directory(name: &str) -> String {
    use sha2::Digest;
    use std::fmt::Write;
    let mut out = String::with_capacity(name.len());
    for (i, byte) in name.bytes().enumerate() {
        // The one name without a `%` that stands for something else at the root.
        let reserved = i == 0 && (byte == b'.' || name.as_bytes() == CACHEDIR_TAG.to_bytes());
        if (byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')) && !reserved {
            out.push(byte as char);
        } else {
            let _ = write!(out, "%{byte:02x}");
        }
    }
    if out.len() > MAX_DIRECTORY_NAME {
        out.truncate(MAX_DIRECTORY_NAME - 33);
        let _ = write!(out, "%{}", hex(&sha2::Sha256::digest(name.as_bytes())[..16]));
    }
    out
}

/// The name that [`function_directory`] made a directory's name of; of a cut one, what is left and `…`.
pub(crate) fn function_name(directory: &[u8]) -> String {
    let cut = directory.len() == MAX_DIRECTORY_NAME
        && directory[MAX_DIRECTORY_NAME - 33] == b'%'
        && is_hex(&directory[MAX_DIRECTORY_NAME - 32..], 32);
    let mut rest = if cut { &directory[..MAX_DIRECTORY_NAME - 33] } else { directory };
    let mut name = Vec::with_capacity(rest.len());
    while let Some((first, after)) = rest.split_first() {
        let code = after.first_chunk::<2>().and_then(|digits| std::str::from_utf8(digits).ok());
        let code = code.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (first, code) {
            (b'%', Some(byte)) => {
                name.push(byte);
                rest = &after[2..];
            }
            _ => {
                name.push(*first);
                rest = after;
            }
        }
    }
    let name = String::from_utf8_lossy(&name).into_owned();
    if cut { name + "…" } else { name }
}

/// One of the directories that a function's entries are in, open.
pub(crate) struct Shard(OwnedFd);

impl Shard {
    /// Adds the keys of the next few entries, as many as one system call gives; none at the end.
    pub(crate) fn next_keys(&self, keys: &mut Vec<Key>) -> rustix::io::Result<()> {
        // A directory may begin with what is not an entry.
        loop {
            let mut buffer = [MaybeUninit::uninit(); WINDOW * NAME_RECORD];
            let mut listing = RawDir::new(&self.0, &mut buffer);
            let mut at_end = true;
            while let Some(entry) = listing.next() {
                at_end = false;
                keys.extend(key_of(entry?.file_name()));
                if listing.is_buffer_empty() {
                    break;
                }
            }
            if at_end || !keys.is_empty() {
                return Ok(());
            }
        }
    }

    /// What the system says of an entry, if it is a file.
    pub(crate) fn stat(&self, key: &Key) -> Option<Statx> {
        let wanted =
            StatxFlags::TYPE | StatxFlags::INO | StatxFlags::SIZE | StatxFlags::ATIME | StatxFlags::MTIME;
        let stat = statx(&self.0, &entry_name(key)[..], AtFlags::SYMLINK_NOFOLLOW, wanted).ok()?;
        (FileType::from_raw_mode(stat.stx_mode.into()) == FileType::RegularFile).then_some(stat)
    }

    /// What computing an entry of length `len` took, in seconds, as the end of the file says.
    pub(crate) fn seconds(&self, key: &Key, len: u64) -> Option<f64> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let open = |flags| retry(|| openat(&self.0, &entry_name(key)[..], flags, Mode::empty()));
        // As `open_unnoticed`.
        let file = open(flags | OFlags::NOATIME).or_else(|_| open(flags)).ok()?;
        let (mut tail, at) = ([0; TAIL], len.checked_sub(TAIL as u64)?);
        let n = retry(|| rustix::io::pread(&file, &mut tail[..], at)).ok()?;
        if n == TAIL { time_of_tail(&tail, len).map(|took| took.as_secs_f64()) } else { None }
    }
}

/// What a directory's record of an entry takes: 19 bytes, a name of 68, a NUL, aligned to 8.
const NAME_RECORD: usize = 88;

/// The length of a file in a directory.
fn length_of(directory: impl AsFd, name: &CStr) -> Option<u64> {
    let stat = statx(directory, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::SIZE | StatxFlags::TYPE).ok()?;
    (FileType::from_raw_mode(stat.stx_mode.into()) == FileType::RegularFile).then_some(stat.stx_size)
}

/// Marks an open entry as used now, if that was last done longer ago than [`RECENCY`], or as much later by a clock that was
/// wrong. Who does not own it cannot.
pub(crate) fn mark_used(file: &OwnedFd, now: i64) {
    let stat = statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::ATIME);
    if stat.is_ok_and(|stat| now.abs_diff(nanoseconds(stat.stx_atime)) >= RECENCY as u64) {
        let last_modification = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let _ = futimens(file, &Timestamps { last_access: timespec(now), last_modification });
    }
}

/// The path of a function's directory of entries whose keys begin with `byte`.
fn shard_path(function: &[u8], byte: u8) -> CString {
    let path = [function, format!("/{byte:02x}\0").as_bytes()].concat();
    CString::from_vec_with_nul(path).expect("a name and two digits")
}

/// The byte that a directory of entries is named for.
fn hex_byte(name: &CStr) -> u8 {
    name.to_str().ok().and_then(|name| u8::from_str_radix(name, 16).ok()).expect("two hexadecimal digits")
}

fn is_hex(bytes: &[u8], len: usize) -> bool {
    bytes.len() == len && bytes.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// An entry's name in its directory.
pub(crate) fn entry_name(key: &Key) -> [u8; 68] {
    let mut name = *b"0000000000000000000000000000000000000000000000000000000000000000.npy";
    name[..64].copy_from_slice(&key.hex());
    name
}

/// The key that a file is named by, if it is named as an entry.
fn key_of(name: &CStr) -> Option<Key> {
    Key::from_hex(name.to_bytes().strip_suffix(b".npy")?.try_into().ok()?)
}

/// The names in a directory, without `.` and `..`: all of them, or an error.
fn list(directory: &OwnedFd) -> rustix::io::Result<Vec<CString>> {
    let names = Dir::read_from(directory)?.map(|entry| Ok(entry?.file_name().to_owned()));
    names.filter(|name| !matches!(name, Ok(name) if [c".", c".."].contains(&name.as_c_str()))).collect()
}

/// The same, where one that cannot be listed may as well be empty.
fn entries(directory: &OwnedFd) -> impl Iterator<Item = CString> + use<> {
    list(directory).unwrap_or_default().into_iter()
}

/// A file that is being written.
struct Temporary<'d> {
    file: OwnedFd,
    /// The directory of temporaries and its name there, while it has one.
    name: Option<(OwnedFd, CString)>,
    directory: &'d Directory,
}

impl Temporary<'_> {
    /// Gives the file `name` in the directory `to`, unless that is taken.
    fn link(&mut self, to: &OwnedFd, name: &CStr) -> rustix::io::Result<()> {
        if let Some((tmp, temporary)) = &self.name {
            let renamed = match renameat_with(tmp, temporary, to, name, RenameFlags::NOREPLACE) {
                // Not on this file system: a second name, and `drop` removes the first.
                Err(Errno::INVAL | Errno::NOSYS) => {
                    return linkat(tmp, temporary, to, name, AtFlags::empty());
                }
                other => other,
            };
            if renamed.is_ok() {
                self.name = None;
            }
            return renamed;
        }
        // By the descriptor, in half the time that the way through /proc takes. Kernels before 6.10 keep that for the
        // privileged and answer as if a directory were missing.
        if !ONLY_BY_PROC.load(Ordering::Relaxed) {
            match linkat(&self.file, c"", to, name, AtFlags::EMPTY_PATH) {
                Err(Errno::NOENT | Errno::PERM | Errno::INVAL) => {}
                other => return other,
            }
        }
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        linkat(rustix::fs::CWD, path, to, name, AtFlags::SYMLINK_FOLLOW)?;
        ONLY_BY_PROC.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Gives the file `name` in the directory `to`, taking it from whatever has it.
    fn rename_over(&mut self, to: &OwnedFd, name: &CStr) -> rustix::io::Result<()> {
        if self.name.is_none() {
            // Locked, so that nobody takes it for a dead process's.
            let _ = flock(&self.file, FlockOperation::NonBlockingLockExclusive);
            let temporary = temporary_name();
            let (tmp, ()) = self.directory.in_parent(TMP, |tmp| self.link(tmp, &temporary))?;
            self.name = Some((tmp, temporary));
        }
        let (tmp, temporary) = self.name.as_ref().expect("set above");
        let renamed = match renameat(tmp, temporary, to, name) {
            // A directory stands there. An empty one can go; nothing of npcache's makes one with anything in it.
            Err(Errno::ISDIR | Errno::EXIST | Errno::NOTEMPTY) => {
                unlinkat(to, name, AtFlags::REMOVEDIR)?;
                renameat(tmp, temporary, to, name)
            }
            other => other,
        };
        if renamed.is_ok() {
            self.name = None;
        }
        renamed
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if let Some((tmp, name)) = &self.name {
            let _ = unlinkat(tmp, name, AtFlags::empty());
        }
    }
}

/// A name for `.npcache/tmp` that no other process and no other call uses.
fn temporary_name() -> CString {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let now = now();
    let pid = std::process::id();
    CString::new(format!("{pid}-{now}-{count}")).expect("no NUL")
}

/// Whether publishing gave the file its name.
pub(crate) enum Published {
    /// It has it now.
    Now,
    /// Another has it.
    Already,
}

/// When a file was made, in nanoseconds since 1970; 0 where that is not known.
pub(crate) fn born(stat: &Statx) -> i64 {
    let known = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
    if known { nanoseconds(stat.stx_btime) } else { 0 }
}

pub(crate) fn nanoseconds(time: StatxTimestamp) -> i64 {
    time.tv_sec.wrapping_mul(1_000_000_000).wrapping_add(i64::from(time.tv_nsec))
}

/// Nanoseconds since 1970, by the clock that costs least: some milliseconds behind.
pub(crate) fn coarse_now() -> i64 {
    let time = clock_gettime(ClockId::RealtimeCoarse);
    time.tv_sec.wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec)
}

/// When what is in a file was made, in nanoseconds since 1970, and what that took: the file's time of modification, by
/// [`stamp`].
pub(crate) struct Made {
    pub(crate) at: i64,
    pub(crate) took: Duration,
}

impl Made {
    pub(crate) fn now(took: Duration) -> Made {
        Made { at: now(), took }
    }
}

/// Nanoseconds since 1970.
pub(crate) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as i64
}

fn timespec(nanoseconds: i64) -> Timespec {
    const SECOND: i64 = 1_000_000_000;
    Timespec { tv_sec: nanoseconds.div_euclid(SECOND), tv_nsec: nanoseconds.rem_euclid(SECOND) }
}

/// Writes all the pieces, however many calls it takes.
pub(crate) fn write_all(file: &OwnedFd, pieces: &mut [IoSlice<'_>]) -> rustix::io::Result<()> {
    below_size_limit(pieces.iter().map(|piece| piece.len() as u64).sum())?;
    let mut rest = pieces;
    IoSlice::advance_slices(&mut rest, 0); // leading empty ones
    while !rest.is_empty() {
        // The kernel takes at most 1,024 pieces and 2 GiB a call.
        let n = retry(|| rustix::io::writev(file, &rest[..rest.len().min(1024)]))?;
        if n == 0 {
            return Err(Errno::NOSPC);
        }
        IoSlice::advance_slices(&mut rest, n);
    }
    Ok(())
}

/// Whether this process may write a file of that length. Past its limit a write is not an error but a signal, which
/// kills who does not expect it.
pub(crate) fn below_size_limit(len: u64) -> rustix::io::Result<()> {
    match getrlimit(Resource::Fsize).current {
        Some(limit) if len > limit => Err(Errno::FBIG),
        _ => Ok(()),
    }
}

/// Calls again what a signal interrupted.
pub(crate) fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Why an entry was not published, and where the system said so, what it said.
pub(crate) struct Refused {
    pub(crate) why: Unstored,
    errno: Option<Errno>,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.errno {
            Some(errno) => errno.fmt(f),
            None => self.why.fmt(f),
        }
    }
}

impl From<Errno> for Refused {
    fn from(e: Errno) -> Refused {
        Refused { why: e.into(), errno: Some(e) }
    }
}

impl From<Unstored> for Refused {
    fn from(why: Unstored) -> Refused {
        Refused { why, errno: None }
    }
}

impl From<Errno> for Unstored {
    fn from(e: Errno) -> Unstored {
        match e {
            Errno::NOSPC | Errno::DQUOT | Errno::FBIG => Unstored::DiskFull,
            Errno::ACCESS | Errno::PERM | Errno::ROFS => Unstored::NotWritable,
            Errno::NOENT => Unstored::Removed,
            _ => Unstored::Io,
        }
    }
}

/// Whether a directory is on a file system of this machine alone. Where that is not known, it is not assumed.
fn is_local(directory: &OwnedFd) -> bool {
    // From linux/magic.h, the list in GNU coreutils' stat.c and the file systems' own sources: NFS, SMB, SMB2, CIFS,
    // FUSE, 9p, Ceph, AFS in OpenAFS and in the kernel, Coda, Lustre, GPFS, BeeGFS, PanFS, OCFS2, GFS2, ACFS, OrangeFS,
    // Ibrix, StorNext, and those of VirtualBox, VMware and Parallels.
    const SHARED: [u32; 23] = [
        0x6969,
        0x517b,
        0xfe53_4d42,
        0xff53_4d42,
        0x6573_5546,
        0x0102_1997,
        0x00c3_6400,
        0x5346_414f,
        0x6b41_4653,
        0x7375_7245,
        0x0bd0_0bd0,
        0x4750_4653,
        0x1983_0326,
        0xaad7_aaea,
        0x7461_636f,
        0x0116_1970,
        0x6163_6673,
        0x2003_0528,
        0x0131_11a8,
        0xbeef_dead,
        0x786f_4256,
        0xbacb_acbc,
        0x7c7c_6673,
    ];
    rustix::fs::fstatfs(directory).is_ok_and(|found| !SHARED.contains(&(found.f_type as u32)))
}

fn unusable(path: &Path, why: &str) -> Error {
    Error::Directory { path: path.to_owned(), reason: why.to_owned() }
}

/// <https://bford.info/cachedir/>
const CACHEDIR_TAG_TEXT: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
    # This directory is a cache of npcache. It can be deleted at any time; what was in it is computed again.\n";
