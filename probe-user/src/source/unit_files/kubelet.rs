//! What containers are called, from the directories in which kubelet and runtimes leave their names: no API,
//! no token.
//!
//! | who | where | says |
//! |---|---|---|
//! | kubelet | `/var/log/containers/POD_NAMESPACE_CONTAINER-ID.log` | the container with that id |
//! | kubelet | `/var/log/pods/NAMESPACE_POD_UID/` | the pod with that uid |
//!
//! Only the names of entries are looked at: nothing is opened, no link is followed. The kubelet's own names
//! hold no `_` (RFC 1123), so each form can be read in one way; what does not follow it is none of its.

use std::fs;
use std::path::Path;
use std::time::Instant;

use foldhash::HashMap;

/// Entries of a directory that are looked at: a node has some hundred containers, and their logs of before.
const MOST: usize = 50_000;
/// Longer names are nobody's: Kubernetes allows 253 bytes for a pod, 63 for the others.
const LONGEST: usize = 253;

/// What a container is called, as far as that is known; "" if it is not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Name {
    /// Namespace of the pod.
    pub namespace: String,
    /// Pod.
    pub pod: String,
    /// Container; "" of what is the pod's.
    pub container: String,
}

/// All names that were found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// By the first twelve digits of the container's id. `None`: two containers have the same.
    containers: HashMap<String, Option<Name>>,
    pods: HashMap<String, Name>,
    /// Whether there was no time for all.
    pub is_partial: bool,
}

impl Names {
    /// Those below `/var/log`, or what stands for it.
    pub fn read(log: &Path, deadline: Instant) -> Self {
        let mut names = Self::default();
        names.is_partial |= !entries(&log.join("pods"), deadline, |entry| {
            if let Some((uid, name)) = pod(entry) {
                names.pods.insert(uid, name);
            }
        });
        names.is_partial |= !entries(&log.join("containers"), deadline, |entry| {
            if let Some((id, name)) = container(entry) {
                let found = names.containers.entry(id).or_insert_with(|| Some(name.clone()));
                // A container has one log; another of the same twelve digits would be another's name.
                if found.as_ref() != Some(&name) {
                    *found = None;
                }
            }
        });
        names
    }

    /// Reads them anew. What was not reached keeps its name of before.
    pub fn renew(&mut self, log: &Path, deadline: Instant) {
        let mut new = Self::read(log, deadline);
        if new.is_partial {
            for (id, name) in self.containers.drain() {
                new.containers.entry(id).or_insert(name);
            }
            for (uid, name) in self.pods.drain() {
                new.pods.entry(uid).or_insert(name);
            }
            new.containers.retain(within(MOST));
            new.pods.retain(within(MOST));
        }
        *self = new;
    }

    /// Whether a container, or the pod that a unit is, has its own name.
    pub fn knows(&self, unit: &str) -> bool {
        match unit.rsplit_once(':') {
            Some(("pod", uid)) => self.pods.contains_key(uid),
            Some((_, id)) => self.containers.contains_key(id),
            None => false,
        }
    }

    /// The name of a unit as its cgroup says (`pod:UID/containerd:ID`, `pod:UID`), and its runtime ("" of a
    /// pod).
    pub fn of<'a>(&self, unit: &'a str) -> Option<(Name, &'a str)> {
        let (uid, container) = match unit.strip_prefix("pod:") {
            Some(rest) => rest
                .split_once('/')
                .map_or((rest, None), |(uid, one)| (uid, Some(one))),
            None => return None,
        };
        let pod = self.pods.get(uid);
        let Some((runtime, id)) = container.and_then(|one| one.split_once(':')) else {
            return Some((pod?.clone(), ""));
        };
        let named = self.containers.get(id).cloned().flatten();
        // A link that outlived its pod, or an id that another has as well.
        let contradicts =
            |name: &Name| pod.is_some_and(|pod| (&pod.namespace, &pod.pod) != (&name.namespace, &name.pod));
        let name = named.filter(|name| !contradicts(name)).or_else(|| pod.cloned())?;
        Some((name, runtime))
    }
}

/// For [`HashMap::retain`]: the first so many.
fn within<K, V>(most: usize) -> impl FnMut(&K, &mut V) -> bool {
    let mut count = 0;
    move |_, _| {
        count += 1;
        count <= most
    }
}

/// Hands over what a directory has; false if that was not all.
fn entries(directory: &Path, deadline: Instant, mut take: impl FnMut(&str)) -> bool {
    let Ok(entries) = fs::read_dir(directory) else {
        return true;
    };
    for (count, entry) in entries.flatten().enumerate() {
        if count >= MOST || Instant::now() >= deadline {
            return false;
        }
        if let Some(name) = entry.file_name().to_str() {
            take(name);
        }
    }
    true
}

/// `POD_NAMESPACE_CONTAINER-ID.log`.
fn container(entry: &str) -> Option<(String, Name)> {
    let (pod, rest) = entry.strip_suffix(".log")?.split_once('_')?;
    let (namespace, rest) = rest.split_once('_')?;
    let (container, id) = rest.rsplit_once('-')?;
    let is_id = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let name = Name {
        namespace: namespace.to_owned(),
        pod: pod.to_owned(),
        container: container.to_owned(),
    };
    (is_id && [pod, namespace, container].into_iter().all(is_name)).then(|| (id[..12].to_owned(), name))
}

/// `NAMESPACE_POD_UID`.
fn pod(entry: &str) -> Option<(String, Name)> {
    let (namespace, rest) = entry.split_once('_')?;
    let (pod, uid) = rest.split_once('_')?;
    let is_uid = uid.len() >= 32 && uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    let name = Name {
        namespace: namespace.to_owned(),
        pod: pod.to_owned(),
        container: String::new(),
    };
    (is_uid && [namespace, pod].into_iter().all(is_name)).then(|| (uid.to_owned(), name))
}

