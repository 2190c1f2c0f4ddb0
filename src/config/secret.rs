//! Secrets, read from where the configuration says they are, and the digests of keys.

use std::path::PathBuf;

use aws_lc_rs::digest::{SHA256, digest};
use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;

use super::file::read_text;
use super::setting::{Setting, describe, text};

/// What the keys begin with that `kore-gateway key` makes.
pub const KEY_PREFIX: &str = "kg_";

/// What a file or a variable holds, as a secret. An editor's byte order mark and `echo`'s line end are not
/// part of it. The error says what is wrong, without the secret.
pub fn secret(text: &str) -> Result<SecretString, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim_end_matches(['\r', '\n']);
    if text.trim().is_empty() {
        return Err("is empty".to_owned());
    }
    if text.contains(['\r', '\n']) {
        return Err("holds a second line; a secret is one line".to_owned());
    }
    if text.chars().any(char::is_control) {
        return Err("holds a control character (a tab, for example); a secret has none".to_owned());
    }
    Ok(SecretString::from(text))
}

/// A secret, read from where the configuration says it is.
pub struct Secret {
    pub value: SecretString,
    /// Where it can be read again, if it is in a file.
    pub file: Option<PathBuf>,
}

impl Setting for Secret {
    const EXPECTED: &'static str = r#"{ env = "NAME" } or { file = "/path" }, never the secret itself"#;

    fn read(value: toml::Value) -> Result<Self, String> {
        let toml::Value::Table(table) = value else {
            return Err(format!("is {}; it is {}", describe(&value), Self::EXPECTED));
        };
        let place: Vec<(&str, &toml::Value)> =
            table.iter().map(|(key, place)| (key.as_str(), place)).collect();
        let (text, file, place) = match place[..] {
            [("env", toml::Value::String(name))] => {
                let text =
                    std::env::var(name).map_err(|_| format!("the environment variable {name} is not set"))?;
                (text, None, format!("the environment variable {name}"))
            }
            [("file", toml::Value::String(path))] => {
                let text =
                    read_text(path.as_ref()).map_err(|error| format!("cannot read {path}: {error}"))?;
                (text, Some(PathBuf::from(path)), path.clone())
            }
            _ => return Err(format!("it is {}", Self::EXPECTED)),
        };
        // Wiped when it has been copied to where it stays.
        let text = Zeroizing::new(text);
        let value = secret(&text).map_err(|problem| format!("{place} {problem}"))?;
        Ok(Self { value, file })
    }

    fn placeholder() -> Self {
        Self { value: SecretString::default(), file: None }
    }
}

/// The SHA-256 of an API key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Digest(pub [u8; 32]);

/// What a slip of the hand makes a key of: nothing, or the line end that `echo` adds.
const NO_KEYS: [&[u8]; 4] = [b"", b"\n", b"\r\n", b" "];

impl Setting for Digest {
    const EXPECTED: &'static str = "a SHA-256: 64 hexadecimal digits, as `kore-gateway key` prints them";

    /// The value is not repeated: it may be the key itself.
    fn read(value: toml::Value) -> Result<Self, String> {
        let text = text::<Self>(value)?;
        let mut bytes = [0; 32];
        if hex::decode_to_slice(&text, &mut bytes).is_err() {
            return Err(not_a_digest(&text));
        }
        if bytes == [0; 32] {
            return Err(format!("is the digest of no key that anybody has; it is {}", Self::EXPECTED));
        }
        if NO_KEYS.iter().any(|key| digest(&SHA256, key).as_ref() == bytes) {
            return Err(
                "is the digest of an empty key; `kore-gateway key` makes a key and its digest".to_owned()
            );
        }
        Ok(Self(bytes))
    }

    /// Of no key that anybody has.
    fn placeholder() -> Self {
        Self([0; 32])
    }
}

fn not_a_digest(text: &str) -> String {
    let expected = Digest::EXPECTED;
    if text.starts_with(KEY_PREFIX) {
        return "is a key in plain, not its digest; make a new one with `kore-gateway key`, for this one has been \
                written down"
            .to_owned();
    }
    let is_hexadecimal = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match (is_hexadecimal, text.len()) {
        (true, 32 | 40 | 56 | 96 | 128) => format!("is a digest of another kind; it is {expected}"),
        _ => format!(
            "is no SHA-256, and if it is a key in plain, that is written down now and must be replaced; it is \
             {expected}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_secret_is_one_line_whatever_an_editor_puts_around_it() {
        for file in ["s3cret", "s3cret\n", "s3cret\r\n", "s3cret\n\n", "\u{feff}s3cret\r\n"] {
            assert_eq!(secret(file).map(|secret| secret.expose_secret().to_owned()), Ok("s3cret".to_owned()));
        }
        for file in ["", "\n", "\u{feff}", " \n", "s3cret\nmore\n", "s3\rcret", "s3\tcret", "s3\0cret"] {
            let problem = secret(file).map(|_| ()).unwrap_err();
            assert!(!problem.contains("s3"), "{problem}");
        }
    }

    #[test]
    fn what_is_no_digest_of_a_key_is_refused_and_not_repeated() {
        let read = |text: &str| Digest::read(toml::Value::String(text.to_owned()));
        assert!(read(&hex::encode(digest(&SHA256, b"kg_x"))).is_ok());
        assert!(read(&hex::encode(digest(&SHA256, b"kg_x")).to_uppercase()).is_ok());
        for (wrong, words) in [
            (hex::encode(digest(&SHA256, b"")), "empty key"),
            (hex::encode(digest(&SHA256, b"\n")), "empty key"),
            ("0".repeat(64), "no key"),
            ("kg_hunter2".to_owned(), "a key in plain"),
            ("hunter2".to_owned(), "a key in plain"),
            ("5".repeat(40), "another kind"),
        ] {
            let problem = read(&wrong).unwrap_err();
            assert!(problem.contains(words) && !problem.contains("hunter2"), "{problem}");
        }
    }

    #[test]
    fn a_secret_written_out_is_refused_without_being_repeated() {
        let problem = Secret::read(toml::Value::String("hunter2".to_owned())).map(|_| ()).unwrap_err();
        assert!(!problem.contains("hunter2"));
        assert!(problem.contains("{ env ="));
    }
}
