//! Sections as they are recorded.

use super::*;

#[test]
fn a_kernel_whose_checks_do_not_all_pass_is_missed() {
    let text = "| KERNEL | VERDICT | A | B |\n| --- | --- | --- | --- |\n| 6.1 | ok, 27 s | ok | – |\n| 6.2 | ok, 3 s | ok | NO |\n\
                | 6.3 | no verdict | – | – |\n";
    let all = kernels(text);
    let good: Vec<_> = all.iter().map(|outcome| outcome.good).collect();
    assert_eq!(good, [Some(true), Some(false), Some(false)]);
    assert_eq!(all[0].kernel.as_deref(), Some("6.1"));
    assert_eq!(all[0].figure, "1 of 1 checks, 27 s");
    assert_eq!(all[2].figure, "0 of 0 checks, no verdict");
}

#[test]
fn live_tests_of_a_kernel_count_as_its_checks_do() {
    let text = "| KERNEL | VERDICT | CHECKS | LIVE TESTS | LEFT OUT |\n| --- | --- | --- | --- | --- |\n\
                | 5.10 | ok, 4 s | 2 of 2 | – | – |\n| 6.1 | ok, 900 s | 9 of 9 | 111 of 111 | 6 |\n\
                | 6.2 | FAILED | 9 of 9 | 110 of 111 | 6 |\n";
    let all = kernels(text);
    let good: Vec<_> = all.iter().map(|outcome| outcome.good).collect();
    assert_eq!(good, [Some(true), Some(true), Some(false)]);
    assert_eq!(all[0].figure, "2 of 2 checks, 4 s");
    assert_eq!(all[1].figure, "9 of 9 checks, 111 of 111 live tests, 900 s");
}

#[test]
fn figures_are_held_against_their_goals() {
    let text = "runqlat: 341 ns\nratio: 0.72 (0.9 so; the goal is 0.50 or less)\nIt costs +222 ns more (the goal is 1000 ns or less).\n";
    let all = goals(text);
    assert_eq!((all[0].good, all[1].good), (Some(false), Some(true)));
    assert_eq!(all[0].what.as_deref(), Some("runqlat: 341 ns"));
    assert_eq!(all[1].figure, "It costs +222 ns more; the goal is 1000 ns");
}

#[test]
fn one_disagreement_is_enough() {
    let text =
        |last: &str| format!("| a | agrees |\n| --- | --- |\n| x | yes |\n| y | {last} |\n\n- reasons\n");
    assert_eq!(agreement(&text("yes"))[0].good, Some(true));
    let missed = &agreement(&text("NO"))[0];
    assert_eq!(
        (missed.good, missed.figure.as_str()),
        (Some(false), "1 of 2 figures agree")
    );
    assert!(agreement("nothing").is_empty() && sentence("it grows: x").is_empty());
}

#[test]
fn scrapes_and_looks_have_goals_where_the_design_has() {
    let text = "| load | e | s | p |\n| - | - | - | - |\n| l | procprobe | 1 ms | – |\n| l | process-exporter, threads | 9 | 1/49 |\n\
                | l | node_exporter | 9 | 1/2 |\n";
    let good: Vec<_> = scrapes(text).iter().map(|outcome| outcome.good).collect();
    assert_eq!(good, [Some(false), None]);
    let text = "| t | l | w |\n| - | - | - |\n| 1122 | 99.0 ms | 99.0 ms |\n| 10124 | 5.3 ms | 15.1 ms |\n";
    let good: Vec<_> = looks(text).iter().map(|outcome| outcome.good).collect();
    assert_eq!(good, [None, Some(false)]);
}

#[test]
fn a_section_says_where_it_comes_from() {
    let page = "x\n<!-- begin: a -->\n\n`cargo xtask a --b` on a machine with 2 CPUs (X, Y), Linux 6.1.2, 2026-01-02:\n\n<!-- end: a -->\n";
    let origin = part(page, "a").and_then(Origin::of).unwrap();
    assert_eq!(
        (origin.command, origin.kernel, origin.date),
        ("cargo xtask a --b", "6.1.2", "2026-01-02")
    );
    assert!(part(page, "b").is_none());
}
