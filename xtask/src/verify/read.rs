//! What sections of the documentation say, told apart: one reader for each form a recorded section has.

/// How something came out: the kernel if it was not the host's, what exactly if there is more than one thing, whether it is as it
/// should be if that can be said, and the figure.
#[derive(Debug, Default, PartialEq)]
pub struct Outcome {
    pub kernel: Option<String>,
    pub what: Option<String>,
    pub good: Option<bool>,
    pub figure: String,
}

/// Rows of a table in a section, without its heading.
fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let lines = text
        .lines()
        .filter_map(|line| line.strip_prefix('|')?.strip_suffix('|'));
    lines.skip(2).map(|line| line.split('|').map(str::trim).collect())
}

/// A row for each kernel: its name, the verdict, how many checks passed ("9 of 9") and how many live tests, "–" where none were
/// asked for.
pub fn kernels(text: &str) -> Vec<Outcome> {
    let is_whole = |cell: &str| {
        cell.split_once(" of ")
            .is_some_and(|(passed, all)| passed == all && all != "0")
    };
    let outcome = |cells: Vec<&str>| {
        let [kernel, verdict, checks, live, ..] = cells.as_slice() else {
            return None;
        };
        let took = verdict.strip_prefix("ok, ");
        let tests = match *live {
            "–" => String::new(),
            live => format!(", {live} live tests"),
        };
        Some(Outcome {
            kernel: Some((*kernel).to_owned()),
            good: Some(took.is_some() && is_whole(checks) && (*live == "–" || is_whole(live))),
            figure: format!("{checks} checks{tests}, {}", took.unwrap_or(verdict)),
            ..Outcome::default()
        })
    };
    rows(text).filter_map(outcome).collect()
}

/// Rows that say at their end whether they agree.
pub fn agreement(text: &str) -> Vec<Outcome> {
    let all: Vec<bool> = rows(text).map(|cells| cells.last() == Some(&"yes")).collect();
    let agree = all.iter().filter(|agrees| **agrees).count();
    let outcome = Outcome {
        good: Some(agree == all.len()),
        figure: format!("{agree} of {} figures agree", all.len()),
        ..Outcome::default()
    };
    if all.is_empty() { Vec::new() } else { vec![outcome] }
}

/// One sentence that begins with the verdict.
pub fn sentence(text: &str) -> Vec<Outcome> {
    let line = text.lines().find_map(|line| line.strip_prefix("Flat: "));
    let outcome = |line: &str| Outcome {
        good: Some(true),
        figure: format!("flat {}", line.trim_end_matches('.')),
        ..Outcome::default()
    };
    line.map(outcome).into_iter().collect()
}

/// Lines that name a figure and, in brackets, its goal: `… 0.72 … (…; the goal is 0.50 or less)`. What a ratio is of says the line
/// before it.
pub fn goals(text: &str) -> Vec<Outcome> {
    let outcome = |(before, line): (&str, &str)| {
        let (said, rest) = line.split_once(" (")?;
        let rest = rest.split_once("the goal is ")?.1;
        let goal = rest.split_once(" or less")?.0;
        let figure = said.split_ascii_whitespace().find_map(number)?;
        Some(Outcome {
            what: said.starts_with("ratio").then(|| before.to_owned()),
            good: Some(figure <= number(goal)?),
            figure: format!("{said}; the goal is {goal}"),
            ..Outcome::default()
        })
    };
    let lines = text.lines().zip(text.lines().skip(1));
    lines.filter_map(outcome).collect()
}

/// The number that a cell begins with, whatever its unit.
fn number(cell: &str) -> Option<f64> {
    let number = cell.split_ascii_whitespace().next()?;
    number.trim_start_matches('+').parse().ok()
}

/// Our scrape as a part of each other exporter's, whose goal is a fiftieth of process-exporter's; what the agent has resident
/// with so many threads; and its CPU time.
pub fn scrapes(text: &str) -> Vec<Outcome> {
    const PART: u32 = 50;
    const RESIDENT_MIB: f64 = 40.0;
    let outcome = |cells: Vec<&str>| {
        let [load, exporter, _, part, _, _, resident] = cells.as_slice() else {
            return None;
        };
        let what = Some((*load).to_owned());
        let Some(times) = part.strip_prefix("1/") else {
            return Some(Outcome {
                what,
                good: Some(number(resident)? <= RESIDENT_MIB),
                figure: format!("{resident} resident; the goal is {RESIDENT_MIB} MiB"),
                ..Outcome::default()
            });
        };
        let judged = exporter.starts_with("process-exporter");
        let good = times.parse::<u32>().ok()? >= PART;
        Some(Outcome {
            what,
            good: judged.then_some(good),
            figure: format!("{part} of {exporter}"),
            ..Outcome::default()
        })
    };
    rows(text).filter_map(outcome).chain(goals(text)).collect()
}

/// Times of looks, whose goals are for some ten thousand threads: 10 ms, with times and histograms 15 ms; and the kernel's memory
/// for each thread, however many there are: 1.5 KiB.
pub fn looks(text: &str) -> Vec<Outcome> {
    const LOOK_MS: f64 = 10.0;
    const WITH_TIMES_MS: f64 = 15.0;
    const KERNEL_BYTES: f64 = 1536.0;
    let outcomes = |cells: Vec<&str>| {
        let [threads, look, with_times, _, kernel, ..] = cells.as_slice() else {
            return None;
        };
        let count: u64 = threads.parse().ok()?;
        let in_time = number(look)? <= LOOK_MS && number(with_times)? <= WITH_TIMES_MS;
        let outcome = |good, figure| Outcome {
            what: Some((*threads).to_owned()),
            good,
            figure,
            ..Outcome::default()
        };
        let judged = (9_000..12_000).contains(&count);
        Some([
            outcome(
                judged.then_some(in_time),
                format!("{look}, with times {with_times}"),
            ),
            outcome(
                Some(number(kernel)? <= KERNEL_BYTES),
                format!("{kernel} of kernel memory a thread; the goal is {KERNEL_BYTES} B"),
            ),
        ])
    };
    rows(text).filter_map(outcomes).flatten().collect()
}

/// How much more CPU time programs took beside the agent. Nothing is promised of that.
pub fn slowdown(text: &str) -> Vec<Outcome> {
    let outcome = |cells: Vec<&str>| {
        let [program, _, _, _, _, medians, least, _] = cells.as_slice() else {
            return None;
        };
        Some(Outcome {
            what: Some((*program).to_owned()),
            figure: format!("{medians}, of the least {least}"),
            ..Outcome::default()
        })
    };
    rows(text).filter_map(outcome).collect()
}

#[cfg(test)]
mod tests;
