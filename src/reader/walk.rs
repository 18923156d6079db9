//! The tree in the order in which a program reads it: where a walk stands, what follows, and which order it is.

use std::collections::VecDeque;

use crate::attr::{FileKind, Version};
use crate::inode::{Ino, NodeView};
use crate::path::{Name, RemotePath};
use crate::view::View;

/// Deeper paths are not followed.
const MAX_DEPTH: usize = 256;
/// Only the beginning of a large file is prefetched; the handle's own read-ahead fetches the rest.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// What a step against an order counts, between two files of a directory and from one directory into another. Who reads
/// the files of a directory in no order at all can still go through the directories in one.
const FILE_STEP: u32 = 16;
const DIR_STEP: u32 = 48;
/// How much better another order must be before a walk takes it.
const CLEARLY: u32 = 24;
/// How often a walk may take another order.
const MAX_TURNS: u32 = 8;

/// The order of the names in a directory. All orders go through a subdirectory where it stands among these names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// By name, which is the order of the listings: `grep -r`, `tar`.
    Names,
    /// Files before directories, by name: `rsync`, and most scripts.
    FilesFirst,
    /// By inode number: `cp -r`.
    Numbers,
}

const ORDERS: [Order; 3] = [Order::Names, Order::FilesFirst, Order::Numbers];

/// A file that may be read next.
#[derive(Clone)]
pub(super) struct Upcoming {
    pub(super) ino: Ino,
    pub(super) dir: Ino,
    pub(super) path: RemotePath,
    pub(super) version: Version,
}

impl Upcoming {
    pub(super) fn bytes(&self) -> u64 {
        self.version.size.min(MAX_FILE_BYTES)
    }
}

/// A position in the tree: the directories from the root down.
pub(super) struct Walk {
    order: Order,
    levels: Vec<Level>,
}

/// A directory, what was visited last in it, and what follows there, as far as it had to be sorted.
struct Level {
    dir: Ino,
    after: Option<(Name, Ino)>,
    rest: Option<VecDeque<Ino>>,
}

impl Level {
    fn new(dir: Ino, after: Option<(Name, Ino)>) -> Self {
        Self { dir, after, rest: None }
    }

    fn peek(&mut self, view: &View, order: Order) -> Option<(Name, NodeView)> {
        if order == Order::Names {
            return view.next_child(self.dir, self.after.as_ref().map(|(name, _)| name));
        }
        let (dir, after) = (self.dir, self.after.as_ref().map(|(_, ino)| *ino));
        let rest = self.rest.get_or_insert_with(|| sorted(view, dir, order, after));
        loop {
            let ino = *rest.front()?;
            let named = view.node(ino).filter(|node| node.parent == dir && !node.unlinked);
            match named.and_then(|node| Some((view.path(ino)?.file_name()?, node))) {
                Some(found) => return Some(found),
                None => rest.pop_front(),
            };
        }
    }

    fn pass(&mut self, name: Name, ino: Ino) {
        self.after = Some((name, ino));
        if let Some(rest) = &mut self.rest {
            rest.pop_front();
        }
    }
}

/// What follows `after` in a directory.
fn sorted(view: &View, dir: Ino, order: Order, after: Option<Ino>) -> VecDeque<Ino> {
    let mut children: Vec<NodeView> = view.children(dir).into_iter().map(|(_, node)| node).collect();
    match order {
        Order::Names => {}
        // The sort is stable, and they are in the order of names.
        Order::FilesFirst => children.sort_by_key(|node| node.attr.is_dir()),
        Order::Numbers => children.sort_by_key(|node| node.ino),
    }
    let passed = after.and_then(|after| children.iter().position(|node| node.ino == after)).map_or(0, |at| at + 1);
    children.into_iter().skip(passed).map(|node| node.ino).collect()
}

impl Walk {
    /// The walk that stands at an object.
    pub(super) fn to(view: &View, ino: Ino, order: Order) -> Self {
        let mut levels = Vec::new();
        let mut at = ino;
        while let Some(node) = view.node(at) {
            let name = view.path(at).and_then(|path| path.file_name());
            if node.parent == at || levels.len() > MAX_DEPTH {
                break;
            }
            levels.push(Level::new(node.parent, name.map(|name| (name, at))));
            at = node.parent;
        }
        levels.reverse();
        Self { order, levels }
    }

    /// The walk that is about to enter the directory of an object.
    pub(super) fn into_dir_of(view: &View, ino: Ino, order: Order) -> Self {
        let mut walk = Self::to(view, ino, order);
        if let Some(level) = walk.levels.last_mut() {
            level.after = None;
        }
        walk
    }

    /// The walk of all that is in a directory.
    pub(super) fn below(dir: Ino, order: Order) -> Self {
        Self { order, levels: vec![Level::new(dir, None)] }
    }

    pub(super) fn order(&self) -> Order {
        self.order
    }

