//! What counts as a proof, and what does not.

use super::*;
use crate::attr::time_from_secs;

fn committed(content: &[u8]) -> (tempfile::TempDir, Proofs, Arc<Tree>, RemotePath) {
    let (dir, mirror, commit) = crate::mirror::sample(content);
    let tree = mirror.tree(&commit).expect("readable");
    let root = RemotePath::parse("code").expect("valid");
    (dir, Proofs::new(Arc::new(mirror), root), tree, RemotePath::parse("code/a.php").expect("valid"))
}

const NOW: u32 = 1_000_000;

fn version(size: u64, mtime: u32) -> Version {
    Version { size, mtime }
}

#[test]
fn frozen_code_is_proved_by_size_and_age() {
    let (_dir, proofs, tree, path) = committed(b"committed");
    let old = version(9, NOW - 1000);
    assert_eq!(proofs.of(&path, old), None, "nothing is known yet");
    proofs.learn(tree.clone(), None, Arc::default());
    assert_eq!(proofs.of(&path, old), None, "the code is not frozen");
    proofs.learn(tree.clone(), Some(time_from_secs(NOW)), Arc::default());
    assert_eq!(proofs.of(&path, version(9, NOW - 10)), None, "younger than our knowing");
    assert_eq!(proofs.of(&path, version(8, NOW - 1000)), None, "another size");
    let blob = proofs.of(&path, old).expect("proved");
    assert_eq!(proofs.bytes(&path, old, blob).expect("there"), b"committed");
    proofs.learn(tree, None, Arc::default());
    assert_eq!(proofs.of(&path, old), Some(blob), "carried: the version has not moved since");
    assert_eq!(proofs.of(&path, version(9, NOW)), None, "another version");
}

#[test]
fn reading_and_the_servers_checksum_prove_and_lies_do_not() {
    let (_dir, proofs, tree, path) = committed(b"committed");
    proofs.learn(tree, None, Arc::default());
    assert_eq!(proofs.verify(&path, version(9, 5), b"different"), None);
    assert!(proofs.verify(&path, version(9, 5), b"committed").is_some());
    let said = |mtime, md5| Attested {
        path: RemotePath::parse("a.php").expect("valid"),
        version: version(9, mtime),
        md5: md5::Digest(md5).0,
    };
    let right = md5::compute(b"committed").0;
    assert_eq!(proofs.attest(&[said(6, [0; 16]), said(NOW, right)], NOW), 0, "another content; too young");
    assert_eq!(proofs.attest(&[said(6, right)], NOW), 1);
    assert!(proofs.of(&path, version(9, 6)).is_some());
    assert_eq!(proofs.kinds(), [(Provenance::Attested, 1)]);
    assert_eq!((proofs.figures().files, proofs.figures().proved), (1, 1));
}

#[test]
fn one_mismatch_ends_it_and_a_lost_repository_is_no_harm() {
    let (dir, proofs, tree, path) = committed(b"committed");
    proofs.learn(tree.clone(), Some(time_from_secs(NOW)), Arc::default());
    let blob = proofs.of(&path, version(9, 5)).expect("proved");
    assert!(proofs.bytes(&path, version(9, 5), blob).is_some());
    assert!(proofs.audit_due(), "the first is always looked at");
    proofs.turn_off(&path);
    assert_eq!(proofs.of(&path, version(9, 5)), None);
    assert!(proofs.verified(&path, version(9, 5), blob).is_none());
    assert!(proofs.figures().off.expect("said").contains("a.php"));

    let gone =
        Proofs::new(Arc::new(Mirror::local(dir.path().join("nowhere"))), RemotePath::parse("code").expect("valid"));
    gone.learn(tree, Some(time_from_secs(NOW)), Arc::default());
    let blob = gone.of(&path, version(9, 5)).expect("proved");
    assert!(gone.bytes(&path, version(9, 5), blob).is_none());
}

#[test]
fn what_is_proved_is_carried_to_the_next_mount() {
    let proof = Proof { version: version(9, 5), blob: BlobId([7; 20]), how: Provenance::Attested };
    let path = RemotePath::parse("code/with space.php").expect("valid");
    let line = proof.line(&path).expect("text");
    assert_eq!(Proof::parse(line.trim_end()), Some((path, Proof { how: Provenance::Carried, ..proof })));
    for nonsense in ["", "x", "0707 1 2 a", "0707070707070707070707070707070707070707 1 -2 a"] {
        assert_eq!(Proof::parse(nonsense), None, "{nonsense}");
    }
}

#[test]
fn converted_files_are_not_proved_by_size() {
    let (_dir, proofs, tree, path) = committed(b"committed");
    let converted = Arc::new(BTreeSet::from([RemotePath::parse("a.php").expect("valid")]));
    proofs.learn(tree, Some(time_from_secs(NOW)), converted);
    assert_eq!(proofs.of(&path, version(9, 5)), None);
    assert!(proofs.verify(&path, version(9, 5), b"committed").is_some(), "proved by its bytes");
}

#[test]
fn written_code_is_not_frozen() {
    let (_dir, proofs, tree, path) = committed(b"committed");
    proofs.learn(tree, Some(time_from_secs(NOW)), Arc::default());
    assert!(proofs.of(&path, version(9, 5)).is_some());
    proofs.replaced(&RemotePath::parse("code").expect("valid"));
    assert_eq!(proofs.of(&path, version(9, 5)), None);
}

#[test]
fn a_carried_proof_counts_once_the_server_is_seen_to_have_its_version() {
    let (_dir, proofs, tree, path) = committed(b"committed");
    proofs.learn(tree.clone(), Some(time_from_secs(NOW)), Arc::default());
    let blob = proofs.of(&path, version(9, 5)).expect("proved");
    let proof = Proof { version: version(9, 5), blob, how: Provenance::Carried };
    let counts = |proofs: &Proofs| (proofs.figures().proved, proofs.figures().unconfirmed);
    for seen in [Some(version(9, 5)), Some(version(9, 6)), None] {
        let (_dir, next, ..) = committed(b"committed");
        next.learn(tree.clone(), None, Arc::default());
        next.carry([(path.clone(), proof)]);
        assert_eq!((counts(&next), next.unconfirmed()), ((0, 1), vec![(path.clone(), version(9, 5))]));
        next.confirm(&path, seen);
        let holds = seen == Some(version(9, 5));
        assert_eq!(counts(&next), (u64::from(holds), 0), "{seen:?}");
        assert_eq!(next.of(&path, version(9, 5)), holds.then_some(blob));
    }
    let (_dir, next, ..) = committed(b"committed");
    next.carry([(path.clone(), proof)]);
    assert_eq!(next.of(&path, version(9, 6)), None, "another version");
    assert_eq!(next.of(&path, version(9, 5)), Some(blob), "the caller has seen the version");
    assert_eq!(counts(&next), (1, 0));
    assert_eq!(next.take_changed().map(|all| all.len()), Some(1));
}
