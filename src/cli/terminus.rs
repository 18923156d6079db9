//! The settings of Terminus, from the places where Terminus reads them: the environment, `.env` in the current directory,
//! `~/.terminus/config.yml`, in this order.
//!
//! The current directory may be somebody else's checkout. Of its `.env` only the choice between the user's own accounts
//! counts: a host, port, protocol or directory from there would say where the saved token goes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use yaml_rust2::{Yaml, YamlLoader};

use super::exit::{CliResult, Exit, Failure};

/// What every name begins with in the environment and in `.env`.
const PREFIX: &str = "TERMINUS_";
/// What `.env` may set.
const FROM_CHECKOUT: &[&str] = &["user"];
/// Longer than any file of settings (bytes).
const MAX_FILE_BYTES: u64 = 256 * 1024;
/// How deep settings may refer to each other.
const MAX_DEPTH: u32 = 8;

/// A value and where it was found.
type Found = (String, String);

/// All settings, by names such as `host` for `TERMINUS_HOST`.
pub(super) struct Terminus {
    values: BTreeMap<String, Found>,
    /// The files that were there.
    files: Vec<PathBuf>,
    /// `.env`, and what it sets that does not count there.
    ignored: Option<(PathBuf, Vec<String>)>,
    home: Option<PathBuf>,
    here: PathBuf,
}

impl Terminus {
    /// Reads the files. `variables`: the environment.
    ///
    /// # Errors
    ///
    /// `config.yml` cannot be read or is no YAML.
    pub(super) fn read(
        variables: impl Iterator<Item = (String, String)>,
        home: Option<&Path>,
        here: &Path,
    ) -> CliResult<Self> {
        let (home, here) = (home.map(Path::to_owned), here.to_owned());
        let mut all = Self { values: BTreeMap::new(), files: Vec::new(), ignored: None, home, here };
        if let Some(home) = &all.home {
            all.read_config(&home.join(".terminus/config.yml"))?;
        }
        all.read_env(&all.here.join(".env"));
        for (name, value) in variables.filter(|(_, value)| !value.is_empty()) {
            if let Some(key) = name.strip_prefix(PREFIX) {
                all.values.insert(key.to_lowercase(), (value, name));
            }
        }
        Ok(all)
    }

