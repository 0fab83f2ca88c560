//! Which build of the code an address belongs to: the `NT_GNU_BUILD_ID` note of its ELF object, a hash that the
//! linker makes of what it wrote.

use std::ffi::{CStr, OsStr, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::digest::hex;
use crate::error::{Error, Result};

/// The object that holds an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Object {
    /// As the loader names it; empty for the program itself.
    pub(crate) path: PathBuf,
    build_id: Option<Vec<u8>>,
}

impl Object {
    /// Its version for keys: `build-id:` and hexadecimal digits.
    pub(crate) fn version(&self) -> Result<String> {
        let Some(id) = &self.build_id else {
            let object = if self.path.as_os_str().is_empty() { Path::new("the program") } else { &self.path };
            return Err(Error::BuildId(format!(
                "{} has no build ID that could serve as the function's version; link it with -Wl,--build-id, or give a \
                 version",
                object.display()
            )));
        };
        Ok(format!("build-id:{}", hex(id)))
    }

    /// Its file's name without directories; empty for the program itself.
    pub(crate) fn file_name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// The loaded object that holds `address`.
pub(crate) fn object_of(address: *const c_void) -> Result<Object> {
    if let Some(name) = stub_of(address) {
        return Err(Error::BuildId(format!(
            "the address of `{name}`, which is in a library, is that of a stub in the program, as in programs linked with \
             -no-pie, and so says nothing of the library's build; link the program with -pie, or give a version"
        )));
    }
    let mut search = Search { address: address as usize, found: None };
    // SAFETY: `visit` is called with the loader's own description of each object, and with `search`, during this call.
    unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut search).cast()) };
    search.found.ok_or_else(|| {
        Error::BuildId(
            "the function is in no loaded program or library (a callback made at run time, as ctypes and nested \
             functions make them, or compiled code of an interpreter), so it has no build ID; give a version"
                .to_owned(),
        )
    })
}

/// The function that the program has a stub for at `address`: its address as an undefined symbol of the program's, which
/// a program with fixed addresses has instead of the library's own.
fn stub_of(address: *const c_void) -> Option<String> {
    unsafe extern "C" {
        fn dladdr1(
            address: *const c_void,
            info: *mut libc::Dl_info,
            symbol: *mut *const libc::Elf64_Sym,
            flags: libc::c_int,
        ) -> libc::c_int;
    }
    const RTLD_DL_SYMENT: libc::c_int = 1;
    const SHN_UNDEF: u16 = 0;
    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    let mut symbol = std::ptr::null();
    // SAFETY: both are written by the call, and the address is only compared.
    let found = unsafe { dladdr1(address, info.as_mut_ptr(), &raw mut symbol, RTLD_DL_SYMENT) };
    // SAFETY: zeros are a Dl_info.
    let info = unsafe { info.assume_init() };
    // SAFETY: NULL or a symbol of a loaded object, which stays as long as that.
    let symbol = unsafe { symbol.as_ref() }.filter(|_| found != 0)?;
    if symbol.st_shndx != SHN_UNDEF || info.dli_saddr.cast_const() != address || info.dli_sname.is_null() {
        return None;
    }
    // SAFETY: the loader's name is a C string.
    Some(unsafe { CStr::from_ptr(info.dli_sname) }.to_string_lossy().into_owned())
}

struct Search {
    address: usize,
    found: Option<Object>,
}

const NT_GNU_BUILD_ID: u32 = 3;

unsafe extern "C" fn visit(info: *mut libc::dl_phdr_info, _size: usize, data: *mut c_void) -> i32 {
    // SAFETY: `dl_iterate_phdr` passes a valid description, and the pointer that `object_of` gave it.
    let (info, search) = unsafe { (&*info, &mut *data.cast::<Search>()) };
    // SAFETY: the loader keeps `dlpi_phnum` headers there.
    let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum as usize) };
    let start = |header: &libc::Elf64_Phdr| (info.dlpi_addr as usize).wrapping_add(header.p_vaddr as usize);
    let holds = |header: &&libc::Elf64_Phdr| {
        header.p_type == libc::PT_LOAD && search.address.wrapping_sub(start(header)) < header.p_memsz as usize
    };
    if !headers.iter().any(|header| holds(&header)) {
        return 0;
    }
    let notes = headers.iter().filter(|header| header.p_type == libc::PT_NOTE).map(|header| {
        // SAFETY: a note segment is part of a loaded one, which stays mapped while the loader's lock is held.
        unsafe { std::slice::from_raw_parts(start(header) as *const u8, header.p_memsz as usize) }
    });
    let build_id = notes.filter_map(find_build_id).next().map(<[u8]>::to_vec);
    // SAFETY: the loader's name is a C string.
    let name = unsafe { CStr::from_ptr(info.dlpi_name) };
    search.found = Some(Object { path: OsStr::from_bytes(name.to_bytes()).into(), build_id });
    1
}

/// Walks the notes of a segment: name length, content length, type, name and content padded to four bytes each.
fn find_build_id(mut notes: &[u8]) -> Option<&[u8]> {
    loop {
        let (header, rest) = notes.split_first_chunk::<12>()?;
        let word = |i: usize| u32::from_le_bytes(header[4 * i..][..4].try_into().expect("four bytes"));
        let (name_len, content_len) = (word(0) as usize, word(1) as usize);
        let (name, rest) = rest.split_at_checked(name_len.checked_next_multiple_of(4)?)?;
        let content = rest.get(..content_len)?;
        if word(2) == NT_GNU_BUILD_ID && name == b"GNU\0" && !content.is_empty() {
            return Some(content);
        }
        notes = rest.get(content_len.checked_next_multiple_of(4)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_and_the_c_library_are_found_and_differ() {
        let own = object_of(object_of as *const c_void).unwrap();
        let libc = object_of(libc::getpid as *const c_void).unwrap();
        assert_eq!((own.file_name(), libc.file_name()), (String::new(), "libc.so.6".to_owned()));
        let version = libc.version().unwrap();
        assert!(version.len() > "build-id:".len() + 16 && own.version().ok() != Some(version));
    }

    #[test]
    fn an_address_outside_every_object_has_none() {
        let heap = Box::new(0u8);
        for address in [std::ptr::null(), std::ptr::from_ref(&*heap).cast(), usize::MAX as *const c_void] {
            assert!(object_of(address).unwrap_err().to_string().contains("give a version"));
        }
    }

    #[test]
    fn damaged_notes_have_no_build_id() {
        let note = [4, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, b'G', b'N', b'U', 0, 0xab, 0xcd, 0, 0];
        assert_eq!(find_build_id(&note), Some(&[0xab, 0xcd][..]));
        for len in 0..18 {
            assert_eq!(find_build_id(&note[..len]), None);
        }
        assert_eq!(find_build_id(&[0xff; 40]), None);
    }
}
