//! Request bodies, field by field.
//!
//! Read by hand over a JSON value instead of derived: an error must name its field
//! (`tracks[0].mid`), and `null` means absent, as clients built on optional fields send it.
//!
//! Invariants: unknown fields are ignored; a field of the wrong type is never.
//!
//! Not here: which fields a call needs; see `calls`.

use serde_json::{Map, Value};

use crate::problem::Problem;

/// A request body: an object, or nothing at all.
#[derive(Debug)]
pub(crate) struct Body(Map<String, Value>);

impl Body {
    /// Reads JSON whatever its content type said. Nothing is an empty object.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Problem> {
        if bytes.trim_ascii().is_empty() {
            return Ok(Self(Map::new()));
        }
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(map)) => Ok(Self(map)),
            Ok(Value::Null) => Ok(Self(Map::new())),
            Ok(_) => Err(Problem::Undecodable("The body is not a JSON object".into())),
            Err(error) => Err(Problem::Undecodable(format!("The body is not JSON: {error}"))),
        }
    }

    pub(crate) fn fields(&self) -> Fields<'_> {
        Fields { map: &self.0, path: String::new() }
    }
}

/// An object's fields, and where the object is in the body.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    map: &'a Map<String, Value>,
    path: String,
}

impl<'a> Fields<'a> {
    /// Names a field of this object: `tracks[0].mid`.
    pub(crate) fn name(&self, field: &str) -> String {
        match self.path.as_str() {
            "" => field.to_owned(),
            path => format!("{path}.{field}"),
        }
    }

    /// Where this object is: `tracks[0]`.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn text(&self, field: &str) -> Result<Option<&'a str>, Problem> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(field, "a string", other)),
        }
    }

    /// A flag; absent is false.
    pub(crate) fn flag(&self, field: &str) -> Result<bool, Problem> {
        match self.get(field) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.wrong(field, "a boolean", other)),
        }
    }

    pub(crate) fn object(&self, field: &str) -> Result<Option<Self>, Problem> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Self { map, path: self.name(field) })),
            Some(other) => Err(self.wrong(field, "an object", other)),
        }
    }

    /// A list of objects; absent is empty.
    pub(crate) fn objects(&self, field: &str) -> Result<Vec<Self>, Problem> {
        let items = match self.get(field) {
            None => return Ok(Vec::new()),
            Some(Value::Array(items)) => items,
            Some(other) => return Err(self.wrong(field, "an array", other)),
        };
        let read = |(index, item): (usize, &'a Value)| {
            let path = format!("{}[{index}]", self.name(field));
            match item {
                Value::Object(map) => Ok(Self { map, path }),
                other => Err(wrong(&path, "an object", other)),
            }
        };
        items.iter().enumerate().map(read).collect()
    }

    fn get(&self, field: &str) -> Option<&'a Value> {
        self.map.get(field).filter(|value| !value.is_null())
    }

    fn wrong(&self, field: &str, expected: &str, got: &Value) -> Problem {
        wrong(&self.name(field), expected, got)
    }
}

fn wrong(path: &str, expected: &str, got: &Value) -> Problem {
    let got = match got {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    Problem::Undecodable(format!("{path}: expected {expected}, got {got}"))
}
