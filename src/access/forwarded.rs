//! Who is at the far end of a chain of proxies.
//!
//! Everybody can write `X-Forwarded-For`. Only what a trusted proxy has appended is believed, so the
//! chain is read from its right end, hop by hop, as long as the hop that says it is trusted itself.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderValue};

use crate::config::{Proxies, ProxyHeader};

/// The address of whoever asks, where `peer` is at the other end of the connection: the right-most one
/// that is no trusted proxy. What cannot be read ends the chain: then it is the last proxy's address,
/// which is too coarse but nobody else's.
pub fn client(peer: IpAddr, headers: &HeaderMap, proxies: &Proxies) -> IpAddr {
    let peer = peer.to_canonical();
    if !proxies.trust(peer) {
        return peer;
    }
    let name = match proxies.header {
        ProxyHeader::XForwardedFor => "x-forwarded-for",
        ProxyHeader::Forwarded => "forwarded",
    };
    let hops_of = |field: &HeaderValue| match (field.to_str(), proxies.header) {
        (Ok(field), ProxyHeader::XForwardedFor) => x_forwarded_for(field),
        (Ok(field), ProxyHeader::Forwarded) => forwarded(field),
        (Err(_), _) => vec![None],
    };
    let hops = headers.get_all(name).iter().rev().flat_map(|field| hops_of(field).into_iter().rev());
    let mut address = peer;
    for hop in hops {
        let Some(hop) = hop else { break };
        address = hop.to_canonical();
        if !proxies.trust(address) {
            break;
        }
    }
    address
}

fn x_forwarded_for(field: &str) -> Vec<Option<IpAddr>> {
    field.split(',').map(str::trim).filter(|hop| !hop.is_empty()).map(node).collect()
}

/// RFC 7239 §4: elements between commas, each of pairs between semicolons, any value quoted.
fn forwarded(field: &str) -> Vec<Option<IpAddr>> {
    let Some(elements) = split(field, b',') else { return vec![None] };
    elements.into_iter().filter(|element| !element.trim().is_empty()).map(for_of).collect()
}

/// The one `for` of an element.
fn for_of(element: &str) -> Option<IpAddr> {
    let pairs = split(element, b';')?;
    let pairs = pairs.into_iter().filter_map(|pair| pair.split_once('='));
    let named = pairs.filter(|(name, _)| name.trim().eq_ignore_ascii_case("for"));
    let mut nodes = named.map(|(_, value)| value.trim());
    let only = nodes.next().filter(|_| nodes.next().is_none())?;
    let unquoted = only.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    node(unquoted.unwrap_or(only))
}

/// The parts of `text` between signs that are in no quotes; nothing if a quote is not closed.
fn split(text: &str, sign: u8) -> Option<Vec<&str>> {
    let (mut parts, mut start, mut is_quoted) = (Vec::new(), 0, false);
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => is_quoted = !is_quoted,
            b'\\' if is_quoted => drop(bytes.next()),
            byte if byte == sign && !is_quoted => {
                parts.push(text.get(start..at)?);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text.get(start..)?);
    (!is_quoted).then_some(parts)
}

/// An address, with or without a port. `unknown` and made-up names (RFC 7239 §6) are none.
fn node(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse().ok().map(|address: SocketAddr| address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(header: ProxyHeader) -> Proxies {
        let networks = ["10.0.0.0/8", "2001:db8::/32"].map(|net| net.parse().expect("a network"));
        Proxies { networks: networks.into(), header }
    }

    fn client_of(header: ProxyHeader, peer: &str, fields: &[&str]) -> String {
        let name = match header {
            ProxyHeader::XForwardedFor => "x-forwarded-for",
            ProxyHeader::Forwarded => "forwarded",
        };
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(name, HeaderValue::from_bytes(field.as_bytes()).expect("a value"));
        }
        client(peer.parse().expect("an address"), &headers, &proxies(header)).to_string()
    }

    #[test]
    fn the_right_most_address_that_is_no_trusted_proxy_counts() {
        for (peer, fields, expected) in [
            ("203.0.113.1", &["198.51.100.7"][..], "203.0.113.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &[""], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.7"], "198.51.100.7"),
            ("::ffff:10.0.0.1", &["::ffff:198.51.100.7"], "198.51.100.7"),
            ("2001:db8::5", &["2001:db9::1"], "2001:db9::1"),
            // Whatever stands on the left, the caller may have written.
            ("10.0.0.1", &["1.1.1.1, 198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", &["1.1.1.1", "198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", &["10.9.9.9, 198.51.100.7, 10.0.0.2"], "198.51.100.7"),
            ("10.0.0.1", &["198.51.100.7", "10.0.0.3, 10.0.0.2"], "198.51.100.7"),
            ("10.0.0.1", &["10.0.0.3 ,10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", &["198.51.100.7:4711"], "198.51.100.7"),
            ("10.0.0.1", &["[2001:db9::1]:4711"], "2001:db9::1"),
            ("10.0.0.1", &["[2001:db9::1]"], "2001:db9::1"),
            ("10.0.0.1", &["198.51.100.7, , "], "198.51.100.7"),
            // Unreadable: the last that could be read.
            ("10.0.0.1", &["198.51.100.7, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.7, unknown, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["198.51.100.7 10.0.0.2"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.7", "\u{e9}"], "10.0.0.1"),
            ("10.0.0.1", &["0198.51.100.7"], "10.0.0.1"),
        ] {
            assert_eq!(client_of(ProxyHeader::XForwardedFor, peer, fields), expected, "{peer} {fields:?}");
        }
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_writes_it() {
        for (field, expected) in [
            ("for=198.51.100.7", "198.51.100.7"),
            ("For=198.51.100.7;proto=https;by=10.0.0.1", "198.51.100.7"),
            ("proto=https; for = \"[2001:db9::1]:4711\"", "2001:db9::1"),
            ("for=1.1.1.1, for=\"198.51.100.7:80\", for=10.0.0.9", "198.51.100.7"),
            // A comma or a semicolon in quotes is none.
            ("for=1.1.1.1;host=\"a, for=2.2.2.2;x\", for=10.0.0.9", "1.1.1.1"),
            ("for=1.1.1.1, for=198.51.100.7;host=\"a\\\", for=2.2.2.2\"", "198.51.100.7"),
            ("for=1.1.1.1, proto=https", "10.0.0.1"),
            ("for=1.1.1.1, for=unknown", "10.0.0.1"),
            ("for=1.1.1.1, for=_hidden", "10.0.0.1"),
            ("for=1.1.1.1;for=2.2.2.2", "10.0.0.1"),
            ("for=\"1.1.1.1", "10.0.0.1"),
            ("1.1.1.1", "10.0.0.1"),
            ("", "10.0.0.1"),
        ] {
            assert_eq!(client_of(ProxyHeader::Forwarded, "10.0.0.1", &[field]), expected, "{field}");
        }
    }
}
