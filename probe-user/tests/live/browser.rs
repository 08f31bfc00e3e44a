//! What a page in a real browser can read of the agent: nothing. Chromium is started on a page of somebody's
//! whose name first leads to their server and then to the agent ("DNS rebinding"), and which tries everything
//! else as well.
//!
//! The name cannot be moved while the browser runs; what it leads to can. At one address and port there is
//! the page, and behind it, byte for byte, the agent. To the browser, which knows the name and the port
//! alone, that is the same.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::common::agent::Agent;
use crate::common::probe::Running;
use crate::common::{Live, is_full, note, patience, skipped, tools};

/// The name that the page is loaded from, which then leads to the agent.
const PAGE: &str = "evil.example";
/// A name that leads to the agent from the start.
const REBOUND: &str = "rebound.example";
/// The same, and the agent is told that it is its own.
const OWN: &str = "own.example";
/// Loopback, but not the agent's address: somebody's server.
const ELSEWHERE: &str = "127.0.0.2";

const PATHS: [&str; 5] = [
    "/api/v1/tree",
    "/api/v1/locks?for=100ms",
    "/metrics",
    "/healthz",
    "/",
];

/// Tries all ways in, each for itself, and says what came of them.
const SCRIPT: &str = r#"<!doctype html><title>a page</title><script>
const paths = PATHS, port = location.port, seen = [];
let error = "";
addEventListener("error", event => { error = event.message; });
const beginning = text => text.length + ": " + text.slice(0, 200);
async function attempt(way, url, ask) {
  let came;
  try { came = await ask(url); } catch (error) { came = "refused: " + error.name; }
  seen.push({way, url, came: String(came)});
}
const fetched = options => async url => {
  const answer = await fetch(url, options);
  return answer.type + " " + answer.status + " " + beginning(await answer.text());
};
const requested = url => new Promise((done, failed) => {
  const request = new XMLHttpRequest();
  request.onload = () => done(request.status + " " + beginning(request.responseText));
  request.onerror = () => failed(new TypeError());
  request.open("GET", url); request.send();
});
const framed = url => new Promise((done, failed) => {
  const frame = document.createElement("iframe");
  frame.onload = () => {
    try { done("text " + beginning(frame.contentWindow.document.documentElement.textContent)); }
    catch (error) { failed(error); }
  };
  frame.src = url; document.body.append(frame);
});
const scripted = url => new Promise((done, failed) => {
  const script = document.createElement("script");
  error = ""; script.onload = () => done("ran: " + error); script.onerror = () => failed(new TypeError());
  script.src = url; document.body.append(script);
});
addEventListener("load", async () => {
  for (const path of paths) {
    await attempt("same", path, fetched({}));
    await attempt("same", path, requested);
    await attempt("same", path, framed);
    for (const host of ["127.0.0.1", "localhost", "REBOUND"]) {
      const url = "http://" + host + ":" + port + path;
      await attempt("other", url, fetched({}));
      await attempt("other", url, fetched({credentials: "include"}));
      await attempt("other", url, fetched({headers: {"x-mine": "1"}}));
      await attempt("other", url, fetched({mode: "no-cors"}));
      await attempt("other", url, requested);
      await attempt("other", url, framed);
      await attempt("other", url, scripted);
    }
  }
  await fetch("/report", {method: "POST", body: JSON.stringify(seen)});
});
</script><body></body>"#;

/// Serves the page, takes its report, and hands everything else on to the agent.
fn rebinding(agent: &str) -> Receiver<String> {
    let port = agent.rsplit_once(':').expect("a port").1;
    let listener = TcpListener::bind(format!("{ELSEWHERE}:{port}")).expect("the agent's port, elsewhere");
    let agent = agent.to_owned();
    let (sender, reports) = channel();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let (agent, sender) = (agent.clone(), sender.clone());
            thread::spawn(move || hand_on(client, &agent, &sender));
        }
    });
    reports
}

/// One request, after which the connection ends. Nothing is asserted here: browsers leave as they like.
fn hand_on(mut client: TcpStream, agent: &str, reports: &Sender<String>) -> Option<()> {
    client
        .set_read_timeout(Some(patience(Duration::from_secs(30))))
        .ok()?;
    let mut reader = BufReader::new(client.try_clone().ok()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        (reader.read_line(&mut head).ok()? > 0).then_some(())?;
    }
    if head.starts_with("GET /page ") {
        let paths = serde_json::to_string(&PATHS).ok()?;
        let page = SCRIPT.replace("PATHS", &paths).replace("REBOUND", REBOUND);
        return answer(&mut client, "text/html", &page);
    }
    if head.starts_with("POST /report ") {
        let length = |line: &str| {
            line.to_lowercase()
                .strip_prefix("content-length:")?
                .trim()
                .parse()
                .ok()
        };
        let length: usize = head.lines().find_map(length)?;
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        reports.send(String::from_utf8(body).ok()?).ok()?;
        return answer(&mut client, "text/plain", "");
    }
    // As it came, but for one thing: with one request a connection nothing has to be read twice.
    let mut stream = TcpStream::connect(agent).ok()?;
    let once = head.replace("Connection: keep-alive", "Connection: close");
    stream.write_all(once.as_bytes()).ok()?;
    std::io::copy(&mut stream, &mut client).ok()?;
    client.shutdown(Shutdown::Both).ok()
}

