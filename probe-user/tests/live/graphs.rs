//! Drawings of who waits on whom: graphviz renders them, and Mermaid's are well-formed, whatever threads are called.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::workload::Workload;
use crate::common::{Live, tools};

/// A deadlock of three threads, once with plain names and once with such that could break a drawing.
const SCENES: [&[&str]; 2] = [&["cycle", "3"], &["cycle-of-the-hostile"]];

fn draw(live: &Live, scene: &Workload, format: &str) -> String {
    let pid = scene.fact("pid").to_string();
    live.text(&["locks", "--for", "300ms", "--pid", &pid, "-o", format])
}

/// Lets graphviz render a drawing, which it has to do without complaint.
fn render(dot: &Path, drawing: &str) -> String {
    let mut child = Command::new(dot)
        .arg("-Tsvg")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starting dot");
    let mut input = child.stdin.take().expect("its input is a pipe");
    input.write_all(drawing.as_bytes()).expect("writing to dot");
    drop(input);
    let output = child.wait_with_output().expect("waiting for dot");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.trim().is_empty(),
        "{said}: {drawing}"
    );
    String::from_utf8(output.stdout).expect("a picture in UTF-8")
}

#[test]
fn graphviz_renders_who_waits_on_whom() {
    let Some(live) = Live::begin("locks as a graph") else {
        return;
    };
    let Some(dot) = tools::find("rendering by graphviz", "dot") else {
        return;
    };
    for arguments in SCENES {
        let scene = Workload::start(arguments);
        let drawing = draw(&live, &scene, "dot");
        assert!(drawing.trim_start().starts_with("digraph"), "{drawing}");
        let picture = render(&dot, &drawing);
        assert!(
            picture.contains("<svg") && picture.contains("</svg>"),
            "{picture}"
        );
        let edges = picture.matches("class=\"edge\"").count();
        // Each waits for the next, straight or by way of the lock; nothing else waits, and no name made another one.
        assert!([3, 6].contains(&edges), "{edges} edges: {drawing}");
        for place in 0..3 {
            let tid = scene.fact(&format!("tid{place}")).to_string();
            assert!(picture.contains(&tid), "{tid} is in the picture: {drawing}");
        }
    }
}

/// The parts of a line between the quotes, and what is left without them.
fn unquote(line: &str) -> (Vec<&str>, String) {
    let parts: Vec<&str> = line.split('"').collect();
    assert_eq!(parts.len() % 2, 1, "quotes come in pairs: {line}");
    let quoted = parts.iter().skip(1).step_by(2).copied().collect();
    let rest: Vec<&str> = parts.iter().step_by(2).copied().collect();
    (quoted, rest.join(""))
}

/// The arrows of a Mermaid flowchart, which is checked for all that could go wrong with names: everything in them stands
/// in quotes, and outside there are plain identifiers, brackets in pairs, and arrows.
fn arrows(drawing: &str) -> usize {
    let mut lines = drawing.lines().filter(|line| !line.trim().is_empty());
    let head = lines.next().expect("a first line").trim();
    assert!(
        ["flowchart ", "graph "].iter().any(|word| head.starts_with(word)),
        "{drawing}"
    );
    let mut arrows = 0;
    for line in lines {
        let (quoted, rest) = unquote(line);
        for text in quoted {
            assert!(!text.contains(['<', '>']) || text.contains("<br"), "{line}");
        }
        let styling = ["classDef ", "class ", "style ", "linkStyle ", "%%"];
        if styling.iter().any(|word| rest.trim_start().starts_with(word)) {
            continue;
        }
        for (open, close) in [('[', ']'), ('(', ')'), ('{', '}')] {
            assert_eq!(
                rest.matches(open).count(),
                rest.matches(close).count(),
                "brackets in pairs: {line}"
            );
        }
        let known =
            |character: char| character.is_ascii_alphanumeric() || " \t_[](){}|-=.>:;&".contains(character);
        assert!(rest.chars().all(known), "{line}");
        arrows += ["-->", "==>", ".->"]
            .iter()
            .map(|arrow| rest.matches(arrow).count())
            .sum::<usize>();
        let words: BTreeSet<&str> = rest
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .collect();
        assert!(
            rest.trim() == "end" || !words.contains("end"),
            "`end` is a keyword: {line}"
        );
    }
    arrows
}

#[test]
fn mermaid_of_who_waits_on_whom_is_well_formed() {
    let Some(live) = Live::begin("locks in Mermaid") else {
        return;
    };
    for arguments in SCENES {
        let scene = Workload::start(arguments);
        let drawing = draw(&live, &scene, "mermaid");
        let arrows = arrows(&drawing);
        assert!([3, 6].contains(&arrows), "{arrows} arrows: {drawing}");
        for place in 0..3 {
            let tid = scene.fact(&format!("tid{place}")).to_string();
            assert!(drawing.contains(&tid), "{tid} is in it: {drawing}");
        }
    }
}

#[test]
fn a_drawing_of_nothing_is_one_too() {
    let Some(live) = Live::begin("drawing of nothing") else {
        return;
    };
    let scene = Workload::start(&["sleeper"]);
    assert_eq!(arrows(&draw(&live, &scene, "mermaid")), 0);
    if let Some(dot) = tools::find("rendering by graphviz", "dot") {
        let picture = render(&dot, &draw(&live, &scene, "dot"));
        assert!(!picture.contains("class=\"edge\""), "{picture}");
    }
}
