//! Which pod, container or service a cgroup path belongs to.
//!
//! Only the path is looked at; no container runtime is asked. The forms are those that the runtimes' two cgroup drivers make
//! (`systemd`: `docker-ID.scope`; `cgroupfs`: `/docker/ID`), on either version of cgroups.

/// The unit a cgroup path names: the innermost container (`docker:0123456789ab`; in Kubernetes with its pod before it,
/// `pod:UID/containerd:0123456789ab`), else the innermost systemd service or scope (`nginx.service`), else the last
/// component; "" for the root.
pub fn unit_of(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let found = (0..parts.len())
        .rev()
        .find_map(|at| Some((at, container(&parts, at)?)));
    // A pod may hold containers that are no longer there, or processes of its own.
    let pod = |upto: usize| parts[..upto].iter().rev().find_map(|part| pod(part));
    match found {
        Some((at, container)) => match pod(at + 1) {
            Some(pod) => format!("pod:{pod}/{container}"),
            None => container,
        },
        None => match pod(parts.len()) {
            Some(pod) => format!("pod:{pod}"),
            None => service(&parts),
        },
    }
}

/// The container that a component names, with the runtime where the path tells it.
fn container(parts: &[&str], at: usize) -> Option<String> {
    let name = parts[at].strip_suffix(".scope").unwrap_or(parts[at]);
    if let Some(name) = name.strip_prefix("lxc.payload.").or(lxc_v1(parts, at)) {
        return Some(format!("lxc:{name}"));
    }
    if let Some(machine) = name.strip_prefix("systemd-nspawn@") {
        return Some(format!("nspawn:{}", machine.strip_suffix(".service")?));
    }
    let (runtime, id) = name.rsplit_once(['-', ':']).unwrap_or(("", name));
    if id.len() != 64 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let parent = if at > 0 { parts[at - 1] } else { "" };
    // The id's 12 digits that runtimes print.
    Some(format!("{}:{}", runtime_name(runtime, parent), &id[..12]))
}

/// Whether a cgroup is that of the process which watches over a container, rather than of the container: part
/// of the same unit, without its limits.
pub fn is_monitor(name: &str) -> bool {
    ["libpod-conmon-", "crio-conmon-"]
        .iter()
        .any(|monitor| name.starts_with(monitor))
}

/// LXC's own form before cgroups v2: `/lxc/NAME`.
fn lxc_v1<'a>(parts: &[&'a str], at: usize) -> Option<&'a str> {
    (at == 1 && parts[0] == "lxc").then(|| parts[1])
}

/// The runtime by what stands before the id, or by the directory that it is in.
fn runtime_name(before: &str, parent: &str) -> &'static str {
    let is = |name: &str| before.split(['-', ':']).any(|word| word == name);
    // What watches over a container (`libpod-conmon-ID`, `crio-conmon-ID`) counts as part of it.
    match () {
        () if is("libpod") => "podman",
        () if is("crio") => "crio",
        () if is("containerd") || is("nerdctl") => "containerd",
        () if is("docker") || (before.is_empty() && parent == "docker") => "docker",
        () => "container",
    }
}

/// The uid of the pod whose cgroup a component is: `kubepods-burstable-podUID.slice` with `_` for `-`, or `podUID`.
fn pod(part: &str) -> Option<String> {
    let name = part.split_once(".slice").map_or(part, |(name, _)| name);
    let uid = match name.rsplit_once("-pod") {
        Some((before, uid)) if before.contains("kubepods") => uid,
        Some(_) => return None,
        None => name.strip_prefix("pod")?,
    };
    let uid = uid.replace('_', "-");
    // Those of static pods are hashes without dashes.
    let is_uid = uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') && uid.len() >= 32;
    is_uid.then_some(uid)
}

/// The innermost systemd unit, or the last component.
fn service(parts: &[&str]) -> String {
    let is_unit = |part: &&&str| part.ends_with(".service") || part.ends_with(".scope");
    let mut units = parts.iter().rev().filter(is_unit);
    // A user's manager itself lives in an `init.scope` of its own.
    let innermost = units.next().map(|unit| match units.next() {
        Some(outer) if *unit == "init.scope" => outer,
        _ => unit,
    });
    let name = innermost.or(parts.last()).copied().unwrap_or_default();
    without_run(name)
}

