//! Content from the repository, and the comparison with the server that checks it.

use std::sync::Arc;

use super::attest::Attested;
use super::provenance::{Proof, ProofFigures, Proofs};
use super::state::{Content, Inner};
use crate::attr::{BlobId, ContentId, Version};
use crate::cache::{BLOCK_BYTES, BlockKey};
use crate::path::RemotePath;
use crate::pool::background;
use crate::remote::{Class, ErrorKind};

/// Larger files (bytes) are not compared with the server: a check must not cost what the repository saves.
const MAX_AUDIT_BYTES: u64 = 256 * 1024;

impl Content {
    /// The committed object that this version is proved to be.
    pub fn proved(&self, path: &RemotePath, version: Version) -> Option<BlobId> {
        self.0.proofs.as_ref()?.of(path, version)
    }

    /// Notes the hash of a version that a caller has read in full.
    pub fn verified(&self, path: &RemotePath, version: Version, blob: BlobId) {
        if let Some(proofs) = self.0.proofs.as_ref().filter(|_| self.0.is_settled(path, version)) {
            proofs.verified(path, version, blob);
        }
    }

    /// Adds proofs from the server's checksums, computed when its clock had passed `server_secs`. Returns the number of
    /// files that they prove.
    pub fn take_attested(&self, said: &[Attested], server_secs: u32) -> u64 {
        self.0.proofs.as_ref().map_or(0, |proofs| proofs.attest(said, server_secs))
    }

    /// Drops all proofs.
    pub fn forget_proofs(&self) {
        if let Some(proofs) = &self.0.proofs {
            proofs.forget();
        }
    }

    pub fn proofs(&self) -> Option<&Proofs> {
        self.0.proofs.as_deref()
    }

    pub fn proof_figures(&self) -> Option<ProofFigures> {
        self.0.proofs.as_ref().map(|proofs| proofs.figures())
    }

    /// Sets the `listener` that is called if bytes that were returned turn out to be wrong: the kernel must drop
    /// them.
    pub fn on_mismatch(&self, listener: impl Fn() + Send + Sync + 'static) {
        *self.0.mismatch.0.lock() = Some(Arc::new(listener));
    }
}

impl Inner {
    /// The identity of the content: by its hash if that is proved, else by path and version.
    pub(super) fn content_id(&self, path: &RemotePath, version: Version) -> ContentId {
        let proved = self.proofs.as_ref().and_then(|proofs| proofs.of(path, version));
        proved.map_or_else(|| self.remote_id(path, version), ContentId::Blob)
    }

    /// One block of a proved object; its other blocks are cached in memory, too.
    pub(super) fn from_repository(
        self: &Arc<Self>,
        path: &RemotePath,
        version: Version,
        blob: BlobId,
        index: u64,
    ) -> Option<Arc<[u8]>> {
        let proofs = self.proofs.as_ref()?;
        let bytes = proofs.bytes(path, version, blob)?;
        let mut wanted = None;
        for (at, chunk) in (0..).zip(bytes.chunks(BLOCK_BYTES as usize)) {
            let block: Arc<[u8]> = chunk.into();
            self.memory.insert(BlockKey { content: ContentId::Blob(blob), index: at }, block.clone());
            if at == index {
                wanted = Some(block);
            }
        }
        if version.size <= MAX_AUDIT_BYTES && proofs.audit_due() {
            self.audit(path, version, bytes);
        }
        wanted
    }

    /// Compares bytes that were returned with the server, in the background.
    fn audit(self: &Arc<Self>, path: &RemotePath, version: Version, given: Vec<u8>) {
        let (inner, at) = (self.clone(), path.clone());
        self.remote.fetch_async(path.clone(), version, 0..version.size, Class::Bulk, move |found| match found {
            Ok(bytes) if bytes == given => log::debug!("{at}: the server has what the repository has"),
            Ok(_) => inner.was_wrong(&at),
            // Another version, or the connection is down: no result about this one.
            Err(error) if matches!(error.kind, ErrorKind::Changed { .. }) || error.kind.is_loss() => {}
            Err(error) => log::debug!("{at}: could not be compared: {error}"),
        });
    }

    fn was_wrong(&self, path: &RemotePath) {
        if let Some(proofs) = &self.proofs {
            proofs.turn_off(path);
        }
        let listener = self.mismatch.0.lock().clone();
        if let Some(listener) = listener {
            // The listener may ask the server, so that it must not run on the thread that reads the server's answers.
            background().run(move || listener());
        }
    }

    /// Notes bytes that came from the server. Returns their identity: by hash if they are the committed object, else
    /// `otherwise`.
    pub(super) fn read_in_full(
        &self,
        path: &RemotePath,
        version: Version,
        bytes: &[u8],
        otherwise: ContentId,
    ) -> ContentId {
        let whole = bytes.len() as u64 == version.size;
        let proofs = self.proofs.as_ref().filter(|_| whole);
        let verified = proofs.and_then(|proofs| proofs.verify(path, version, bytes));
        verified.map_or(otherwise, ContentId::Blob)
    }
}

impl Content {
    /// Takes over the proofs of an earlier mount.
    pub fn carry_proofs(&self, text: &str) {
        if let Some(proofs) = &self.0.proofs {
            proofs.carry(text.lines().filter_map(Proof::parse));
        }
    }

    /// The proofs, one line each, if they changed since the last call.
    pub fn changed_proofs(&self) -> Option<String> {
        let changed = self.0.proofs.as_ref()?.take_changed()?;
        Some(changed.iter().filter_map(|(path, proof)| proof.line(path)).collect())
    }
}
