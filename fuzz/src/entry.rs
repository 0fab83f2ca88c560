//! The input is a file that stands where an entry is looked for, once as it is and once with its checksums set right, which
//! no fuzzer would guess. It is no hit, or one with the checksums of `docs/format.md` and the arrays that another
//! reader of npy files finds in it. With any bit of that flipped it is none.

use std::path::PathBuf;

use npcache_core::{Args, Buffer, Cache, Canonical, Function, Key, Options};
use tempfile::TempDir;
use twox_hash::XxHash3_64;

const TAIL: usize = 192;
const NPY: &[u8] = b"\x93NUMPY";

struct Place {
    _directory: TempDir,
    cache: Cache,
    function: Function,
    args: Canonical,
    key: Key,
    path: PathBuf,
}

thread_local! {
    static PLACE: Place = Place::new();
}

impl Place {
    fn new() -> Place {
        let directory = crate::directory();
        let cache = Options::new().memory_bytes(0).open(directory.path()).unwrap();
        let function = cache.function("f", "1").unwrap();
        let args = Canonical::from_bytes(b"\x82\x81\x18\x2a\xa0");
        let stored = function.call(&args, |out| out.write(&ndarray::Array1::<f64>::ones(1))).unwrap();
        let path = stored.path().unwrap().to_owned();
        // Looked up, so that what is not found below was findable.
        assert_eq!(function.lookup(&args).unwrap().bytes(0), 1f64.to_le_bytes());
        std::fs::remove_file(&path).unwrap();
        let key = Key::new(function.identity(), &args);
        Place { _directory: directory, cache, function, args, key, path }
    }

    fn check(&self, bytes: &[u8]) {
        std::fs::write(&self.path, bytes).unwrap();
        if let Some(hit) = self.function.lookup(&self.args) {
            judge(bytes, &hit, &self.key);
        }
        // These read the metadata.
        self.cache.explain(&self.function, &self.args).unwrap();
        let mut other = Args::new();
        other.add_int(43).unwrap();
        self.cache.explain(&self.function, &other.finish().unwrap()).unwrap();
    }
}

pub fn run(data: &[u8]) {
    PLACE.with(|place| {
        place.check(data);
        if let Some(mut mended) = mended(data, &place.key) {
            place.check(&mended);
            let bit = XxHash3_64::oneshot(data) as usize % (8 * mended.len());
            mended[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&place.path, &mended).unwrap();
            assert!(place.function.lookup(&place.args).is_none(), "bit {bit} was not checked");
        }
    });
}

/// The input with the key, the lengths and the checksums that an entry of these records, names and metadata has; `None`
/// where it has no tail or its lengths do not fit.
fn mended(data: &[u8], key: &Key) -> Option<Vec<u8>> {
    let mut bytes = data.to_vec();
    let len = bytes.len();
    let at = len.checked_sub(TAIL)?;
    let number = |bytes: &[u8], from: usize, width: usize| {
        bytes[at + from..][..width].iter().rev().fold(0usize, |number, byte| number << 8 | usize::from(*byte))
    };
    let (header, names, metadata) = (number(&bytes, 32, 4), number(&bytes, 36, 4), number(&bytes, 40, 8));
    let body = at.checked_sub(names.checked_add(metadata)?)?;
    let footer = body.checked_sub(header)?;
    let (mut headers_hash, mut data_hash) = (0, 0);
    for (header, data) in records(&bytes[..footer]) {
        headers_hash = XxHash3_64::oneshot_with_seed(headers_hash, header);
        data_hash = XxHash3_64::oneshot_with_seed(data_hash, data);
    }
    headers_hash = XxHash3_64::oneshot_with_seed(headers_hash, &bytes[footer..body]);
    let names_hash = XxHash3_64::oneshot(&bytes[body..at]);
    let mut put = |from: usize, field: &[u8]| bytes[at + from..][..field.len()].copy_from_slice(field);
    put(16, &(len as u64).to_le_bytes());
    put(24, &(footer as u64).to_le_bytes());
    put(48, key.as_bytes());
    put(112, &headers_hash.to_le_bytes());
    put(120, &data_hash.to_le_bytes());
    put(128, &names_hash.to_le_bytes());
    let hash = XxHash3_64::oneshot(&bytes[at..len - 8]);
    bytes[len - 8..].copy_from_slice(&hash.to_le_bytes());
    Some(bytes)
}

/// Header and data of each record, told by the magic numbers alone: also of records that no reader takes.
fn records(bytes: &[u8]) -> Vec<(&[u8], &[u8])> {
    let starts: Vec<usize> =
        (0..bytes.len()).filter(|start| bytes[*start..].starts_with(NPY)).chain([bytes.len()]).collect();
    let record = |pair: &[usize]| {
        let record = &bytes[pair[0]..pair[1]];
        let (preamble, len) = match record.get(6..12) {
            Some([1, _, a, b, ..]) => (10, usize::from(u16::from_le_bytes([*a, *b]))),
            Some([_, _, a, b, c, d]) => (12, u32::from_le_bytes([*a, *b, *c, *d]) as usize),
            _ => (0, record.len()),
        };
        record.split_at((preamble + len).min(record.len()))
    };
    starts.windows(2).map(record).collect()
}

fn judge(bytes: &[u8], hit: &Buffer, key: &Key) {
    let records = records(bytes);
    // Data may happen to hold a magic number.
    if records.len() == hit.arrays().len() + 1 {
        assert!(mended(bytes, key).is_some_and(|mended| mended == bytes), "a checksum was not checked");
    }
    let mut position = 0;
    for (i, array) in hit.arrays().iter().enumerate() {
        let mut rest = &bytes[position..];
        let Ok(header) = npyz::NpyHeader::from_reader(&mut rest) else {
            // It knows fewer element types.
            return;
        };
        let start = bytes.len() - rest.len();
        assert_eq!(start % 64, 0, "the data is not aligned");
        assert_eq!(hit.bytes(i), &bytes[start..start + array.nbytes()]);
        assert!(array.shape().iter().map(|n| *n as u64).eq(header.shape().iter().copied()));
        assert_eq!(array.is_fortran_order(), header.order() == npyz::Order::Fortran);
        if let npyz::DType::Plain(descr) = header.dtype() {
            let (ours, mut theirs) = (array.descr().as_str(), descr.to_string());
            if ours.starts_with('|') {
                // What has no byte order may be written with one.
                theirs.replace_range(..1, "|");
            }
            assert_eq!(ours, theirs);
        }
        let elements: i64 = array.shape().iter().product();
        assert_eq!(elements as u64 * array.descr().itemsize() as u64, array.nbytes() as u64);
        position = start + array.nbytes();
    }
}
