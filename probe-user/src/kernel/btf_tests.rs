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

#[test]
fn structures_that_contain_each_other_are_an_error_at_once() {
    // An anonymous structure with 60,000 anonymous members of its own type: nothing that a walk ever ends in.
    let mut types = vec![0, KIND_STRUCT << 24 | 0xea60, 8];
    types.extend([0, 1, 0].repeat(60_000));
    types.extend([1, KIND_STRUCT << 24 | 1, 8, 0, 1, 0]);
    let bytes = blob(&types, b"\0out\0");
    let btf = Btf::parse(&bytes).unwrap();
    let error = btf.offset_of("out", "x").unwrap_err();
    assert!(error.to_string().contains("contain each other"), "{error}");
}

#[test]
fn offsets_that_do_not_add_up_are_an_error() {
    let structure = KIND_STRUCT << 24 | 1;
    let types = [
        [0, structure, 8, 5, 0, u32::MAX].as_slice(),
        &[1, structure, 8, 0, 1, u32::MAX],
    ]
    .concat();
    let bytes = blob(&types, b"\0out\0x\0");
    let error = Btf::parse(&bytes).unwrap().bit_of("out", "x").unwrap_err();
    assert!(error.to_string().contains("inside its structure"), "{error}");
}

/// Asks everything that loading asks.
fn ask_everything(btf: &Btf<'_>) {
    for path in ["x", "deep.b", "pid", "se.exec_start", "thread_pid"] {
        for structure in ["out", "in", "task_struct"] {
            let _ = btf.bit_of(structure, path);
            let _ = btf.offset_of(structure, path);
            let _ = btf.size_of(structure);
        }
    }
    let _ = btf.has_enumerator("BPF_FUNC_ktime_get_ns");
    let _ = btf.tracepoint_arguments("sched_switch");
}

proptest! {
    #[test]
    fn never_panics_on_types_of_every_kind(words in proptest::collection::vec(word(), 0..64)) {
        let bytes = blob(&words, b"\0out\0in\0x\0btf_trace_sched_switch\0");
        if let Ok(btf) = Btf::parse(&bytes) {
            ask_everything(&btf);
        }
    }
}

/// Words that make up types: kinds with few members, small names and references, and noise.
fn word() -> impl Strategy<Value = u32> {
    prop_oneof![
        (0_u32..20, 0_u32..4, any::<bool>())
            .prop_map(|(kind, vlen, flag)| u32::from(flag) << 31 | kind << 24 | vlen),
        0_u32..12,
        any::<u32>(),
    ]
}

/// The kernel that runs, damaged: every path that loading takes, on a blob of megabytes.
#[test]
fn never_panics_on_the_damaged_types_of_this_kernel() {
    let blob = match std::fs::read(crate::kernel::load::BTF_PATH) {
        Ok(blob) => blob,
        Err(error) => {
            let required = std::env::var("PROCPROBE_LIVE").is_ok_and(|live| live == "required");
            assert!(!required, "this kernel's types have to be there: {error}");
            eprintln!("not run: damaged types of this kernel: {error}");
            return;
        }
    };
    let mut runner = proptest::test_runner::TestRunner::new(proptest::test_runner::Config::with_cases(24));
    let damage = proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..2000);
    let outcome = runner.run(&(damage, any::<bool>()), |(damage, head)| {
        let mut bytes = blob.clone();
        for (at, byte) in damage {
            // Half of the cases in the first types, which everything refers to.
            let range = if head {
                bytes.len().min(100_000)
            } else {
                bytes.len()
            };
            bytes[24 + at.index(range - 24)] = byte;
        }
        if let Ok(btf) = Btf::parse(&bytes) {
            ask_everything(&btf);
            let _ = crate::kernel::offsets::resolve(&btf);
        }
        Ok(())
    });
    outcome.unwrap();
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
