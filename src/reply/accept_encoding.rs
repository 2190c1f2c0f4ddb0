//! Which coding a caller takes (RFC 9110 §12.5.3).

use http::HeaderMap;
use http::header::ACCEPT_ENCODING;

use crate::cache::Coding;
use crate::http::accept::{self, Codings};

/// The coding that a caller likes best, the smaller one of two liked alike. As it is, if he says
/// nothing or takes nothing that there is: an answer in a coding nobody asked for can still be read
/// more often than a 406.
pub fn best(headers: &HeaderMap) -> Coding {
    if !headers.contains_key(ACCEPT_ENCODING) {
        return Coding::Identity;
    }
    let Codings { gzip, brotli, identity } = accept::codings(headers);
    // Not named, identity is acceptable, but anything named is liked better.
    let least = identity.unwrap_or(0).max(1);
    let (gzip, brotli) = (gzip.unwrap_or(0), brotli.unwrap_or(0));
    if brotli >= gzip && brotli >= least {
        Coding::Brotli
    } else if gzip >= least {
        Coding::Gzip
    } else {
        Coding::Identity
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
            (Some("*;q=0, gzip"), Gzip),
            (Some("gzip;q=0.2, gzip;q=0.9, br;q=0.5"), Gzip),
            (Some("gzip;q=0, *"), Brotli),
            (Some("br ; Q=0.4 , gzip\t;q=0.5"), Gzip),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(sent) = sent {
                headers.insert(ACCEPT_ENCODING, http::HeaderValue::from_static(sent));
            }
            assert_eq!(best(&headers), expected, "{sent:?}");
        }
    }
}
