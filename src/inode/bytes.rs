//! Reading and writing the parts of a record on the disk.

/// Bytes that are read from the beginning. Every method returns `None` if they end too early.
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }

    /// A number of `N` bytes.
    pub(super) fn number<const N: usize>(&mut self) -> Option<u64> {
        let mut out = [0; 8];
        out[..N].copy_from_slice(self.take(N)?);
        Some(u64::from_le_bytes(out))
    }

    pub(super) fn text(&mut self) -> Option<&'a [u8]> {
        let len = self.number::<2>()?;
        self.take(usize::try_from(len).ok()?)
    }
}

/// Paths and names are shorter than 64 KiB, which `path` guarantees.
pub(super) fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(&(text.len() as u16).to_le_bytes());
    out.extend_from_slice(text);
}
