//! Answers compressed for whom that suits: a tree of 10,000 threads is ten megabytes, and a tenth of that
//! compressed.
//!
//! gzip is what Prometheus and everybody else asks for. zstd is for those who ask for it: a little less of
//! both time and bytes.

use std::io::Write;

use axum::http::{HeaderMap, header};
use flate2::Compression;
use flate2::write::GzEncoder;

/// Below this, a packet is a packet.
const WORTH_IT: usize = 1024;

/// How an answer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Coding {
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl Coding {
    /// The one a request prefers, zstd if it likes both as much; `None` if it takes neither.
    pub fn preferred(headers: &HeaderMap) -> Option<Self> {
        let values = headers.get_all(header::ACCEPT_ENCODING).iter();
        let codings = values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','));
        let (mut gzip, mut zstd, mut any) = (None, None, None);
        for coding in codings {
            let mut fields = coding.split(';').map(str::trim);
            let name = fields.next().unwrap_or_default();
            let quality = fields.find_map(|field| field.strip_prefix("q=")?.parse::<f32>().ok());
            let quality = Some(quality.unwrap_or(1.0));
            match name.to_ascii_lowercase().as_str() {
                "gzip" => gzip = quality,
                "zstd" => zstd = quality,
                "*" => any = quality,
                _ => {}
            }
        }
        // Whoever takes anything is an old client rather than a new one.
        let (gzip, zstd) = (gzip.or(any).unwrap_or(0.0), zstd.unwrap_or(0.0));
        match () {
            () if zstd > 0.0 && zstd >= gzip => Some(Self::Zstd),
            () if gzip > 0.0 => Some(Self::Gzip),
            () => None,
        }
    }

    /// As `Content-Encoding` calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// The bytes, compressed; `None` if that is not worth it.
    pub fn compressed(self, bytes: &[u8]) -> Option<Vec<u8>> {
        if bytes.len() < WORTH_IT {
            return None;
        }
        let level = if bytes.len() < LARGE { 6 } else { 1 };
        match self {
            Self::Zstd => zstd::bulk::compress(bytes, level).ok(),
            Self::Gzip => {
                let room = Vec::with_capacity(bytes.len() / 8);
                let mut encoder = GzEncoder::new(room, Compression::new(level.unsigned_abs()));
                encoder.write_all(bytes).ok()?;
                encoder.finish().ok()
            }
        }
    }
}

/// Up to here the usual levels: they take about twice the time of the quickest, a few milliseconds, which a
/// scrape every 15 s does not feel, for a sixth less of it. Larger answers, ten megabytes of a tree, take the
/// quickest.
const LARGE: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn preferred(values: &[&'static str]) -> Option<Coding> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::ACCEPT_ENCODING, value.parse().unwrap());
        }
        Coding::preferred(&headers)
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
            &["gzip, zstd;q=0.9"],
            &["gzip, zstd;q=0"],
        ] {
            assert_eq!(preferred(yes), Some(Coding::Gzip), "{yes:?}");
        }
        for no in [
            &[][..],
            &["br"],
            &["gzip;q=0"],
            &["br, gzip;q=0.0"],
            &["*;q=0"],
            &["*, gzip; q=0"],
            &["identity"],
            &["zstd;q=0"],
            &[",;,"],
        ] {
            assert_eq!(preferred(no), None, "{no:?}");
        }
    }

    #[test]
    fn who_likes_zstd_as_much_gets_it() {
        for yes in [
            &["zstd"][..],
            &["gzip, deflate, br, zstd"],
            &["ZSTD;q=0.5", "gzip;q=0.5"],
            &["gzip;q=0, zstd;q=0.1"],
        ] {
            assert_eq!(preferred(yes), Some(Coding::Zstd), "{yes:?}");
        }
    }

    #[test]
    fn what_was_compressed_comes_out_again() {
        let text = "procprobe ".repeat(1000);
        for coding in [Coding::Gzip, Coding::Zstd] {
            let packed = coding.compressed(text.as_bytes()).unwrap();
            assert!(packed.len() < text.len() / 10);
            let mut out = String::new();
            match coding {
                Coding::Gzip => flate2::read::GzDecoder::new(packed.as_slice()).read_to_string(&mut out),
                Coding::Zstd => zstd::Decoder::new(packed.as_slice())
                    .unwrap()
                    .read_to_string(&mut out),
            }
            .unwrap();
            assert_eq!(out, text);
            assert!(coding.compressed(b"ok").is_none());
        }
    }
}
