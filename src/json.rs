//! JSON objects that are read into structs.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

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

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    #[derive(serde::Deserialize)]
    struct Row<'a> {
        #[serde(borrow)]
        bot: Cow<'a, str>,
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
