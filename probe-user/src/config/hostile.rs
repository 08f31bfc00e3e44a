//! Property tests: whatever a configuration file says, it is read, or there is one line about it that can be shown.

use std::fs;

use proptest::prelude::*;

use super::*;

const SHIPPED: &str = include_str!("../../../xtask/dist/procprobe.toml");
const SHIPPED_WEB: &str = include_str!("../../../xtask/dist/web.yml");

/// What a line says that is commented out: `#key`, where prose has a blank after its mark.
fn uncommented(line: &str) -> &str {
    let said = line.strip_prefix('#');
    said.filter(|said| said.starts_with(|first: char| !" #".contains(first)))
        .unwrap_or(line)
}

/// A file with everything switched on, some of whose bytes were replaced by things that parsers, terminals and lines dislike.
fn damaged(shipped: &'static str) -> impl Strategy<Value = String> {
    let everything: Vec<&str> = shipped.lines().map(uncommented).collect();
    let everything = everything.join("\n");
    let piece = prop_oneof![
        Just("\x1b[31m".to_owned()),
        Just("\"\n[[".to_owned()),
        Just("\u{202e}\u{85}".to_owned()),
        Just("-99999999999999999999".to_owned()),
        Just("&a [*a, *a]".to_owned()),
        Just("[".repeat(500)),
        "\\PC{0,8}",
        any::<char>().prop_map(String::from),
    ];
    let damage = (any::<prop::sample::Index>(), 0..12_usize, piece);
    (Just(everything), proptest::collection::vec(damage, 0..4)).prop_map(|(text, damages)| {
        let mut text: Vec<char> = text.chars().collect();
        for (place, length, piece) in damages {
            let begin = place.index(text.len());
            let end = (begin + length).min(text.len());
            text.splice(begin..end, piece.chars());
        }
        text.into_iter().collect()
    })
}

/// One line, which names the file, and which a terminal shows as it is.
fn can_be_shown(complaint: &Complaint) -> bool {
    let line = complaint.to_string();
    let is_odd = |letter: char| letter.is_control() || ('\u{202a}'..='\u{202e}').contains(&letter);
    line.contains("p.toml") && !line.contains(is_odd)
}

proptest! {
    #[test]
    fn a_damaged_file_is_read_or_told_about(text in damaged(SHIPPED)) {
        if let Err(complaint) = Config::parse(Path::new("p.toml"), &text) {
            prop_assert!(can_be_shown(&complaint), "{complaint:?}");
        }
    }

    #[test]
    fn so_is_a_damaged_web_file(text in damaged(SHIPPED_WEB)) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("p.toml");
        fs::write(&path, &text).expect("writing a file");
        if let Err(complaint) = web::WebConfig::read(&path) {
            prop_assert!(can_be_shown(&complaint), "{complaint:?}");
        }
    }
}
