//! Who is told what through which door: TCP, the socket, what the service manager holds; and whom the command
//! line believes.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::common::agent::Agent;
use crate::common::json::{list, number, text};
use crate::common::reachable::{NOBODY, Reachable};
use crate::common::stopped::Stopped;
use crate::common::wire::connect;
use crate::common::workload::Workload;
use crate::common::{Live, eventually, is_full, probe, skipped};

/// An agent as it is without any option, but for where it listens.
struct Doors {
    agent: Agent,
    socket: PathBuf,
    directory: tempfile::TempDir,
}

impl Doors {
    fn open(live: &Live, more: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("opening it");
        let socket = directory.path().join("api.sock");
        let mut command = live.command(&["agent", "--listen", "127.0.0.1:0", "--socket"]);
        command.arg(&socket).args(more);
        let agent = Agent::begin(command);
        Self {
            agent,
            socket,
            directory,
        }
    }

    fn socket(&self) -> &str {
        self.socket.to_str().expect("a path in UTF-8")
    }

    /// Head and body of an answer over TCP, to a request with these header lines.
    fn ask(&self, path: &str, lines: &str) -> (String, Vec<u8>) {
        let mut stream = connect(&self.agent.address);
        write!(stream, "GET {path} HTTP/1.1\r\nconnection: close\r\n{lines}\r\n").expect("asking");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        let end = answer
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .expect("a head");
        let head = String::from_utf8(answer[..end].to_vec()).expect("UTF-8");
        (head.to_lowercase(), answer[end + 4..].to_vec())
    }

    fn status(&self, path: &str, lines: &str) -> String {
        self.ask(path, lines).0[9..12].to_owned()
    }

    fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.agent.get(path)).expect("JSON")
    }

    /// The same through the socket.
    fn whole(&self, path: &str) -> Value {
        let mut stream = UnixStream::connect(&self.socket).expect("connecting");
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").expect("asking");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains(" 200 "), "{head}");
        serde_json::from_str(body).expect("JSON")
    }
}

/// Every value under a key, however deep.
fn all<'a>(value: &'a Value, key: &str, into: &mut Vec<&'a Value>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if name == key {
                    into.push(value);
                }
                all(value, key, into);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| all(value, key, into)),
        _ => {}
    }
}

fn known(value: &Value, key: &str) -> usize {
    let mut found = Vec::new();
    all(value, key, &mut found);
    found.iter().filter(|value| !value.is_null()).count()
}

const LOOKS: [(&str, &[&str]); 3] = [
    ("/api/v1/tree", &["exe", "cmdline", "address"]),
    ("/api/v1/zombies", &["exe"]),
    ("/api/v1/locks?for=200ms", &["address"]),
];

#[test]
fn tcp_tells_what_everybody_may_know_and_the_socket_everything() {
    let Some(live) = Live::begin("what the doors tell") else {
        return;
    };
    let (_locks, _zombie) = (Workload::start(&["holder-asleep"]), Workload::start(&["zombie"]));
    let doors = Doors::open(&live, &[]);
    for (path, fields) in LOOKS {
        for field in fields {
            eventually(&format!("{field} in {path}"), || {
                known(&doors.whole(path), field) > 0
            });
        }
    }
    for (path, fields) in LOOKS {
        let (told, whole) = (doors.json(path), doors.whole(path));
        assert!(list(&whole, "withheld").is_empty(), "{path}");
        assert_eq!(told["from"], "agent");
        let withheld = list(&told, "withheld");
        for field in fields {
            assert_eq!(known(&told, field), 0, "{field} of {path}");
            assert!(
                withheld.contains(&Value::from(*field)),
                "{field} of {path}: {withheld:?}"
            );
        }
        let text = told.to_string();
        assert!(!text.contains("0x7f") && !text.contains("0x55"), "{path}: {text}");
    }
    // What points at a lock still does.
    let told = doors.json("/api/v1/locks?for=200ms");
    let ids: Vec<&Value> = list(&told, "locks").iter().map(|lock| &lock["id"]).collect();
    let of_edges = list(&told, "edges").iter().map(|edge| &edge["lock"]);
    assert!(
        ids.iter()
            .all(|id| id.as_str().is_some_and(|id| id.starts_with("lock-")))
    );
    assert!(
        of_edges.clone().count() > 0 && of_edges.clone().all(|lock| ids.contains(&lock)),
        "{told}"
    );
    doors.agent.stop();
    // Configured, TCP tells it as well.
    let doors = Doors::open(&live, &["--expose-details", "--expose-cmdline"]);
    let told = doors.json("/api/v1/tree");
    assert!(known(&told, "exe") > 0 && known(&told, "cmdline") > 0 && list(&told, "withheld").is_empty());
    doors.agent.stop();
}

