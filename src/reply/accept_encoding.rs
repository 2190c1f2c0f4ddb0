//! Which coding a caller takes (RFC 9110 §12.5.3).

use http::HeaderMap;
use http::header::ACCEPT_ENCODING;

use crate::cache::Coding;

/// The coding that a caller likes best, the smaller one of two liked alike. As it is, if he says
/// nothing or takes nothing that there is: an answer in a coding nobody asked for can still be read
/// more often than a 406.
pub fn best(headers: &HeaderMap) -> Coding {
    if !headers.contains_key(ACCEPT_ENCODING) {
        return Coding::Identity;
    }
    let lists = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let accepted: Vec<(&str, u16)> = lists.flat_map(|list| list.split(',')).filter_map(weighted).collect();
    let weight = |coding: Coding| {
        let names: &[&str] = match coding {
            Coding::Gzip => &["gzip", "x-gzip"],
            Coding::Brotli => &["br"],
            Coding::Identity => &["identity"],
        };
        let named = |name: &&(&str, u16)| names.iter().any(|known| name.0.eq_ignore_ascii_case(known));
        let any = || accepted.iter().find(|(name, _)| *name == "*");
        accepted.iter().find(named).or_else(any).map(|(_, weight)| *weight)
    };
    // Not named, identity is acceptable, but anything named is liked better.
    let identity = weight(Coding::Identity).unwrap_or(0);
    let best = Coding::COMPRESSING.into_iter().rev().max_by_key(|coding| weight(*coding).unwrap_or(0));
    match best {
        Some(best) if weight(best).is_some_and(|weight| weight > 0 && weight >= identity) => best,
        _ => Coding::Identity,
    }
}

/// A member of the list and its weight in thousandths; none if it is no member.
fn weighted(member: &str) -> Option<(&str, u16)> {
    let mut parts = member.split(';').map(str::trim);
    let name = parts.next().filter(|name| !name.is_empty())?;
    let mut weight = 1000;
    for part in parts {
        if let Some(text) = part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")) {
            weight = thousandths(text)?;
        }
    }
    Some((name, weight))
}

/// `0`, `1`, or one of them with up to three decimals.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let fraction: u16 = format!("{decimals:0<3}").parse().ok()?;
    match whole {
        "0" => Some(fraction),
        "1" if fraction == 0 => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heaviest_wins_the_smaller_breaks_ties_and_identity_is_always_possible() {
        use Coding::{Brotli, Gzip, Identity};
        for (sent, expected) in [
            (None, Identity),
            (Some(""), Identity),
            (Some("gzip"), Gzip),
            (Some("GZIP"), Gzip),
            (Some("x-gzip"), Gzip),
            (Some("gzip, deflate, br, zstd"), Brotli),
            (Some("br;q=0.5, gzip;q=0.8"), Gzip),
            (Some("br;q=0.5,gzip;q=0.5"), Brotli),
            (Some("*"), Brotli),
            (Some("*;q=0.1, br;q=0"), Gzip),
            (Some("gzip;q=0"), Identity),
            (Some("identity, gzip;q=0.5"), Identity),
            (Some("identity;q=0.5, gzip"), Gzip),
            (Some("identity;q=0"), Identity),
            (Some("*;q=0"), Identity),
            (Some("deflate"), Identity),
            (Some("gzip;q=nonsense"), Identity),
            (Some("gzip;q=1.001"), Identity),
            (Some("br;q=0.001"), Brotli),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(sent) = sent {
                headers.insert(ACCEPT_ENCODING, http::HeaderValue::from_static(sent));
            }
            assert_eq!(best(&headers), expected, "{sent:?}");
        }
    }
}