    fn read_config(&mut self, file: &Path) -> CliResult<()> {
        let wrong = |detail: &dyn std::fmt::Display| {
            Failure::new(Exit::Usage, format!("{}: Terminus' settings cannot be read: {detail}", file.display()))
        };
        let text = match read_file(file) {
            Ok(text) => text,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(());
            }
            Err(error) => return Err(wrong(&error)),
        };
        self.files.push(file.to_owned());
        let documents = YamlLoader::load_from_str(&text).map_err(|e| wrong(&e))?;
        let Some(Yaml::Hash(pairs)) = documents.into_iter().next() else { return Ok(()) };
        for (name, value) in pairs {
            let value = match value {
                Yaml::String(text) | Yaml::Real(text) => text,
                Yaml::Integer(number) => number.to_string(),
                Yaml::Boolean(value) => value.to_string(),
                _ => continue,
            };
            if let Some(name) = name.as_str().filter(|_| !value.is_empty()) {
                let key = name.strip_prefix(PREFIX).unwrap_or(name).to_lowercase();
                self.values.insert(key, (value, format!("{name} in {}", file.display())));
            }
        }
        Ok(())
    }

    fn read_env(&mut self, file: &Path) {
        let text = match read_file(file) {
            Ok(text) => text,
            Err(error) => return log::debug!("{}: {error}", file.display()),
        };
        self.files.push(file.to_owned());
        let mut ignored = Vec::new();
        for (name, value) in text.lines().filter_map(setting) {
            let Some(key) = name.strip_prefix(PREFIX).map(str::to_lowercase) else { continue };
            if FROM_CHECKOUT.contains(&key.as_str()) && !value.is_empty() {
                self.values.insert(key, (value.to_owned(), format!("{name} in {}", file.display())));
            } else {
                ignored.push(name.to_owned());
            }
        }
        if !ignored.is_empty() {
            self.ignored = Some((file.to_owned(), ignored));
        }
    }

    /// A setting and where it comes from.
    pub(super) fn get(&self, key: &str) -> Option<Found> {
        let (value, from) = self.values.get(key)?;
        Some((self.expand(value, MAX_DEPTH), from.clone()))
    }

    /// A setting.
    pub(super) fn text(&self, key: &str) -> Option<String> {
        self.get(key).map(|(value, _)| value)
    }

    /// A directory, whatever the current directory of the program is later.
    pub(super) fn dir(&self, key: &str) -> Option<PathBuf> {
        let value = self.text(key).or_else(|| Some(self.expand(&self.default_of(key)?, MAX_DEPTH)))?;
        let path = match (value.strip_prefix("~/"), &self.home) {
            (Some(tail), Some(home)) => home.join(tail),
            // Without a home directory there is none below it.
            _ if value.starts_with("[[") => return None,
            _ => PathBuf::from(value),
        };
        Some(self.here.join(path))
    }

    /// What Terminus takes where nothing is set.
    fn default_of(&self, key: &str) -> Option<String> {
        let value = match key {
            "user_home" => self.home.as_ref()?.to_str()?,
            "base_dir" => "[[ TERMINUS_USER_HOME ]]/.terminus",
            "cache_dir" => "[[ TERMINUS_BASE_DIR ]]/cache",
            "tokens_dir" => "[[ TERMINUS_CACHE_DIR ]]/tokens",
            _ => return None,
        };
        Some(value.to_owned())
    }

    /// Replaces `[[ TERMINUS_NAME ]]` by that setting. A name that is not known stays.
    fn expand(&self, value: &str, depth: u32) -> String {
        let Some((before, name, after)) = placeholder(value).filter(|_| depth > 0) else { return value.to_owned() };
        let key = name.trim().to_lowercase();
        let key = key.strip_prefix("terminus_").unwrap_or(&key);
        let known = self.values.get(key).map(|(value, _)| value.clone()).or_else(|| self.default_of(key));
        match known {
            Some(known) => {
                format!("{before}{}{}", self.expand(&known, depth - 1), self.expand(after, depth - 1))
            }
            None => format!("{before}[[{name}]]{}", self.expand(after, depth - 1)),
        }
    }

    /// The files that were read, and what does not count in them; `None`: there was none.
    pub(super) fn describe(&self) -> Option<String> {
        let files: Vec<String> = self.files.iter().map(|file| file.display().to_string()).collect();
        let mut text = files.join(", ");
        if let Some((file, names)) = &self.ignored {
            let names = names.join(", ");
            text.push_str(&format!(
                "; ignored in {}: {names} (only TERMINUS_USER counts there; set others in the environment or in \
                 ~/.terminus/config.yml)",
                file.display()
            ));
        }
        (!text.is_empty()).then_some(text)
    }
}

/// The first placeholder of a text, with what stands before and behind it.
fn placeholder(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once("[[")?;
    let (name, after) = rest.split_once("]]")?;
    Some((before, name, after))
}

/// Parses `NAME=value`, with or without quotes. Lines that begin with `#` are comments.
fn setting(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.trim().split_once('=').filter(|(name, _)| !name.starts_with('#'))?;
    let quoted = ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
    Some((name, quoted.unwrap_or(value)))
}

