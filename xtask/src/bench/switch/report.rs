//! The table of a run, and the ratios that the goals are about.

use std::fmt::Write;

use super::super::stats::{self, Cost};

pub const PROCPROBE: &str = "procprobe";
pub const RUNQLAT: &str = "runqlat";
/// The program that does nothing.
pub const NOTHING: &str = "nothing";
/// The others with `--all`; one program each, whose name begins as [`OTHER_PROGRAM`].
pub const OTHERS: [&str; 2] = ["cpudist", "offcputime"];
pub const OTHER_PROGRAM: &str = "sched_switch";
/// A context switch costs one run of each: somebody is woken, then switched to.
pub const OURS: [&str; 2] = ["sched_switch", "sched_waking"];
pub const THEIRS: [&str; 2] = ["sched_switch", "sched_wakeup"];

type Costs = (&'static str, Vec<Cost>);

/// Beside runqlat, which shares the switches with nobody else: the table of one placement of the pair, and the ratio.
pub fn beside_runqlat(placement: &str, all: &[Costs]) -> String {
    let ratio = against_runqlat(placement, all).unwrap_or_else(|why| format!("no ratio: {why}\n"));
    format!("the pair {placement}, beside runqlat:\n{}{ratio}", table(all))
}

/// The same beside all of the tools together.
pub fn beside_all(placement: &str, all: &[Costs]) -> String {
    let ratio =
        against_all(placement, all).unwrap_or_else(|| "no ratio: not all of the programs ran\n".to_owned());
    format!(
        "the pair {placement}, beside the three tools:\n{}{ratio}",
        table(all)
    )
}

fn table(all: &[Costs]) -> String {
    let mut text = format!(
        "{:<12} {:<24} {:>12} {:>10}\n",
        "who", "program", "runs", "ns/run"
    );
    for (who, cost) in all
        .iter()
        .flat_map(|(who, costs)| costs.iter().map(move |cost| (who, cost)))
    {
        let Some(ns) = cost.ns_per_run() else { continue };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{who:<12} {:<24} {:>12} {ns:>10.0}", cost.name, cost.runs);
    }
    text
}

fn of<'a>(all: &'a [Costs], name: &str) -> Option<&'a [Cost]> {
    all.iter()
        .find(|(who, _)| *who == name)
        .map(|(_, costs)| costs.as_slice())
}

/// Nanoseconds that timing a program takes, per run; nothing without the program that does nothing.
fn timing_ns(all: &[Costs]) -> Option<f64> {
    let costs = of(all, NOTHING)?;
    let (ns, runs) = costs
        .iter()
        .fold((0, 0), |(ns, runs), cost| (ns + cost.ns, runs + cost.runs));
    (runs > 0).then(|| ns as f64 / runs as f64)
}

/// A switch and a wake-up, ours against runqlat's; else why there is no ratio.
fn against_runqlat(placement: &str, all: &[Costs]) -> Result<String, &'static str> {
    let ours = of(all, PROCPROBE).and_then(|costs| stats::sum_per_run(costs, &OURS));
    let ours = ours.ok_or("procprobe's programs did not run")?;
    let theirs = of(all, RUNQLAT)
        .ok_or("no runqlat here; install libbpf-tools, or --peers DIR for a chroot with it")?;
    let theirs = stats::sum_per_run(theirs, &THEIRS).ok_or("runqlat's programs did not run")?;
    let timing = timing_ns(all).ok_or("the program that does nothing did not run")?;
    let (net, their_net) = (ours - 2.0 * timing, theirs - 2.0 * timing);
    Ok(format!(
        "timing a program that does nothing: {timing:.0} ns\n\
         procprobe switch + waking: {net:.0} ns ({ours:.0} with the timing)\n\
         runqlat switch + wakeup: {their_net:.0} ns ({theirs:.0} with the timing)\n\
         ratio {placement}: {:.2} ({:.2} with the timing; the goal is 0.50 or less)\n",
        net / their_net,
        ours / theirs
    ))
}

/// Against all of the tools together, if all of them ran.
fn against_all(placement: &str, all: &[Costs]) -> Option<String> {
    let timing = timing_ns(all)?;
    let per_switch = |costs: &[Cost]| {
        let switches = costs.iter().filter(|cost| cost.name.starts_with(OTHER_PROGRAM));
        let switches = switches.map(|cost| cost.runs).max().filter(|&runs| runs > 0)?;
        let (ns, runs) = costs
            .iter()
            .fold((0, 0), |(ns, runs), cost| (ns + cost.ns, runs + cost.runs));
        Some((ns as f64 - timing * runs as f64) / switches as f64)
    };
    let ours = per_switch(of(all, PROCPROBE)?)?;
    let mut theirs = per_switch(of(all, RUNQLAT)?)?;
    for name in OTHERS {
        theirs += per_switch(of(all, name)?)?;
    }
    Some(format!(
        "per switch, whatever ran, less the timing: procprobe {ours:.0} ns, the tools together {theirs:.0} ns\n\
         ratio {placement}: {:.3} (the goal is 0.05 or less)\n",
        ours / theirs
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(name: &str, runs: u64, ns: u64) -> Cost {
        Cost {
            name: name.to_owned(),
            runs,
            ns,
        }
    }

    fn nothing() -> Costs {
        let costs = vec![cost("sched_switch", 10, 500), cost("sched_waking", 5, 250)];
        (NOTHING, costs)
    }

    fn ours() -> Costs {
        let costs = vec![
            cost("sched_switch", 10, 2000),
            cost("sched_waking", 5, 500),
            cost("sched_process_fork", 0, 0),
        ];
        (PROCPROBE, costs)
    }

    fn theirs() -> Costs {
        let costs = vec![
            cost("sched_switch", 10, 4000),
            cost("sched_wakeup", 5, 1000),
            cost("sched_wakeup_new", 1, 9),
        ];
        (RUNQLAT, costs)
    }

    #[test]
    fn ratio_of_sums_per_run_less_the_timing() {
        let text = beside_runqlat("here", &[ours(), nothing(), theirs()]);
        // 200 + 100 - 2 * 50 against 400 + 200 - 2 * 50.
        assert!(text.contains("ratio here: 0.40 (0.50 with the timing"), "{text}");
        assert!(
            !text.contains("sched_process_fork"),
            "what did not run is not listed: {text}"
        );
    }

    #[test]
    fn says_why_there_is_no_ratio() {
        let why = |all: &[Costs]| against_runqlat("here", all).unwrap_err();
        assert!(why(&[ours(), nothing()]).contains("no runqlat here"));
        assert!(why(&[ours(), nothing(), (RUNQLAT, vec![])]).contains("runqlat's programs did not run"));
        assert!(why(&[(PROCPROBE, vec![])]).contains("procprobe's programs did not run"));
        assert!(why(&[ours(), theirs()]).contains("does nothing did not run"));
    }

    #[test]
    fn all_tools_together_count_by_the_switch() {
        let all = [
            ours(),
            nothing(),
            theirs(),
            ("cpudist", vec![cost("sched_switch_bt", 10, 5500)]),
            ("offcputime", vec![cost("sched_switch", 10, 22_500)]),
        ];
        // (2500 - 15 * 50) / 10 against (5009 - 16 * 50 + 5000 + 22000) / 10.
        let text = beside_all("here", &all);
        assert!(text.contains("ratio here: 0.056 "), "{text}");
        assert_eq!(against_all("here", &all[..4]), None);
    }
}
