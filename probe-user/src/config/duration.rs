//! Durations as people write them: `10s`, `500ms`, `2m`. On the command line and in the configuration alike.

use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error};

/// A humantime duration that is worth waiting for.
///
/// # Errors
/// What is wrong with it, and an example.
pub fn parse(text: &str) -> Result<Duration, String> {
    let example = "try 10s, 500ms, 2m";
    let duration = humantime::parse_duration(text).map_err(|_| format!("not a duration ({example})"))?;
    if duration.is_zero() {
        return Err(format!("no time at all ({example})"));
    }
    if duration > Duration::from_secs(7 * 86_400) {
        return Err("more than a week".to_owned());
    }
    Ok(duration)
}

/// The same for serde.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).map_err(|why| D::Error::custom(format!("{text:?}: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_say_what_is_wrong() {
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("10x").unwrap_err(), "not a duration (try 10s, 500ms, 2m)");
        assert_eq!(parse("0s").unwrap_err(), "no time at all (try 10s, 500ms, 2m)");
        assert!(parse("-1s").is_err() && parse("").is_err() && parse("99999w").is_err());
    }
}
