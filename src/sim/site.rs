//! Work trees and repositories: every environment has one of each, and all share a bare repository.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use git2::build::CheckoutBuilder;
use git2::{DiffFormat, DiffOptions, IndexAddOption, Repository, RepositoryInitOptions, Signature, Sort};
use serde_json::{Map, Value, json};
use tokio::task::block_in_place;

use super::config::ENVIRONMENTS;
use super::demo_site;
use super::state::Shared;

/// Copies a tree as it is: links as links, permissions kept.
pub(super) fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(entry.path())?, &target)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

fn other(error: git2::Error) -> io::Error {
    io::Error::other(format!("git: {}", error.message()))
}

/// Where the uploads of this code are linked: beside the content of either CMS.
fn uploads_link(code: &Path) -> Option<(&'static str, &'static str)> {
    if code.join("wp-content").is_dir() {
        return Some(("wp-content/uploads", "../../files"));
    }
    code.join("sites/default").is_dir().then_some(("sites/default/files", "../../../files"))
}

/// Makes the files of the site: the code of `dev` (copied from `from`, or the demo site), the other environments, and
/// the repositories.
pub(super) fn build(shared: &Shared, from: Option<&Path>) -> io::Result<()> {
    let code = shared.home("dev").join("code");
    match from {
        Some(from) => copy_tree(from, &code)?,
        None => demo_site::write(&code)?,
    }
    ignore_uploads(&code)?;
    Repository::init_bare(shared.repository()).map_err(other)?;
    let repo = init(shared, "dev").map_err(other)?;
    commit_all(&repo, "Start", "Pantheon", "sim@sim.example").map_err(other)?;
    for name in ENVIRONMENTS {
        if name != "dev" {
            copy_tree(&code, &shared.home(name).join("code"))?;
            let tip = repo.head().and_then(|head| head.peel_to_commit()).map_err(other)?;
            let env = init(shared, name).map_err(other)?;
            adopt(&env, &repo, &tip).map_err(other)?;
        }
        surround(shared, name)?;
        push(shared, name)?;
    }
    Ok(())
}

/// Adds the link to the uploads to `.gitignore`, unless it is there.
fn ignore_uploads(code: &Path) -> io::Result<()> {
    let Some((link, _)) = uploads_link(code) else { return Ok(()) };
    let ignored = code.join(".gitignore");
    let mut text = fs::read_to_string(&ignored).unwrap_or_default();
    if text.lines().any(|line| line.trim_matches('/') == link) {
        return Ok(());
    }
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(link);
    text.push('\n');
    fs::write(&ignored, text)
}

fn init(shared: &Shared, name: &str) -> Result<Repository, git2::Error> {
    let mut options = RepositoryInitOptions::new();
    options.no_dotgit_dir(true).mkpath(true).workdir_path(&shared.home(name).join("code"));
    options.initial_head("master");
    let repo = Repository::init_opts(shared.git_dir(name), &options)?;
    // libgit2 leaves a pointer in the work tree; the platform shows none.
    let pointer = shared.home(name).join("code/.git");
    if pointer.is_file() {
        fs::remove_file(pointer).map_err(|e| git2::Error::from_str(&e.to_string()))?;
    }
    Ok(repo)
}

/// Starts an environment from a commit of another one, whose objects it borrows.
fn adopt(env: &Repository, from: &Repository, tip: &git2::Commit<'_>) -> Result<(), git2::Error> {
    env.odb()?.add_disk_alternate(&from.path().join("objects").to_string_lossy())?;
    let alternates = env.path().join("objects/info/alternates");
    let line = format!("{}\n", from.path().join("objects").display());
    fs::write(alternates, line).map_err(|e| git2::Error::from_str(&e.to_string()))?;
    env.reference("refs/heads/master", tip.id(), true, "start")?;
    env.set_head("refs/heads/master")?;
    let mut index = env.index()?;
    index.add_all(["*"], IndexAddOption::DEFAULT, None)?;
    index.write()
}

