//! Members of upstream JSON that are read into structs.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// A struct that is read from an object and from nothing else. What serde derives also takes an array, whose
/// elements are then the members in their order: two readers of such a text would see two things.
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(Members(PhantomData))
    }
}

/// A string, or something else that is not looked at: a member of another type than documented must not hide
/// what the others say.
#[derive(Default, serde::Deserialize)]
#[serde(from = "OneOf<'a>")]
pub struct Text<'a>(#[serde(borrow)] pub Option<Cow<'a, str>>);

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum OneOf<'a> {
    Text(#[serde(borrow)] Cow<'a, str>),
    Other(IgnoredAny),
}

impl<'a> From<OneOf<'a>> for Text<'a> {
    fn from(value: OneOf<'a>) -> Self {
        match value {
            OneOf::Text(text) => Self(Some(text)),
            OneOf::Other(_) => Self(None),
        }
    }
}

/// Whose something says that it is: what stands there, if anything does. A text, or a number as it is spelled; of
/// anything else the empty text, which is nobody's id.
#[derive(Default)]
pub struct Owner<'a>(pub Option<Cow<'a, str>>);

impl<'de: 'a, 'a> Deserialize<'de> for Owner<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spelled = <&RawValue>::deserialize(deserializer)?.get();
        let owner = match spelled.as_bytes() {
            [b'"', text @ .., b'"'] if !text.contains(&b'\\') => Cow::Borrowed(spelled.trim_matches('"')),
            [b'"', ..] => Cow::Owned(serde_json::from_str(spelled).map_err(D::Error::custom)?),
            [b'0'..=b'9', ..] => Cow::Borrowed(spelled),
            _ => Cow::Borrowed(""),
        };
        Ok(Self(Some(owner)))
    }
}

/// The strings of a list; none of anything else.
#[derive(Default, serde::Deserialize)]
#[serde(from = "ManyOf<'a>")]
pub struct Texts<'a>(#[serde(borrow)] pub Vec<Text<'a>>);

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum ManyOf<'a> {
    Texts(#[serde(borrow)] Vec<Text<'a>>),
    Other(IgnoredAny),
}

impl<'a> From<ManyOf<'a>> for Texts<'a> {
    fn from(value: ManyOf<'a>) -> Self {
        match value {
            ManyOf::Texts(texts) => Self(texts),
            ManyOf::Other(_) => Self::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Row<'a> {
        #[serde(borrow)]
        bot: Cow<'a, str>,
    }

    #[derive(serde::Deserialize)]
    struct Owned<'a> {
        #[serde(borrow, default)]
        account: Owner<'a>,
    }

    #[test]
    fn an_owner_is_a_text_or_a_number_as_it_is_spelled_and_else_nobody() {
        for (member, expected) in [
            ("", None),
            (r#""account": "a-1" "#, Some("a-1")),
            (r#""account":"\u0061-\"1""#, Some("a-\"1")),
            (r#""account":65269000000000000000000000"#, Some("65269000000000000000000000")),
            (r#""account":-1"#, Some("")),
            (r#""account":"""#, Some("")),
            (r#""account":null"#, Some("")),
            (r#""account":true"#, Some("")),
            (r#""account":["a-1"]"#, Some("")),
            (r#""account":{"account":"a-1"}"#, Some("")),
        ] {
            let text = format!("{{{member}}}");
            let Object(owned): Object<Owned<'_>> = serde_json::from_str(&text).expect("JSON");
            assert_eq!(owned.account.0.as_deref(), expected, "{member}");
        }
        assert!(serde_json::from_str::<Owned<'_>>(r#"{"account":"\ud800"}"#).is_err());
    }

    #[test]
    fn an_array_is_no_object_also_where_its_elements_would_fit() {
        let bot = |text| serde_json::from_str::<Object<Row<'_>>>(text).map(|Object(row)| row.bot);
        assert!(matches!(bot(r#"{"else":1,"bot":"b-1"}"#), Ok(Cow::Borrowed("b-1"))));
        assert!(serde_json::from_str::<Row<'_>>(r#"["b-1"]"#).is_ok(), "what serde derives");
        for text in [r#"["b-1"]"#, r#""b-1""#, "null"] {
            assert!(bot(text).is_err_and(|error| error.to_string().contains("expected an object")), "{text}");
        }
    }
}
