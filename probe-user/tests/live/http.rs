//! Clients that are many, slow, silent or huge: none of them costs the others anything, and nothing stays behind.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::common::agent::{Agent, try_get};
use crate::common::wire::{connect, rest, status};
use crate::common::workload::Workload;
use crate::common::{Live, eventually, note, procfs};

/// No health check may take longer, whatever else goes on: far more than it should, far less than any limit below.
const HEALTHY: Duration = Duration::from_secs(2);
/// What the agent may grow by while it is pestered, kB.
const GROWTH_KB: u64 = 64 << 10;
const TEN_MB: usize = 10 << 20;
/// Answers that a slow reader asks for, each of a megabyte: more than any socket's buffers hold.
const REQUESTS: usize = 40;

/// A configuration with short limits, where the agent can read it.
fn short_limits(directory: &Path, more: &str) -> String {
    let path = directory.join("procprobe.toml");
    let text = format!("[http]\nheader_timeout = \"1s\"\nwrite_timeout = \"1s\"\n{more}\n");
    fs::write(&path, text).expect("writing a configuration");
    path.to_str().expect("a path in UTF-8").to_owned()
}

/// How many descriptors it has, but for the one that it holds while it samples its own cost, now and then.
fn descriptors(pid: u32) -> usize {
    let all = fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors");
    let targets = all.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    targets
        .filter(|target| target != Path::new("anon_inode:bpf-stats"))
        .count()
}

fn settled(pid: u32) -> usize {
    std::thread::sleep(Duration::from_millis(5));
    descriptors(pid)
}

/// Asks for the agent's health over and over; how often, and the longest it took.
struct Pulse {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<(u32, Duration)>,
}

impl Pulse {
    fn start(address: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (address, told) = (address.to_owned(), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let (mut count, mut longest) = (0, Duration::ZERO);
            while !told.load(Ordering::Relaxed) {
                let began = Instant::now();
                let body = try_get(&address, "/healthz").expect("its health");
                assert_eq!(body, "ok\n");
                longest = longest.max(began.elapsed());
                count += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            (count, longest)
        });
        Self { stop, thread }
    }

    fn stop(self, what: &str) {
        self.stop.store(true, Ordering::Relaxed);
        let (count, longest) = self.thread.join().expect("health checks");
        note(&format!("{what}: {count} health checks, the longest {longest:?}"));
        assert!(count > 0 && longest < HEALTHY, "{what}: {longest:?}");
    }
}

/// What is counted before and after: nothing may stay behind.
struct Before {
    pid: u32,
    descriptors: usize,
    rss_kb: u64,
}

impl Before {
    fn of(agent: &Agent) -> Self {
        // Everything that is done once has been done: buffers, threads, command lines.
        for path in ["/metrics", "/api/v1/tree", "/api/v1/states?for=10ms"] {
            agent.get(path);
        }
        let pid = agent.pid();
        Self {
            pid,
            // The lowest for a while: those requests may still have theirs, and a snapshot opens one.
            descriptors: (0..50).map(|_| settled(pid)).min().expect("fifty"),
            rss_kb: procfs::status_kb(pid, "VmRSS").expect("its memory"),
        }
    }

    fn nothing_stays(&self, what: &str) {
        eventually(&format!("{what}: descriptors to be closed"), || {
            descriptors(self.pid) <= self.descriptors
        });
        let now = procfs::status_kb(self.pid, "VmRSS").expect("its memory");
        note(&format!(
            "{what}: {} kB resident before, {now} kB after",
            self.rss_kb
        ));
        assert!(
            now < self.rss_kb + GROWTH_KB,
            "{what}: {} kB, then {now} kB",
            self.rss_kb
        );
    }
}

#[test]
fn four_scrapers_at_once_delay_no_health_check() {
    let Some(live) = Live::begin("four scrapers") else {
        return;
    };
    let _threads = Workload::start(&["threads", "2000"]);
    let agent = Agent::start(&live, &[]);
    let before = Before::of(&agent);
    let pulse = Pulse::start(&agent.address);
    let scrapers = [0; 4].map(|_| {
        let address = agent.address.clone();
        std::thread::spawn(move || {
            for _ in 0..15 {
                let scrape = try_get(&address, "/metrics").expect("a scrape");
                assert!(scrape.contains("procprobe_build_info"), "{scrape}");
            }
        })
    });
    for scraper in scrapers {
        scraper.join().expect("a scraper");
    }
    pulse.stop("four scrapers");
    before.nothing_stays("four scrapers");
    agent.stop();
}

/// Clients that ask for a lot, one thing after the other, and read nothing.
fn slow_readers(address: &str) -> Vec<TcpStream> {
    let request = b"GET /api/v1/tree HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(REQUESTS);
    let reader = |_| {
        let mut reader = connect(address);
        reader.write_all(&request).expect("asking");
        reader
    };
    (0..4).map(reader).collect()
}

