//! Which container or service a cgroup path belongs to.
//!
//! Only the path is looked at; no container runtime is asked.

/// The unit a cgroup path names: a container (`docker:0123456789ab`), else the innermost systemd service or scope
/// (`nginx.service`), else the last component; "" for the root.
pub fn unit_of(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    if let Some(container) = parts.iter().rev().find_map(|part| container(part)) {
        return container;
    }
    let is_unit = |part: &&&str| part.ends_with(".service") || part.ends_with(".scope");
    parts
        .iter()
        .rev()
        .find(is_unit)
        .or(parts.last())
        .map(|part| (*part).to_owned())
        .unwrap_or_default()
}

/// A container's id, cut to the 12 digits that runtimes print, with the runtime where the name tells it.
fn container(part: &str) -> Option<String> {
    let name = part.strip_suffix(".scope").unwrap_or(part);
    let (runtime, id) = name.rsplit_once(['-', ':']).unwrap_or(("", name));
    if id.len() != 64 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let runtime = match runtime.rsplit('-').next().unwrap_or_default() {
        "docker" => "docker:",
        "libpod" => "podman:",
        "crio" => "crio:",
        "containerd" => "containerd:",
        _ => "container:",
    };
    Some(format!("{runtime}{}", &id[..12]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::unit_of;

    proptest! {
        #[test]
        fn never_panics_and_is_never_more_than_a_component(path in ".*|(/[a-f0-9]{60,66}|/docker-[a-f0-9]{64}\\.scope|/é*\\.service|/)*") {
            let unit = unit_of(&path);
            prop_assert!(!unit.contains('/'), "{unit:?}");
            prop_assert!(unit.len() <= path.len() + "container:".len());
        }
    }

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn services_and_scopes() {
        assert_eq!(unit_of("/system.slice/nginx.service"), "nginx.service");
        assert_eq!(
            unit_of("/user.slice/user-0.slice/session-3.scope"),
            "session-3.scope"
        );
        assert_eq!(unit_of("/system.slice/nginx.service/workers"), "nginx.service");
        assert_eq!(unit_of("/"), "");
        assert_eq!(unit_of("/batch/job-7"), "job-7");
    }

    #[test]
    fn containers() {
        assert_eq!(
            unit_of(&format!("/system.slice/docker-{ID}.scope")),
            "docker:0123456789ab"
        );
        assert_eq!(unit_of(&format!("/docker/{ID}")), "container:0123456789ab");
        assert_eq!(
            unit_of(&format!("/machine.slice/libpod-{ID}.scope/container")),
            "podman:0123456789ab"
        );
        assert_eq!(
            unit_of(&format!(
                "/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope"
            )),
            "containerd:0123456789ab"
        );
        assert_eq!(
            unit_of(&format!("/kubepods/burstable/pod1/crio-{ID}")),
            "crio:0123456789ab"
        );
    }
}
