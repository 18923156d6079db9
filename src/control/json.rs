//! Fields of the API's answers. Tolerant where recordings differ, strict where a wrong guess would hurt.

use serde_json::Value;

use super::error::ControlError;

pub(super) fn text(value: &Value, field: &str, what: &str) -> Result<String, ControlError> {
    match value.get(field).and_then(Value::as_str) {
        Some(text) if !text.is_empty() => Ok(text.to_owned()),
        _ => Err(ControlError::malformed(what, format!("no '{field}'"))),
    }
}

pub(super) fn optional(value: &Value, field: &str) -> String {
    value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// A truth value as PHP writes it: a boolean, a number or a text.
pub(super) fn truthy(value: Option<&Value>) -> Option<bool> {
    match value? {
        Value::Bool(b) => Some(*b),
        Value::Number(n) => Some(n.as_f64() != Some(0.0)),
        Value::String(s) => Some(!matches!(s.as_str(), "" | "0" | "false")),
        Value::Null => None,
        Value::Array(_) | Value::Object(_) => Some(true),
    }
}