#[test]
fn who_reads_slowly_or_says_nothing_is_cut_off_and_delays_nobody() {
    let Some(live) = Live::begin("slow readers") else {
        return;
    };
    let _threads = Workload::start(&["threads", "2000"]);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let config = short_limits(directory.path(), "");
    let agent = Agent::start(&live, &["--config", &config]);
    let before = Before::of(&agent);
    let pulse = Pulse::start(&agent.address);
    let mut readers = slow_readers(&agent.address);
    let mut silent = connect(&agent.address);
    let mut halfway = connect(&agent.address);
    halfway
        .write_all(b"GET /metrics HTTP/1.1\r\nho")
        .expect("half a request");
    for _ in 0..5 {
        agent.metrics();
    }
    assert_eq!(rest(&mut silent), b"");
    let answer = rest(&mut halfway);
    assert!(
        answer.is_empty() || answer.starts_with(b"HTTP/1.1 408"),
        "{answer:?}"
    );
    // The agent's ends are closed although the readers still hold theirs.
    before.nothing_stays("slow readers");
    pulse.stop("slow readers");
    for reader in &mut readers {
        let answers = rest(reader);
        let count = answers
            .windows(12)
            .filter(|bytes| bytes == b"HTTP/1.1 200")
            .count();
        assert!(
            count < REQUESTS,
            "it took all {count} answers: nothing was ever held up"
        );
    }
    agent.stop();
}

#[test]
fn huge_requests_are_refused_unread() {
    let Some(live) = Live::begin("huge requests") else {
        return;
    };
    let agent = Agent::start(&live, &[]);
    let before = Before::of(&agent);
    let pulse = Pulse::start(&agent.address);
    let sized = format!("POST /metrics HTTP/1.1\r\nhost: localhost\r\ncontent-length: {TEN_MB}\r\n\r\n");
    let chunked = "GET /metrics HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\na00000\r\n";
    let header = "GET /metrics HTTP/1.1\r\nhost: localhost\r\nx-a: ";
    for head in [sized.as_str(), chunked] {
        let mut stream = connect(&agent.address);
        stream.write_all(head.as_bytes()).expect("the head");
        // Before any of the body has come: nobody waits for it, nobody keeps it.
        assert_eq!(status(&mut stream), "413", "{head}");
        let block = vec![b'a'; 1 << 16];
        let taken = (0..TEN_MB / block.len()).take_while(|_| stream.write_all(&block).is_ok());
        assert!(
            taken.count() < TEN_MB / block.len(),
            "it read ten megabytes: {head}"
        );
    }
    let mut long = connect(&agent.address);
    long.write_all(format!("{header}{}", "a".repeat(20_000)).as_bytes())
        .expect("a long header");
    assert_eq!(status(&mut long), "431");
    drop(long);
    pulse.stop("huge requests");
    before.nothing_stays("huge requests");
    agent.stop();
}

#[test]
fn the_connection_that_is_idle_for_longest_makes_room_for_another() {
    let Some(live) = Live::begin("too many connections") else {
        return;
    };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("procprobe.toml");
    fs::write(&path, "[http]\nmax_connections = 8\nheader_timeout = \"1m\"\n")
        .expect("writing a configuration");
    let agent = Agent::start(&live, &["--config", path.to_str().expect("UTF-8")]);
    let before = Before::of(&agent);
    // Of eight, those on this host have four.
    let mut idle: Vec<TcpStream> = (0..6)
        .map(|_| {
            std::thread::sleep(Duration::from_millis(20));
            connect(&agent.address)
        })
        .collect();
    for stream in &mut idle[..2] {
        assert_eq!(rest(stream), b"", "the first two had to go");
    }
    for round in 0..50 {
        assert!(try_get(&agent.address, "/healthz").is_ok(), "{round}");
    }
    assert!(try_get(&agent.address, "/metrics").is_ok());
    drop(idle);
    before.nothing_stays("too many connections");
    agent.stop();
}

#[test]
fn who_is_answered_keeps_the_place_and_one_too_many_is_told() {
    let Some(live) = Live::begin("busy connections") else {
        return;
    };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let config = short_limits(directory.path(), "max_connections = 8");
    let agent = Agent::start(&live, &["--config", &config]);
    let ask = |path: &str| {
        let mut stream = connect(&agent.address);
        write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("asking");
        stream
    };
    let mut windows: Vec<TcpStream> = (0..4).map(|_| ask("/api/v1/states?for=3s")).collect();
    eventually("all places busy", || status(&mut ask("/healthz")) == "503");
    for window in &mut windows {
        assert_eq!(status(window), "200");
    }
    assert_eq!(status(&mut ask("/healthz")), "200");
    agent.stop();
}

#[test]
fn who_asks_for_too_much_is_told_to_come_back() {
    let Some(live) = Live::begin("requests that take too long") else {
        return;
    };
    let _threads = Workload::start(&["threads", "2000"]);
    let directory = tempfile::tempdir().expect("a temporary directory");
    // Less than any look at so many threads takes.
    let config = short_limits(directory.path(), "request_timeout = \"1us\"");
    let agent = Agent::start(&live, &["--config", &config]);
    let ask = |path: &str| {
        let mut stream = connect(&agent.address);
        write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("asking");
        stream
    };
    assert_eq!(status(&mut ask("/metrics")), "503");
    assert_eq!(status(&mut ask("/healthz")), "200");
    // Windows have turns of their own, sixteen at a time.
    let mut windows: Vec<TcpStream> = (0..17).map(|_| ask("/api/v1/states?for=3s")).collect();
    let mut answers: Vec<String> = windows.iter_mut().map(status).collect();
    answers.sort();
    assert_eq!(
        answers.iter().filter(|answer| *answer == "200").count(),
        16,
        "{answers:?}"
    );
    assert_eq!(answers.last().expect("seventeen"), "503");
    agent.stop();
}
