//! A tree of files, as the model knows it or as it is on the server's disk.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

#[derive(Clone, PartialEq, Eq)]
pub enum Node {
    File { content: Vec<u8>, executable: bool },
    Dir,
    Link(String),
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Node::File { content, executable } => {
                write!(f, "{} bytes of {:?}", content.len(), content.first())?;
                if *executable { f.write_str(", executable") } else { Ok(()) }
            }
            Node::Dir => f.write_str("a directory"),
            Node::Link(text) => write!(f, "a link to {text}"),
        }
    }
}

/// Paths below the directory of the sequence; its own name is not among them.
pub type Model = BTreeMap<String, Node>;

/// What is below a directory of the server's disk.
pub fn look(root: &Path, below: &str) -> Model {
    let mut out = Model::new();
    for entry in fs::read_dir(root.join(below)).expect("listed").flatten() {
        let name = entry.file_name().into_string().expect("text");
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        let meta = entry.metadata().expect("there");
        if meta.is_symlink() {
            let text = fs::read_link(entry.path()).expect("a link").to_string_lossy().into_owned();
            out.insert(path, Node::Link(text));
        } else if meta.is_dir() {
            out.insert(path.clone(), Node::Dir);
            out.extend(look(root, &path));
        } else {
            let content = fs::read(entry.path()).expect("readable");
            out.insert(path, Node::File { content, executable: meta.permissions().mode() & 0o100 != 0 });
        }
    }
    out
}

/// Another writer's file has the time of the server's clock, which is this many seconds ahead.
pub fn shift_time(file: &Path, by: i64) {
    let file = fs::File::options().write(true).open(file).expect("it is there");
    let now = std::time::SystemTime::now();
    let by_secs = std::time::Duration::from_secs(by.unsigned_abs());
    file.set_modified(if by < 0 { now - by_secs } else { now + by_secs }).expect("set");
}