fn answer(client: &mut TcpStream, kind: &str, body: &str) -> Option<()> {
    let length = body.len();
    write!(
        client,
        "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
    .ok()
}

/// What a page that is loaded under a name reports, from a browser with everything at its default.
fn browse(chromium: &Path, name: &str, port: &str, reports: &Receiver<String>) -> Vec<Attempt> {
    let profile = tempfile::tempdir().expect("a temporary directory");
    let rules = format!("MAP {PAGE} {ELSEWHERE}, MAP {OWN} {ELSEWHERE}, MAP {REBOUND} 127.0.0.1");
    let mut command = Command::new(chromium);
    command
        .args([
            "--headless=new",
            "--no-first-run",
            "--disable-background-networking",
        ])
        // It refuses to run as root with its sandbox, which is about its own processes.
        .args(["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        .arg(format!("--host-resolver-rules={rules}"))
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("http://{name}:{port}/page"))
        .env("HOME", profile.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0);
    let browser = Running(command.spawn().expect("starting chromium"));
    let report = reports.recv_timeout(patience(Duration::from_secs(120)));
    let group = i32::try_from(browser.0.id()).expect("a pid fits");
    // SAFETY: takes plain numbers; the group's leader is not reaped yet, so the number is its own.
    unsafe { libc::kill(-group, libc::SIGKILL) };
    let report = report.unwrap_or_else(|error| panic!("the page of {name} reports nothing: {error}"));
    let report: Vec<Value> = serde_json::from_str(&report).expect("JSON");
    report.iter().map(Attempt::of).collect()
}

/// What came of one of the page's attempts.
#[derive(Debug)]
struct Attempt {
    is_same: bool,
    url: String,
    came: String,
}

impl Attempt {
    fn of(value: &Value) -> Self {
        let text = |key: &str| value[key].as_str().expect("a string").to_owned();
        Self {
            is_same: text("way") == "same",
            url: text("url"),
            came: text("came"),
        }
    }
}

#[test]
fn a_page_reads_nothing_whatever_its_name_leads_to() {
    if !is_full() {
        skipped(
            "a page in a browser",
            "only in the long version (PROCPROBE_FULL=1)",
        );
        return;
    }
    let Some(live) = Live::begin("a page in a browser") else {
        return;
    };
    let Some(chromium) = tools::find("a page in a browser", "chromium") else {
        return;
    };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let config = directory.path().join("procprobe.toml");
    fs::write(&config, format!("[http]\nhosts = [\"{OWN}\"]\n")).expect("writing a configuration");
    let agent = Agent::start(&live, &["--config", config.to_str().expect("UTF-8")]);
    let port = agent.address.rsplit_once(':').expect("a port").1;
    let reports = rebinding(&agent.address);

    let attempts = browse(&chromium, PAGE, port, &reports);
    assert_eq!(attempts.len(), PATHS.len() * (3 + 3 * 7), "{attempts:#?}");
    for attempt in &attempts {
        note(&format!("{PAGE}: {} -> {}", attempt.url, attempt.came.trim()));
        // Not one word of an answer but the refusal; of another origin not even that.
        let came = attempt.came.as_str();
        let is_refused = came.contains("this is not the host you named");
        let is_blocked = came.starts_with("refused: ");
        assert!(
            if attempt.is_same { is_refused } else { is_blocked },
            "{attempt:?}"
        );
    }
    // The same page where the agent has been told that the name is its own: what refused was the agent, by
    // the name.
    let attempts = browse(&chromium, OWN, port, &reports);
    for path in PATHS {
        let read = attempts
            .iter()
            .filter(|attempt| attempt.is_same && attempt.url == path);
        for attempt in read {
            note(&format!("{OWN}: {} -> {}", attempt.url, attempt.came.trim()));
            assert!(
                !attempt.came.contains("refused") && !attempt.came.contains("not the host"),
                "{attempt:?}"
            );
        }
    }
    let tree = attempts.iter().find(|attempt| attempt.url == "/api/v1/tree");
    let came = &tree.expect("an attempt at the tree").came;
    assert!(
        came.starts_with("basic 200") && came.contains("procprobe/v1"),
        "{came}"
    );
    agent.stop();
}
