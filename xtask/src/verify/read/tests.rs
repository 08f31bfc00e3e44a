//! Sections as they are recorded.

use super::*;

#[test]
fn a_kernel_whose_checks_and_live_tests_do_not_all_pass_is_missed() {
    let text = "| KERNEL | VERDICT | CHECKS | LIVE TESTS | LEFT OUT |\n| --- | --- | --- | --- | --- |\n\
                | 5.10 | ok, 4 s | 2 of 2 | – | – |\n| 6.1 | ok, 900 s | 9 of 9 | 111 of 111 | 6 |\n\
                | 6.2 | FAILED | 9 of 9 | 110 of 111 | 6 |\n| 6.3 | no verdict | 0 of 0 | – | – |\n";
    let all = kernels(text);
    let good: Vec<_> = all.iter().map(|outcome| outcome.good).collect();
    assert_eq!(good, [Some(true), Some(true), Some(false), Some(false)]);
    assert_eq!(all[0].kernel.as_deref(), Some("5.10"));
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

fn verdicts(outcomes: &[Outcome]) -> Vec<Option<bool>> {
    outcomes.iter().map(|outcome| outcome.good).collect()
}

#[test]
fn a_scrape_has_goals_for_its_part_its_memory_and_its_cpu_time() {
    let text = "| load | e | s | p | c | k | r |\n| - | - | - | - | - | - | - |\n\
                | l | procprobe | 1 ms | – | 1 ms | 9 kB | 41 MiB |\n\
                | l | process-exporter, threads | 9 | 1/49 | 1 | 1 | 1 |\n| l | node_exporter | 9 | 1/2 | 1 | 1 | 1 |\n\n\
                The agent itself takes 0.70 % of one core at 1000 forks a second (the goal is 1 % or less).\n";
    let all = scrapes(text);
    assert_eq!(
        verdicts(&all),
        [Some(false), Some(false), None, Some(true)],
        "{all:?}"
    );
}

#[test]
fn looks_have_goals_for_ten_thousand_threads_and_memory_for_any_number() {
    let text = "| t | l | w | s | k | r |\n| - | - | - | - | - | - |\n| 1122 | 99.0 ms | 99.0 ms | 1 ms | 1536 B | 9 MiB |\n\
                | 10124 | 5.3 ms | 15.1 ms | 1 ms | 1537 B | 9 MiB |\n";
    let all = looks(text);
    assert_eq!(
        verdicts(&all),
        [None, Some(true), Some(false), Some(false)],
        "{all:?}"
    );
}

#[test]
fn programs_beside_the_agent_are_not_judged() {
    let text = "| p | a | b | c | d | m | l | s |\n| - | - | - | - | - | - | - | - |\n\
                | gcc | 1 s | 1 s | 1 s | 1 s | +1.5 % | +2.4 % | 9.9 % |\n";
    let all = slowdown(text);
    assert_eq!(verdicts(&all), [None]);
    assert_eq!(all[0].figure, "+1.5 %, of the least +2.4 %");
}
