//! `Accept`, `?pretty`, `Accept-Encoding`: the form in which a client wants its answer.
//!
//! Source: RFC 9110, 12.5.1; Kubernetes "API Concepts" (Receiving resources as Tables, Metadata-only fetches).

use crate::wire::error::ApiError;
use crate::wire::request::Query;
use hyper::header::{ACCEPT, ACCEPT_ENCODING, HeaderMap, HeaderName, USER_AGENT};
use serde_json::json;

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Media {
    /// `application/json`.
    Json,
    /// `application/yaml`.
    Yaml,
}

impl Media {
    /// The value of `Content-Type`.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
        }
    }
}

/// Versions of meta.k8s.io that tables and metadata are offered in; they differ in their name only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum MetaVersion {
    /// `v1`.
    V1,
    /// `v1beta1`.
    V1Beta1,
}

impl MetaVersion {
    /// `meta.k8s.io/v1`.
    pub(crate) fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "meta.k8s.io/v1",
            Self::V1Beta1 => "meta.k8s.io/v1beta1",
        }
    }

    fn parse(version: &str) -> Option<Self> {
        match version {
            "v1" => Some(Self::V1),
            "v1beta1" => Some(Self::V1Beta1),
            _ => None,
        }
    }
}

/// What is made of an object before it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Shape {
    /// Nothing.
    Whole,
    /// A row of a Table.
    Table(MetaVersion),
    /// Its metadata only.
    Metadata(MetaVersion),
    /// A list of metadata.
    MetadataList(MetaVersion),
}

/// A form that the client takes and we have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Form {
    /// How it is written.
    pub(crate) media: Media,
    /// What of it.
    pub(crate) shape: Shape,
    /// Indented, for people.
    pub(crate) pretty: bool,
}

impl Form {
    /// Compact JSON of whole objects: what clients get that ask for nothing.
    pub(crate) const PLAIN: Self = Self { media: Media::Json, shape: Shape::Whole, pretty: false };
}

/// How groups and resources are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum DiscoveryShape {
    /// A document per group and version.
    Classic,
    /// All in one, `apidiscovery.k8s.io/v2` or `v2beta1`.
    Aggregated(&'static str),
}

/// What a request says about its answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Accept {
    /// Best first; absent when the client does not say, and so takes anything.
    ranges: Option<Vec<Range>>,
    pretty: bool,
    /// The client reads gzip.
    pub(crate) gzip: bool,
}

/// One media range of the header.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Range {
    kind: String,
    parameters: Vec<(String, String)>,
    /// Thousandths.
    quality: u16,
}

impl Accept {
    /// Reads the headers and the query.
    pub(crate) fn parse(headers: &HeaderMap, query: &Query) -> Self {
        let mut ranges: Vec<Range> =
            values(headers, &ACCEPT).flat_map(|v| v.split(',')).filter_map(Range::parse).collect();
        // Stable: of equals, the order of the header counts.
        ranges.sort_by_key(|range| (u16::MAX - range.quality, range.wildness()));
        let browser = || {
            let agent = headers.get(USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
            ["curl", "Wget", "Mozilla/5.0"].iter().any(|start| agent.starts_with(start))
        };
        let pretty =
            query.get("pretty").map_or_else(browser, |v| matches!(v, "1" | "t" | "T" | "true" | "TRUE" | "True"));
        let coding = |text: &str| text.split(';').next().is_some_and(|name| name.trim().eq_ignore_ascii_case("gzip"));
        let refused = |text: &str| text.split(';').any(|p| matches!(p.trim(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000"));
        let gzip = values(headers, &ACCEPT_ENCODING).flat_map(|v| v.split(',')).any(|c| coding(c) && !refused(c));
        let says = values(headers, &ACCEPT).any(|v| !v.trim().is_empty());
        Self { ranges: says.then_some(ranges), pretty, gzip }
    }

    /// The form for objects of the API and lists of them.
    ///
    /// # Errors
    /// 406 when we have nothing that the client takes.
    pub(crate) fn form(&self) -> Result<Form, ApiError> {
        match &self.ranges {
            None => Ok(Form { pretty: self.pretty, ..Form::PLAIN }),
            Some(ranges) => ranges.iter().find_map(|range| self.offer(range)).ok_or_else(not_acceptable),
        }
    }

    /// The form for watches, and whether as server-sent events: only for who names them. A watch has no YAML.
    ///
    /// # Errors
    /// 406.
    pub(crate) fn watch(&self) -> Result<(Form, bool), ApiError> {
        let Some(ranges) = &self.ranges else { return Ok((Form::PLAIN, false)) };
        let offer = |range: &Range| match range.kind.as_str() {
            "text/event-stream" => Some((Form::PLAIN, true)),
            _ => self.offer(range).filter(|form| form.media == Media::Json).map(|form| (form, false)),
        };
        ranges.iter().find_map(offer).ok_or_else(not_acceptable)
    }

    /// The form for what has no other shape: Status objects, discovery. JSON where the client takes nothing of ours, since it
    /// must be told something.
    pub(crate) fn plain(&self) -> Form {
        let media = self.ranges.iter().flatten().find_map(Range::media).unwrap_or(Media::Json);
        Form { media, shape: Shape::Whole, pretty: self.pretty }
    }

    /// The form for `/api` and `/apis`.
    ///
    /// # Errors
    /// 406.
    pub(crate) fn discovery(&self) -> Result<(Form, DiscoveryShape), ApiError> {
        let plain = |media| Form { media, shape: Shape::Whole, pretty: self.pretty };
        let Some(ranges) = &self.ranges else {
            return Ok((plain(Media::Json), DiscoveryShape::Classic));
        };
        let offer = |range: &Range| {
            let media = range.media()?;
            match (range.parameter("as"), range.parameter("g"), range.parameter("v")) {
                (None, ..) => Some((plain(media), DiscoveryShape::Classic)),
                (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2")) => {
                    Some((plain(media), DiscoveryShape::Aggregated("v2")))
                }
                (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2beta1")) => {
                    Some((plain(media), DiscoveryShape::Aggregated("v2beta1")))
                }
                _ => None,
            }
        };
        ranges.iter().find_map(offer).ok_or_else(not_acceptable)
    }

    fn offer(&self, range: &Range) -> Option<Form> {
        let media = range.media()?;
        if range.parameter("stream").is_some_and(|s| s != "watch") {
            return None;
        }
        let shape = match range.parameter("as") {
            None => Shape::Whole,
            Some(target) if range.parameter("g") == Some("meta.k8s.io") => {
                let version = MetaVersion::parse(range.parameter("v")?)?;
                match target {
                    "Table" => Shape::Table(version),
                    "PartialObjectMetadata" => Shape::Metadata(version),
                    "PartialObjectMetadataList" => Shape::MetadataList(version),
                    _ => return None,
                }
            }
            Some(_) => return None,
        };
        let pretty = range.parameter("pretty").map_or(self.pretty, |v| v == "1");
        Some(Form { media, shape, pretty })
    }
}

fn values<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).iter().filter_map(|v| v.to_str().ok())
}

impl Range {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let kind = parts.next().filter(|kind| !kind.is_empty())?.to_ascii_lowercase();
        let mut quality = 1000;
        let mut parameters = Vec::new();
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            let (name, value) = (name.trim(), value.trim().trim_matches('"'));
            if name == "q" {
                quality = thousandths(value)?;
            } else {
                parameters.push((name.to_owned(), value.to_owned()));
            }
        }
        (quality > 0).then_some(Self { kind, parameters, quality })
    }

