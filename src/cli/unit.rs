//! The systemd unit that mounts an environment at login: its name, its text, and what is read back from it.
//!
//! The package has the same unit as a template for `/usr/bin/pantheonfs`. A file of the user with the name of an instance
//! replaces the template for that instance.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use super::exit::{CliResult, Exit, Failure};
use super::source::dir_name;

const TEMPLATE: &str = include_str!("../../scripts/packaging/pantheonfs@.service");
const PREFIX: &str = "pantheonfs@";
const SUFFIX: &str = ".service";
/// Where `systemctl --user enable` records what is started at login, below the directory of the user's units.
const WANTED: &str = "default.target.wants";
/// Sections of this kind are for other programs than systemd.
const SECTION: &str = "[X-pantheonfs]";

/// A mount at login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AtLogin {
    pub(super) source: String,
    /// `None`: the default mount point.
    pub(super) mountpoint: Option<PathBuf>,
}

/// What the unit starts, and with which variables.
pub(super) struct Start<'a> {
    pub(super) program: &'a Path,
    pub(super) here: &'a Path,
    pub(super) options: &'a [std::ffi::OsString],
    pub(super) variables: &'a [(String, String)],
}

impl AtLogin {
    /// The name of the unit.
    pub(super) fn unit(&self) -> String {
        format!("{PREFIX}{}{SUFFIX}", dir_name(&self.source))
    }

    /// The text of the unit.
    ///
    /// # Errors
    ///
    /// A path or an option has a character that units cannot have.
    pub(super) fn text(&self, start: &Start<'_>) -> CliResult<String> {
        let program = quoted(start.program.as_os_str())?;
        let mut mount = format!("ExecStart={program} mount --foreground");
        let mut settings = String::new();
        for (name, value) in start.variables {
            settings.push_str(&format!("Environment={}\n", quoted(OsStr::new(&format!("{name}={value}")))?));
        }
        for option in start.options {
            mount.push_str(&format!(" -o {}", argument(option)?));
        }
        if !start.options.is_empty() {
            // Paths in options are relative to it.
            settings.push_str(&format!("WorkingDirectory=-{}\n", plain(start.here.as_os_str())?.replace('%', "%%")));
        }
        let source = argument(OsStr::new(&self.source))?;
        let place = self.mountpoint.as_ref().map(|place| argument(place.as_os_str())).transpose()?;
        let to_mount = place.as_ref().map_or_else(|| source.clone(), |place| format!("{source} {place}"));
        let to_unmount = place.as_ref().unwrap_or(&source);
        let line = |line: &str| match line.split_once('=').map_or("", |(key, _)| key) {
            "ExecStart" => format!("{settings}{mount} -- {to_mount}\n"),
            "ExecStop" => format!("ExecStop={program} umount -- {to_unmount}\n"),
            "Description" => format!("Description=Pantheon environment {}\n", self.source.replace('%', "%%")),
            _ => format!("{line}\n"),
        };
        let lines: String = TEMPLATE.lines().filter(|line| !line.starts_with('#')).map(line).collect();
        let place = self.mountpoint.as_ref().map(|place| format!("MountPoint={}\n", place.display()));
        let own = format!("\n{SECTION}\nSource={}\n{}", self.source, place.unwrap_or_default());
        Ok(format!("# Made by `pantheonfs enable`; `pantheonfs disable {}` removes it.\n{lines}{own}", self.source))
    }

    /// What a unit of this instance mounts; without a file of the user, what the template mounts.
    fn read(instance: &str, file: &Path) -> Self {
        let text = fs::read_to_string(file).unwrap_or_default();
        let own = text.split(&format!("\n{SECTION}\n")).nth(1).unwrap_or_default();
        let value = |key: &str| own.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        Self {
            source: value("Source").unwrap_or(instance).to_owned(),
            mountpoint: value("MountPoint").map(PathBuf::from),
        }
    }
}