#[test]
fn a_page_that_had_its_own_name_lead_here_reads_nothing() {
    let Some(live) = Live::begin("names of this host") else {
        return;
    };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let config = directory.path().join("procprobe.toml");
    fs::write(&config, "[http]\nhosts = [\"metrics.example\"]\n").expect("writing a configuration");
    let doors = Doors::open(&live, &["--config", config.to_str().expect("UTF-8")]);
    let own = fs::read_to_string("/proc/sys/kernel/hostname").expect("its name");
    let own = own.trim();
    for path in ["/api/v1/zombies", "/metrics", "/healthz", "/nowhere"] {
        for foreign in [
            "host: evil.example:9982\r\n",
            "host: localhost\r\nhost: evil.example\r\n",
            "host: \r\n",
        ] {
            let (head, body) = doors.ask(path, foreign);
            assert_eq!(&head[9..12], "421", "{path} {foreign}: {head}");
            assert!(body.len() < 200 && !head.contains("access-control"), "{head}");
        }
    }
    for ours in [
        doors.agent.address.as_str(),
        "localhost:1",
        "[::1]",
        own,
        "metrics.example",
    ] {
        assert_eq!(
            doors.status("/healthz", &format!("host: {ours}\r\n")),
            "200",
            "{ours}"
        );
    }
    // Of other origins' pages browsers keep even what those may not read.
    let (head, _) = doors.ask("/metrics", "host: localhost\r\n");
    for header in [
        "x-content-type-options: nosniff",
        "cross-origin-resource-policy: same-origin",
    ] {
        assert!(head.contains(header), "{head}");
    }
    fs::write(&config, "").expect("writing a configuration");
    doors.agent.running.signal(libc::SIGHUP);
    eventually("the name to be foreign", || {
        doors.status("/healthz", "host: metrics.example\r\n") == "421"
    });
    doors.agent.stop();
}

#[test]
fn what_nobody_understands_is_refused_and_not_left_out() {
    let Some(live) = Live::begin("unknown parameters") else {
        return;
    };
    let doors = Doors::open(&live, &[]);
    for (query, hint) in [
        ("tree?pids=1", "did you mean pid?"),
        ("tree?pid=1&pid=2", "duplicate"),
        ("tree?pid=x", "invalid"),
        ("states?fro=1s", "there are: for, by, pid"),
        ("locks?by=comm", "there are"),
        ("zombies?pid=1", "takes no parameters"),
        ("orphans?x", "takes no parameters"),
    ] {
        let (head, body) = doors.ask(&format!("/api/v1/{query}"), "host: localhost\r\n");
        let body = String::from_utf8(body).expect("UTF-8");
        assert_eq!(&head[9..12], "400", "{query}: {body}");
        assert!(
            body.contains(hint) && body.lines().count() == 1,
            "{query}: {body}"
        );
    }
    // A scrape has always taken any: `params` of a scrape configuration may be for another exporter.
    assert_eq!(doors.status("/metrics?collect=x", "host: localhost\r\n"), "200");
    doors.agent.stop();
}

#[test]
fn answers_are_compressed_for_whom_that_suits() {
    let Some(live) = Live::begin("gzip") else {
        return;
    };
    let doors = Doors::open(&live, &[]);
    for path in ["/metrics", "/api/v1/tree"] {
        let (head, plain) = doors.ask(path, "host: localhost\r\n");
        assert!(
            !head.contains("content-encoding") && head.contains("vary: "),
            "{head}"
        );
        let (head, packed) = doors.ask(path, "host: localhost\r\naccept-encoding: gzip\r\n");
        assert!(
            head.contains("content-encoding: gzip") && packed.starts_with(&[0x1f, 0x8b]),
            "{head}"
        );
        assert!(
            packed.len() < plain.len() / 3,
            "{} of {}",
            packed.len(),
            plain.len()
        );
        let mut out = String::new();
        flate2::read::GzDecoder::new(packed.as_slice())
            .read_to_string(&mut out)
            .expect("gzip");
        assert!(out.contains("procprobe"), "{path}");
        let asked = "host: localhost\r\naccept-encoding: gzip, zstd\r\n";
        let (head, packed) = doors.ask(path, asked);
        assert!(head.contains("content-encoding: zstd"), "{head}");
        let out = zstd::decode_all(packed.as_slice()).expect("zstd");
        assert!(
            packed.len() < plain.len() / 3 && String::from_utf8_lossy(&out).contains("procprobe"),
            "{path}"
        );
    }
    doors.agent.stop();
}

