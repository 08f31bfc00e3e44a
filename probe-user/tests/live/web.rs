//! Who may see what: TLS, passwords, the arguments of processes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::common::agent::{Agent, try_get};
use crate::common::json::{process, text};
use crate::common::wire::{connect, rest};
use crate::common::workload::Workload;
use crate::common::{Live, eventually, tools};

/// A directory with a certificate for localhost and a web configuration.
struct Secured {
    directory: tempfile::TempDir,
    curl: PathBuf,
}

impl Secured {
    /// joe's password is "secret", ann's "other": `htpasswd -nBC 4`.
    const JOE: &str = "$2b$04$Zs11kyvZuhCXQ7WA9xlfKu3/Ta83VU36M976H6W2XodoTD4RlySEu";
    const ANN: &str = "$2b$04$2KRHBBGCeEk4LaoTiPFfCu.5Uxv.n9GvYHzRQt87eudx1zxq2RGqO";

    fn new() -> Option<Self> {
        let curl = tools::find("TLS", "curl")?;
        let openssl = tools::find("TLS", "openssl")?;
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("opening it");
        let output = Command::new(openssl)
            .args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2".split(' '))
            .args(
                "-subj /CN=localhost -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=CA:FALSE \
                 -keyout web.key -out web.crt"
                    .split(' '),
            )
            .current_dir(directory.path())
            .output()
            .expect("starting openssl");
        assert!(output.status.success(), "{output:?}");
        let secured = Self { directory, curl };
        secured.write("joe", Self::JOE, "web.crt");
        Some(secured)
    }

    fn path(&self, name: &str) -> String {
        let path = self.directory.path().join(name);
        path.to_str().expect("a path in UTF-8").to_owned()
    }

    fn write(&self, user: &str, hash: &str, certificate: &str) {
        let text = format!(
            "tls_server_config:\n  cert_file: {certificate}\n  key_file: web.key\n\
             http_server_config:\n  headers:\n    X-Frame-Options: deny\n\
             basic_auth_users:\n  {user}: {hash}\n"
        );
        fs::write(self.path("web.yml"), text).expect("writing a web configuration");
    }

    /// Status and body of a page, with more arguments.
    fn get(&self, agent: &Agent, path: &str, arguments: &[&str]) -> (String, String) {
        let output = Command::new(&self.curl)
            .args([
                "-s",
                "-m",
                "20",
                "-w",
                "\n%{http_code}",
                "--cacert",
                &self.path("web.crt"),
            ])
            .args(arguments)
            .arg(format!("https://{}{path}", agent.address))
            .output()
            .expect("starting curl");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let (body, status) = text.rsplit_once('\n').expect("a status after the body");
        (status.to_owned(), body.to_owned())
    }
}

/// There, and not there.
const PATHS: [&str; 6] = ["/metrics", "/healthz", "/readyz", "/", "/api/v1/tree", "/nowhere"];
/// Ways to ask that nobody should get an answer to.
const WRONG: [&[&str]; 6] = [
    &[],
    &["-u", "joe:wrong"],
    &["-u", "nobody:secret"],
    &["-u", ":"],
    &["-H", "Authorization: Bearer joe"],
    &["-X", "POST", "-d", "x"],
];

#[test]
fn without_the_password_there_is_401_and_nothing_else() {
    let Some(live) = Live::begin("TLS and passwords") else {
        return;
    };
    let Some(secured) = Secured::new() else { return };
    let agent = Agent::start(&live, &["--web-config", &secured.path("web.yml")]);
    for path in PATHS {
        for wrong in WRONG {
            let (status, body) = secured.get(&agent, path, wrong);
            assert_eq!(
                (status.as_str(), body.as_str()),
                ("401", "Unauthorized\n"),
                "{path} {wrong:?}"
            );
        }
    }
    let (status, body) = secured.get(&agent, "/metrics", &["-u", "joe:secret"]);
    assert!(
        status == "200" && body.contains("procprobe_build_info"),
        "{status}: {body}"
    );
    assert_eq!(secured.get(&agent, "/nowhere", &["-u", "joe:secret"]).0, "404");
    let (_, headers) = secured.get(&agent, "/healthz", &["-u", "joe:secret", "-D", "-"]);
    assert!(
        headers.to_lowercase().contains("x-frame-options: deny"),
        "{headers}"
    );
    // Plain HTTP gets no HTTP from it, and who does not know the certificate none at all.
    assert!(try_get(&agent.address, "/healthz").is_err());
    assert_eq!(
        secured.get(&agent, "/healthz", &["--cacert", "/dev/null"]).0,
        "000"
    );
    agent.stop();
}

