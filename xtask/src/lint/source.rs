//! Rust source files, read for counting and searching: which lines hold code,
//! which lines are test code, which functions there are.
//!
//! Test code is what is behind `#[cfg(test)]` or `#[test]` (also when the
//! module is a file of its own), what is in a `tests` or `benches` folder, a
//! conformance suite, and the packages that exist for tests.

use std::collections::BTreeSet;
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use proc_macro2::{Delimiter, Group, Ident, Literal, Span, TokenStream, TokenTree};
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

use crate::workspace::Workspace;

/// Packages that consist of test code.
const TEST_PACKAGES: &[&str] = &["terse-it", "terse-testkit"];

/// Folders and files that consist of test code, wherever they are.
const TEST_NAMES: &[&str] = &["tests", "benches", "conformance"];

/// One source file.
pub struct SourceFile {
    /// The package it belongs to.
    pub package: String,
    /// Its path from the workspace's root.
    pub path: PathBuf,
    /// The lines it has, of any kind.
    pub lines: usize,
    /// The lines that hold code: neither blank nor comment only.
    pub code_lines: BTreeSet<usize>,
    /// The lines that are test code; all of them in a test file.
    pub test_lines: BTreeSet<usize>,
    /// Its functions.
    pub functions: Vec<Function>,
    tokens: TokenStream,
}

/// One function with a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// The line it begins on, attributes and documentation left out.
    pub line: usize,
    /// The lines it has, signature and closing brace included.
    pub lines: usize,
    /// Whether it is test code.
    pub test: bool,
}