#[test]
fn the_socket_is_for_root_and_its_group_whatever_its_mode() {
    let Some(live) = Live::begin("who is at the socket") else {
        return;
    };
    let doors = Doors::open(&live, &[]);
    let found = fs::metadata(&doors.socket).expect("the socket");
    assert_eq!(found.mode() & 0o777, 0o660);
    let binary = Reachable::new(&live);
    let tree = ["tree", "--ancestry", "-o", "json", "--connect", doors.socket()];
    let outcome = binary.as_nobody(&tree);
    assert!(outcome.complaint(1).contains("Permission denied"), "{outcome:?}");
    // Its mode gone wrong, the kernel still says who is there.
    fs::set_permissions(&doors.socket, fs::Permissions::from_mode(0o666)).expect("opening it");
    let outcome = binary.as_nobody(&tree);
    let line = outcome.complaint(1);
    assert!(line.contains("403") && line.contains("group"), "{line}");
    // A member of the group is told everything.
    let mut member = Command::new(binary.path());
    member.args(tree).uid(NOBODY).gid(found.gid());
    let outcome = probe::finish(&mut member);
    assert!(outcome.status.success(), "{outcome:?}");
    let answer: Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    assert!(known(&answer, "exe") > 0 && list(&answer, "withheld").is_empty());
    let socket = doors.socket.clone();
    doors.agent.stop();
    assert!(!socket.exists(), "removed at the end");
    drop(doors.directory);
}

#[test]
fn a_probe_asks_through_the_socket_and_knows_no_password() {
    let Some(live) = Live::begin("a probe") else {
        return;
    };
    // As Kubernetes mounts a secret: what is named is a link, to a file of root's alone.
    let secret = tempfile::tempdir().expect("a temporary directory");
    let file = secret.path().join("..data");
    let hash = "$2b$04$Zs11kyvZuhCXQ7WA9xlfKu3/Ta83VU36M976H6W2XodoTD4RlySEu";
    fs::write(&file, format!("basic_auth_users:\n  prometheus: {hash}\n")).expect("writing it");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).expect("closing it");
    let web = secret.path().join("web.yml");
    std::os::unix::fs::symlink(&file, &web).expect("a link");
    let doors = Doors::open(&live, &["--web-config", web.to_str().expect("UTF-8")]);
    assert_eq!(doors.status("/healthz", ""), "401");
    let ask = |socket: &str| live.run(&["agent", "--check-health", "--socket", socket]);
    let outcome = ask(doors.socket());
    assert!(
        outcome.status.success() && outcome.stdout == "ok\n",
        "{outcome:?}"
    );
    let socket = doors.socket.clone();
    doors.agent.stop();
    let outcome = ask(socket.to_str().expect("UTF-8"));
    let line = outcome.complaint(1);
    assert!(line.contains("no agent answers at"), "{line}");
    let outcome = ask("none");
    let line = outcome.complaint(1);
    assert!(line.contains("without a socket"), "{line}");
}

/// Sits at a port as a user, and answers whatever it is asked, for as long as the test runs.
fn squat(uid: u32) -> String {
    // The thread's alone: a socket belongs to whom its maker passes for among files.
    // SAFETY: takes a number.
    unsafe { libc::setfsuid(uid) };
    let listener = TcpListener::bind("127.0.0.1:0");
    // SAFETY: as above.
    unsafe { libc::setfsuid(0) };
    let listener = listener.expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let _ = client.read(&mut [0; 4096]);
            let body = "  PID  S  COMMAND\n    1  S  \u{1b}]0;owned\u{7}init\n";
            let _ = write!(
                client,
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
        }
    });
    address
}

