//! Remote names and paths that cannot be invalid, and the containment rule for symlinks.
//!
//! A [`RemotePath`] is always relative: to the login directory of the SSH account (a Pantheon binding) or to the path
//! of an `sftp://` source. Absolute paths of the server are never stored, because a container migration changes them.
//! Paths are bytes, because file names on the server need not be UTF-8.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Bound;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest name that the kernel's VFS passes on, in bytes (`NAME_MAX`).
pub const MAX_NAME_BYTES: usize = 255;
/// Longest path accepted from anywhere, in bytes (`PATH_MAX`).
pub const MAX_PATH_BYTES: usize = 4096;

/// Why some bytes are not a [`Name`] or a [`RemotePath`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPath {
    #[error("the name is empty")]
    Empty,
    #[error("the name is longer than {MAX_NAME_BYTES} bytes")]
    NameTooLong,
    #[error("the path is longer than {MAX_PATH_BYTES} bytes")]
    PathTooLong,
    #[error("the name contains '/' or a zero byte")]
    ForbiddenByte,
    #[error("'.' and '..' are not names")]
    Dots,
}

/// One component of a path: 1 to 255 bytes, no `/`, no NUL, neither `.` nor `..`.
#[derive(Clone)]
pub struct Name(Bytes);

/// Longest name that needs no memory of its own (bytes): the size of a `Name` is 24 bytes, of which two say which kind it
/// is and how long. Most names are shorter, and a mount may hold a million of them.
const MAX_INLINE_BYTES: usize = 22;

#[derive(Clone)]
enum Bytes {
    Inline(u8, [u8; MAX_INLINE_BYTES]),
    Shared(Arc<[u8]>),
}

impl Name {
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self, InvalidPath> {
        let bytes = bytes.as_ref();
        match bytes {
            b"" => Err(InvalidPath::Empty),
            b"." | b".." => Err(InvalidPath::Dots),
            _ if bytes.len() > MAX_NAME_BYTES => Err(InvalidPath::NameTooLong),
            _ if bytes.iter().any(|b| matches!(b, b'/' | 0)) => Err(InvalidPath::ForbiddenByte),
            _ => Ok(Self::of_valid(bytes)),
        }
    }

    fn of_valid(bytes: &[u8]) -> Self {
        let mut inline = [0; MAX_INLINE_BYTES];
        Self(match inline.get_mut(..bytes.len()) {
            Some(start) => {
                start.copy_from_slice(bytes);
                Bytes::Inline(bytes.len() as u8, inline)
            }
            None => Bytes::Shared(bytes.into()),
        })
    }

    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Bytes::Inline(len, bytes) => &bytes[..usize::from(*len)],
            Bytes::Shared(bytes) => bytes,
        }
    }

    pub fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(self.as_bytes())
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Name {}

/// Names have the order of their bytes.
impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.as_bytes()))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self.as_bytes()))
    }
}

/// A path relative to the login directory: zero or more [`Name`]s joined by `/`. The empty path is that directory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RemotePath(Arc<[u8]>);

impl RemotePath {
    pub fn root() -> Self {
        Self(Arc::from(&b""[..]))
    }

    /// Parses `a/b/c`. Leading and trailing slashes and empty components are dropped; `.` and `..` are refused.
    pub fn parse(bytes: impl AsRef<[u8]>) -> Result<Self, InvalidPath> {
        let mut out = Vec::with_capacity(bytes.as_ref().len());
        for part in bytes.as_ref().split(|&b| b == b'/').filter(|p| !p.is_empty()) {
            let name = Name::new(part)?;
            if !out.is_empty() {
                out.push(b'/');
            }
            out.extend_from_slice(name.as_bytes());
        }
        if out.len() > MAX_PATH_BYTES {
            return Err(InvalidPath::PathTooLong);
        }
        Ok(Self(out.into()))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn to_os_string(&self) -> OsString {
        OsString::from_vec(self.0.to_vec())
    }

    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    #[must_use]
    pub fn join(&self, name: &Name) -> Self {
        let name = name.as_bytes();
        if self.is_root() {
            return Self(name.into());
        }
        let mut out = Vec::with_capacity(self.0.len() + 1 + name.len());
        out.extend_from_slice(&self.0);
        out.push(b'/');
        out.extend_from_slice(name);
        Self(out.into())
    }

    #[must_use]
    pub fn join_path(&self, tail: &RemotePath) -> Self {
        tail.names().fold(self.clone(), |path, name| path.join(&name))
    }

    /// The directory that holds this path; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let cut = self.0.iter().rposition(|&b| b == b'/').unwrap_or(0);
        Some(Self(self.0[..cut].into()))
    }

