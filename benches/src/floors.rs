//! What the same work costs as bare system calls: no checks, no keys, no names to make.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A directory from which files are opened, as a C program does that cares.
pub struct Root(OwnedFd);

fn check(result: i64, what: &str) -> i64 {
    assert!(result >= 0, "{what}: {}", std::io::Error::last_os_error());
    result
}

fn open(at: i32, name: &CStr, flags: i32) -> OwnedFd {
    // SAFETY: a C string and a descriptor that is open; the result is nobody else's.
    unsafe {
        OwnedFd::from_raw_fd(check(
            libc::openat(at, name.as_ptr(), flags | libc::O_CLOEXEC, 0o444).into(),
            "openat",
        ) as i32)
    }
}

pub fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

impl Root {
    pub fn open(path: &Path) -> Root {
        Root(open(libc::AT_FDCWD, &c_path(path), libc::O_RDONLY | libc::O_DIRECTORY))
    }

    /// open, read, close.
    pub fn read(&self, name: &CStr, into: &mut [u8]) -> usize {
        let file = open(self.0.as_raw_fd(), name, libc::O_RDONLY);
        // SAFETY: writes at most `into.len()` bytes to it.
        check(unsafe { libc::read(file.as_raw_fd(), into.as_mut_ptr().cast(), into.len()) } as i64, "read")
            as usize
    }

    /// open, fstat, mmap, close; `used` gets the bytes, which are unmapped afterwards.
    pub fn map<R>(&self, name: &CStr, used: impl FnOnce(&[u8]) -> R) -> R {
        let file = open(self.0.as_raw_fd(), name, libc::O_RDONLY);
        // SAFETY: the mapping is the file's length, read-only, and unmapped after the last use.
        unsafe {
            let mut stat: libc::stat = std::mem::zeroed();
            check(libc::fstat(file.as_raw_fd(), &mut stat).into(), "fstat");
            let len = stat.st_size as usize;
            let start =
                libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0);
            assert_ne!(start, libc::MAP_FAILED);
            drop(file);
            let result = used(std::slice::from_raw_parts(start.cast(), len));
            libc::munmap(start, len);
            result
        }
    }

    /// An unnamed temporary, write, publish, close.
    pub fn publish(&self, directory: &CStr, name: &CStr, bytes: &[u8]) {
        let file = open(self.0.as_raw_fd(), directory, libc::O_TMPFILE | libc::O_RDWR);
        let mut rest = bytes;
        while !rest.is_empty() {
            // SAFETY: reads `rest` alone.
            let n = unsafe { libc::write(file.as_raw_fd(), rest.as_ptr().cast(), rest.len()) };
            rest = &rest[check(n as i64, "write") as usize..];
        }
        let own = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
        // SAFETY: C strings and an open descriptor.
        let linked = unsafe {
            libc::linkat(
                libc::AT_FDCWD,
                own.as_ptr(),
                self.0.as_raw_fd(),
                name.as_ptr(),
                libc::AT_SYMLINK_FOLLOW,
            )
        };
        check(linked.into(), "linkat");
    }

    pub fn unlink(&self, name: &CStr) {
        // SAFETY: a C string and an open descriptor.
        check(unsafe { libc::unlinkat(self.0.as_raw_fd(), name.as_ptr(), 0) }.into(), "unlinkat");
    }
}

/// Gives a file another modification time, so that it is no longer known to be as it was written.
pub fn touch(path: &Path) {
    let file = std::fs::File::open(path).unwrap();
    file.set_modified(std::time::SystemTime::now()).unwrap();
}

/// Frees what a file takes on disk, and leaves it there. ext4 looks past each inode that was removed in the last minutes when it
/// makes a file: after some thousand, making one took 300 µs in place of 10, and that is all that would be measured.
pub fn empty(path: &Path) {
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::File::options().write(true).truncate(true).open(path).unwrap();
}

/// The wrapping sum of all words: a read of everything that a compiler vectorises.
pub fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let total = words.iter().fold(0u64, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)));
    rest.iter().fold(total, |sum, byte| sum.wrapping_add((*byte).into()))
}
