//! Tests of the BTF walker: a hand-made blob, and hostile ones.

use proptest::prelude::*;

use super::*;

/// Puts a blob together: a header, types, strings.
fn blob(types: &[u32], strings: &[u8]) -> Vec<u8> {
    let type_bytes: Vec<u8> = types.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let mut out = Vec::new();
    out.extend(MAGIC.to_ne_bytes());
    out.extend([1, 0]);
    for word in [
        24,
        0,
        u32::try_from(type_bytes.len()).unwrap(),
        u32::try_from(type_bytes.len()).unwrap(),
        u32::try_from(strings.len()).unwrap(),
    ] {
        out.extend(word.to_ne_bytes());
    }
    out.extend(type_bytes);
    out.extend(strings);
    out
}

/// ```c
/// struct in { int a; int b; };           // type 2
/// typedef struct in in_t;                // type 3
/// struct out { int x; struct { in_t deep; int y; }; };  // types 4 (anonymous), 5
/// ```
fn sample() -> Vec<u8> {
    // strings: 1 "int", 5 "in", 8 "a", 10 "b", 12 "in_t", 17 "out", 21 "x", 23 "y", 25 "deep"
    let strings = b"\0int\0in\0a\0b\0in_t\0out\0x\0y\0deep\0";
    let structure = |vlen: u32| KIND_STRUCT << 24 | vlen;
    let types = [
        [1, KIND_INT << 24, 4, 0].as_slice(),
        &[5, structure(2), 8, 8, 1, 0, 10, 1, 32],
        &[12, KIND_TYPEDEF << 24, 2],
        &[0, structure(2), 12, 25, 3, 0, 23, 1, 64],
        &[17, structure(2), 16, 21, 1, 0, 0, 4, 32],
    ]
    .concat();
    blob(&types, strings)
}

#[test]
fn finds_members_through_typedefs_and_anonymous_structures() {
    let bytes = sample();
    let btf = Btf::parse(&bytes).unwrap();
    assert_eq!(btf.offset_of("out", "x"), Ok(0));
    assert_eq!(btf.offset_of("out", "y"), Ok(12));
    assert_eq!(btf.offset_of("out", "deep.b"), Ok(8));
    assert_eq!(btf.size_of("out"), Ok(16));
}

#[test]
fn names_what_is_missing() {
    let bytes = sample();
    let btf = Btf::parse(&bytes).unwrap();
    let no_member = btf.offset_of("out", "deep.c").unwrap_err();
    assert_eq!(
        no_member.to_string(),
        "this kernel's struct out has no member deep.c"
    );
    assert_eq!(
        btf.size_of("nowhere").unwrap_err().to_string(),
        "this kernel has no struct nowhere"
    );
    assert!(btf.tracepoint_arguments("sched_switch").is_err());
}

proptest! {
    #[test]
    fn never_panics_on_damaged_blobs(position in 0_usize..180, byte: u8, cut in 0_usize..200) {
        let mut bytes = sample();
        if let Some(target) = bytes.get_mut(position) {
            *target = byte;
        }
        bytes.truncate(cut.max(1));
        if let Ok(btf) = Btf::parse(&bytes) {
            let _ = btf.offset_of("out", "deep.b");
            let _ = btf.size_of("in");
            let _ = btf.tracepoint_arguments("x");
        }
    }

    #[test]
    fn never_panics_on_noise(noise in proptest::collection::vec(any::<u8>(), 0..256)) {
        let _ = Btf::parse(&noise);
        let mut framed = blob(&[], b"\0a\0");
        framed.extend(noise);
        let _ = Btf::parse(&framed);
    }
}