#[test]
fn the_command_line_shows_its_password_to_whom_it_believes() {
    let Some(live) = Live::begin("asking over TLS") else {
        return;
    };
    let Some(secured) = Secured::new() else { return };
    let web = secured.path("web.yml");
    let agent = Agent::start(&live, &["--web-config", &web]);
    let write = |name: &str, text: &str| {
        fs::write(secured.path(name), text).expect("writing a client's configuration");
        secured.path(name)
    };
    let believed = "tls_config:\n  ca_file: web.crt\n";
    let joe = |password: &str| format!("basic_auth:\n  username: joe\n  password: {password}\n");
    let at = format!("https://{}", agent.address);
    let ask = |config: &str| {
        live.run(&[
            "tree",
            "1",
            "--ancestry",
            "-o",
            "json",
            "--connect",
            &at,
            "--http-config",
            config,
        ])
    };

    fs::write(secured.path("password"), "secret\n").expect("writing a password");
    let from_file = "basic_auth:\n  username: joe\n  password_file: password\n";
    for (name, auth) in [("inline.yml", joe("secret")), ("file.yml", from_file.to_owned())] {
        let outcome = ask(&write(name, &format!("{auth}{believed}")));
        assert!(outcome.status.success(), "{outcome:?}");
        let answer: Value = serde_json::from_str(&outcome.stdout).expect("JSON");
        assert_eq!(process(&answer, 1)["pid"], 1);
    }
    for (name, config, why) in [
        ("wrong.yml", format!("{}{believed}", joe("wrong")), "401"),
        ("nobody.yml", believed.to_owned(), "401"),
        ("unknown.yml", joe("secret"), "certificate"),
    ] {
        let outcome = ask(&write(name, &config));
        let line = outcome.complaint(1);
        assert!(line.contains(why), "{name}: {line}");
        assert!(!line.contains("secret"), "{line}");
    }
    // An agent that wants TLS says nothing without.
    let plain = format!("http://{}", agent.address);
    let outcome = live.run(&[
        "tree",
        "1",
        "--ancestry",
        "--connect",
        &plain,
        "--http-config",
        &secured.path("inline.yml"),
    ]);
    outcome.complaint(1);
    agent.stop();
}

#[test]
fn who_begins_no_handshake_is_cut_off() {
    let Some(live) = Live::begin("no handshake") else {
        return;
    };
    let Some(secured) = Secured::new() else { return };
    let config = secured.path("procprobe.toml");
    fs::write(&config, "[http]\nheader_timeout = \"1s\"\n").expect("writing a configuration");
    let web = secured.path("web.yml");
    let agent = Agent::start(&live, &["--config", &config, "--web-config", &web]);
    let mut silent = connect(&agent.address);
    assert_eq!(secured.get(&agent, "/healthz", &["-u", "joe:secret"]).0, "200");
    assert_eq!(rest(&mut silent), b"");
    agent.stop();
}

#[test]
fn a_hangup_brings_the_new_password_and_a_wrong_file_changes_nothing() {
    let Some(live) = Live::begin("reloading passwords") else {
        return;
    };
    let Some(secured) = Secured::new() else { return };
    let agent = Agent::start(&live, &["--web-config", &secured.path("web.yml")]);
    let status = |user: &str| secured.get(&agent, "/healthz", &["-u", user]).0;
    assert_eq!(status("joe:secret"), "200");
    secured.write("ann", Secured::ANN, "web.crt");
    agent.running.signal(libc::SIGHUP);
    eventually("the new user", || status("ann:other") == "200");
    assert_eq!(status("joe:secret"), "401");
    secured.write("joe", Secured::JOE, "nowhere.crt");
    agent.running.signal(libc::SIGHUP);
    eventually("a complaint", || agent.log().contains("nowhere.crt"));
    assert!(agent.log().contains("not reloaded"), "{}", agent.log());
    assert_eq!(status("ann:other"), "200");
    agent.stop();
}

