//! Which file uses which: paths are followed, through re-exports, to the file where a thing is defined.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::source::{Item, Kind, Named, Source, Token, paths};

#[derive(Default)]
struct Module {
    file: PathBuf,
    defined: BTreeSet<String>,
    /// What `use` makes known here, as it is written.
    known: Vec<Named>,
}

/// Paths from the root of the crate, by the name that a module gives them.
pub(crate) struct Crate {
    modules: BTreeMap<Vec<String>, Module>,
    /// Where the inherent methods of a type are written, by the type's path.
    methods: BTreeMap<(Vec<String>, String), PathBuf>,
}

/// A use of one file by another, and the words that make it.
pub(crate) type Edges = BTreeMap<PathBuf, BTreeMap<PathBuf, String>>;

/// Modules that stand for each other may be many, circles of re-exports not.
const MAX_STEPS: usize = 16;

impl Crate {
    pub(crate) fn new(sources: &[Source]) -> Self {
        let mut modules: BTreeMap<Vec<String>, Module> = BTreeMap::new();
        for source in sources.iter().filter(|source| source.path != Path::new("main.rs")) {
            modules.entry(source.module.clone()).or_default().file.clone_from(&source.path);
            for item in &source.items {
                let module = modules.entry(item.module.clone()).or_default();
                module.file.clone_from(&source.path);
                match &item.kind {
                    Kind::Definition(name) => drop(module.defined.insert(name.clone())),
                    Kind::Use { .. } => module.known.extend(branches(item)),
                    Kind::Impl { .. } | Kind::Other => {}
                }
            }
        }
        let mut out = Self { modules, methods: BTreeMap::new() };
        for source in sources {
            for item in &source.items {
                let Kind::Impl { of, inherent } = &item.kind else { continue };
                let Some(of) = out.definition(&item.module, of) else { continue };
                let written = inherent.iter().map(|name| ((of.clone(), name.clone()), source.path.clone()));
                out.methods.extend(written.collect::<Vec<_>>());
            }
        }
        out
    }