    /// A named type counts before `application/*`, and that before `*/*`.
    fn wildness(&self) -> usize {
        self.kind.matches('*').count()
    }

    fn media(&self) -> Option<Media> {
        match self.kind.as_str() {
            "application/json" | "application/*" | "*/*" => Some(Media::Json),
            "application/yaml" => Some(Media::Yaml),
            _ => None,
        }
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// A quality, `0.8`, in thousandths.
fn thousandths(value: &str) -> Option<u16> {
    let number: f32 = value.parse().ok()?;
    // In range, so that nothing is cut off but the fraction.
    (0.0..=1.0).contains(&number).then_some((number * 1000.0) as u16)
}

/// 406, with what there is.
pub(crate) fn not_acceptable() -> ApiError {
    ApiError::new(
        406,
        "NotAcceptable",
        "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/json;stream=watch",
    )
    .with_details(json!({}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn accept(header: &str) -> Accept {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_str(header).unwrap());
        Accept::parse(&headers, &Query::default())
    }

    #[test]
    fn forms_as_clients_ask_for_them() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
        for (header, wanted) in [
            ("", Some((Media::Json, Shape::Whole))),
            ("*/*", Some((Media::Json, Shape::Whole))),
            ("application/json, */*", Some((Media::Json, Shape::Whole))),
            ("application/vnd.kubernetes.protobuf,application/json", Some((Media::Json, Shape::Whole))),
            ("application/vnd.kubernetes.protobuf", None),
            ("text/html", None),
            ("application/yaml", Some((Media::Yaml, Shape::Whole))),
            ("application/json;q=0.5,application/yaml", Some((Media::Yaml, Shape::Whole))),
            ("application/yaml;q=0.2, application/json;q=0.8", Some((Media::Json, Shape::Whole))),
            ("application/json;q=0", None),
            (table, Some((Media::Json, Shape::Table(MetaVersion::V1)))),
            (
                "application/json;as=Table;v=v2;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
                Some((Media::Json, Shape::Table(MetaVersion::V1Beta1))),
            ),
            ("application/json;as=Nothing;v=v1;g=meta.k8s.io", None),
            ("application/json;as=Nothing;v=v1;g=meta.k8s.io,*/*", Some((Media::Json, Shape::Whole))),
            (
                "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
                Some((Media::Json, Shape::Metadata(MetaVersion::V1))),
            ),
            ("application/json;stream=watch", Some((Media::Json, Shape::Whole))),
            ("application/json;stream=other", None),
        ] {
            let form = accept(header).form().ok().map(|form| (form.media, form.shape));
            assert_eq!(form, wanted, "{header}");
        }
        assert_eq!(accept("text/html").plain().media, Media::Json);
    }

    #[test]
    fn discovery_falls_back_in_the_order_of_the_header() {
        let kubectl = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        assert_eq!(accept(kubectl).discovery().unwrap().1, DiscoveryShape::Aggregated("v2"));
        let future = "application/json;g=apidiscovery.k8s.io;v=v3;as=APIGroupDiscoveryList,application/json";
        assert_eq!(accept(future).discovery().unwrap().1, DiscoveryShape::Classic);
        assert!(accept("text/plain").discovery().is_err());
    }

    #[test]
    fn people_get_it_indented() {
        let of = |query: &str, agent: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(USER_AGENT, HeaderValue::from_static(agent));
            Accept::parse(&headers, &Query::parse(Some(query)).unwrap()).form().unwrap().pretty
        };
        assert!(of("", "curl/8.0") && of("pretty=true", "kubectl/v1.36") && !of("", "kubectl/v1.36"));
        assert!(!of("pretty=0", "curl/8.0") && !of("pretty=false", "Mozilla/5.0"));
    }

    proptest::proptest! {
        #[test]
        fn no_header_panics(text in "[ -~]{0,80}") {
            let accept = accept(&text);
            drop((accept.form(), accept.discovery(), accept.plain()));
        }
    }
}
