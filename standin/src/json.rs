//! JSON whose members keep the order they were written in.
//!
//! `serde_json`'s own map sorts its keys, and no vendor's answer is sorted: a gateway that
//! parsed and re-wrote a body would go unnoticed if the stand-in's bodies were.

use serde::ser::{Serialize, SerializeMap, Serializer};

use bytes::Bytes;

#[derive(Clone, Debug)]
pub(super) enum Json {
    Null,
    Bool(bool),
    Number(i64),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(&'static str, Json)>),
}

/// An object with these members, in this order.
pub(super) fn object<const N: usize>(members: [(&'static str, Json); N]) -> Json {
    Json::Object(members.into())
}

/// An array of whatever becomes JSON.
pub(super) fn list<T: Into<Json>>(items: impl IntoIterator<Item = T>) -> Json {
    Json::List(items.into_iter().map(Into::into).collect())
}

/// `[]`.
pub(super) fn empty_list() -> Json {
    Json::List(Vec::new())
}

impl Json {
    /// Appends a member to an object; anything else has no members and stays as it is.
    pub(super) fn push(&mut self, name: &'static str, value: impl Into<Json>) {
        if let Json::Object(members) = self {
            members.push((name, value.into()));
        }
    }

    /// The compact text, as the vendor sends it.
    pub(super) fn to_bytes(&self) -> Bytes {
        serde_json::to_vec(self).expect("strings, numbers and string keys always serialise").into()
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Json::Null => serializer.serialize_unit(),
            Json::Bool(value) => serializer.serialize_bool(*value),
            Json::Number(value) => serializer.serialize_i64(*value),
            Json::Text(value) => serializer.serialize_str(value),
            Json::List(items) => serializer.collect_seq(items),
            Json::Object(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                for (name, value) in members {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
        }
    }
}

impl From<&str> for Json {
    fn from(value: &str) -> Json {
        Json::Text(value.to_owned())
    }
}

impl From<&String> for Json {
    fn from(value: &String) -> Json {
        Json::Text(value.clone())
    }
}

impl From<String> for Json {
    fn from(value: String) -> Json {
        Json::Text(value)
    }
}

impl From<bool> for Json {
    fn from(value: bool) -> Json {
        Json::Bool(value)
    }
}

impl From<i64> for Json {
    fn from(value: i64) -> Json {
        Json::Number(value)
    }
}