/// A token that a check may look at.
pub enum Found<'a> {
    /// A name.
    Name(&'a Ident),
    /// A literal.
    Literal(&'a Literal),
}

impl SourceFile {
    /// Reads `text` as the file `path` of `package`. `is_test` = it is all test code.
    ///
    /// # Errors
    /// When it isn't Rust.
    pub fn parse(package: &str, path: &Path, text: &str, is_test: bool) -> Result<Self> {
        let wrap = |error: &dyn std::fmt::Display| anyhow!("{}: {error}", path.display());
        let tokens: TokenStream = text.parse().map_err(|error| wrap(&error))?;
        let tree: syn::File = syn::parse2(tokens.clone()).map_err(|error| wrap(&error))?;
        let lines = text.lines().count();
        let mut reader = Reader::default();
        reader.visit_file(&tree);
        if is_test || is_test_only(&tree.attrs) {
            reader.tests.push(1..=lines);
        }
        let test_lines: BTreeSet<usize> = reader.tests.into_iter().flatten().collect();
        let mut functions = reader.functions;
        functions.iter_mut().for_each(|function| function.test = test_lines.contains(&function.line));
        let code_lines = code_lines(tokens.clone());
        Ok(Self { package: package.into(), path: path.into(), lines, code_lines, test_lines, functions, tokens })
    }

    /// The lines without tests: what the budget of a file is about.
    #[must_use]
    pub fn lines_without_tests(&self) -> usize {
        self.lines - self.test_lines.len()
    }

    /// How many lines hold code that is (not) test code.
    #[must_use]
    pub fn count_code(&self, test: bool) -> usize {
        self.code_lines.iter().filter(|line| self.test_lines.contains(line) == test).count()
    }

    /// Where non-test code says `std::MODULE`, however it is spelled.
    #[must_use]
    pub fn uses_of_std(&self, module: &str) -> Vec<String> {
        let mut lines = BTreeSet::new();
        find_std(self.tokens.clone(), module, &mut lines);
        self.places(&lines)
    }

    /// Where non-test code has a string literal that `wanted` accepts.
    #[must_use]
    pub fn strings(&self, wanted: &dyn Fn(&str) -> bool) -> Vec<String> {
        let mut lines = BTreeSet::new();
        walk(self.tokens.clone(), &mut |found| {
            if let Found::Literal(literal) = found
                && let Ok(syn::Lit::Str(text)) = syn::parse_str(&literal.to_string())
                && wanted(&text.value())
            {
                lines.insert(literal.span().start().line);
            }
        });
        self.places(&lines)
    }

    /// Whether any code, that of tests too, has the string literal `text`.
    #[must_use]
    pub fn has_string(&self, text: &str) -> bool {
        let mut found = false;
        walk(self.tokens.clone(), &mut |token| {
            if let Found::Literal(literal) = token
                && let Ok(syn::Lit::Str(literal)) = syn::parse_str(&literal.to_string())
            {
                found |= literal.value() == text;
            }
        });
        found
    }

    /// The names of the functions in test code, those in arguments of macros (`proptest!`) too.
    #[must_use]
    pub fn test_functions(&self) -> BTreeSet<String> {
        let (mut names, mut after_fn) = (BTreeSet::new(), false);
        walk(self.tokens.clone(), &mut |found| {
            if let Found::Name(name) = found {
                if after_fn && self.test_lines.contains(&name.span().start().line) {
                    names.insert(name.to_string());
                }
                after_fn = name == "fn";
            }
        });
        names
    }

    fn places(&self, lines: &BTreeSet<usize>) -> Vec<String> {
        let ours = lines.iter().filter(|line| !self.test_lines.contains(line));
        ours.map(|line| format!("{}:{line}", self.path.display())).collect()
    }
}

/// Calls `look` with every name and literal, documentation left out.
fn walk(tokens: TokenStream, look: &mut dyn FnMut(Found<'_>)) {
    for token in without_docs(tokens) {
        match token {
            TokenTree::Group(group) => walk(group.stream(), look),
            TokenTree::Ident(name) => look(Found::Name(&name)),
            TokenTree::Literal(literal) => look(Found::Literal(&literal)),
            TokenTree::Punct(_) => {}
        }
    }
}

/// The tokens, without the attributes that documentation comments turn into.
fn without_docs(tokens: TokenStream) -> Vec<TokenTree> {
    let all: Vec<TokenTree> = tokens.into_iter().collect();
    let is_doc = |at: usize| matches!(all.get(at), Some(TokenTree::Group(group)) if is_doc_attribute(group));
    let is = |at: usize, sign: char| matches!(&all.get(at), Some(TokenTree::Punct(p)) if p.as_char() == sign);
    let mut kept = Vec::new();
    let mut at = 0;
    while at < all.len() {
        if is(at, '#') && is_doc(at + 1) {
            at += 2;
        } else if is(at, '#') && is(at + 1, '!') && is_doc(at + 2) {
            at += 3;
        } else {
            kept.push(all[at].clone());
            at += 1;
        }
    }
    kept
}

fn is_doc_attribute(group: &Group) -> bool {
    let first = group.stream().into_iter().next();
    group.delimiter() == Delimiter::Bracket && matches!(first, Some(TokenTree::Ident(name)) if name == "doc")
}

fn code_lines(tokens: TokenStream) -> BTreeSet<usize> {
    let mut lines = BTreeSet::new();
    let mut add = |span: Span| lines.extend(span.start().line..=span.end().line);
    let mut open = without_docs(tokens);
    while let Some(token) = open.pop() {
        match token {
            TokenTree::Group(group) => {
                add(group.span_open());
                add(group.span_close());
                open.extend(without_docs(group.stream()));
            }
            other => add(other.span()),
        }
    }
    lines
}

/// Finds `std::MODULE` and `std::{…, MODULE…, …}` in code and in macros' arguments.
fn find_std(tokens: TokenStream, module: &str, lines: &mut BTreeSet<usize>) {
    let all: Vec<TokenTree> = tokens.into_iter().collect();
    let is_colon = |at: usize| matches!(&all.get(at), Some(TokenTree::Punct(p)) if p.as_char() == ':');
    for (at, token) in all.iter().enumerate() {
        if let TokenTree::Group(group) = token {
            find_std(group.stream(), module, lines);
        }
        if !matches!(token, TokenTree::Ident(name) if name == "std") || !is_colon(at + 1) || !is_colon(at + 2) {
            continue;
        }
        match all.get(at + 3) {
            Some(TokenTree::Ident(name)) if name == module => {
                lines.insert(name.span().start().line);
            }
            Some(TokenTree::Group(group)) => {
                let heads = group.stream().into_iter();
                lines.extend(
                    heads.filter(|t| matches!(t, TokenTree::Ident(n) if n == module)).map(|t| t.span().start().line),
                );
            }
            _ => {}
        }
    }
}

#[derive(Default)]
struct Reader {
    tests: Vec<RangeInclusive<usize>>,
    functions: Vec<Function>,
}

impl Reader {
    fn function(&mut self, signature: &syn::Signature, body: &syn::Block) {
        let line = signature.span().start().line;
        let end = body.brace_token.span.close().end().line;
        self.functions.push(Function { name: signature.ident.to_string(), line, lines: end + 1 - line, test: false });
    }

    fn note_tests(&mut self, attributes: &[syn::Attribute], span: Span) {
        if is_test_only(attributes) {
            self.tests.push(span.start().line..=span.end().line);
        }
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        self.note_tests(item_attributes(item), item.span());
        visit::visit_item(self, item);
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.function(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.note_tests(&function.attrs, function.span());
        self.function(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(body) = &function.default {
            self.function(&function.sig, body);
        }
        visit::visit_trait_item_fn(self, function);
    }
}

fn item_attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Whether one of the attributes is `test`, `…::test` or a `cfg` that needs `test`.
fn is_test_only(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let path = attribute.path();
        let last = path.segments.last().map(|segment| segment.ident.to_string());
        match (&attribute.meta, last.as_deref()) {
            (syn::Meta::List(list), Some("cfg")) => names_test(list.tokens.clone()),
            (_, Some("test")) => true,
            _ => false,
        }
    })
}

/// Whether a `cfg` predicate speaks of `test`, outside `not(…)`.
fn names_test(predicate: TokenStream) -> bool {
    let mut negated = false;
    for token in predicate {
        match token {
            TokenTree::Ident(name) if name == "test" => return true,
            TokenTree::Ident(name) => negated = name == "not",
            TokenTree::Group(group) if !negated && names_test(group.stream()) => return true,
            _ => {}
        }
    }
    false
}

/// Reads all Rust files of the workspace's packages.
///
/// # Errors
/// When a file can't be read or isn't Rust.
pub fn read_workspace(workspace: &Workspace) -> Result<Vec<SourceFile>> {
    let mut files = Vec::new();
    for package in workspace.graph.ours() {
        let mut paths = Vec::new();
        list_rust_files(&package.folder, &mut paths)?;
        paths.sort();
        for path in paths {
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let inside = path.strip_prefix(&package.folder)?;
            let is_test = TEST_PACKAGES.contains(&package.name.as_str()) || is_test_path(inside);
            let shown = path.strip_prefix(&workspace.root).unwrap_or(&path);
            files.push(SourceFile::parse(&package.name, shown, &text, is_test)?);
        }
    }
    mark_test_modules(&mut files);
    Ok(files)
}

fn is_test_path(path: &Path) -> bool {
    path.with_extension("").iter().any(|part| TEST_NAMES.iter().any(|name| part == *name))
}

fn list_rust_files(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        // What cargo builds says so in a file; a module may be called `target`, too.
        let built = path.join("CACHEDIR.TAG").exists();
        if path.is_dir() && !path.join("Cargo.toml").exists() && !built {
            list_rust_files(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

/// Makes files test code whose module is declared behind `#[cfg(test)]` in another file.
fn mark_test_modules(files: &mut [SourceFile]) {
    let declared: Vec<PathBuf> = files.iter().flat_map(declared_test_modules).collect();
    for file in files {
        let stem = file.path.with_extension("");
        let module = if stem.ends_with("mod") { stem.parent().unwrap_or(&stem) } else { &stem };
        if declared.iter().any(|test| module.starts_with(test)) {
            file.test_lines = (1..=file.lines).collect();
            file.functions.iter_mut().for_each(|function| function.test = true);
        }
    }
}

/// The paths, without extension, of modules that `file` declares as tests and has elsewhere.
fn declared_test_modules(file: &SourceFile) -> Vec<PathBuf> {
    let stem = file.path.with_extension("");
    let is_folder_root = ["mod", "lib", "main"].iter().any(|name| stem.ends_with(name));
    let folder = if is_folder_root { file.path.parent().map(Path::to_owned).unwrap_or_default() } else { stem };
    let Ok(tree) = syn::parse2::<syn::File>(file.tokens.clone()) else { return Vec::new() };
    let modules = tree.items.iter().filter_map(|item| match item {
        syn::Item::Mod(module) if module.content.is_none() && is_test_only(&module.attrs) => Some(&module.ident),
        _ => None,
    });
    modules.map(|name| folder.join(name.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> SourceFile {
        SourceFile::parse("p", Path::new("p/src/a.rs"), text, false).unwrap()
    }

    const SAMPLE: &str = r#"//! Module documentation.

use std::fmt;

/// Documentation of `f`.
/// A second line.
#[inline]
pub fn f() {
    // a comment

    let text = "two
lines";
    drop(text);
}

#[cfg(test)]
mod tests {
    #[test]
    fn t() {
        assert!(true);
    }
}
"#;

    #[test]
    fn code_lines_are_neither_blank_nor_comment_nor_documentation() {
        let file = parse(SAMPLE);
        let code: Vec<usize> = file.code_lines.iter().copied().filter(|line| *line < 15).collect();
        assert_eq!(code, [3, 7, 8, 11, 12, 13, 14]);
        assert_eq!(file.count_code(false), 7);
    }

    #[test]
    fn test_lines_are_those_behind_cfg_test() {
        let file = parse(SAMPLE);
        assert_eq!(file.test_lines, (16..=22).collect());
        assert_eq!(file.count_code(true), 7);
        assert_eq!((file.lines, file.lines_without_tests()), (22, 15));
    }

    #[test]
    fn functions_are_measured_from_signature_to_closing_brace() {
        let functions = parse(SAMPLE).functions;
        assert_eq!(functions[0], Function { name: "f".into(), line: 8, lines: 7, test: false });
        assert_eq!((functions[1].lines, functions[1].test), (3, true));
    }

    #[test]
    fn methods_and_default_methods_are_functions_too() {
        let file = parse("impl A {\n  fn a(&self) {\n  }\n}\ntrait T {\n  fn b();\n  fn c() {\n  }\n}\n");
        let names: Vec<&str> = file.functions.iter().map(|function| function.name.as_str()).collect();
        assert_eq!(names, ["a", "c"]);
        assert_eq!(file.functions[0].lines, 2);
    }

    #[test]
    fn cfg_is_understood_with_all_any_and_not() {
        let tests = |text: &str| parse(text).test_lines.len();
        assert_eq!(tests("#[cfg(all(unix, test))]\nfn a() {}"), 2);
        assert_eq!(tests("#[cfg(any(test, feature = \"x\"))]\nmod a {}"), 2);
        assert_eq!(tests("#[cfg(not(test))]\nfn a() {}"), 0);
        assert_eq!(tests("#[cfg(feature = \"test\")]\nfn a() {}"), 0);
        assert_eq!(tests("#[actix_web::test]\nasync fn a() {}"), 2);
        assert_eq!(tests("#[cfg_attr(test, allow(x))]\nfn a() {}"), 0);
        assert_eq!(tests("impl A {\n#[cfg(test)]\nfn a() {}\n}"), 2);
    }

    #[test]
    fn a_whole_file_can_be_test_code() {
        assert_eq!(parse("#![cfg(test)]\nfn a() {}\n").count_code(false), 0);
        assert!(is_test_path(Path::new("tests/a/b.rs")));
        assert!(is_test_path(Path::new("src/conformance/race.rs")));
        assert!(is_test_path(Path::new("src/a/tests.rs")));
        assert!(!is_test_path(Path::new("src/latest.rs")));
    }

    #[test]
    fn a_test_module_in_its_own_file_is_test_code_with_all_below_it() {
        let file = |path: &str, text: &str| SourceFile::parse("p", Path::new(path), text, false).unwrap();
        let mut files = [
            file("p/src/lib.rs", "#[cfg(test)]\nmod fixtures;\nmod real;\n"),
            file("p/src/fixtures.rs", "pub fn a() {}\n"),
            file("p/src/fixtures/deep.rs", "pub fn a() {}\n"),
            file("p/src/real.rs", "#[cfg(test)] mod check;\npub fn a() {}\n"),
            file("p/src/real/check/mod.rs", "pub fn a() {}\n"),
        ];
        mark_test_modules(&mut files);
        let code: Vec<usize> = files.iter().map(|file| file.count_code(false)).collect();
        assert_eq!(code, [1, 0, 0, 1, 0]);
        assert!(files[1].functions[0].test && !files[3].functions[0].test);
    }

    #[test]
    fn std_modules_are_found_however_they_are_spelled() {
        let places = |text: &str| parse(text).uses_of_std("env").len();
        assert_eq!(places("fn a() { std::env::var(\"X\"); }"), 1);
        assert_eq!(places("use std::env;"), 1);
        assert_eq!(places("use std::{fmt, env::var};"), 1);
        assert_eq!(places("fn a() { println!(\"{:?}\", std::env::args()); }"), 1);
        assert_eq!(places("fn a() { env!(\"CARGO_PKG_VERSION\"); }"), 0);
        assert_eq!(places("/// See std::env.\nfn a() {}"), 0);
        assert_eq!(places("#[cfg(test)]\nmod tests { use std::env; }"), 0);
        assert_eq!(parse("\nuse std::env;").uses_of_std("env"), ["p/src/a.rs:2"]);
    }

    #[test]
    fn strings_are_found_in_code_and_not_in_tests_or_documentation() {
        let places = |text: &str| parse(text).strings(&|found| found.starts_with("terse_"));
        assert_eq!(places("const A: &str = \"terse_x_total\";"), ["p/src/a.rs:1"]);
        assert_eq!(places("fn a() { b!(\n r\"terse_x\"); }"), ["p/src/a.rs:2"]);
        assert!(places("#[doc = \"terse_x\"]\nfn a() {}\n#[test]\nfn b() { \"terse_x\"; }").is_empty());
    }

    #[test]
    fn what_is_not_rust_is_an_error_with_its_path() {
        let error = SourceFile::parse("p", Path::new("p/a.rs"), "fn (", false).err().unwrap();
        assert!(error.to_string().starts_with("p/a.rs: "), "{error}");
    }

    #[test]
    fn a_module_called_target_is_read_and_what_cargo_builds_is_not() {
        let place = tempfile::tempdir().unwrap();
        for folder in ["src/target", "target/debug"] {
            fs::create_dir_all(place.path().join(folder)).unwrap();
            fs::write(place.path().join(folder).join("a.rs"), "").unwrap();
        }
        fs::write(place.path().join("target/CACHEDIR.TAG"), "").unwrap();
        let mut found = vec![];
        list_rust_files(place.path(), &mut found).unwrap();
        assert_eq!(found, [place.path().join("src/target/a.rs")]);
    }
}
