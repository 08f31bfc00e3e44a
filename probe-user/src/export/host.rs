//! Whether a request means this host.
//!
//! A page in a browser may ask any host it can name, and reads only answers from the host it came from. If
//! that name is made to lead to 127.0.0.1 once the page is there ("DNS rebinding"), the browser takes the
//! agent for the page's own host. What gives it away is the name: whoever means the agent calls it by an
//! address, as localhost, or by the host's own name.

use std::net::IpAddr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, Uri, header};

/// Names that this host goes by, besides addresses and localhost.
#[derive(Clone, Debug, Default)]
pub struct Names(Vec<String>);

impl Names {
    /// Names from the configuration, and the host's own.
    pub fn new(configured: &[String]) -> Self {
        let own = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let names = configured.iter().map(String::as_str).chain([own.trim()]);
        Self(names.map(normal).filter(|name| !name.is_empty()).collect())
    }

    /// Whether a request means this host. One that names none does: no browser leaves the name out.
    pub fn include(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        let named = headers
            .get_all(header::HOST)
            .iter()
            .all(|value| value.to_str().is_ok_and(|host| self.has(host)));
        named
            && uri
                .authority()
                .is_none_or(|authority| self.has(authority.as_str()))
    }

    fn has(&self, authority: &str) -> bool {
        let Ok(authority) = authority.parse::<Authority>() else {
            return false;
        };
        // What is said besides the host is a port: "[::1].evil.example" and "localhost@evil.example" have
        // hosts that are ours, to a reader who leaves out the rest.
        let rest = authority.as_str().strip_prefix(authority.host());
        let is_port = |rest: &str| rest.is_empty() || rest.starts_with(':');
        if !rest.is_some_and(is_port) {
            return false;
        }
        let host = normal(authority.host());
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        bare.parse::<IpAddr>().is_ok()
            || host == "localhost"
            || host.ends_with(".localhost")
            || self.0.contains(&host)
    }
}

/// Names mean the same in any case, and with the root's dot at their end.
fn normal(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn addresses_and_own_names_mean_this_host_and_others_do_not() {
        let names = Names(vec!["node7".to_owned(), "metrics.example".to_owned()]);
        for ours in [
            "127.0.0.1:9982",
            "127.0.0.1",
            "[::1]:9982",
            "10.1.2.3",
            "localhost",
            "LOCALHOST:9982",
            "localhost.",
            "a.localhost",
            "node7:9982",
            "NODE7",
            "metrics.example.:1",
        ] {
            assert!(names.has(ours), "{ours}");
        }
        for foreign in [
            "evil.example",
            "[::1].evil.example",
            "user@localhost",
            "localhost@evil.example",
            "evil.example:9982",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "notlocalhost",
            "node7.evil.example",
            "",
            "a b",
            "[::1",
            "xn--e28h.example",
            "127.0.0.1@evil.example",
        ] {
            assert!(!names.has(foreign), "{foreign}");
        }
    }

    #[test]
    fn every_place_where_a_name_stands_counts() {
        let names = Names::default();
        let headers = |hosts: &[&'static str]| {
            let hosts = hosts
                .iter()
                .map(|&host| (header::HOST, HeaderValue::from_static(host)));
            hosts.collect::<HeaderMap>()
        };
        let mut two = headers(&["localhost"]);
        two.append(header::HOST, HeaderValue::from_static("evil.example"));
        let path = Uri::from_static("/metrics");
        assert!(names.include(&path, &headers(&["localhost"])));
        assert!(names.include(&path, &headers(&[])), "HTTP/1.0, by hand");
        assert!(!names.include(&path, &two));
        let absolute = Uri::from_static("http://evil.example/metrics");
        assert!(!names.include(&absolute, &headers(&["localhost"])));
    }
}