#[test]
fn a_wrong_file_is_named_on_one_line() {
    let Some(live) = Live::begin("wrong certificates") else {
        return;
    };
    let Some(secured) = Secured::new() else { return };
    let web = secured.path("web.yml");
    secured.write("joe", Secured::JOE, "nowhere.crt");
    for check in [&[][..], &["--check-config"]] {
        let mut arguments = vec!["agent", "--listen", "127.0.0.1:0", "--web-config", &web];
        arguments.extend(check);
        let outcome = live.run(&arguments);
        let line = outcome.complaint(1);
        assert!(
            line.contains(&secured.path("nowhere.crt"))
                && line.contains("No such file")
                && line.contains("cert_file"),
            "{line}"
        );
    }
    // A key in place of a certificate.
    secured.write("joe", Secured::JOE, "web.key");
    let outcome = live.run(&["agent", "--web-config", &web, "--check-config"]);
    assert!(
        outcome.complaint(1).contains("no certificate in it"),
        "{outcome:?}"
    );
    secured.write("joe", Secured::JOE, "web.crt");
    let said = live.text(&["agent", "--web-config", &web, "--check-config"]);
    assert!(said.starts_with("ok: ") && said.contains(&web), "{said}");
}

#[test]
fn a_wrong_option_is_named_with_its_line_and_the_nearest_one() {
    let Some(live) = Live::begin("wrong options") else {
        return;
    };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let config = directory.path().join("procprobe.toml");
    let config = config.to_str().expect("a path in UTF-8");
    fs::write(config, "\nlistn = \"127.0.0.1:0\"\n").expect("writing a configuration");
    let outcome = live.run(&["agent", "--config", config, "--check-config"]);
    let line = outcome.complaint(1);
    assert!(
        line.contains(&format!(
            "{config} line 2: unknown key listn (did you mean listen?)"
        )),
        "{line}"
    );
}

/// The JSON and the text that the API has about a process.
fn shown(agent: &Agent, pid: u32) -> (Value, String) {
    let tree: Value = serde_json::from_str(&agent.get(&format!("/api/v1/tree?pid={pid}"))).expect("JSON");
    (tree, agent.get(&format!("/api/v1/tree?pid={pid}&format=text")))
}

#[test]
fn arguments_are_shown_only_when_that_is_asked_for() {
    let Some(live) = Live::begin("command lines") else {
        return;
    };
    let scene = Workload::start(&["threads", "3"]);
    let exe = fs::read_link(format!("/proc/{}/exe", scene.pid)).expect("its executable");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let config = directory.path().join("procprobe.toml");
    fs::write(&config, "").expect("writing a configuration");
    let file = config.to_str().expect("a path in UTF-8");
    let agent = Agent::start(&live, &["--config", file]);
    let (tree, lines) = shown(&agent, scene.pid);
    let hidden = process(&tree, scene.pid);
    assert!(hidden["cmdline"].is_null(), "{hidden}");
    assert_eq!(Path::new(text(hidden, "exe")), exe);
    assert!(!lines.contains("threads 3"), "{lines}");
    let local = live.json(&["tree", &scene.pid.to_string()]);
    let cmdline = &process(&local, scene.pid)["cmdline"];
    assert_eq!(cmdline[1], "threads", "{cmdline}");
    fs::write(&config, "expose_cmdline = true\n").expect("writing a configuration");
    agent.running.signal(libc::SIGHUP);
    eventually("command lines", || {
        shown(&agent, scene.pid).1.contains("threads 3")
    });
    assert_eq!(
        &process(&shown(&agent, scene.pid).0, scene.pid)["cmdline"],
        cmdline
    );
    agent.stop();
    // The flag goes before the file.
    let agent = Agent::start(&live, &["--config", file, "--expose-cmdline=false"]);
    assert!(process(&shown(&agent, scene.pid).0, scene.pid)["cmdline"].is_null());
    agent.stop();
}