/// The directories beside the code, and the link to the uploads.
fn surround(shared: &Shared, name: &str) -> io::Result<()> {
    let home = shared.home(name);
    for dir in ["files", "logs/php", "logs/nginx", "tmp"] {
        fs::create_dir_all(home.join(dir))?;
    }
    fs::write(home.join("logs/php/php-error.log"), "")?;
    if let Some((link, target)) = uploads_link(&home.join("code")) {
        let link = home.join("code").join(link);
        if link.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
            // Uploads that came with the code move to `files`.
            copy_tree(&link, &home.join("files"))?;
            fs::remove_dir_all(&link)?;
        }
        if link.symlink_metadata().is_err() {
            symlink(target, link)?;
        }
    }
    Ok(())
}

fn commit_all(repo: &Repository, message: &str, name: &str, email: &str) -> Result<git2::Oid, git2::Error> {
    let mut index = repo.index()?;
    index.add_all(["*"], IndexAddOption::DEFAULT, None)?;
    index.update_all(["*"], None)?;
    index.write()?;
    let tree = repo.find_tree(index.write_tree()?)?;
    let who = Signature::now(name, email)?;
    let parent = repo.head().ok().and_then(|head| head.peel_to_commit().ok());
    let parents: Vec<&git2::Commit<'_>> = parent.iter().collect();
    repo.commit(Some("HEAD"), &who, &who, message, &tree, &parents)
}

/// What the platform calls the branch or tag of an environment.
pub(super) fn target_ref(environment: &str) -> String {
    match environment {
        "dev" => "refs/heads/master".into(),
        "test" | "live" => format!("refs/tags/pantheon_{environment}_1"),
        multidev => format!("refs/heads/{multidev}"),
    }
}

fn push(shared: &Shared, environment: &str) -> io::Result<()> {
    let repo = open(shared, environment)?;
    let mut remote = repo.remote_anonymous(&shared.repository().to_string_lossy()).map_err(other)?;
    remote.push(&[format!("+refs/heads/master:{}", target_ref(environment))], None).map_err(other)
}

fn open(shared: &Shared, environment: &str) -> io::Result<Repository> {
    Repository::open(shared.git_dir(environment)).map_err(other)
}

/// The commit that the environment runs.
pub(super) fn head(shared: &Shared, environment: &str) -> io::Result<String> {
    let repo = Repository::open(shared.repository()).map_err(other)?;
    let tip = repo.find_reference(&target_ref(environment)).and_then(|found| found.peel_to_commit());
    Ok(tip.map_err(other)?.id().to_string())
}

/// The commit that the API names as `target_commit`: an older one while the newest is being synchronized.
pub(super) fn deployed(shared: &Shared, environment: &str) -> io::Result<String> {
    let older = shared.lock().environments.get(environment).and_then(|env| env.deployed.clone());
    older.map_or_else(|| head(shared, environment), Ok)
}

/// The uncommitted paths as the API lists them: an object keyed by path, with counts as text.
pub(super) fn diffstat(shared: &Shared, environment: &str) -> io::Result<Value> {
    // The SFTP server must not wait for it: on the platform another machine does this.
    block_in_place(|| compare(shared, environment))
}

/// The difference between the commit and the work tree.
fn uncommitted(repo: &Repository) -> Result<git2::Diff<'_>, git2::Error> {
    let tree = repo.head()?.peel_to_tree()?;
    let mut options = DiffOptions::new();
    options.include_untracked(true).recurse_untracked_dirs(true).show_untracked_content(true);
    repo.diff_tree_to_workdir(Some(&tree), Some(&mut options))
}

fn compare(shared: &Shared, environment: &str) -> io::Result<Value> {
    let repo = open(shared, environment)?;
    let stats = || -> Result<Map<String, Value>, git2::Error> {
        let diff = uncommitted(&repo)?;
        let mut out = Map::new();
        for (index, delta) in diff.deltas().enumerate() {
            let file = delta.new_file().path().or(delta.old_file().path());
            let Some(path) = file.map(|path| path.to_string_lossy().into_owned()) else { continue };
            let letter = match delta.status() {
                git2::Delta::Added | git2::Delta::Untracked => "A",
                git2::Delta::Deleted => "D",
                _ => "M",
            };
            let counts = git2::Patch::from_diff(&diff, index)?.map(|patch| patch.line_stats()).transpose()?;
            let text = |n: Option<usize>| n.map_or("-".to_owned(), |n| n.to_string());
            let (added, gone) = (text(counts.map(|c| c.1)), text(counts.map(|c| c.2)));
            out.insert(path, json!({ "status": letter, "additions": added, "deletions": gone }));
        }
        Ok(out)
    };
    stats().map(Value::Object).map_err(other)
}

