//! The name that was probably meant.

use super::environ::Environ;
use super::exit::Failure;
use crate::control::{Control, ControlError};

/// The most similar of the names, if it is similar enough to be a slip of the fingers.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    let distance = |known: &str| strsim::damerau_levenshtein(&known.to_lowercase(), &name);
    let (best, known) = known.map(|known| (distance(known), known)).min_by_key(|(distance, _)| *distance)?;
    (best <= 1 + name.chars().count() / 4).then_some(known)
}

/// The failure of a question about a site or environment; for one that does not exist, with the name that was probably meant.
pub(super) fn failure(error: ControlError, (site, env): (&str, &str), control: &Control, around: &Environ) -> Failure {
    let meant = match &error {
        ControlError::NoSuchSite { .. } => {
            let mut names = around.sites.names();
            // What is not known here, the account knows.
            names.extend(control.sites().into_iter().flatten().map(|site| site.name));
            nearest(site, names.iter().map(String::as_str)).map(|site| format!("{site}.{env}"))
        }
        ControlError::NoSuchEnvironment { .. } => {
            let id = control.site_id(site).unwrap_or_else(|_| site.to_owned());
            let names: Vec<String> = control.environments(&id).into_iter().flatten().map(|(name, _)| name).collect();
            nearest(env, names.iter().map(String::as_str)).map(|env| format!("{site}.{env}"))
        }
        _ => None,
    };
    let failure = Failure::from(error);
    match meant {
        Some(meant) => Failure::new(failure.exit, format!("{}; did you mean '{meant}'?", failure.explain())),
        None => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_similar_names_are_suggested() {
        let known = ["mysite", "another-site", "live"];
        let of = |name: &str| nearest(name, known.into_iter());
        assert_eq!(of("mystie"), Some("mysite"));
        assert_eq!(of("Mysite"), Some("mysite"));
        assert_eq!(of("anothersite"), Some("another-site"));
        assert_eq!(of("shop"), None);
        assert_eq!(nearest("x", std::iter::empty()), None);
    }
}