#[test]
fn who_holds_the_port_is_not_believed_for_that() {
    let Some(live) = Live::begin("a squatter") else {
        return;
    };
    let squatter = squat(NOBODY);
    let outcome = live.run(&["tree", "--ancestry", "--connect", &squatter]);
    let line = outcome.complaint(1);
    assert!(
        line.contains("is held by") && outcome.stdout.is_empty(),
        "{outcome:?}"
    );
    // Of a user that is believed, what comes is still no answer, and reaches no terminal.
    let root = squat(0);
    for output in ["table", "json"] {
        let outcome = live.run(&["tree", "--ancestry", "--connect", &root, "-o", output]);
        let line = outcome.complaint(1);
        assert!(line.contains("does not answer as an agent does"), "{line}");
        assert!(
            outcome.stdout.is_empty() && !line.contains(char::is_control),
            "{outcome:?}"
        );
    }
}

#[test]
fn no_proxy_is_asked() {
    let Some(live) = Live::begin("proxies") else {
        return;
    };
    let doors = Doors::open(&live, &[]);
    let proxy = TcpListener::bind("127.0.0.1:0").expect("a port");
    proxy.set_nonblocking(true).expect("not blocking");
    let url = format!("http://{}", proxy.local_addr().expect("its address"));
    let mut command = live.command(&[
        "tree",
        "--ancestry",
        "-o",
        "json",
        "--connect",
        &doors.agent.address,
    ]);
    for name in [
        "http_proxy",
        "HTTP_PROXY",
        "all_proxy",
        "ALL_PROXY",
        "https_proxy",
    ] {
        command.env(name, &url);
    }
    let outcome = probe::finish(&mut command);
    assert!(outcome.status.success(), "{outcome:?}");
    assert!(proxy.accept().is_err(), "somebody came to the proxy");
    doors.agent.stop();
}

#[test]
fn what_the_service_manager_holds_is_served_and_stays_when_the_agent_ends() {
    let Some(live) = Live::begin("socket activation") else {
        return;
    };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("api.sock");
    let (tcp, unix) = (
        TcpListener::bind("127.0.0.1:0").expect("a port"),
        UnixListener::bind(&path).expect("a socket"),
    );
    let address = tcp.local_addr().expect("its address").to_string();
    let held = [tcp.as_raw_fd(), unix.as_raw_fd()];
    for _ in 0..2 {
        // The shell is who becomes the agent: LISTEN_PID has to be its pid.
        let script = "export LISTEN_PID=$$ LISTEN_FDS=2; exec \"$@\"";
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script, "sh"]).arg(&live.binary);
        command.args(["agent", "--listen", &address, "--socket", "none"]);
        // SAFETY: only calls that are allowed between fork and exec, on descriptors that are open.
        unsafe {
            command.pre_exec(move || {
                let high = held.map(|descriptor| libc::fcntl(descriptor, libc::F_DUPFD, 100));
                for (number, descriptor) in (3..).zip(high) {
                    if libc::dup2(descriptor, number) < 0 {
                        return Err(std::io::Error::last_os_error());
                    }
                }
                Ok(())
            });
        }
        let agent = Agent::begin(command);
        assert_eq!(agent.address, address);
        let mut stream = UnixStream::connect(&path).expect("connecting");
        stream
            .write_all(b"GET /healthz HTTP/1.0\r\n\r\n")
            .expect("asking");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.ends_with("ok\n"), "{answer}");
        assert_eq!(agent.get("/healthz"), "ok\n");
        agent.stop();
        // While no agent runs, the port is not for anybody to take, and who comes waits for the next one.
        assert!(TcpListener::bind(&address).is_err());
        assert!(path.exists() && TcpStream::connect(&address).is_ok());
    }
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let Some(live) = Live::begin("a log that nobody reads") else {
        return;
    };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let config = directory.path().join("procprobe.toml");
    fs::write(&config, "").expect("writing a configuration");
    let path = config.to_str().expect("UTF-8");
    for is_gone in [true, false] {
        fs::write(&config, "").expect("writing a configuration");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let address = port.expect("a port").to_string();
        let mut command = live.command(&[
            "agent", "--listen", &address, "--socket", "none", "--config", path,
        ]);
        let (reader, writer) = std::io::pipe().expect("a pipe");
        fill(&writer);
        let reader = (!is_gone).then_some(reader);
        command
            .stdin(std::process::Stdio::null())
            .stdout(writer.try_clone().expect("its end"))
            .stderr(writer);
        let mut agent = probe::Running(command.spawn().expect("starting the agent"));
        // Its ends are the command's.
        drop(command);
        let healthy = || crate::common::agent::try_get(&address, "/healthz").is_ok();
        eventually("it serves", healthy);
        fs::write(&config, "nonsense").expect("writing a configuration");
        for _ in 0..20 {
            agent.signal(libc::SIGHUP);
            std::thread::sleep(Duration::from_millis(20));
            assert!(healthy(), "gone: {is_gone}");
        }
        agent.signal(libc::SIGTERM);
        assert!(agent.wait().success());
        drop(reader);
    }
}