/// Commits all uncommitted changes.
pub(super) fn commit(shared: &Shared, environment: &str, message: &str, name: &str, email: &str) -> io::Result<String> {
    block_in_place(|| {
        let repo = open(shared, environment)?;
        let id = commit_all(&repo, message, name, email).map_err(other)?;
        push(shared, environment)?;
        Ok(id.to_string())
    })
}

/// Deletes all uncommitted changes, as a switch to Git mode does. Ignored files stay.
pub(super) fn discard(shared: &Shared, environment: &str) -> io::Result<()> {
    let repo = open(shared, environment)?;
    let mut checkout = CheckoutBuilder::new();
    checkout.force().remove_untracked(true).recreate_missing(true);
    repo.checkout_head(Some(&mut checkout)).map_err(other)
}

/// Updates the work tree to the branch after a push.
pub(super) fn follow(shared: &Shared, environment: &str) -> io::Result<()> {
    let repo = open(shared, environment)?;
    let mut remote = repo.remote_anonymous(&shared.repository().to_string_lossy()).map_err(other)?;
    let refspec = format!("+{}:refs/heads/pushed", target_ref(environment));
    remote.fetch(&[refspec], None, None).map_err(other)?;
    let pushed = repo.find_reference("refs/heads/pushed").and_then(|r| r.peel_to_commit()).map_err(other)?;
    let here = repo.head().and_then(|head| head.peel_to_commit()).map_err(other)?;
    if pushed.id() == here.id() {
        return Ok(());
    }
    repo.reset(pushed.as_object(), git2::ResetType::Hard, Some(CheckoutBuilder::new().force())).map_err(other)
}

/// The history, newest first.
pub(super) fn log(shared: &Shared, environment: &str) -> io::Result<Value> {
    let repo = open(shared, environment)?;
    let walk = || -> Result<Vec<Value>, git2::Error> {
        let mut walk = repo.revwalk()?;
        walk.set_sorting(Sort::TOPOLOGICAL)?;
        match shared.quirk_is("sync", "lost") {
            true => walk.push(git2::Oid::from_str(&deployed(shared, environment).unwrap_or_default())?)?,
            false => walk.push_head()?,
        }
        let mut out = Vec::new();
        for id in walk {
            let commit = repo.find_commit(id?)?;
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(commit.time().seconds().unsigned_abs());
            let time = humantime::format_rfc3339_seconds(time).to_string();
            out.push(json!({
                "hash": commit.id().to_string(),
                "author": commit.author().name().unwrap_or_default(),
                "email": commit.author().email().unwrap_or_default(),
                "datetime": time.trim_end_matches('Z'),
                "message": commit.message().unwrap_or_default(),
                "labels": [environment],
                "parents": commit.parent_ids().map(|id| id.to_string()).collect::<Vec<_>>(),
            }));
        }
        Ok(out)
    };
    walk().map(Value::Array).map_err(other)
}

/// The uncommitted difference as git prints it.
pub(super) fn diff(shared: &Shared, environment: &str) -> io::Result<String> {
    let repo = open(shared, environment)?;
    let print = || -> Result<String, git2::Error> {
        let diff = uncommitted(&repo)?;
        let mut out = String::new();
        diff.print(DiffFormat::Patch, |_, _, line| {
            if matches!(line.origin(), '+' | '-' | ' ') {
                out.push(line.origin());
            }
            out.push_str(&String::from_utf8_lossy(line.content()));
            true
        })?;
        Ok(out)
    };
    print().map_err(other)
}