    pub fn file_name(&self) -> Option<Name> {
        let start = self.0.iter().rposition(|&b| b == b'/').map_or(0, |i| i + 1);
        (!self.is_root()).then(|| Name::of_valid(&self.0[start..]))
    }

    pub fn names(&self) -> impl DoubleEndedIterator<Item = Name> + '_ {
        self.0.split(|&b| b == b'/').filter(|p| !p.is_empty()).map(Name::of_valid)
    }

    pub fn depth(&self) -> usize {
        self.names().count()
    }

    /// What remains of this path below `base`; the empty path for `base` itself, `None` outside it.
    pub fn strip_prefix(&self, base: &RemotePath) -> Option<Self> {
        if base.is_root() {
            return Some(self.clone());
        }
        let rest = self.0.strip_prefix(base.as_bytes())?;
        match rest.first() {
            None => Some(Self::root()),
            Some(b'/') => Some(Self(rest[1..].into())),
            Some(_) => None,
        }
    }

    /// A relative text for a symlink at `link` that leads here, both relative to the same root.
    pub fn relative_from(&self, link: &RemotePath) -> Vec<u8> {
        let up = link.depth().saturating_sub(1);
        let mut text = b"../".repeat(up);
        text.extend_from_slice(self.as_bytes());
        if text.is_empty() { b".".to_vec() } else { text }
    }

    pub fn starts_with(&self, base: &RemotePath) -> bool {
        self.strip_prefix(base).is_some()
    }

    /// This path and those below it that are keys of the map. Looks at no other key.
    pub fn keys_below<V>(&self, map: &BTreeMap<RemotePath, V>) -> Vec<RemotePath> {
        let prefix = if self.is_root() { Vec::new() } else { [self.as_bytes(), b"/"].concat() };
        let own = map.get_key_value(self).filter(|_| !self.is_root());
        let from = (Bound::Included(prefix.as_slice()), Bound::Unbounded);
        let below = map.range::<[u8], _>(from).take_while(|(known, _)| known.as_bytes().starts_with(&prefix));
        own.into_iter().chain(below).map(|(known, _)| known.clone()).collect()
    }
}

/// Paths have the order of their bytes.
impl Borrow<[u8]> for RemotePath {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for RemotePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for RemotePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

/// A string if the path is UTF-8, else an array of bytes.
impl Serialize for RemotePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => self.0.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for RemotePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Text(String),
            Bytes(Vec<u8>),
        }
        let bytes = match Written::deserialize(deserializer)? {
            Written::Text(text) => text.into_bytes(),
            Written::Bytes(bytes) => bytes,
        };
        Self::parse(bytes).map_err(serde::de::Error::custom)
    }
}

/// The target of a symlink, as far as its text alone tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkTarget {
    /// Relative and inside: the path, relative to the same root as the symlink.
    Inside(RemotePath),
    /// Relative, and above the root.
    Escapes,
    /// Starts with `/`: a path of the server, which is not valid on this machine.
    Absolute,
}

