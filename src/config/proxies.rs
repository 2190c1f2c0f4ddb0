//! Whose word is taken for who asks (`server.trusted_proxies`, `server.proxy_header`).

use std::net::IpAddr;

use ipnet::IpNet;

use super::section::Section;
use super::setting::{Setting, text};

/// The proxies in front.
#[derive(Debug)]
pub struct Proxies {
    pub networks: Vec<IpNet>,
    pub header: ProxyHeader,
}

/// The field that the proxies in front append an address to. One of the two: the other one they pass on
/// as the caller wrote it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProxyHeader {
    XForwardedFor,
    /// RFC 7239.
    Forwarded,
}

impl Proxies {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let headers =
            [("x-forwarded-for", ProxyHeader::XForwardedFor), ("forwarded", ProxyHeader::Forwarded)];
        Self {
            networks: section.required("trusted_proxies"),
            header: section.one_of("proxy_header", &headers, None),
        }
    }

    /// Whether `address`, in its canonical form, is a proxy's.
    pub fn trust(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&address))
    }
}

impl Setting for IpNet {
    const EXPECTED: &'static str = r#"a network, for example "10.0.0.0/8", or one address"#;

    fn read(value: toml::Value) -> Result<Self, String> {
        let text = text::<Self>(value)?;
        let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(Self::from));
        match network {
            Ok(network) if network.prefix_len() == 0 => {
                Err(format!("is {text:?}, which is everybody: then any caller may claim any address"))
            }
            Ok(network) => Ok(network),
            Err(_) => Err(format!("is {text:?}; it is {}", Self::EXPECTED)),
        }
    }

    fn placeholder() -> Self {
        Self::from(IpAddr::from([127, 0, 0, 1]))
    }
}
