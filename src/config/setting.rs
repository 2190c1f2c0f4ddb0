//! What a kind of value says of itself: how it is written, and how it is read.

/// A value of the configuration that reads itself from TOML.
pub trait Setting: Sized {
    /// What is expected, with an example, to follow the words "it is".
    const EXPECTED: &'static str;

    /// The value, or what is wrong with it.
    fn read(value: toml::Value) -> Result<Self, String>;

    /// Stands in for a value that is at fault, and is thrown away with the whole configuration.
    fn placeholder() -> Self;
}

pub fn mismatch<T: Setting>(value: &toml::Value) -> String {
    format!("is {}; it is {}", describe(value), T::EXPECTED)
}

pub fn text<T: Setting>(value: toml::Value) -> Result<String, String> {
    match value {
        toml::Value::String(text) => Ok(text),
        other => Err(mismatch::<T>(&other)),
    }
}

/// What a value is, for a person, without the value: it may be a secret in the wrong place.
pub fn describe(value: &toml::Value) -> &'static str {
    match value {
        toml::Value::String(_) => "a string",
        toml::Value::Integer(_) => "an integer",
        toml::Value::Float(_) => "a number with a fraction",
        toml::Value::Boolean(_) => "a boolean",
        toml::Value::Datetime(_) => "a date",
        toml::Value::Array(_) => "a list",
        toml::Value::Table(_) => "a table",
    }
}
