//! Whether a caller wants an answer made anew. Only clients that may get one: each costs the
//! upstream's quota, which is everybody's. For the others it is as if they had not asked.

use http::header::{CACHE_CONTROL, HeaderMap};

/// `no-cache`, or a `max-age` of nothing (RFC 9111 §5.2.1).
pub fn is_asked_for(headers: &HeaderMap) -> bool {
    let lists = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|directive| {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        let (name, value) = (name.trim(), value.trim().trim_matches('"'));
        let is_nothing = !value.is_empty() && value.bytes().all(|digit| digit == b'0');
        name.eq_ignore_ascii_case("no-cache") || name.eq_ignore_ascii_case("max-age") && is_nothing
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cache_and_a_max_age_of_nothing_ask_for_it() {
        let asks = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, http::HeaderValue::from_static(value));
            is_asked_for(&headers)
        };
        for value in ["no-cache", "No-Cache", "max-age=0", "no-store, max-age=0", "max-age=\"00\""] {
            assert!(asks(value), "{value}");
        }
        for value in ["", "no-store", "max-age=1", "max-age=", "max-age", "min-fresh=0", "x-no-cache"] {
            assert!(!asks(value), "{value}");
        }
        assert!(!is_asked_for(&HeaderMap::new()));
    }
}
