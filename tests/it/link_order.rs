//! Servers that take the arguments of SYMLINK in the order of OpenSSH, or in that of the draft.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pantheonfs::inode::ROOT;

use crate::common::inner::{Inner, wait};
use crate::common::meddler::status;
use crate::common::scripted::{Asked, LINK, LSTAT, READLINK, REMOVE, SYMLINK, attributes, dial, names, packet};

/// A server that knows only links, in a scripted order of SYMLINK's arguments.
fn only_links(
    links: &Arc<Mutex<BTreeMap<String, String>>>,
    link_first: bool,
) -> impl Fn(&Asked) -> Option<Vec<Vec<u8>>> + Send + Sync + 'static {
    let links = links.clone();
    move |asked| {
        let mut links = links.lock().expect("not poisoned");
        let absent = || Some(vec![status(asked.id, 2, "no such file")]);
        match asked.kind {
            SYMLINK => {
                let (text, link) = if link_first { (&asked.second, &asked.path) } else { (&asked.path, &asked.second) };
                links.insert(link.clone(), text.clone());
                Some(vec![status(asked.id, 0, "")])
            }
            READLINK => match links.get(&asked.path) {
                Some(text) => Some(vec![names(asked.id, &[(text, vec![0; 4])])]),
                None => absent(),
            },
            LSTAT if asked.path != "." => match links.get(&asked.path) {
                Some(_) => Some(vec![packet(105, asked.id, &attributes(1, LINK, 7))]),
                None => absent(),
            },
            REMOVE => match links.remove(&asked.path) {
                Some(_) => Some(vec![status(asked.id, 0, "")]),
                None => absent(),
            },
            _ => None,
        }
    }
}

#[test]
fn a_server_of_the_other_order_gets_the_links_that_were_meant() {
    for link_first in [false, true] {
        let links = Arc::new(Mutex::new(BTreeMap::new()));
        let inner = Inner::on(dial(&Arc::default(), only_links(&links, link_first)), Duration::ZERO);
        for (name, text) in [("first", "target"), ("second", "../up"), ("third", "/etc/hostname")] {
            inner.fs.symlink(ROOT, name.as_bytes(), text.as_bytes(), wait()).expect("made");
            inner.fs.sync(wait()).expect("sent");
        }
        let expected = [("first", "target"), ("second", "../up"), ("third", "/etc/hostname")];
        let expected: BTreeMap<String, String> =
            expected.into_iter().map(|(name, text)| (name.to_owned(), text.to_owned())).collect();
        assert_eq!(*links.lock().expect("not poisoned"), expected, "link first: {link_first}");
    }
}