    /// The path from the root of the crate; `None`: something outside of the crate, or local to a function.
    pub(crate) fn absolute(&self, module: &[String], path: &[String]) -> Option<Vec<String>> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" | "pantheonfs" => Some(rest.to_vec()),
            "self" => Some([module, rest].concat()),
            "super" => {
                let ups = path.iter().take_while(|segment| *segment == "super").count();
                Some([&module[..module.len().checked_sub(ups)?], &path[ups..]].concat())
            }
            _ => {
                let below = [module, std::slice::from_ref(first)].concat();
                let known =
                    || self.modules.get(module)?.known.iter().find(|known| known.alias == *first && !known.glob);
                match known() {
                    _ if self.modules.contains_key(&below) => Some([module, path].concat()),
                    Some(known) if known.segments != path => {
                        Some([self.absolute(module, &known.segments)?, rest.to_vec()].concat())
                    }
                    _ => None,
                }
            }
        }
    }

    /// The path under which the thing that an absolute path names is defined, without what is inside of it.
    fn defined(&self, path: &[String], steps: usize) -> Option<Vec<String>> {
        let steps = steps.checked_sub(1)?;
        let mut here = Vec::new();
        for (at, segment) in path.iter().enumerate() {
            let below = [here.as_slice(), std::slice::from_ref(segment)].concat();
            if self.modules.contains_key(&below) {
                here = below;
                continue;
            }
            let module = self.modules.get(&here)?;
            if module.defined.contains(segment) {
                return Some(below);
            }
            let by_name = module.known.iter().filter(|known| !known.glob && known.alias == *segment);
            let by_name = by_name.map(|known| (&known.segments, &path[at + 1..]));
            let globs = module.known.iter().filter(|known| known.glob).map(|known| (&known.segments, &path[at..]));
            let found = by_name.chain(globs).find_map(|(target, rest)| {
                let target = self.absolute(&here, target)?;
                self.defined(&[target.as_slice(), rest].concat(), steps)
            });
            return found;
        }
        Some(here)
    }

    /// Where a type is defined that is named in a module.
    fn definition(&self, module: &[String], path: &[String]) -> Option<Vec<String>> {
        let local = [module, path].concat();
        let absolute = self.absolute(module, path).unwrap_or(local);
        self.defined(&absolute, MAX_STEPS)
    }

    fn file(&self, mut defined: &[String]) -> &Path {
        loop {
            match self.modules.get(defined) {
                Some(module) => return &module.file,
                None => defined = &defined[..defined.len() - 1],
            }
        }
    }

    /// Which files a file uses, outside of tests. What it only passes on (`pub use`) it does not use.
    fn uses(&self, source: &Source) -> BTreeMap<PathBuf, String> {
        let mut out = BTreeMap::new();
        let items = || source.items.iter().filter(|item| !item.test);
        let in_code: BTreeSet<&str> = items()
            .filter(|item| !matches!(item.kind, Kind::Use { .. }))
            .flat_map(|item| item.tokens.iter().filter_map(Token::ident))
            .collect();
        for item in items() {
            let passes_on = matches!(item.kind, Kind::Use { public: true });
            for named in named_by(item) {
                if passes_on && !in_code.contains(named.alias.as_str()) {
                    continue;
                }
                let absolute = self.absolute(&item.module, &named.segments);
                if let Some(defined) = absolute.and_then(|path| self.defined(&path, MAX_STEPS)) {
                    out.entry(self.file(&defined).to_owned()).or_insert_with(|| named.segments.join("::"));
                }
            }
            self.own_methods(item, &mut out);
        }
        out.remove(&source.path);
        out
    }

    /// `self.method()` and `Self::method()` where the method is written in another file than the call.
    fn own_methods(&self, item: &Item, out: &mut BTreeMap<PathBuf, String>) {
        let Kind::Impl { of, .. } = &item.kind else { return };
        let Some(of) = self.definition(&item.module, of) else { return };
        for three in item.tokens.windows(3) {
            let own = matches!(three[0].ident(), Some("self")) && three[1].is(".")
                || matches!(three[0].ident(), Some("Self")) && three[1].is("::");
            let method = three[2].ident().filter(|_| own);
            let file = method.and_then(|name| self.methods.get(&(of.clone(), name.to_owned())));
            if let (Some(name), Some(file)) = (method, file) {
                out.entry(file.clone()).or_insert_with(|| format!("self.{name}()"));
            }
        }
    }

    /// The uses between the files of each room, by room.
    pub(crate) fn edges(&self, sources: &[Source]) -> BTreeMap<String, Edges> {
        let rooms: BTreeMap<&Path, &str> =
            sources.iter().map(|source| (source.path.as_path(), source.room())).collect();
        let mut out: BTreeMap<String, Edges> = BTreeMap::new();
        for source in sources {
            let mut uses = self.uses(source);
            uses.retain(|file, _| rooms[file.as_path()] == source.room());
            out.entry(source.room().to_owned()).or_default().insert(source.path.clone(), uses);
        }
        out
    }
}

/// The branches of a `use`; of anything else the paths that are more than a name.
pub(crate) fn named_by(item: &Item) -> Vec<Named> {
    match item.kind {
        Kind::Use { .. } => branches(item),
        _ => paths(&item.tokens).into_iter().filter(|named| named.segments.len() > 1).collect(),
    }
}

fn branches(item: &Item) -> Vec<Named> {
    let at = item.tokens.iter().position(|token| token.ident() == Some("use")).expect("a use");
    paths(&item.tokens[at + 1..])
}

/// Every use that leads back to the file that has it, directly or not; empty: there is no circle.
pub(crate) fn circles(edges: &Edges) -> Vec<(&Path, &Path, &str)> {
    let mut out = Vec::new();
    for (file, uses) in edges {
        let back = uses.iter().filter(|(used, _)| reaches(edges, used, file));
        out.extend(back.map(|(used, words)| (file.as_path(), used.as_path(), words.as_str())));
    }
    out
}

fn reaches(edges: &Edges, from: &Path, to: &Path) -> bool {
    let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(file) = next.pop() {
        if file == to {
            return true;
        }
        if seen.insert(file) {
            next.extend(edges.get(file).into_iter().flat_map(BTreeMap::keys).map(PathBuf::as_path));
        }
    }
    false
}
