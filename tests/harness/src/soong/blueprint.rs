// SPDX-License-Identifier: Apache-2.0
//! One Android.bp as data: its modules with properties under dotted names.

use std::collections::BTreeMap;

use android_bp::{BluePrint, Map, Value};

/// A parsed Android.bp.
pub struct File {
    /// Path relative to the top.
    pub path: String,
    /// Its modules, in order.
    pub modules: Vec<Module>,
}

/// A module, such as a `rust_library`.
#[derive(Clone)]
pub struct Module {
    /// Its type.
    pub kind: String,
    /// Directory of its file, relative to the top; empty at the top.
    pub dir: String,
    /// All properties: `target.android.rustlibs` for nested ones.
    pub properties: BTreeMap<String, Property>,
}

/// What a property holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Property {
    /// A string.
    Text(String),
    /// A list of strings.
    List(Vec<String>),
    /// A truth value.
    Bool(bool),
    /// A group of properties, which follow under their own names.
    Group,
    /// Anything else: variables, functions, numbers.
    Other,
}

impl Property {
    /// The word for its kind in the table of facts.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "str",
            Self::List(_) => "list",
            Self::Bool(_) => "bool",
            Self::Group => "dict",
            Self::Other => "other",
        }
    }
}

impl File {
    /// Parses a file.
    ///
    /// # Errors
    ///
    /// A message with path and place.
    pub fn parse(path: &str, text: &str) -> Result<Self, String> {
        let parsed = BluePrint::parse(text).map_err(|error| format!("{path}: {error}"))?;
        if !parsed.variables.is_empty() {
            return Err(format!("{path}: variables are not understood here: use rust_defaults"));
        }
        let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
        let modules = parsed.modules.into_iter().map(|module| Module {
            kind: module.typ,
            dir: dir.to_owned(),
            properties: flatten(Map(module.entries)),
        });
        Ok(Self { path: path.to_owned(), modules: modules.collect() })
    }
}

fn flatten(map: Map) -> BTreeMap<String, Property> {
    let mut flat = BTreeMap::new();
    for (key, value) in map.0 {
        let property = match value {
            Value::String(text) => Property::Text(text),
            Value::Boolean(value) => Property::Bool(value),
            Value::Array(values) => list(values),
            Value::Map(map) => {
                for (inner, value) in flatten(map) {
                    flat.insert(format!("{key}.{inner}"), value);
                }
                Property::Group
            }
            _ => Property::Other,
        };
        flat.insert(key, property);
    }
    flat
}

fn list(values: Vec<Value>) -> Property {
    let texts = values.into_iter().map(|value| match value {
        Value::String(text) => Some(text),
        _ => None,
    });
    texts.collect::<Option<_>>().map_or(Property::Other, Property::List)
}

impl Module {
    /// A string property.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.properties.get(name)? {
            Property::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A list property; empty if absent.
    pub fn list(&self, name: &str) -> &[String] {
        match self.properties.get(name) {
            Some(Property::List(list)) => list,
            _ => &[],
        }
    }

    /// Its name, or what stands in for it in messages.
    pub fn name(&self) -> &str {
        self.text("name").unwrap_or(&self.kind)
    }

    /// The module with what its `defaults` among `all` give: lists are joined, what it says itself wins.
    #[must_use]
    pub fn resolved(&self, all: &[&Module]) -> Module {
        let mut whole = self.clone();
        for name in self.list("defaults") {
            let Some(defaults) = all.iter().find(|module| module.text("name") == Some(name)) else {
                continue;
            };
            for (key, value) in defaults.resolved(all).properties {
                match (whole.properties.get_mut(&key), value) {
                    (Some(Property::List(mine)), Property::List(theirs)) => mine.extend(theirs),
                    (Some(_), _) => (),
                    (None, value) => drop(whole.properties.insert(key, value)),
                }
            }
        }
        whole
    }
}
