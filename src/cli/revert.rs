//! `pantheonfs revert`: writes the committed version over files, after a copy of each was kept.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::environ::Environ;
use super::exit::{CliResult, Exit, Failure};
use super::mountpoint;
use super::report::Outcomes;

/// See the module header.
pub(super) fn run(paths: &[PathBuf], json: bool) -> CliResult<()> {
    let mut outcomes = Outcomes::new(json);
    for path in paths {
        revert(path, &mut outcomes)?;
    }
    outcomes.end()
}

fn revert(path: &Path, outcomes: &mut Outcomes) -> CliResult<()> {
    let mut say = |outcome: &str| outcomes.add(&path.display().to_string(), outcome);
    let failed = |what: &'static str| {
        move |e: io::Error| Failure::caused(Exit::Failed, format!("{}: {what}", path.display()), e)
    };
    let mount = mountpoint::around(path)?;
    let place = mountpoint::settle(path).map_err(failed("cannot be found"))?;
    let inside = place.strip_prefix(&mount.mountpoint).unwrap_or(&place).to_owned();
    let committed = read_if_there(&mount.mountpoint.join(".pantheon/head").join(&inside))
        .map_err(failed("the committed version cannot be read"))?;
    let now = read_if_there(&place).map_err(failed("cannot be read"))?;
    if now.is_none() && committed.is_none() {
        let text = format!("{}: there is no such file, and none in the commit", path.display());
        return Err(Failure::new(Exit::Usage, text));
    }
    if now == committed {
        return say("is as it is committed");
    }
    if let Some(content) = &now {
        let kept = Environ::look()?.keep_reverted(&mount.source, &inside, content)?;
        say(&format!("a copy is kept in {}", kept.display()))?;
    }
    let Some(content) = &committed else {
        fs::remove_file(&place).map_err(failed("cannot be removed"))?;
        return say("removed; it is not in the commit");
    };
    if let Some(dir) = place.parent() {
        fs::create_dir_all(dir).map_err(failed("its directory cannot be created"))?;
    }
    fs::write(&place, content).map_err(failed("cannot be written"))?;
    // The result of close is lost in std; fsync reports whether the server has the content.
    let file = fs::File::open(&place).map_err(failed("cannot be read back"))?;
    file.sync_all().map_err(failed("is not on the server"))?;
    say("back to the committed version")
}

/// The content of a file; `None` if there is none.
fn read_if_there(file: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(file) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
