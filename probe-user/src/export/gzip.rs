//! Answers compressed for whom that suits: a tree of 10,000 threads is ten megabytes, and a tenth of that
//! compressed.

use std::io::Write;

use axum::http::{HeaderMap, header};
use flate2::Compression;
use flate2::write::GzEncoder;

/// Below this, a packet is a packet.
const WORTH_IT: usize = 1024;

/// Whether a request takes gzip.
pub fn accepted(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter();
    let codings = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    let (mut gzip, mut any) = (None, None);
    for coding in codings {
        let mut fields = coding.split(';').map(str::trim);
        let name = fields.next().unwrap_or_default();
        let quality = fields.find_map(|field| field.strip_prefix("q=")?.parse::<f32>().ok());
        let is_wanted = quality.unwrap_or(1.0) > 0.0;
        if name.eq_ignore_ascii_case("gzip") {
            gzip = Some(is_wanted);
        } else if name == "*" {
            any = Some(is_wanted);
        }
    }
    gzip.or(any).unwrap_or(false)
}

/// The bytes, compressed; `None` if that is not worth it. The quickest level: the next ones take twice the
/// time for a twentieth of the size.
pub fn compressed(bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.len() < WORTH_IT {
        return None;
    }
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 8), Compression::fast());
    encoder.write_all(bytes).ok()?;
    encoder.finish().ok()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn accepts(values: &[&'static str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::ACCEPT_ENCODING, value.parse().unwrap());
        }
        accepted(&headers)
    }

    #[test]
    fn who_asks_for_gzip_gets_it_and_who_refuses_it_does_not() {
        for yes in [
            &["gzip"][..],
            &["GZIP;q=0.1"],
            &["br, gzip"],
            &["br", "gzip"],
            &["*"],
            &["*;q=0, gzip"],
        ] {
            assert!(accepts(yes), "{yes:?}");
        }
        for no in [
            &[][..],
            &["br"],
            &["gzip;q=0"],
            &["br, gzip;q=0.0"],
            &["*;q=0"],
            &["*, gzip; q=0"],
            &["identity"],
            &[",;,"],
        ] {
            assert!(!accepts(no), "{no:?}");
        }
    }

    #[test]
    fn what_was_compressed_comes_out_again() {
        let text = "procprobe ".repeat(1000);
        let packed = compressed(text.as_bytes()).unwrap();
        assert!(packed.len() < text.len() / 10);
        let mut out = String::new();
        flate2::read::GzDecoder::new(packed.as_slice())
            .read_to_string(&mut out)
            .unwrap();
        assert_eq!(out, text);
        assert!(compressed(b"ok").is_none());
    }
}
