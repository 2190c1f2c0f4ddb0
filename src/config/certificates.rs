//! Whose word is taken for a server's name (`ca_file`).

use super::file::read_file;
use super::setting::Setting;

/// A file of PEM certificates, read.
pub struct Certificates(pub Vec<u8>);

impl Setting for Certificates {
    const EXPECTED: &'static str = r#"the path of a PEM file, for example "/etc/ssl/our-ca.pem""#;

    fn read(value: toml::Value) -> Result<Self, String> {
        let path = String::read(value)?;
        let pem = read_file(path.as_ref()).map_err(|error| format!("cannot read {path}: {error}"))?;
        match reqwest::Certificate::from_pem_bundle(&pem) {
            Ok(certificates) if !certificates.is_empty() => Ok(Self(pem)),
            _ => Err(format!("{path} holds no certificate; it is {}", Self::EXPECTED)),
        }
    }

    fn placeholder() -> Self {
        Self(Vec::new())
    }
}
