//! URLs of others: the upstream's, issuers', the collector's.

use reqwest::Url;

use super::section::Section;

/// Bytes of a base URL: enough for any, and route and query still have room in what the client takes (64 KiB).
const MAX_BASE_URL: usize = 2048;

/// A base URL without its trailing slash, as it is spelled on the wire.
pub fn base_url(section: &mut Section<'_>, key: &'static str, allow_plain_http: bool) -> String {
    let text: String = section.required(key);
    match read_base_url(&text, allow_plain_http) {
        Ok(url) => url,
        Err(problem) => {
            section.report(key, problem);
            text
        }
    }
}

fn read_base_url(text: &str, allow_plain_http: bool) -> Result<String, String> {
    let url = Url::parse(text).map_err(|error| format!("is no URL: {error}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user or a password; credentials have a place of their own".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("has a query or a fragment; it is a base URL, for example \"https://platform.kore.ai\""
            .to_owned());
    }
    match url.scheme() {
        "https" => {}
        "http" if allow_plain_http || is_loopback(&url) => {}
        "http" => {
            return Err(
                "is plain http to another machine; use https, or set upstream.allow_plain_http".to_owned()
            );
        }
        other => return Err(format!("has the scheme {other:?}; it is https")),
    }
    if url.as_str().len() > MAX_BASE_URL {
        return Err(format!("is longer than {MAX_BASE_URL} bytes"));
    }
    // What the client takes is narrower than what is a URL.
    http::Uri::try_from(url.as_str()).map_err(|error| format!("is no URL that can be asked: {error}"))?;
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

pub fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}