/// Without the part that is new for every run: `snap.firefox.firefox-UUID.scope` would be a unit for each of them.
fn without_run(name: &str) -> String {
    const UUID: usize = 36;
    let stem = name.strip_suffix(".scope").unwrap_or_default();
    let split = stem
        .len()
        .checked_sub(UUID)
        .filter(|&at| stem.is_char_boundary(at));
    let Some((before, uuid)) = split.map(|at| stem.split_at(at)) else {
        return name.to_owned();
    };
    let is_uuid = uuid.char_indices().all(|(at, letter)| {
        if [8, 13, 18, 23].contains(&at) {
            letter == '-'
        } else {
            letter.is_ascii_hexdigit()
        }
    });
    match before.strip_suffix('-') {
        Some(before) if is_uuid => format!("{before}.scope"),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::unit_of;

    proptest! {
        #[test]
        fn never_panics_and_is_never_more_than_its_components(path in ".*|(/[a-f0-9]{60,66}|/docker-[a-f0-9]{64}\\.scope|/é*\\.service|/)*") {
            let unit = unit_of(&path);
            // A pod and its container at most.
            prop_assert!(unit.matches('/').count() <= 1, "{unit:?}");
            prop_assert!(unit.len() <= path.len() + "pod:/container:".len());
        }
    }

    const UUID: &str = "6f3c2a1e-0b7d-4c55-9e21-3d8f5a6b7c90";

    /// Paths as the runtimes make them; ID, ID2 stand for 64 digits, UID for a pod's.
    const FORMS: [(&str, &str); 47] = [
        // systemd
        ("/", ""),
        ("/init.scope", "init.scope"),
        ("/system.slice/nginx.service", "nginx.service"),
        ("/system.slice/nginx.service/workers", "nginx.service"),
        (
            "/system.slice/system-getty.slice/getty@tty1.service",
            "getty@tty1.service",
        ),
        ("/user.slice/user-0.slice/session-3.scope", "session-3.scope"),
        (
            "/user.slice/user-1000.slice/user@1000.service/init.scope",
            "user@1000.service",
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/app-x.service",
            "app-x.service",
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/snap.firefox.firefox-UUID.scope",
            "snap.firefox.firefox.scope",
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/vte-spawn-UUID.scope",
            "vte-spawn.scope",
        ),
        ("/system.slice/snap.lxd.daemon.service", "snap.lxd.daemon.service"),
        ("/batch/job-7", "job-7"),
        // docker: systemd driver, cgroupfs driver, rootless, a container in a container, systemd in a container
        ("/system.slice/docker-ID.scope", "docker:0123456789ab"),
        ("/docker/ID", "docker:0123456789ab"),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-ID.scope",
            "docker:0123456789ab",
        ),
        ("/docker/ID/docker/ID2", "docker:fedcba987654"),
        (
            "/system.slice/docker-ID.scope/system.slice/nginx.service",
            "docker:0123456789ab",
        ),
        ("/docker/ID/init.scope", "docker:0123456789ab"),
        ("/docker/buildkit/abc", "abc"),
        ("/my-parent/ID", "container:0123456789ab"),
        // podman: with crun's directory for the payload, in a pod, its monitor, rootless, split, cgroupfs driver
        ("/machine.slice/libpod-ID.scope", "podman:0123456789ab"),
        ("/machine.slice/libpod-ID.scope/container", "podman:0123456789ab"),
        (
            "/machine.slice/machine-libpod_pod_ID2.slice/libpod-ID.scope/container",
            "podman:0123456789ab",
        ),
        ("/machine.slice/libpod-conmon-ID.scope", "podman:0123456789ab"),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container",
            "podman:0123456789ab",
        ),
        (
            "/system.slice/web.service/libpod-payload-ID",
            "podman:0123456789ab",
        ),
        ("/libpod_parent/libpod-ID", "podman:0123456789ab"),
        // containerd without Kubernetes
        ("/system.slice/nerdctl-ID.scope", "containerd:0123456789ab"),
        ("/default/ID", "container:0123456789ab"),
        // Kubernetes: systemd driver by class of service, cgroupfs driver, CRI-O with crun, docker, a static pod
        (
            "/kubepods.slice/kubepods-podUID_.slice/cri-containerd-ID.scope",
            "pod:UID/containerd:0123456789ab",
        ),
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID_.slice/cri-containerd-ID.scope",
            "pod:UID/containerd:0123456789ab",
        ),
        (
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podUID_.slice/crio-ID.scope/container",
            "pod:UID/crio:0123456789ab",
        ),
        (
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podUID_.slice/crio-conmon-ID.scope",
            "pod:UID/crio:0123456789ab",
        ),
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID_.slice/docker-ID.scope",
            "pod:UID/docker:0123456789ab",
        ),
        ("/kubepods/burstable/podUID/ID", "pod:UID/container:0123456789ab"),
        ("/kubepods/podUID/crio-ID", "pod:UID/crio:0123456789ab"),
        ("/kubepods/besteffort/podUID", "pod:UID"),
        (
            "/kubepods/burstable/pod0123456789abcdef0123456789abcdef/ID",
            "pod:0123456789abcdef0123456789abcdef/container:0123456789ab",
        ),
        // containerd with its driver set otherwise than the kubelet's
        (
            "/system.slice/containerd.service/kubepods-burstable-podUID_.slice:cri-containerd:ID",
            "pod:UID/containerd:0123456789ab",
        ),
        // kind, k3d, minikube: a node that is a container
        (
            "/docker/ID2/kubelet/kubepods/burstable/podUID/ID",
            "pod:UID/container:0123456789ab",
        ),
        (
            "/system.slice/docker-ID2.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podUID_.slice/cri-containerd-ID.scope",
            "pod:UID/containerd:0123456789ab",
        ),
        (
            "/kubepods.slice/kubepods-podUID_.slice/cri-containerd-ID.scope/system.slice/app.service",
            "pod:UID/containerd:0123456789ab",
        ),
        // LXC, LXD, systemd-nspawn, virtual machines
        ("/lxc.payload.web/system.slice/nginx.service", "lxc:web"),
        ("/lxc/web/init.scope", "lxc:web"),
        (
            "/machine.slice/systemd-nspawn@web.service/payload/system.slice/nginx.service",
            "nspawn:web",
        ),
        (
            "/machine.slice/machine-qemu\\x2d1\\x2dvm.scope/libvirt/emulator",
            "machine-qemu\\x2d1\\x2dvm.scope",
        ),
        // names that only look like it
        ("/system.slice/podium.service", "podium.service"),
    ];

    #[test]
    fn paths_as_the_runtimes_make_them() {
        let id = "0123456789abcdef".repeat(4);
        let other = "fedcba9876543210".repeat(4);
        let fill = |form: &str| {
            let text = form
                .replace("UUID", UUID)
                .replace("UID_", &UUID.replace('-', "_"));
            text.replace("UID", UUID)
                .replace("ID2", &other)
                .replace("ID", &id)
        };
        for (path, unit) in FORMS {
            assert_eq!(unit_of(&fill(path)), fill(unit), "{path}");
        }
    }

    #[test]
    fn who_watches_over_a_container_is_told_from_it() {
        assert!(super::is_monitor("libpod-conmon-0123.scope") && super::is_monitor("crio-conmon-0123"));
        assert!(!super::is_monitor("libpod-0123.scope") && !super::is_monitor("conmon.service"));
    }

    /// Cgroups may be called anything.
    #[test]
    fn odd_names_do_no_harm() {
        for odd in [
            "//",
            "/é",
            "/.scope",
            "/-.scope",
            "/pod",
            "/kubepods-pod.slice",
            "/lxc.payload.",
            "/systemd-nspawn@x",
            "/::",
        ] {
            unit_of(odd);
        }
        let long = format!("/{}é-{UUID}.scope", "x".repeat(300));
        assert!(unit_of(&long).ends_with("é.scope"));
    }
}