/// Resolves the text of a symlink at `link` lexically. A `..` that climbs above the root escapes, even if the text
/// comes back: the name of the root on the server may change.
pub fn resolve_link(link: &RemotePath, text: &[u8]) -> LinkTarget {
    if text.first() == Some(&b'/') {
        return LinkTarget::Absolute;
    }
    let mut names: Vec<Name> = link.parent().map(|p| p.names().collect()).unwrap_or_default();
    for part in text.split(|&b| b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                if names.pop().is_none() {
                    return LinkTarget::Escapes;
                }
            }
            _ => match Name::new(part) {
                Ok(name) => names.push(name),
                Err(_) => return LinkTarget::Escapes,
            },
        }
    }
    LinkTarget::Inside(names.iter().fold(RemotePath::root(), |path, name| path.join(name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn path(text: &str) -> RemotePath {
        RemotePath::parse(text).expect("a valid path")
    }

    #[test]
    fn names_refuse_what_a_server_must_not_send() {
        for bad in [&b""[..], b".", b"..", b"a/b", b"a\0b", &[b'x'; 256]] {
            assert!(Name::new(bad).is_err(), "{bad:?}");
        }
        assert!(Name::new([b'x'; 255]).is_ok());
        assert!(Name::new(b"caf\xe9 ...").is_ok());
    }

    #[test]
    fn a_name_is_small_and_its_length_makes_no_difference() {
        assert_eq!((size_of::<Name>(), size_of::<Option<Name>>()), (24, 24));
        let names: Vec<Name> = (1..=MAX_NAME_BYTES).map(|len| Name::new(vec![b'x'; len]).expect("valid")).collect();
        for (name, len) in names.iter().zip(1..) {
            assert_eq!((name.as_bytes(), name), (&vec![b'x'; len][..], &name.clone()));
            assert_eq!(RemotePath::root().join(name).file_name().as_ref(), Some(name));
        }
        assert!(names.is_sorted_by(|a, b| a < b));
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), MAX_NAME_BYTES);
    }

    #[test]
    fn keys_below_a_path_are_that_path_and_what_begins_with_it_and_a_slash() {
        let all = ["a", "a!", "a/b", "a/b/c", "a0", "ab", "b"];
        let map: BTreeMap<RemotePath, ()> = all.into_iter().map(|text| (path(text), ())).collect();
        assert_eq!(path("a").keys_below(&map), ["a", "a/b", "a/b/c"].map(path));
        assert_eq!(path("a/b/c").keys_below(&map), [path("a/b/c")]);
        assert_eq!(path("c").keys_below(&map), []);
        assert_eq!(RemotePath::root().keys_below(&map).len(), all.len());
    }

    #[test]
    fn paths_split_and_join() {
        let p = path("/code//wp-content/index.php/");
        assert_eq!(p.as_bytes(), b"code/wp-content/index.php");
        assert_eq!(p.parent(), Some(path("code/wp-content")));
        assert_eq!(p.file_name().expect("has a name").as_bytes(), b"index.php");
        assert_eq!(path("a").parent(), Some(RemotePath::root()));
        assert_eq!(RemotePath::root().parent(), None);
        assert_eq!(p.strip_prefix(&path("code")), Some(path("wp-content/index.php")));
        assert_eq!(p.strip_prefix(&path("cod")), None);
        assert_eq!(path("code").strip_prefix(&path("code")), Some(RemotePath::root()));
        assert!(RemotePath::parse("a/../b").is_err());
    }

    #[test]
    fn paths_are_written_as_text_where_they_are_text() {
        for bytes in [&b"a/b c"[..], b"caf\xe9/x"] {
            let path = RemotePath::parse(bytes).expect("valid");
            let text = serde_json::to_string(&path).expect("written");
            assert_eq!(serde_json::from_str::<RemotePath>(&text).expect("read"), path, "{text}");
        }
        assert!(serde_json::from_str::<RemotePath>("\"a/../b\"").is_err());
    }

    #[test]
    fn relative_texts_climb_to_the_common_root() {
        assert_eq!(path(".pantheon/files").relative_from(&path("wp-content/uploads")), b"../.pantheon/files");
        assert_eq!(path("a/b").relative_from(&path("link")), b"a/b");
        assert_eq!(RemotePath::root().relative_from(&path("link")), b".");
    }

    #[test]
    fn links_are_contained() {
        let link = path("wp-content/uploads");
        assert_eq!(resolve_link(&link, b"../index.php"), LinkTarget::Inside(path("index.php")));
        assert_eq!(resolve_link(&link, b"./x//y"), LinkTarget::Inside(path("wp-content/x/y")));
        assert_eq!(resolve_link(&link, b"../../files"), LinkTarget::Escapes);
        assert_eq!(resolve_link(&link, b"../../code/index.php"), LinkTarget::Escapes);
        assert_eq!(resolve_link(&link, b"/etc/passwd"), LinkTarget::Absolute);
    }
}
