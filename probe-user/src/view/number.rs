//! Numbers as a person reads them: `412 ms`, `3h 12m`, `1,204`.

/// A duration. Unknown is `–`.
pub fn duration(ns: Option<u64>) -> String {
    let Some(ns) = ns else { return UNKNOWN.to_owned() };
    let seconds = ns / 1_000_000_000;
    match ns {
        0..1_000_000 => format!("{} µs", ns / 1_000),
        1_000_000..1_000_000_000 => format!("{} ms", ns / 1_000_000),
        1_000_000_000..60_000_000_000 => format!("{}.{} s", seconds, ns / 100_000_000 % 10),
        _ if seconds < 3_600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        _ if seconds < 86_400 => format!("{}h {:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d {:02}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// A duration that may be longer in truth.
pub fn at_least(ns: Option<u64>, is_lower_bound: bool) -> String {
    if is_lower_bound && ns.is_some() {
        format!("≥ {}", duration(ns))
    } else {
        duration(ns)
    }
}

/// What stands for what is not known.
pub const UNKNOWN: &str = "–";

/// A count with its thousands set apart.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A share in percent with one decimal.
pub fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return UNKNOWN.to_owned();
    }
    format!("{:.1}%", part as f64 * 100.0 / whole as f64)
}

const EIGHTHS: [char; 7] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];

/// A bar of at most `width` cells, in eighths, empty for nothing and at least a sliver for something.
pub fn bar(value: u64, greatest: u64, width: usize) -> String {
    if value == 0 || greatest == 0 {
        return String::new();
    }
    let eighths = (u128::from(value) * width as u128 * 8).div_ceil(u128::from(greatest));
    let eighths = usize::try_from(eighths).unwrap_or(usize::MAX).clamp(1, width * 8);
    let mut out = "█".repeat(eighths / 8);
    if let Some(part) = (eighths % 8).checked_sub(1) {
        out.push(EIGHTHS[part]);
    }
    out
}

/// "1 thread", "2 threads".
pub fn plural(value: u64, noun: &str) -> String {
    let ending = match (value, noun) {
        (1, _) => "",
        (_, noun) if noun.ends_with("ss") || noun.ends_with("ch") => "es",
        _ => "s",
    };
    format!("{} {noun}{ending}", count(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        let cases = [
            (0, "0 µs"),
            (999_999, "999 µs"),
            (1_000_000, "1 ms"),
            (412_345_678, "412 ms"),
            (1_250_000_000, "1.2 s"),
            (59_999_999_999, "59.9 s"),
            (60_000_000_000, "1m 00s"),
            (3_599_000_000_000, "59m 59s"),
            (11_520_000_000_000, "3h 12m"),
            (525_600_000_000_000, "6d 02h"),
        ];
        for (ns, text) in cases {
            assert_eq!(duration(Some(ns)), text);
        }
        assert_eq!(duration(None), "–");
        assert_eq!(at_least(Some(1_000_000), true), "≥ 1 ms");
        assert_eq!(at_least(None, true), "–");
    }

    #[test]
    fn counts_and_bars() {
        assert_eq!(count(1), "1");
        assert_eq!(count(1_204), "1,204");
        assert_eq!(count(1_000_000), "1,000,000");
        assert_eq!(plural(1, "process"), "1 process");
        assert_eq!(plural(2, "process"), "2 processes");
        assert_eq!(plural(1_500, "switch"), "1,500 switches");
        assert_eq!(bar(0, 10, 4), "");
        assert_eq!(bar(10, 10, 4), "████");
        assert_eq!(bar(1, 10_000, 4), "▏");
        assert_eq!(bar(5, 10, 4), "██");
    }
}