/// The text of a file of usual length. A pipe, which nobody may write to, is none.
fn read_file(path: &Path) -> io::Result<String> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a file"));
    }
    let mut text = Vec::new();
    if file.take(MAX_FILE_BYTES + 1).read_to_end(&mut text)? as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("longer than {MAX_FILE_BYTES} bytes")));
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    struct Desk(tempfile::TempDir);

    impl Desk {
        fn new(config: &str, env: &str) -> Self {
            let dir = tempfile::tempdir().expect("a temporary directory");
            fs::create_dir_all(dir.path().join("home/.terminus")).expect("made");
            fs::create_dir(dir.path().join("here")).expect("made");
            fs::write(dir.path().join("home/.terminus/config.yml"), config).expect("written");
            fs::write(dir.path().join("here/.env"), env).expect("written");
            Self(dir)
        }

        fn read(&self, variables: &[(&str, &str)]) -> CliResult<Terminus> {
            let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            Terminus::read(variables, Some(&self.0.path().join("home")), &self.0.path().join("here"))
        }
    }

    #[test]
    fn the_environment_goes_before_env_and_env_before_config() {
        let config = "---\n# mine\nTERMINUS_USER: c@x\nhost: 'one'\nTERMINUS_PORT: 8443\nTERMINUS_CLIENT_OPTIONS:\n  debug: false\n";
        let desk = Desk::new(config, "# no\nTERMINUS_USER='e@x'\n");
        let all = desk.read(&[("TERMINUS_HOST", "two"), ("TERMINUS_PORT", ""), ("HOME", "x")]).expect("read");
        assert_eq!(all.text("user").as_deref(), Some("e@x"));
        assert_eq!(all.get("host"), Some(("two".into(), "TERMINUS_HOST".into())));
        assert_eq!(all.text("port").as_deref(), Some("8443"), "an empty variable sets nothing");
        assert_eq!((all.text("client_options"), all.text("home")), (None, None));
        let all = desk.read(&[("TERMINUS_USER", "v@x")]).expect("read");
        assert_eq!(all.text("user").as_deref(), Some("v@x"));
    }

    #[test]
    fn directories_follow_from_each_other() {
        let home = |desk: &Desk, tail: &str| Some(desk.0.path().join("home").join(tail));
        let desk = Desk::new("", "");
        let all = desk.read(&[]).expect("read");
        assert_eq!(all.dir("cache_dir"), home(&desk, ".terminus/cache"));
        assert_eq!(all.dir("tokens_dir"), home(&desk, ".terminus/cache/tokens"));
        let all = desk.read(&[("TERMINUS_BASE_DIR", "/b")]).expect("read");
        assert_eq!(all.dir("tokens_dir"), Some("/b/cache/tokens".into()));
        let desk = Desk::new("TERMINUS_TOKENS_DIR: '[[ TERMINUS_USER_HOME ]]/t'\ncache_dir: ~/c\n", "");
        let all = desk.read(&[]).expect("read");
        assert_eq!((all.dir("tokens_dir"), all.dir("cache_dir")), (home(&desk, "t"), home(&desk, "c")));
        let all = desk.read(&[("TERMINUS_CACHE_DIR", "rel")]).expect("read");
        assert_eq!(all.dir("cache_dir"), Some(desk.0.path().join("here/rel")));
        let desk = Desk::new("base_dir: '[[ TERMINUS_CACHE_DIR ]]/[[x]]'\n", "");
        assert_eq!(desk.read(&[]).expect("read").dir("cache_dir"), None, "a circle ends");
    }

    #[test]
    fn env_of_the_current_directory_says_nothing_but_the_account() {
        let lines = ["HOST", "PORT", "PROTOCOL", "SSH_HOST", "CACHE_DIR", "TOKENS_DIR", "BASE_DIR", "USER_HOME"];
        let env: String = lines.iter().map(|name| format!("TERMINUS_{name}=evil\n")).collect();
        let desk = Desk::new("TERMINUS_HOST: mine\n", &format!("{env}host=evil\nTERMINUS_USER=me@x\n"));
        let all = desk.read(&[]).expect("read");
        for key in lines.map(str::to_lowercase) {
            let dir = all.dir(&key).unwrap_or_default();
            assert!(all.text(&key).is_none_or(|value| value == "mine") && !dir.ends_with("evil"), "{key}");
        }
        assert_eq!(all.text("user").as_deref(), Some("me@x"));
        let said = all.describe().expect("files");
        assert!(lines.iter().all(|name| said.contains(&format!("TERMINUS_{name}"))), "{said}");
    }

    #[test]
    fn what_is_no_file_of_settings_holds_nobody() {
        let desk = Desk::new("a: [", "");
        assert!(desk.read(&[]).is_err_and(|failure| failure.explain().contains("config.yml")));
        let desk = Desk::new("- only\n- a list\n", "");
        fs::remove_file(desk.0.path().join("here/.env")).expect("removed");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            desk.0.path().join("here/.env"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .expect("a pipe");
        assert_eq!(desk.read(&[]).expect("read").text("user"), None);
        fs::remove_file(desk.0.path().join("here/.env")).expect("removed");
        fs::write(desk.0.path().join("here/.env"), "=\n=x\nTERMINUS_USER\nTERMINUS_USER=\"\n\u{0}").expect("written");
        assert_eq!(desk.read(&[]).expect("read").text("user").as_deref(), Some("\""));
    }
}