/// Fills a pipe to the last byte.
fn fill(writer: &std::io::PipeWriter) {
    let descriptor = writer.as_raw_fd();
    let mut writer = writer;
    // SAFETY: a descriptor that is open, and flags.
    unsafe { libc::fcntl(descriptor, libc::F_SETFL, libc::O_NONBLOCK) };
    while writer.write(&[b'\n'; 512]).is_ok() {}
    while writer.write(b"\n").is_ok() {}
    // SAFETY: as above.
    unsafe { libc::fcntl(descriptor, libc::F_SETFL, 0) };
}

#[test]
fn a_configuration_that_could_block_is_refused() {
    let Some(live) = Live::begin("a FIFO as configuration") else {
        return;
    };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let fifo = directory.path().join("fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .expect("mkfifo")
            .success()
    );
    for (path, what) in [(fifo.as_path(), "a FIFO"), (Path::new("/dev/zero"), "a device")] {
        let path = path.to_str().expect("UTF-8");
        for option in ["--config", "--web-config"] {
            let outcome = live.run(&["agent", "--listen", "127.0.0.1:0", option, path, "--check-config"]);
            assert!(outcome.complaint(1).contains(what), "{outcome:?}");
        }
    }
}

#[test]
fn half_closed_and_hung_up_clients_leave_nothing_behind() {
    let Some(live) = Live::begin("clients that hang up") else {
        return;
    };
    let doors = Doors::open(&live, &[]);
    let descriptors = || {
        fs::read_dir(format!("/proc/{}/fd", doors.agent.pid()))
            .expect("its descriptors")
            .count()
    };
    doors.whole("/api/v1/tree");
    let before = descriptors();
    for _ in 0..100 {
        let mut stream = UnixStream::connect(&doors.socket).expect("connecting");
        stream
            .write_all(b"GET /api/v1/states?for=50ms HTTP/1.1\r\nhost: x\r\n\r\n")
            .expect("asking");
        let _ = stream.shutdown(Shutdown::Write);
    }
    eventually("all to be closed", || descriptors() <= before + 1);
    doors.agent.stop();
}

/// Whoever looks at a host for contention should not find the tool: workers without work wait for some, not
/// for a lock.
#[test]
fn idle_workers_are_no_contention() {
    let Some(live) = Live::begin("idle workers") else {
        return;
    };
    let doors = Doors::open(&live, &[]);
    let pid = doors.agent.pid();
    for _ in 0..3 {
        let answer = std::thread::scope(|scope| {
            let window = scope.spawn(|| doors.whole("/api/v1/locks?for=2s"));
            for _ in 0..10 {
                doors.whole("/api/v1/tree");
                std::thread::sleep(Duration::from_millis(150));
            }
            window.join().expect("an answer")
        });
        let is_worker = |party: &Value| party["pid"] == pid && text(party, "comm").starts_with("worker-");
        let edges = list(&answer, "edges").iter();
        let waited: Vec<&Value> = edges
            .filter(|edge| is_worker(&edge["waiter"]) && is_worker(&edge["holder"]))
            .filter(|edge| number(edge, "wait_ns_total") > 100_000_000)
            .collect();
        assert!(waited.is_empty(), "{waited:?}");
    }
    doors.agent.stop();
}

#[test]
fn an_agent_whose_engine_stands_still_says_that_it_is_ill() {
    let Some(live) = Live::begin("an engine that stands still") else {
        return;
    };
    if !is_full() {
        return skipped("an engine that stands still", "takes a minute (PROCPROBE_FULL=1)");
    }
    let doors = Doors::open(&live, &[]);
    let health = || doors.status("/healthz", "host: localhost\r\n");
    {
        let _stopped = Stopped::thread(doors.agent.pid(), "engine");
        std::thread::sleep(Duration::from_secs(50));
        assert_eq!(health(), "200");
        std::thread::sleep(Duration::from_secs(12));
        assert_eq!(health(), "503");
    }
    eventually("it is well again", || health() == "200");
    doors.agent.stop();
}
