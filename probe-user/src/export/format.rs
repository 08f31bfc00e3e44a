//! In which format a scraper gets the metrics: protobuf if it prefers that, else text.
//!
//! Prometheus asks for protobuf first when it is told to (`scrape_protocols`, or native histograms on). It is about 60 %
//! of the size of text. Of the text of `OpenMetrics` the `prometheus` crate has no encoder.

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;
use prometheus::proto::MetricFamily;
use prometheus::{Encoder, PROTOBUF_FORMAT, ProtobufEncoder, TEXT_FORMAT, TextEncoder};

/// A format of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// Lines for people and every scraper.
    Text,
    /// Length-delimited messages.
    Protobuf,
}

impl Format {
    /// The one a request prefers; text if it does not say.
    pub fn preferred(headers: &HeaderMap) -> Self {
        let accepted = headers
            .get_all(ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok());
        let ranges = accepted.flat_map(|value| value.split(','));
        let (mut text, mut protobuf) = (0.0, 0.0);
        for range in ranges {
            let mut fields = range.split(';').map(str::trim);
            let (kind, fields) = (fields.next().unwrap_or_default(), fields.collect::<Vec<_>>());
            let quality = fields
                .iter()
                .find_map(|field| field.strip_prefix("q=")?.parse().ok())
                .unwrap_or(1.0);
            let is_ours = fields.contains(&"proto=io.prometheus.client.MetricFamily")
                && fields.contains(&"encoding=delimited");
            match kind {
                "application/vnd.google.protobuf" if is_ours => protobuf = quality,
                "text/plain" | "text/*" | "*/*" | "application/openmetrics-text" => {
                    text = f64::max(text, quality);
                }
                _ => {}
            }
        }
        if protobuf > text {
            Self::Protobuf
        } else {
            Self::Text
        }
    }

    /// The content type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => TEXT_FORMAT,
            Self::Protobuf => PROTOBUF_FORMAT,
        }
    }

    /// The body.
    ///
    /// # Errors
    /// If a family is malformed.
    pub fn encode(self, families: &[MetricFamily]) -> prometheus::Result<Vec<u8>> {
        let mut body = Vec::new();
        match self {
            Self::Text => TextEncoder::new().encode(families, &mut body)?,
            Self::Protobuf => ProtobufEncoder::new().encode(families, &mut body)?,
        }
        Ok(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preferred(accept: &[&'static str]) -> Format {
        let mut headers = HeaderMap::new();
        for value in accept {
            headers.append(ACCEPT, value.parse().unwrap());
        }
        Format::preferred(&headers)
    }

    /// As Prometheus 2 and 3 and others ask.
    #[test]
    fn scrapers_get_what_they_prefer() {
        let protobuf = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,\
             application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        assert_eq!(preferred(&[protobuf]), Format::Protobuf);
        let old = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited, text/plain;q=0.2";
        assert_eq!(preferred(&[old]), Format::Protobuf);
        let text = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.4,\
             application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.3,*/*;q=0.2";
        assert_eq!(preferred(&[text]), Format::Text);
        let other = "application/vnd.google.protobuf;proto=some.Other;encoding=delimited,*/*;q=0.1";
        assert_eq!(preferred(&[other]), Format::Text);
        for nothing in [&[][..], &["*/*"], &["text/html,*/*;q=0.8"], &[";;,q=,"]] {
            assert_eq!(preferred(nothing), Format::Text);
        }
    }
}
