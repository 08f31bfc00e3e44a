//! The configuration as shipped, and what wrong ones are told.

use super::*;

const SHIPPED: &str = include_str!("../../../xtask/dist/procprobe.toml");

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("p.toml"), text).map_err(|complaint| complaint.to_string())
}

/// The file with what it has commented out (`#key`, `#[table]`; prose has a blank after its mark).
fn uncommented() -> String {
    let lines = SHIPPED.lines().map(|line| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|first: char| first != ' ' && first != '#') => rest,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_shipped_file_says_what_is_so_without_it() {
    assert_eq!(parse(SHIPPED), Ok(Config::default()));
    assert_eq!(parse(""), Ok(Config::default()));
}

#[test]
fn the_shipped_file_has_every_option() {
    let everything: toml::Table = toml::from_str(&uncommented()).unwrap();
    let known = |text: &str| {
        let error = toml::from_str::<Config>(text).unwrap_err();
        let (_, known) = unknown_field(error.message()).expect("serde lists the fields");
        known.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    for option in known("nonsense = 1") {
        assert!(everything.contains_key(&option), "{option} is not in the file");
    }
    for option in known("[metrics]\nnonsense = 1") {
        let metrics = everything["metrics"].as_table().unwrap();
        assert!(
            metrics.contains_key(&option),
            "metrics.{option} is not in the file"
        );
    }
    for table in ["families", "units"] {
        for option in known(&format!("[metrics.{table}]\nnonsense = 1")) {
            let options = everything["metrics"][table].as_table().unwrap();
            assert!(
                options.contains_key(&option),
                "metrics.{table}.{option} is not in the file"
            );
        }
    }
    for option in known("[http]\nnonsense = 1") {
        let http = everything["http"].as_table().unwrap();
        assert!(http.contains_key(&option), "http.{option} is not in the file");
    }
    let config = parse(&uncommented()).unwrap();
    assert!(config.web_config.is_some() && config.label_map != LabelMap::default());
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let told = |text: &str, what: &str| assert_eq!(parse(text).unwrap_err(), what, "{text}");
    told(
        "\nlistn = \"[::]:1\"",
        "p.toml line 2: unknown key listn (did you mean listen?)",
    );
    told(
        "[http]\nmax_scrape = 1",
        "p.toml line 2: unknown key max_scrape (did you mean max_scrapes?)",
    );
    told(
        "retention = \"10x\"",
        "p.toml line 1: \"10x\": not a duration (try 10s, 500ms, 2m)",
    );
    told(
        "max_groups = 0",
        "p.toml line 1: max_groups is a number from 1 to 100000",
    );
    told(
        "[[label_map]]\nunit = 'a'",
        "p.toml line 1: a rule of label_map needs either rename = \"…\" or drop = true",
    );
    told(
        "[metrics]\ndurations = \"units\"",
        "p.toml line 2: unknown variant `units`, expected one of `host`, `unit`, `group`",
    );
    told(
        "[metrics.families]\ndisable = [\"procprobe_zombie\"]",
        "p.toml line 2: there is no metric procprobe_zombie (did you mean procprobe_zombies?)",
    );
    told(
        "[metrics.units]\nmax = 0",
        "p.toml line 2: max is a number from 1 to 10000",
    );
    assert!(
        parse("[metrics.units]\ninclude = ['a(']")
            .unwrap_err()
            .starts_with("p.toml line 2: \"a(\" is no regular expression: ")
    );
    assert!(parse("listen = 9982").unwrap_err().starts_with("p.toml line 1: "));
    assert!(
        parse("a = 1\nlisten =\n")
            .unwrap_err()
            .starts_with("p.toml line 2: ")
    );
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let complaint = Config::read(Path::new("/nonexistent/p.toml"))
        .unwrap_err()
        .to_string();
    assert!(
        complaint.starts_with("/nonexistent/p.toml: ") && complaint.contains("--config"),
        "{complaint}"
    );
}

#[test]
fn only_some_options_need_a_restart() {
    let running = Config::default();
    let mut other = Config {
        expose_cmdline: true,
        ..Config::default()
    };
    assert!(other.needs_restart(&running).is_empty());
    other.max_groups = 1;
    other.http.max_scrapes = 1;
    assert_eq!(other.needs_restart(&running), ["max_groups", "http"]);
}

#[test]
fn families_are_switched_by_name_and_the_build_is_always_told() {
    let families = |text: &str| {
        parse(&format!("[metrics.families]\n{text}"))
            .unwrap()
            .metrics
            .families
    };
    let all = families("");
    assert!(all.shows("procprobe_zombies") && all.shows("process_open_fds"));
    let without = families("disable = [\"procprobe_zombies\", \"procprobe_build_info\"]");
    assert!(!without.shows("procprobe_zombies") && without.shows("procprobe_threads"));
    assert!(without.shows("procprobe_build_info"));
    let few = families(
        "enable = [\"procprobe_zombies\", \"procprobe_threads\"]\ndisable = [\"procprobe_threads\"]",
    );
    assert!(few.shows("procprobe_zombies") && few.shows("procprobe_build_info"));
    assert!(!few.shows("procprobe_threads") && !few.shows("process_open_fds"));
}