    /// The next object that is wanted. `None` at the end, or at a directory whose listing is in progress: the walk
    /// continues when it is known.
    fn next(&mut self, view: &View, wanted: impl Fn(&NodeView) -> bool) -> Option<NodeView> {
        loop {
            let level = self.levels.last_mut()?;
            let Some((name, node)) = level.peek(view, self.order) else {
                if self.levels.len() == 1 {
                    return None;
                }
                self.levels.pop();
                continue;
            };
            let is_dir = node.attr.is_dir() && !node.only_here;
            if is_dir && view.listed(node.ino).is_none() {
                return None;
            }
            level.pass(name, node.ino);
            if is_dir {
                self.levels.push(Level::new(node.ino, None));
            }
            if wanted(&node) {
                return Some(node);
            }
        }
    }

    pub(super) fn next_dir(&mut self, view: &View) -> Option<Ino> {
        self.next(view, |node| node.attr.is_dir()).map(|node| node.ino)
    }

    /// The next file with content to fetch.
    pub(super) fn next_file(&mut self, view: &View) -> Option<Upcoming> {
        let has_content = |node: &NodeView| node.attr.kind == FileKind::File && node.attr.size > 0 && !node.pinned;
        let node = self.next(view, has_content)?;
        Some(Upcoming { ino: node.ino, dir: node.parent, path: view.path(node.ino)?, version: node.version() })
    }
}

/// Which order the steps of a reader show.
#[derive(Default)]
pub(super) struct Course {
    /// Steps against each of the [`ORDERS`]; older ones count less.
    against: [u32; 3],
    turns: u32,
    /// A step was against all of them.
    no_order: bool,
}

impl Course {
    /// Notes that `to` was read after `from`.
    pub(super) fn step(&mut self, view: &View, from: Ino, to: Ino) {
        let Some((from, to)) = Side::of(view, from, to) else { return };
        let weight = if from.is_dir && to.is_dir { DIR_STEP } else { FILE_STEP };
        let against = ORDERS.map(|order| !from.is_before(&to, order));
        self.no_order |= !from.is_dir && !to.is_dir && against == [true; 3];
        for (count, against) in self.against.iter_mut().zip(against) {
            *count = *count * 7 / 8 + if against { weight } else { 0 };
        }
    }

    /// Whether the files of a directory are read in an order that cannot be known.
    pub(super) fn has_no_order(&self) -> bool {
        self.no_order
    }

    /// The order to take for the rest of the walk, which is in the order `now`.
    pub(super) fn order(&mut self, now: Order) -> Order {
        let against = |order: Order| self.against[order as usize];
        let best = ORDERS.into_iter().min_by_key(|order| against(*order)).unwrap_or(now);
        if against(best) + CLEARLY > against(now) || self.turns == MAX_TURNS {
            return now;
        }
        self.turns += 1;
        best
    }
}

/// One of the two names where the paths of two objects part.
struct Side {
    ino: Ino,
    name: Name,
    is_dir: bool,
}

impl Side {
    fn of(view: &View, from: Ino, to: Ino) -> Option<(Self, Self)> {
        let (from, to) = (Walk::to(view, from, Order::Names), Walk::to(view, to, Order::Names));
        let part = |(from, to): (Level, Level)| {
            let ((from_name, from), (to_name, to)) = (from.after?, to.after?);
            let side = |ino, name| Some(Self { ino, name, is_dir: view.node(ino)?.attr.is_dir() });
            if from == to { None } else { Some((side(from, from_name)?, side(to, to_name)?)) }
        };
        from.levels.into_iter().zip(to.levels).find_map(part)
    }

    fn is_before(&self, other: &Self, order: Order) -> bool {
        match order {
            Order::Names => self.name < other.name,
            Order::FilesFirst => (self.is_dir, &self.name) < (other.is_dir, &other.name),
            Order::Numbers => self.ino < other.ino,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(name: &str, ino: u64, is_dir: bool) -> Side {
        Side { ino: Ino(ino), name: Name::new(name).expect("valid"), is_dir }
    }

    #[test]
    fn each_order_puts_files_and_directories_in_its_place() {
        let (file, dir) = (side("z.php", 1, false), side("css", 2, true));
        assert!(dir.is_before(&file, Order::Names));
        assert!(file.is_before(&dir, Order::FilesFirst) && file.is_before(&dir, Order::Numbers));
    }

    #[test]
    fn another_order_is_taken_when_it_is_clearly_better_and_not_for_ever() {
        let one_step = [FILE_STEP, FILE_STEP, 0];
        let mut course = Course { against: one_step, ..Course::default() };
        assert_eq!(course.order(Order::Names), Order::Names);
        course.against = one_step.map(|step| step * 2);
        assert_eq!(course.order(Order::Names), Order::Numbers);
        course.turns = MAX_TURNS;
        assert_eq!(course.order(Order::Names), Order::Names);
    }
}
