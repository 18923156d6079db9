//! The sources as a parser sees them: tokens, paths, definitions. Nothing is found by searching text, so that comments and
//! what is inside quotes cannot be mistaken for code.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};
use quote::ToTokens;
use syn::visit::Visit;

/// One token; groups are flattened to their brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token {
    Ident(String),
    /// A literal string, without its quotes.
    Text(String),
    /// Anything else; `::` is one.
    Other(String),
}

impl Token {
    pub(crate) fn is(&self, other: &str) -> bool {
        matches!(self, Self::Other(text) if text == other)
    }

    pub(crate) fn ident(&self) -> Option<&str> {
        match self {
            Self::Ident(name) => Some(name),
            _ => None,
        }
    }
}

/// A path as it is written, or a branch of a `use`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) segments: Vec<String>,
    /// Under which name a `use` makes it known.
    pub(crate) alias: String,
    /// `path::*`.
    pub(crate) glob: bool,
}

/// An item of a file, those of inline modules included.
pub(crate) struct Item {
    /// The module that it is in.
    pub(crate) module: Vec<String>,
    pub(crate) kind: Kind,
    /// Compiled for tests only.
    pub(crate) test: bool,
    pub(crate) tokens: Vec<Token>,
}

pub(crate) enum Kind {
    Use {
        public: bool,
    },
    /// Methods of a type; `inherent` has their names unless it is an `impl` of a trait.
    Impl {
        of: Vec<String>,
        inherent: Vec<String>,
    },
    Definition(String),
    Other,
}

pub(crate) struct Source {
    /// Below `src`.
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    pub(crate) module: Vec<String>,
    pub(crate) items: Vec<Item>,
    /// Names and lengths of the functions that are not for tests, in lines.
    pub(crate) functions: Vec<(String, usize)>,
    /// Names of the types that are not for tests, and how many fields they have.
    pub(crate) structs: Vec<(String, usize)>,
}

impl Source {
    pub(crate) fn room(&self) -> &str {
        let file = || self.path.file_stem().and_then(|stem| stem.to_str()).expect("a name");
        self.module.first().map_or_else(file, String::as_str)
    }

    pub(crate) fn tokens(&self) -> impl Iterator<Item = &[Token]> {
        self.items.iter().map(|item| item.tokens.as_slice())
    }

    pub(crate) fn tokens_without_tests(&self) -> impl Iterator<Item = &[Token]> {
        self.items.iter().filter(|item| !item.test).map(|item| item.tokens.as_slice())
    }
}

/// All sources, in order of their paths; read once.
pub(crate) fn sources() -> &'static [Source] {
    static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(read);
    &SOURCES
}

fn read() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut texts, mut dirs) = (BTreeMap::new(), vec![root.clone()]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).expect("src can be read") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                let text = fs::read_to_string(&path).expect("a source can be read");
                texts.insert(path.strip_prefix(&root).expect("below src").to_owned(), text);
            }
        }
    }
    let mut out: Vec<Source> = texts.into_iter().map(|(path, text)| parse(path, text)).collect();
    let tests: Vec<Vec<String>> = out.iter().flat_map(test_modules).collect();
    for source in &mut out {
        if tests.iter().any(|test| source.module.starts_with(test)) {
            source.items.iter_mut().for_each(|item| item.test = true);
            source.functions.clear();
            source.structs.clear();
        }
    }
    out
}

/// Modules in files of their own that are for tests.
fn test_modules(source: &Source) -> Vec<Vec<String>> {
    let declared = source.items.iter().filter(|item| item.test).filter_map(|item| match item.tokens.as_slice() {
        [.., Token::Ident(word), Token::Ident(name), end] if word == "mod" && end.is(";") => Some(name.clone()),
        _ => None,
    });
    declared.map(|name| [source.module.clone(), vec![name]].concat()).collect()
}

