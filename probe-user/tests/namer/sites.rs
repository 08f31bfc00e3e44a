//! What is said of a place in a file, of programs as linkers write them, as far as it matters here.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use probe_user::namer::protocol::{Answer, NAME, Question, SiteAnswer, WireLibrary};

use super::{namer, open};

const BASE: u64 = 0x40_0000;
const LOAD: u32 = 1;
const PROGBITS: u32 = 1;
const SYMTAB: u32 = 2;
const STRTAB: u32 = 3;
const FUNCTION: u8 = 2;
const VARIABLE: u8 = 1;
/// Where the one function is, and its size.
const CODE: (u64, u64) = (0x100, 0x40);

/// A section: name, type, number of the section it is linked to, how many bytes of nothing come first,
/// content.
type Section<'a> = (&'a str, u32, u32, u64, &'a [u8]);

/// A static program that is mapped at [`BASE`] as a whole.
fn write(path: &Path, sections: &[Section<'_>]) {
    let names: Vec<u8> = sections.iter().flat_map(|(name, ..)| named(name)).collect();
    let mut all = vec![("", 0, 0, 0, &[][..])];
    all.extend(sections);
    all.push((".shstrtab", STRTAB, 0, 0, &names));
    let file = File::create(path).expect("a file");
    let mut headers = Vec::new();
    // Name 0 is that of the first section: the table of names needs none of its own, nor does the empty one.
    let (mut at, mut name) = (0x200_u64, 0_u32);
    for (number, (text, kind, link, hole, content)) in all.iter().enumerate() {
        file.write_all_at(content, at + hole).expect("writing it");
        let size = hole + content.len() as u64;
        let is_named = number > 0 && number < all.len() - 1;
        headers.extend(if is_named { name } else { names.len() as u32 - 1 }.to_le_bytes());
        headers.extend(kind.to_le_bytes());
        headers.extend([0, BASE + at, at, size].map(u64::to_le_bytes).concat());
        headers.extend([*link, 0].map(u32::to_le_bytes).concat());
        headers.extend(
            [1, 24 * u64::from(*kind == SYMTAB)]
                .map(u64::to_le_bytes)
                .concat(),
        );
        name += if is_named { text.len() as u32 + 1 } else { 0 };
        at += size;
    }
    let mut head = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    head.extend([BASE, 64, at].map(u64::to_le_bytes).concat());
    head.extend([0; 4]);
    let count = all.len() as u16;
    head.extend([64, 56, 1, 64, count, count - 1].map(u16::to_le_bytes).concat());
    head.extend([LOAD, 5].map(u32::to_le_bytes).concat());
    head.extend([0, BASE, BASE, at, at, 4096].map(u64::to_le_bytes).concat());
    file.write_all_at(&head, 0).expect("writing it");
    file.write_all_at(&headers, at).expect("writing it");
}

fn named(name: &str) -> Vec<u8> {
    [name.as_bytes(), b"\0"].concat()
}

/// One symbol; `name` is where its name begins.
fn symbol(name: u32, kind: u8, address: u64, size: u64) -> Vec<u8> {
    let mut bytes = name.to_le_bytes().to_vec();
    bytes.extend([kind, 0, 1, 0]);
    bytes.extend([address, size].map(u64::to_le_bytes).concat());
    bytes
}

/// A program with one function.
fn with_function(directory: &Path, name: &str, hole: u64) -> PathBuf {
    let path = directory.join(format!("function-{}-{hole}", name.len()));
    let table = symbol(hole as u32, FUNCTION, BASE + CODE.0, CODE.1);
    let sections = [
        (".symtab", SYMTAB, 2, 0, &*table),
        (".strtab", STRTAB, 0, hole, &named(name)),
    ];
    write(&path, &sections);
    path
}

fn said(path: &Path, offset: u64) -> SiteAnswer {
    let answer = namer().ask(Question::Sites(vec![offset]), &[open(path).ok()]);
    match answer {
        Some(Answer::Sites(Some(sites))) => sites.into_iter().next().expect("one site"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_static_program_without_symbols_is_known_by_musls_messages() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("program");
    let messages = b"words\0No error information\0Illegal byte sequence\0Domain error\0";
    let library = |sections: &[Section<'_>]| {
        write(&path, sections);
        said(&path, 0x100).library
    };
    let constants = (".rodata", PROGBITS, 0, 12 << 20, &messages[..]);
    assert_eq!(library(&[constants]), WireLibrary::StrippedMusl);
    let interpreter = (".interp", PROGBITS, 0, 0, &b"/lib/ld.so\0"[..]);
    assert_eq!(
        library(&[constants, interpreter]),
        WireLibrary::Other,
        "not static"
    );
    let others = (".rodata", PROGBITS, 0, 0, &messages[..40]);
    assert_eq!(library(&[others]), WireLibrary::Other, "others");
}

/// The names of a large program are not all read; that of one function is.
#[test]
fn who_calls_is_known_however_many_names_there_are() {
    const LOCK: &str = "_ZN3std3sys4sync5mutex5futex5Mutex14lock_contended17h0123456789abcdefE";
    let directory = tempfile::tempdir().expect("a directory");
    for hole in [1, 60 << 20] {
        let path = with_function(directory.path(), LOCK, hole);
        let (inside, behind) = (said(&path, CODE.0 + 0x3f), said(&path, CODE.0 + 0x40));
        assert_eq!((inside.caller.as_deref(), inside.has_symbols), (Some(LOCK), true));
        assert_eq!((behind.caller, behind.has_symbols), (None, true));
    }
    let other = with_function(directory.path(), "main", 60 << 20);
    assert_eq!(said(&other, CODE.0).caller, None);
    let bare = directory.path().join("bare");
    write(&bare, &[(".rodata", PROGBITS, 0, 0, b"words")]);
    assert!(!said(&bare, CODE.0).has_symbols, "nothing is known of it");
}

#[test]
fn names_are_as_long_as_they_may_be() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = with_function(directory.path(), &format!("lock_contended{:_<20000}", ""), 1);
    let caller = said(&path, CODE.0).caller.expect("it waits");
    assert!(caller.starts_with("lock_contended_") && caller.len() <= NAME + '…'.len_utf8());
}

#[test]
fn the_state_of_python_is_told_from_the_place() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("python");
    let told = |address: u64, size: u64| {
        let table = symbol(1, VARIABLE, address, size);
        let sections = [
            (".symtab", SYMTAB, 2, 0, &*table),
            (".strtab", STRTAB, 0, 1, &named("_PyRuntime")),
        ];
        write(&path, &sections);
        said(&path, 0x100).python
    };
    assert_eq!(told(BASE + 0x180, 0x20), Some((0x80, 0xa0)));
    let (start, end) = told(BASE + 0xf0, 0x20).expect("it is told");
    assert_eq!((start.wrapping_add(0x10), end), (0, 0x10), "before the place");
    let (start, end) = told(BASE + 0x180, u64::MAX).expect("it is told");
    assert!(
        start.wrapping_add(BASE) < end.wrapping_add(BASE + 0x100),
        "no sum breaks"
    );
}

/// Of any place in the file, whatever is there.
#[test]
fn the_function_that_waits_at_semaphores_is_told_of_its_program() {
    let directory = tempfile::tempdir().expect("a directory");
    let semaphores = |name| said(&with_function(directory.path(), name, 1), 0).semaphores;
    assert_eq!(semaphores("PGSemaphoreLock").as_deref(), Some("PGSemaphoreLock"));
    assert_eq!(semaphores("PGSemaphoreUnlock"), None);
}