/// A name as Kubernetes has them: RFC 1123.
fn is_name(name: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    !name.is_empty() && name.len() <= LONGEST && name.bytes().all(is_letter)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const UID: &str = "6f3c2a1e-0b7d-4c55-9e21-3d8f5a6b7c90";
    const STATIC: &str = "0123456789abcdef0123456789abcdef";

    fn id(first: &str) -> String {
        format!("{first}{}", "0".repeat(64 - first.len()))
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    /// As a kubelet makes it: a pod with an init container and one that was restarted, and a static pod.
    fn kubelet() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let pods = dir.path().join("pods");
        let links = dir.path().join("containers");
        fs::create_dir_all(&links).unwrap();
        let logs = [
            ("shop", "checkout-7d9", UID, "app", 0, id("aaaaaaaaaaaa")),
            ("shop", "checkout-7d9", UID, "app", 1, id("bbbbbbbbbbbb")),
            ("shop", "checkout-7d9", UID, "init-db", 0, id("cccccccccccc")),
            (
                "kube-system",
                "etcd-node-1.example",
                STATIC,
                "etcd",
                3,
                id("dddddddddddd"),
            ),
        ];
        for (namespace, pod, uid, container, restarts, id) in logs {
            let directory = pods.join(format!("{namespace}_{pod}_{uid}")).join(container);
            fs::create_dir_all(&directory).unwrap();
            let log = directory.join(format!("{restarts}.log"));
            fs::write(&log, "").unwrap();
            let link = links.join(format!("{pod}_{namespace}_{container}-{id}.log"));
            std::os::unix::fs::symlink(log, link).unwrap();
        }
        dir
    }

    fn said(names: &Names, unit: &str) -> Option<String> {
        let (name, runtime) = names.of(unit)?;
        Some(format!(
            "{}/{} {} {runtime}",
            name.namespace, name.pod, name.container
        ))
    }

    #[test]
    fn containers_have_the_names_of_the_kubelet() {
        let dir = kubelet();
        let names = Names::read(dir.path(), later());
        assert!(!names.is_partial);
        let of = |unit: &str| said(&names, &unit.replace("UID", UID).replace("STATIC", STATIC));
        let app = Some("shop/checkout-7d9 app containerd".to_owned());
        assert_eq!(of("pod:UID/containerd:aaaaaaaaaaaa"), app, "before its restart");
        assert_eq!(of("pod:UID/containerd:bbbbbbbbbbbb"), app);
        let init = Some("shop/checkout-7d9 init-db crio".to_owned());
        assert_eq!(of("pod:UID/crio:cccccccccccc"), init);
        let etcd = Some("kube-system/etcd-node-1.example etcd containerd".to_owned());
        assert_eq!(of("pod:STATIC/containerd:dddddddddddd"), etcd);
        assert_eq!(
            of("pod:UID"),
            Some("shop/checkout-7d9  ".to_owned()),
            "the pod itself"
        );
        let pause = Some("shop/checkout-7d9  containerd".to_owned());
        assert_eq!(
            of("pod:UID/containerd:eeeeeeeeeeee"),
            pause,
            "the sandbox has no log"
        );
        assert_eq!(of("nginx.service"), None);
        assert_eq!(of("docker:aaaaaaaaaaaa"), None, "no pod's");
    }

    #[test]
    fn what_can_be_read_two_ways_names_nobody() {
        let dir = kubelet();
        let links = dir.path().join("containers");
        let same = format!("{}1", &id("bbbbbbbbbbbb")[..63]);
        fs::write(links.join(format!("other-1_shop_app-{same}.log")), "").unwrap();
        fs::write(
            links.join(format!("other-1_shop_app-{}.log", id("dddddddddddd"))),
            "",
        )
        .unwrap();
        fs::write(
            links.join(format!("other-1_shop_app-{}.log", id("ffffffffffff"))),
            "",
        )
        .unwrap();
        let names = Names::read(dir.path(), later());
        let of = |unit: &str| said(&names, &unit.replace("UID", UID).replace("STATIC", STATIC));
        let pod = Some("shop/checkout-7d9  containerd".to_owned());
        assert_eq!(of("pod:UID/containerd:bbbbbbbbbbbb"), pod, "two of these digits");
        assert_eq!(of("pod:UID/containerd:ffffffffffff"), pod, "another pod's");
        assert_eq!(
            of("pod:STATIC/containerd:dddddddddddd"),
            Some("kube-system/etcd-node-1.example  containerd".to_owned())
        );
    }

    #[test]
    fn what_is_no_name_of_the_kubelet_is_left_alone() {
        let id = id("aaaaaaaaaaaa");
        for odd in [
            "x.log".to_owned(),
            format!("a_b-{id}.log"),
            format!("a_b_c_d-{id}.log"),
            format!("a_b_c-{}.log", &id[1..]),
            format!("a_b_-{id}.log"),
            format!("A\u{1b}[31m_b_c-{id}.log"),
            format!("{}_b_c-{id}.log", "a".repeat(254)),
        ] {
            assert_eq!(container(&odd), None, "{odd:?}");
        }
        for odd in [
            "a_b",
            "a_b_c",
            "a_b_zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz",
            "_b_0123456789abcdef0123456789abcdef",
        ] {
            assert_eq!(pod(odd), None, "{odd:?}");
        }
        assert_eq!(Names::read(Path::new("/nonexistent"), later()), Names::default());
    }

    #[test]
    fn a_directory_without_end_is_left_in_time() {
        let dir = kubelet();
        assert!(Names::read(dir.path(), Instant::now()).is_partial);
    }
}