pub(crate) fn parse(path: PathBuf, text: String) -> Source {
    let file = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut module: Vec<String> =
        path.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    module.pop_if(|last| last == "mod" || module_is_root(last, &path));
    let mut sizes = Sizes::default();
    sizes.visit_file(&file);
    let mut items = Vec::new();
    let attributes = file.attrs.iter().map(ToTokens::to_token_stream).collect();
    items.push(Item { module: module.clone(), kind: Kind::Other, test: false, tokens: flat(attributes) });
    collect(file.items, &module, false, &mut items);
    Source { path, text, module, items, functions: sizes.functions, structs: sizes.structs }
}

fn module_is_root(name: &str, path: &Path) -> bool {
    path.parent().is_some_and(|dir| dir.as_os_str().is_empty()) && matches!(name, "lib" | "main")
}

fn collect(items: Vec<syn::Item>, module: &[String], test: bool, out: &mut Vec<Item>) {
    for item in items {
        let tokens = flat(item.to_token_stream());
        let test = test || for_tests(&tokens);
        let kind = match item {
            syn::Item::Mod(syn::ItemMod { ident, content: Some((_, inner)), .. }) => {
                collect(inner, &[module, &[ident.to_string()]].concat(), test, out);
                continue;
            }
            syn::Item::Use(item) => Kind::Use { public: !matches!(item.vis, syn::Visibility::Inherited) },
            syn::Item::Impl(item) => Kind::Impl { of: type_path(&item.self_ty), inherent: inherent(&item) },
            other => definition(&other).map_or(Kind::Other, Kind::Definition),
        };
        out.push(Item { module: module.to_vec(), kind, test, tokens });
    }
}

