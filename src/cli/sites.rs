//! Which site is meant: names and ids of sites are remembered together, so that a known site mounts without the API; and
//! the remote of a git checkout tells its site.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::exit::{CliResult, Exit, Failure};
use super::private_dir::make_private;
use super::source::{Source, dir_name, is_uuid};
use crate::durable;

/// The file `sites.json` of the state directory: names of sites with their ids.
pub(super) struct Sites(PathBuf);

impl Sites {
    pub(super) fn below(state_root: &Path) -> Self {
        Self(state_root.join("sites.json"))
    }

    fn load(&self) -> BTreeMap<String, String> {
        // If the file is damaged or missing, the API is asked.
        fs::read(&self.0).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    /// The id of the site with this name.
    pub(super) fn id_of(&self, name: &str) -> Option<String> {
        self.load().remove(name).filter(|id| is_uuid(id))
    }

    /// The name of the site with this id.
    pub(super) fn name_of(&self, id: &str) -> Option<String> {
        self.load().into_iter().find(|(_, known)| known == id).map(|(name, _)| name)
    }

    /// All names that are known.
    pub(super) fn names(&self) -> Vec<String> {
        self.load().into_keys().collect()
    }

    /// Remembers a name and its id.
    pub(super) fn remember(&self, name: &str, id: &str) {
        let mut known = self.load();
        if known.get(name).is_some_and(|before| before == id) {
            return;
        }
        // A site was renamed, or its name was given to another site: the new pair replaces the old one.
        known.retain(|_, other| other != id);
        known.insert(name.to_owned(), id.to_owned());
        if let Err(error) = self.save(&known) {
            log::info!("{}: {error}", self.0.display());
        }
    }

    fn save(&self, known: &BTreeMap<String, String>) -> std::io::Result<()> {
        let dir = self.0.parent().unwrap_or(Path::new("."));
        make_private(dir)?;
        durable::replace(&self.0, |new| Ok(serde_json::to_writer_pretty(new, known)?)).map(drop)
    }

    /// The name of the state directory: the same whatever the site is called. Only where nothing is known of its id, the name
    /// that was given.
    pub(super) fn key(&self, source: &Source) -> String {
        match source {
            Source::Pantheon { site, env } if !is_uuid(site) => {
                let id = self.id_of(site).or_else(|| self.linked(site, env));
                dir_name(&format!("{}.{env}", id.as_ref().unwrap_or(site)))
            }
            other => dir_name(&other.to_string()),
        }
    }

    /// The id to which the readable name of a state directory leads.
    fn linked(&self, name: &str, env: &str) -> Option<String> {
        let leads_to = fs::read_link(self.0.with_file_name(format!("{name}.{env}"))).ok()?;
        let id = leads_to.to_str()?.strip_suffix(env)?.strip_suffix('.')?;
        is_uuid(id).then(|| id.to_owned())
    }

    /// Names of directories in which older versions kept the state of an environment.
    pub(super) fn former_keys(&self, source: &Source) -> Vec<String> {
        let Source::Pantheon { site, env } = source else { return Vec::new() };
        let name = if is_uuid(site) { self.name_of(site) } else { Some(site.clone()) };
        name.map(|name| dir_name(&format!("{name}.{env}"))).into_iter().collect()
    }

    /// The environment that belongs to the git checkout around `here`.
    pub(super) fn infer(&self, here: &Path) -> CliResult<Source> {
        let fail = |why: &str| Failure::new(Exit::Usage, format!("the site is not given; name SITE.ENV, or {why}"));
        let outside = "run the command in a git checkout of the site";
        let remotes = git(here, &["remote", "-v"]).ok_or_else(|| fail(outside))?;
        let id = remotes.lines().find_map(codeserver_id).ok_or_else(|| {
            fail("run the command in a checkout with the site's codeserver as a remote (this checkout has none)")
        })?;
        let branch = git(here, &["symbolic-ref", "--short", "HEAD"])
            .ok_or_else(|| fail("check out a branch, whose name tells the environment"))?;
        let env = match branch.trim() {
            "master" | "main" => "dev",
            multidev => multidev,
        };
        let site = self.name_of(&id).unwrap_or(id);
        Source::parse(format!("{site}.{env}").as_ref())
    }
}

fn git(here: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(here).args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The site's id in a line of `git remote -v`: `ssh://codeserver.dev.ID@codeserver.dev.ID.drush.in:2222/~/repository.git`.
fn codeserver_id(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("codeserver.dev.")?;
    let id: String = rest.chars().take(36).collect();
    (is_uuid(&id) && rest[36..].starts_with(['@', '.'])).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f5b7d8e-0000-4abc-9def-0123456789ab";

    #[test]
    fn names_and_ids_are_remembered() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let sites = Sites::below(&dir.path().join("state"));
        assert_eq!(sites.id_of("mysite"), None);
        sites.remember("mysite", ID);
        assert_eq!(sites.id_of("mysite").as_deref(), Some(ID));
        let source = |text: &str| Source::parse(text.as_ref()).expect("valid");
        assert_eq!(sites.key(&source(&format!("{ID}.dev"))), sites.key(&source("mysite.dev")));
        sites.remember("renamed", ID);
        assert_eq!((sites.id_of("mysite"), sites.name_of(ID).as_deref()), (None, Some("renamed")));
        // What is remembered may be lost; the directory's link is still there.
        std::os::unix::fs::symlink(format!("{ID}.dev"), dir.path().join("state/linked.dev")).expect("linked");
        std::os::unix::fs::symlink("elsewhere/x.dev", dir.path().join("state/astray.dev")).expect("linked");
        let keys = ["linked.dev", "linked.live", "astray.dev"].map(|text| sites.key(&source(text)));
        assert_eq!(keys, [format!("{ID}.dev"), "linked.live".into(), "astray.dev".into()]);
        fs::write(dir.path().join("state/sites.json"), "{\"x\": ").expect("damaged");
        assert_eq!(sites.id_of("renamed"), None);
    }

    #[test]
    fn a_checkout_says_which_site_it_is_of() {
        let url = format!("ssh://codeserver.dev.{ID}@codeserver.dev.{ID}.drush.in:2222/~/repository.git");
        assert_eq!(codeserver_id(&format!("origin\t{url} (fetch)")).as_deref(), Some(ID));
        assert_eq!(codeserver_id("origin\tgit@github.com:a/b.git (fetch)"), None);
        assert_eq!(codeserver_id("origin\tssh://codeserver.dev.é@x"), None);
        let dir = tempfile::tempdir().expect("a temporary directory");
        let sites = Sites::below(dir.path());
        assert!(sites.infer(dir.path()).is_err());
        let run = |args: &[&str]| {
            let status = Command::new("git").arg("-C").arg(dir.path()).args(args).status();
            assert!(status.expect("git runs").success());
        };
        run(&["init", "-q", "-b", "master"]);
        assert!(sites.infer(dir.path()).expect_err("no remote").explain().contains("codeserver"));
        run(&["remote", "add", "origin", &url]);
        assert_eq!(sites.infer(dir.path()).expect("known").to_string(), format!("{ID}.dev"));
        sites.remember("mysite", ID);
        run(&["checkout", "-q", "-b", "feature-x"]);
        assert_eq!(sites.infer(dir.path()).expect("known").to_string(), "mysite.feature-x");
    }
}