/// What is mounted at login, by the units in the user's directory of units.
pub(super) fn enabled(units: &Path) -> Vec<AtLogin> {
    let entries = fs::read_dir(units.join(WANTED)).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut out: Vec<AtLogin> = names
        .filter_map(|name| {
            let instance = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
            Some(AtLogin::read(instance, &units.join(&name)))
        })
        .collect();
    out.sort_by(|a, b| a.source.cmp(&b.source));
    out
}

/// Text that can stand in a line of a unit.
fn plain(text: &OsStr) -> CliResult<&str> {
    text.to_str().filter(|text| !text.contains(char::is_control)).ok_or_else(|| {
        let why = "a unit of systemd cannot contain it: it is not UTF-8, or has control characters";
        Failure::new(Exit::Usage, format!("'{}': {why}", text.to_string_lossy()))
    })
}

/// A word in quotation marks, as units have it.
fn quoted(text: &OsStr) -> CliResult<String> {
    Ok(format!("\"{}\"", plain(text)?.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%")))
}

/// An argument of a program, in which systemd would also replace variables.
fn argument(text: &OsStr) -> CliResult<String> {
    Ok(quoted(text)?.replace('$', "$$"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    fn start<'a>(options: &'a [OsString], variables: &'a [(String, String)]) -> Start<'a> {
        Start { program: Path::new("/opt/my programs/pantheonfs"), here: Path::new("/home/me"), options, variables }
    }

    #[test]
    fn words_are_quoted_as_systemd_reads_them() {
        let mount = AtLogin { source: "mysite.dev".into(), mountpoint: Some("/home/me/100% \"$mine\"".into()) };
        let options = [OsString::from("IdentityFile=a b")];
        let variables = [("TERMINUS_HOST".to_owned(), "a$b%c".to_owned())];
        let text = mount.text(&start(&options, &variables)).expect("text");
        let lines: Vec<&str> = text.lines().collect();
        let place = r#""/home/me/100%% \"$$mine\"""#;
        for line in [
            format!(
                r#"ExecStart="/opt/my programs/pantheonfs" mount --foreground -o "IdentityFile=a b" -- "mysite.dev" {place}"#
            ),
            format!(r#"ExecStop="/opt/my programs/pantheonfs" umount -- {place}"#),
            r#"Environment="TERMINUS_HOST=a$b%%c""#.to_owned(),
            "WorkingDirectory=-/home/me".to_owned(),
        ] {
            assert!(lines.contains(&line.as_str()), "{line} is not in:\n{text}");
        }
        let odd = AtLogin { source: "mysite.dev".into(), mountpoint: Some("/home/me/a\nExecStart=b".into()) };
        assert!(odd.text(&start(&[], &[])).is_err(), "a line break would be a line of the unit");
    }

    #[test]
    fn what_a_unit_mounts_is_read_back() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join(WANTED)).expect("made");
        let mounts = [
            AtLogin { source: "a.dev".into(), mountpoint: None },
            AtLogin { source: "b.live".into(), mountpoint: Some("/home/me/b = c".into()) },
            AtLogin { source: "sftp://me@host/srv".into(), mountpoint: Some("/mnt".into()) },
        ];
        for mount in &mounts {
            fs::write(dir.path().join(mount.unit()), mount.text(&start(&[], &[])).expect("text")).expect("written");
            assert_eq!(enabled(dir.path()).iter().find(|one| *one == mount), None, "it is not enabled");
            fs::write(dir.path().join(WANTED).join(mount.unit()), "").expect("written");
        }
        assert_eq!(enabled(dir.path()), mounts);
        // The template, enabled by systemctl.
        fs::write(dir.path().join(WANTED).join("pantheonfs@c.test.service"), "").expect("written");
        fs::write(dir.path().join(WANTED).join("other.service"), "").expect("written");
        let found = enabled(dir.path());
        assert_eq!(found[2], AtLogin { source: "c.test".into(), mountpoint: None });
        assert_eq!(found.len(), 4);
    }
}
