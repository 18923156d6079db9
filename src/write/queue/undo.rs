//! Undoes the last addition if its record could not be written.

use super::{Entry, Queue, Step};
use crate::write::op::OpId;

impl Queue {
    /// Restores the queue before the last [`Queue::add`]. Numbers are not reused.
    pub fn take_back(&mut self) {
        while let Some(step) = self.steps.pop() {
            match step {
                Step::Inserted(id) => drop(self.take_out(id)),
                Step::Replaced { id, op, due } => self.put_op(id, *op, due),
                Step::TookOut { id, entry, ready } => self.put_in_again(id, *entry, ready),
            }
        }
    }

    fn put_in_again(&mut self, id: OpId, entry: Entry, ready: bool) {
        for path in entry.op.paths() {
            self.by_path.entry(path.as_bytes().to_vec()).or_default().insert(id);
        }
        self.count(&entry.op, true);
        for dependent in &entry.dependents {
            if let Some(other) = self.entries.get_mut(dependent) {
                other.blockers += 1;
                self.ready.remove(&(other.due, *dependent));
            }
        }
        if ready {
            self.ready.insert((entry.due, id));
        }
        self.entries.insert(id, entry);
    }
}
