//! What outsiders may send: requests that follow no rule, arguments that break terminals.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::common::agent::Agent;
use crate::common::json::{list, process, text};
use crate::common::random::Random;
use crate::common::workload::Workload;
use crate::common::{Live, is_full, note};

const PATHS: [&str; 10] = [
    "/",
    "/metrics",
    "/api/v1/tree",
    "/api/v1/states",
    "/api/v1/zombies",
    "/api/v1/orphans",
    "/readyz",
    "/healthz",
    "/api/v1/",
    "/../../etc/passwd",
];
const KEYS: [&str; 10] = [
    "pid", "for", "by", "format", "threads", "width", "ancestry", "kernel", "", "%00",
];
const VALUES: [&str; 24] = [
    "",
    "0",
    "1",
    "-1",
    "4294967295",
    "4294967296",
    "18446744073709551616",
    "1e9",
    "true",
    "false",
    "text",
    "json",
    "thread",
    "comm",
    "1ms",
    "0s",
    "99999999999999999999s",
    "%",
    "%zz",
    "%ff%fe",
    "%1b[31m",
    "\"><script>",
    "a&b=c;d",
    "%0d%0aX-Y:%20z",
];
const METHODS: [&str; 12] = [
    "GET",
    "GET",
    "GET",
    "GET",
    "GET",
    "GET",
    "HEAD",
    "POST",
    "OPTIONS",
    "get",
    "",
    "\u{1b}[31m",
];

/// A request that is more or less one.
fn request(random: &mut Random) -> Vec<u8> {
    let mut target = random.one_of(&PATHS).to_owned();
    for number in 0..random.below(4) {
        target.push(if number == 0 { '?' } else { '&' });
        target.push_str(random.one_of(&KEYS));
        target.push('=');
        target.push_str(random.one_of(&VALUES));
    }
    if random.below(20) == 0 {
        target.push_str(&"a=%41&".repeat(5000));
    }
    let mut bytes = format!(
        "{} {target} HTTP/1.1\r\nHost: localhost\r\n",
        random.one_of(&METHODS)
    )
    .into_bytes();
    match random.below(8) {
        0 => bytes.extend(b"Content-Length: 99999999999\r\n"),
        1 => bytes.extend(b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
        2 => bytes.extend(b"X: \0\xff\r\n"),
        3 => bytes.extend("Y: z\r\n".repeat(200).bytes()),
        _ => {}
    }
    bytes.extend(b"Connection: close\r\n\r\n");
    for _ in 0..random.below(3) * random.below(3) {
        let at = usize::try_from(random.below(bytes.len() as u64)).expect("an index");
        bytes[at] = random.next().to_le_bytes()[0];
    }
    bytes
}

/// The status of the answer; `None` if there was none.
fn send(address: &str, bytes: &[u8], hangs_up: bool) -> Option<u16> {
    let mut stream = TcpStream::connect(address).expect("it still listens");
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .expect("a timeout");
    // It may have answered and hung up before it had all of it.
    let _ = stream.write_all(bytes);
    if hangs_up {
        // Who says no more is taken for gone, unless the answer is there already.
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()?;
    assert!(!answer.contains("panicked"), "{answer}");
    Some(status)
}

#[test]
fn requests_that_follow_no_rule_are_refused_and_forgotten() {
    let Some(live) = Live::begin("hostile requests") else {
        return;
    };
    let agent = Agent::start(&live, &[]);
    let mut random = Random::new();
    let (mut good, mut bad, mut none) = (0, 0, 0);
    let descriptors = || {
        std::fs::read_dir(format!("/proc/{}/fd", agent.pid()))
            .expect("its descriptors")
            .count()
    };
    let before = descriptors();
    for number in 0..if is_full() { 5_000 } else { 400 } {
        let bytes = request(&mut random);
        match send(&agent.address, &bytes, number % 4 == 0) {
            Some(200..400) => good += 1,
            Some(400..500) => bad += 1,
            Some(status) => panic!("{number}: {status} for {:?}", String::from_utf8_lossy(&bytes)),
            None => none += 1,
        }
    }
    note(&format!("{good} answered, {bad} refused, {none} hung up on"));
    assert!(good > 0 && bad > 0, "{good} {bad} {none}");
    crate::common::eventually("its descriptors are closed", || descriptors() <= before + 1);
    assert!(!agent.log().contains("panicked"), "{}", agent.log());
    agent.stop();
}

fn is_harmless(character: char) -> bool {
    character == '\n' || !(character.is_control() || character == '\u{202e}')
}

#[test]
fn hostile_arguments_are_escaped_in_every_output() {
    let Some(live) = Live::begin("hostile arguments") else {
        return;
    };
    let scene = Workload::start(&["arguments"]);
    let agent = Agent::start(&live, &[]);
    let children: Vec<u32> = ["0", "1", "2", "3"].map(|key| scene.fact(key)).to_vec();
    let (parent, limit) = (scene.pid.to_string(), 9_000);
    for source in ["bpf", "proc"] {
        let tree = live.json(&["tree", &parent, "--source", source]);
        for &pid in &children {
            let cmdline = process(&tree, pid)["cmdline"].to_string();
            assert!(
                cmdline.chars().all(is_harmless) && cmdline.len() <= 4 * limit,
                "{cmdline:?}"
            );
        }
        let table = live.text(&["tree", &parent, "--source", source]);
        assert!(table.chars().all(is_harmless), "{table:?}");
        assert_eq!(
            table.lines().count(),
            children.len() + 2,
            "{source}: a line each: {table}"
        );
    }
    assert_served(&agent, &scene, &children);
    let quotes = live.json(&["tree", &children[0].to_string()]);
    let cmdline = list(process(&quotes, children[0]), "cmdline");
    let is_whole = |one: &Value| {
        one.as_str()
            .is_some_and(|one| one.len() > 3000 && one.chars().all(|c| c == '"'))
    };
    assert!(cmdline.iter().any(is_whole), "{cmdline:?}");
    agent.stop();
}

/// The same over HTTP.
fn assert_served(agent: &Agent, scene: &Workload, children: &[u32]) {
    for path in [
        "/api/v1/tree",
        "/api/v1/zombies",
        "/api/v1/orphans",
        "/api/v1/states?for=50ms&by=process",
    ] {
        let _: Value = serde_json::from_str(&agent.get(path)).expect("JSON");
    }
    let page = agent.get(&format!("/api/v1/tree?format=text&pid={}&width=120", scene.pid));
    let plain = page.replace("\u{1b}[1m", "").replace("\u{1b}[0m", "");
    assert_eq!(page.lines().count(), children.len() + 2, "{page}");
    assert!(!plain.contains("\u{1b}]"), "{plain:?}");
    assert_eq!(text(process(&agent.tree(), scene.pid), "comm"), "pp-arguments");
}