fn definition(item: &syn::Item) -> Option<String> {
    let name = match item {
        syn::Item::Const(item) => &item.ident,
        syn::Item::Enum(item) => &item.ident,
        syn::Item::Fn(item) => &item.sig.ident,
        syn::Item::Macro(item) => item.ident.as_ref()?,
        syn::Item::Static(item) => &item.ident,
        syn::Item::Struct(item) => &item.ident,
        syn::Item::Trait(item) => &item.ident,
        syn::Item::Type(item) => &item.ident,
        syn::Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(name.to_string())
}

fn type_path(of: &syn::Type) -> Vec<String> {
    match of {
        syn::Type::Path(of) => of.path.segments.iter().map(|segment| segment.ident.to_string()).collect(),
        syn::Type::Reference(of) => type_path(&of.elem),
        _ => Vec::new(),
    }
}

fn inherent(item: &syn::ItemImpl) -> Vec<String> {
    let methods = item.items.iter().filter_map(|item| match item {
        syn::ImplItem::Fn(method) => Some(method.sig.ident.to_string()),
        _ => None,
    });
    if item.trait_.is_some() { Vec::new() } else { methods.collect() }
}

/// `#[cfg(test)]`, alone or with other conditions, before an item.
fn for_tests(tokens: &[Token]) -> bool {
    let mut rest = tokens;
    while let [hash, open, inner @ ..] = rest
        && hash.is("#")
        && open.is("[")
    {
        let name = |at: usize| inner.get(at).and_then(Token::ident);
        if name(0) == Some("test") || name(0) == Some("cfg") && name(2) == Some("test") {
            return true;
        }
        let end = inner.iter().position(|token| token.is("]")).expect("an attribute ends");
        rest = &inner[end + 1..];
    }
    false
}

/// Comments are gone: those of documentation are attributes for the compiler, and left out here.
pub(crate) fn flat(stream: TokenStream) -> Vec<Token> {
    fn walk(stream: TokenStream, out: &mut Vec<Token>) {
        let mut half = false;
        for tree in stream {
            match tree {
                TokenTree::Ident(name) => out.push(Token::Ident(name.to_string())),
                TokenTree::Literal(literal) => out.push(match syn::parse_str::<syn::LitStr>(&literal.to_string()) {
                    Ok(text) => Token::Text(text.value()),
                    Err(_) => Token::Other(literal.to_string()),
                }),
                TokenTree::Punct(punct) => {
                    let second = half && punct.as_char() == ':';
                    half = !second && punct.as_char() == ':' && punct.spacing() == Spacing::Joint;
                    match out.last_mut() {
                        Some(last) if second => *last = Token::Other("::".to_owned()),
                        _ => out.push(Token::Other(punct.as_char().to_string())),
                    }
                }
                TokenTree::Group(group) => {
                    if documents(&group) {
                        // With the `#`, or `#!`, before it.
                        while out.last().is_some_and(|token| token.is("#") || token.is("!")) {
                            out.pop();
                        }
                        continue;
                    }
                    let (open, close) = match group.delimiter() {
                        Delimiter::Parenthesis => ("(", ")"),
                        Delimiter::Brace => ("{", "}"),
                        Delimiter::Bracket => ("[", "]"),
                        Delimiter::None => ("", ""),
                    };
                    out.push(Token::Other(open.to_owned()));
                    walk(group.stream(), out);
                    out.push(Token::Other(close.to_owned()));
                }
            }
        }
    }
    let mut out = Vec::new();
    walk(stream, &mut out);
    out
}

fn documents(group: &proc_macro2::Group) -> bool {
    let mut inner = group.stream().into_iter();
    let named = matches!(inner.next(), Some(TokenTree::Ident(name)) if name == "doc");
    let is = matches!(inner.next(), Some(TokenTree::Punct(punct)) if punct.as_char() == '=');
    group.delimiter() == Delimiter::Bracket && named && is
}

/// Every path, the branches of each `use` one by one. A lone name is a path of one segment.
pub(crate) fn paths(tokens: &[Token]) -> Vec<Named> {
    let (mut out, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        let field = at > 0 && tokens[at - 1].is(".");
        // `pub(in path)` says who may use something, and uses nothing.
        let visibility = at > 1 && tokens[at - 2].is("(") && tokens[at - 1].ident() == Some("in");
        let begins = tokens[at].ident().is_some() && !field && !visibility;
        if begins {
            at = branch(tokens, at, &[], &mut out);
        } else {
            at += 1;
        }
    }
    out
}

/// Reads one path, or one branch of a `use`, and says where it ends.
fn branch(tokens: &[Token], mut at: usize, before: &[String], out: &mut Vec<Named>) -> usize {
    let mut segments = before.to_vec();
    let glob = loop {
        match tokens.get(at) {
            Some(Token::Ident(name)) => segments.push(name.clone()),
            Some(token) if token.is("*") => {
                at += 1;
                break true;
            }
            Some(token) if token.is("{") => {
                at += 1;
                while tokens.get(at).is_some_and(|token| !token.is("}")) {
                    let begin = at;
                    at = branch(tokens, at, &segments, out);
                    // A comma; or, in a macro, what is no branch.
                    at += usize::from(at == begin || tokens.get(at).is_some_and(|token| token.is(",")));
                }
                return at + 1;
            }
            // `path::<T>`, `path::$name`: what comes is another path. Never the same token again.
            _ => break false,
        }
        at += 1;
        if !tokens.get(at).is_some_and(|token| token.is("::")) {
            break false;
        }
        at += 1;
    };
    // `{self}` and `path::{self as name}` are the path itself.
    segments.pop_if(|last| last == "self" && !before.is_empty());
    let mut alias = segments.last().cloned().unwrap_or_default();
    if let (Some(Token::Ident(word)), Some(Token::Ident(name))) = (tokens.get(at), tokens.get(at + 1))
        && word == "as"
    {
        name.clone_into(&mut alias);
        at += 2;
    }
    out.push(Named { segments, alias, glob });
    at
}

#[derive(Default)]
struct Sizes {
    functions: Vec<(String, usize)>,
    structs: Vec<(String, usize)>,
}

impl Sizes {
    fn add(&mut self, sig: &syn::Signature, block: &syn::Block) {
        let lines = block.brace_token.span.close().end().line - sig.fn_token.span.start().line + 1;
        self.functions.push((sig.ident.to_string(), lines));
    }
}

impl<'ast> Visit<'ast> for Sizes {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !for_tests(&flat(item.to_token_stream())) {
            syn::visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.structs.push((item.ident.to_string(), item.fields.len()));
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.add(&item.sig, &item.block);
        syn::visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.add(&item.sig, &item.block);
        syn::visit::visit_impl_item_fn(self, item);
    }
}
