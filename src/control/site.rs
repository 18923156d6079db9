//! Sites and the account that sees them.

use serde_json::Value;

use super::error::ControlError;
use super::json::{optional, text, truthy};

/// A site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    pub id: String,
    pub name: String,
    pub framework: String,
    pub frozen: bool,
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    pub id: String,
    pub email: String,
    pub full_name: String,
}

impl Site {
    pub fn from_json(value: &Value) -> Result<Self, ControlError> {
        Ok(Self {
            id: text(value, "id", "the site")?,
            name: optional(value, "name"),
            framework: optional(value, "framework"),
            frozen: truthy(value.get("frozen")).unwrap_or(false),
        })
    }

    /// The sites of a page of memberships, and the ids of the memberships; the next page starts after the last of them.
    pub fn memberships(page: &Value) -> (Vec<Self>, Vec<String>) {
        let members = || page.as_array().into_iter().flatten();
        let site = |member: &Value| {
            let site = member.get("site")?;
            let id = optional(member, "site_id");
            let id = if id.is_empty() { optional(site, "id") } else { id };
            let frozen = truthy(site.get("frozen")).unwrap_or(false);
            let archived = truthy(member.get("archived")).unwrap_or(false);
            let (name, framework) = (optional(site, "name"), optional(site, "framework"));
            (!archived && !id.is_empty()).then_some(Self { id, name, framework, frozen })
        };
        let ids = members().map(|member| optional(member, "id")).filter(|id| !id.is_empty());
        (members().filter_map(site).collect(), ids.collect())
    }

    /// The ids of the organizations of a page of memberships.
    pub fn organizations(page: &Value) -> Vec<String> {
        let id = |member: &Value| {
            let named = optional(member, "organization_id");
            let named =
                if named.is_empty() { member.get("organization").map(|org| optional(org, "id")) } else { Some(named) };
            named.filter(|id| !id.is_empty())
        };
        page.as_array().into_iter().flatten().filter_map(id).collect()
    }
}

impl Profile {
    pub fn from_json(value: &Value) -> Result<Self, ControlError> {
        Ok(Self {
            id: text(value, "id", "the account")?,
            email: optional(value, "email"),
            full_name: value
                .pointer("/profile/full_name")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .trim()
                .to_owned(),
        })
    }
}
