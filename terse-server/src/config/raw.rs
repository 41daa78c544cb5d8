//! First stage of the configuration: which text each key has and where it
//! comes from. Flags override the environment, which overrides the file, which
//! overrides the defaults. Only unknown keys and unreadable files are refused
//! here; what the texts mean is the second stage's business.
//!
//! Bounds: a configuration file and a file named by `TERSE_…_FILE` may have
//! 1 MiB; a larger one is refused.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::keys::{BLOCKLIST, FILE_SUFFIX, FOREIGN_VARIABLES, KEYS, Key, LIMITS, suggestion};
use crate::exit::StartError;

/// Most bytes of the configuration file and of a file that holds one value.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// The file that is read when no other is named and it is there.
pub const DEFAULT_FILE: &str = "terse.toml";

/// The keys of a `[[shard]]`.
pub(super) const SHARD_KEYS: [&str; 4] = ["name", "slots", "store", "translate"];

/// The key of `[abuse]`.
pub(super) const ABUSE_BLOCK_LIST: &str = "block_list";

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody set it.
    Default,
    /// The configuration file.
    File(PathBuf),
    /// An environment variable.
    Variable(&'static str),
    /// A file that an environment variable names.
    VariableFile(&'static str, PathBuf),
    /// A flag.
    Flag(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::VariableFile(name, path) => write!(f, "{name}{FILE_SUFFIX} ({})", path.display()),
            Self::Flag(flag) => write!(f, "--{flag}"),
        }
    }
}

/// The text of one key. Without `Debug`, because it may be a secret.
#[derive(Clone)]
pub struct Value {
    /// The text.
    pub text: String,
    /// Where it comes from.
    pub source: Source,
}

/// A `[[shard]]` of the file as it stands there.
#[derive(Clone)]
pub struct RawShard {
    /// Its name.
    pub name: String,
    /// Its ranges of slots, such as `0-2047`, separated by commas.
    pub slots: String,
    /// Where it keeps its links.
    pub store: String,
    /// Addresses that the database tells, and those to use instead.
    pub translate: Vec<(String, String)>,
}

/// What flags and environment say; handed in, so that tests need neither.
#[derive(Clone, Default)]
pub struct Inputs {
    /// Flags that were given, by key.
    pub flags: Vec<(&'static Key, String)>,
    /// `--config`.
    pub config_file: Option<PathBuf>,
    /// The environment.
    pub environment: Vec<(OsString, OsString)>,
    /// The working directory, where `terse.toml` may be.
    pub working_dir: PathBuf,
}

/// Each key's text, and the shards of the file.
pub struct RawConfig {
    values: Vec<Option<Value>>,
    /// The `[[shard]]`s, in the file's order.
    pub shards: Vec<RawShard>,
    /// The table `[limits]` of the file.
    pub limits: toml::Table,
    /// The file that was read.
    pub file: Option<PathBuf>,
}

impl RawConfig {
    /// Reads all four layers.
    ///
    /// # Errors
    /// [`StartError`] for an unknown key, a value that is no text, or a file that can't be read.
    pub fn read(inputs: Inputs) -> Result<Self, StartError> {
        let values = KEYS.iter().map(|key| default_of(key)).collect();
        let mut raw = Self { values, shards: vec![], limits: toml::Table::new(), file: None };
        match inputs.config_file {
            Some(path) => raw.read_file(path)?,
            None if inputs.working_dir.join(DEFAULT_FILE).exists() => {
                raw.read_file(inputs.working_dir.join(DEFAULT_FILE))?;
            }
            None => {}
        }
        raw.read_environment(inputs.environment)?;
        for (key, text) in inputs.flags {
            raw.set(key, text, Source::Flag(key.flag));
        }
        Ok(raw)
    }

    /// The value of `key`; `None` = nobody set it and its default follows from other keys.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&Value> {
        KEYS.iter().position(|k| k.name == key.name).and_then(|index| self.values[index].as_ref())
    }

    fn set(&mut self, key: &Key, text: String, source: Source) {
        if let Some(index) = KEYS.iter().position(|k| k.name == key.name) {
            self.values[index] = Some(Value { text, source });
        }
    }

    fn read_file(&mut self, path: PathBuf) -> Result<(), StartError> {
        let text = read_bounded(&path)?;
        let table: toml::Table = toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            let hint = if is_bare(text.lines().nth(line - 1).unwrap_or_default()) { QUOTES } else { "" };
            StartError::config(format_args!("{} line {line}: {}{hint}", path.display(), error.message()))
        })?;
        for (name, value) in table {
            if name == "shard" {
                self.shards = read_shards(&path, value)?;
                continue;
            }
            // As a plain word it is the key that switches limits off.
            if let ("limits", toml::Value::Table(limits)) = (name.as_str(), &value) {
                self.limits = limits.clone();
                self.set(&LIMITS, "on".to_owned(), Source::File(path.clone()));
                continue;
            }
            if let ("abuse", toml::Value::Table(abuse)) = (name.as_str(), &value) {
                self.read_abuse(&path, abuse)?;
                continue;
            }
            let Some(key) = KEYS.iter().find(|key| key.name == name) else {
                let close = suggestion(&name, KEYS.iter().map(|key| key.name).chain(["shard", "abuse"]));
                return Err(StartError::config(format_args!("{}: unknown key '{name}'{close}", path.display())));
            };
            let text = plain_text(&value).ok_or_else(|| {
                StartError::config(format_args!(
                    "{}: '{name}' must be a text, a number or a list of texts",
                    path.display()
                ))
            })?;
            self.set(key, text, Source::File(path.clone()));
        }
        self.file = Some(path);
        Ok(())
    }

    /// The table `[abuse]`: another spelling of the key `blocklist`, beside which more may come to stand.
    fn read_abuse(&mut self, path: &Path, abuse: &toml::Table) -> Result<(), StartError> {
        let fault = |text: String| StartError::config(format_args!("{}: [abuse]: {text}", path.display()));
        for (name, value) in abuse {
            if name != ABUSE_BLOCK_LIST {
                let close = suggestion(name, [ABUSE_BLOCK_LIST]);
                return Err(fault(format!("unknown key '{name}'{close}")));
            }
            let text = value.as_str().ok_or_else(|| fault(format!("'{name}' must be a text")))?;
            self.set(&BLOCKLIST, text.to_owned(), Source::File(path.to_owned()));
        }
        Ok(())
    }

    fn read_environment(&mut self, environment: Vec<(OsString, OsString)>) -> Result<(), StartError> {
        let mut seen: Vec<&str> = vec![];
        for (name, value) in environment {
            let Some(name) = name.to_str().filter(|name| name.starts_with("TERSE_")) else { continue };
            if FOREIGN_VARIABLES.contains(&name) {
                continue;
            }
            let (key, from_file) = variable_key(name)?;
            let text = value.into_string().map_err(|_| StartError::config(format_args!("{name}: is not UTF-8")))?;
            if seen.contains(&key.variable) {
                let variable = key.variable;
                return Err(StartError::config(format_args!("set {variable} or {variable}{FILE_SUFFIX}, not both")));
            }
            seen.push(key.variable);
            if from_file {
                let path = PathBuf::from(text);
                let text = read_bounded(&path).map_err(|e| StartError::new(e.exit, format_args!("{name}: {e}")))?;
                self.set(key, text.trim_end_matches(['\r', '\n']).to_owned(), Source::VariableFile(key.variable, path));
            } else {
                self.set(key, text, Source::Variable(key.variable));
            }
        }
        Ok(())
    }
}

fn default_of(key: &Key) -> Option<Value> {
    key.default.map(|text| Value { text: text.to_owned(), source: Source::Default })
}

/// The key that a `TERSE_*` variable sets, and whether it names a file.
fn variable_key(name: &str) -> Result<(&'static Key, bool), StartError> {
    let (stem, from_file) = match name.strip_suffix(FILE_SUFFIX) {
        Some(stem) => (stem, true),
        None => (name, false),
    };
    if let Some(key) = KEYS.iter().find(|key| key.variable == stem) {
        return Ok((key, from_file));
    }
    let close = suggestion(stem, KEYS.iter().map(|key| key.variable));
    Err(StartError::config(format_args!("unknown environment variable {name}{close}")))
}

/// What most often is wrong with a line that is no TOML.
const QUOTES: &str = " (texts stand in quotes: NAME = \"TEXT\")";

/// Whether a line of the file gives a value without quotes or brackets.
fn is_bare(line: &str) -> bool {
    let value = line.split_once('=').map(|(_, value)| value.trim_start());
    value.is_some_and(|value| !value.starts_with(['"', '\'', '[', '{']))
}

fn read_bounded(path: &Path) -> Result<String, StartError> {
    let unreadable = |error| StartError::config(format_args!("cannot read {}: {error}", path.display()));
    let mut bytes = vec![];
    let file = File::open(path).map_err(unreadable)?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(StartError::config(format_args!("{} is larger than 1 MiB", path.display())));
    }
    String::from_utf8(bytes).map_err(|_| StartError::config(format_args!("{} is not UTF-8", path.display())))
}

/// A value of the file as the text that a flag would carry.
pub(super) fn plain_text(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(yes) => Some(yes.to_string()),
        toml::Value::Array(items) if items.is_empty() => Some("none".to_owned()),
        toml::Value::Array(items) => {
            let texts: Option<Vec<&str>> = items.iter().map(toml::Value::as_str).collect();
            texts.map(|texts| texts.join(","))
        }
        _ => None,
    }
}

fn read_shards(path: &Path, value: toml::Value) -> Result<Vec<RawShard>, StartError> {
    let fault = |text: String| StartError::config(format_args!("{}: {text}", path.display()));
    let toml::Value::Array(items) = value else {
        return Err(fault("shards are written as [[shard]]".to_owned()));
    };
    items
        .into_iter()
        .enumerate()
        .map(|(index, item)| read_shard(item).map_err(|e| fault(shard_fault(index, &e))))
        .collect()
}

fn shard_fault(index: usize, text: &str) -> String {
    format!("[[shard]] number {}: {text}", index + 1)
}

fn read_shard(item: toml::Value) -> Result<RawShard, String> {
    let toml::Value::Table(mut table) = item else { return Err("is not a table".to_owned()) };
    if let Some(unknown) = table.keys().find(|name| !SHARD_KEYS.contains(&name.as_str())) {
        return Err(format!("unknown key '{unknown}'{}", suggestion(unknown, SHARD_KEYS)));
    }
    let translate = match table.remove("translate") {
        None => vec![],
        Some(toml::Value::Table(pairs)) => pairs
            .into_iter()
            .map(|(from, to)| to.as_str().map(|to| (from, to.to_owned())))
            .collect::<Option<_>>()
            .ok_or("'translate' maps an address to an address, both as text")?,
        Some(_) => return Err("'translate' is a table such as {\"10.0.0.1:9042\" = \"127.0.0.1:9142\"}".to_owned()),
    };
    let mut text = |name: &str| {
        let value = table.remove(name).ok_or_else(|| format!("'{name}' is missing"))?;
        plain_text(&value).ok_or_else(|| format!("'{name}' must be a text"))
    };
    Ok(RawShard { name: text("name")?, slots: text("slots")?, store: text("store")?, translate })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::keys::{AUTH, CACHE, LISTEN, PUBLIC_URL, WORKERS};

    fn read_file(text: &str) -> Result<RawConfig, StartError> {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join(DEFAULT_FILE), text).unwrap();
        RawConfig::read(Inputs { working_dir: place.path().to_owned(), ..Inputs::default() })
    }

    fn text(raw: &RawConfig, key: &Key) -> String {
        raw.get(key).unwrap().text.clone()
    }

    #[test]
    fn without_any_input_each_key_has_its_default_or_none() {
        let raw = RawConfig::read(Inputs::default()).unwrap();
        for key in KEYS {
            assert_eq!(raw.get(key).map(|value| value.text.as_str()), key.default, "{}", key.name);
        }
        assert!(raw.get(&AUTH).is_none() && raw.file.is_none() && raw.shards.is_empty());
    }

    #[test]
    fn each_kind_of_value_in_the_file_becomes_the_text_of_a_flag() {
        let raw = read_file("listen = '1.2.3.4:5'\nworkers = 7\nauth = true\ncache = ['a', 'b']\npublic_url = []");
        let raw = raw.unwrap();
        assert_eq!(text(&raw, &LISTEN), "1.2.3.4:5");
        assert_eq!(text(&raw, &WORKERS), "7");
        assert_eq!(text(&raw, &AUTH), "true");
        assert_eq!(text(&raw, &CACHE), "a,b");
        assert_eq!(text(&raw, &PUBLIC_URL), "none");
        assert!(matches!(raw.get(&LISTEN).unwrap().source, Source::File(_)));
    }

    #[test]
    fn the_block_list_is_named_in_either_place() {
        for file in ["blocklist = '/x'", "[abuse]\nblock_list = '/x'"] {
            assert_eq!(text(&read_file(file).unwrap(), &BLOCKLIST), "/x", "{file}");
        }
        let refused = |text: &str| read_file(text).err().unwrap().message;
        assert!(
            refused("[abuse]\nblocklist = 'x'")
                .contains("[abuse]: unknown key 'blocklist'; did you mean 'block_list'?")
        );
        assert!(refused("[abuse]\nblock_list = 7").contains("'block_list' must be a text"));
        assert!(refused("abuse = 'x'").contains("unknown key 'abuse'"));
    }

    #[test]
    fn a_text_without_quotes_is_told_as_that() {
        for file in ["listen = 127.0.0.1:8080", "workers = 2\npublic_url = https://trs.example", "log ="] {
            let refused = read_file(file).err().unwrap().message;
            assert!(
                refused.contains(&format!("line {}: ", file.lines().count())) && refused.ends_with(QUOTES),
                "{refused}"
            );
        }
        assert!(!read_file("listen = '127.0.0.1").err().unwrap().message.contains(QUOTES));
        assert!(!read_file("[listen").err().unwrap().message.contains(QUOTES));
    }

    #[test]
    fn values_that_are_no_text_are_refused_by_name() {
        for value in ["1.5", "[1, 2]", "{ a = 1 }", "2026-01-02T03:04:05Z", "[['a']]"] {
            let refused = read_file(&format!("listen = {value}")).err().unwrap();
            assert!(refused.message.contains("'listen' must be a text"), "{value}: {refused}");
        }
    }

    #[test]
    fn a_shard_is_read_with_all_its_keys() {
        let raw = read_file("[[shard]]\nname = 'a'\nslots = ['0-9', '20-29']\nstore = 's'\ntranslate = { x = 'y' }");
        let shard = &raw.unwrap().shards[0];
        assert_eq!((shard.name.as_str(), shard.slots.as_str(), shard.store.as_str()), ("a", "0-9,20-29", "s"));
        assert_eq!(shard.translate, [("x".to_owned(), "y".to_owned())]);
    }

    #[test]
    fn a_faulty_shard_is_told_by_its_number() {
        let sound = "[[shard]]\nname='a'\nslots='0'\nstore='s'\n";
        for (faulty, told) in [
            ("name='b'\nslots='1'", "'store' is missing"),
            ("name='b'\nslots='1'\nstore=1.5", "'store' must be a text"),
            ("name='b'\nslots='1'\nstore='s'\ntranslate='x'", "'translate' is a table"),
            ("name='b'\nslots='1'\nstore='s'\ntranslate={x=1}", "'translate' maps an address"),
            ("nmae='b'", "did you mean 'name'?"),
        ] {
            let refused = read_file(&format!("{sound}[[shard]]\n{faulty}")).err().unwrap();
            assert!(refused.message.contains("[[shard]] number 2: ") && refused.message.contains(told), "{refused}");
        }
        assert!(read_file("shard = [1]").err().unwrap().message.contains("number 1: is not a table"));
    }

    #[test]
    fn a_file_beyond_its_bound_or_of_other_bytes_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("big");
        std::fs::write(&path, vec![b'#'; 1024 * 1024 + 1]).unwrap();
        assert!(read_bounded(&path).unwrap_err().message.contains("larger than 1 MiB"));
        std::fs::write(&path, vec![b'#'; 1024 * 1024]).unwrap();
        assert!(read_bounded(&path).is_ok());
        std::fs::write(&path, [0xff]).unwrap();
        assert!(read_bounded(&path).unwrap_err().message.contains("not UTF-8"));
        assert!(read_bounded(place.path()).unwrap_err().message.contains("cannot read"));
    }

    #[test]
    fn a_named_file_replaces_the_one_in_the_working_directory() {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join(DEFAULT_FILE), "listen = 'default'").unwrap();
        let other = place.path().join("other.toml");
        std::fs::write(&other, "workers = 3").unwrap();
        let inputs =
            Inputs { config_file: Some(other.clone()), working_dir: place.path().to_owned(), ..Inputs::default() };
        let raw = RawConfig::read(inputs).unwrap();
        assert_eq!(raw.file, Some(other));
        assert_eq!((text(&raw, &LISTEN).as_str(), text(&raw, &WORKERS).as_str()), ("127.0.0.1:8080", "3"));
    }

    #[test]
    fn only_the_line_end_of_a_secret_file_is_cut() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("secret");
        for (written, read) in [("a b ", "a b "), ("x\n", "x"), ("x\r\n", "x"), ("", "")] {
            std::fs::write(&path, written).unwrap();
            let environment = vec![("TERSE_CACHE_FILE".into(), path.clone().into_os_string())];
            let raw = RawConfig::read(Inputs { environment, ..Inputs::default() }).unwrap();
            assert_eq!(text(&raw, &CACHE), read);
        }
    }

    #[test]
    fn sources_are_named_as_the_operator_wrote_them() {
        for (source, name) in [
            (Source::Default, "default"),
            (Source::File("terse.toml".into()), "terse.toml"),
            (Source::Variable("TERSE_LOG"), "TERSE_LOG"),
            (Source::VariableFile("TERSE_LOG", "/run/log".into()), "TERSE_LOG_FILE (/run/log)"),
            (Source::Flag("log-format"), "--log-format"),
        ] {
            assert_eq!(source.to_string(), name);
        }
    }

    proptest! {
        #[test]
        fn any_file_and_any_variable_is_read_or_refused_in_one_line(
            file in "(.|\n){0,80}|[a-z_]{1,12} = [0-9'\\[\\]{}a-z\n]{0,40}",
            name in "[A-Z_]{0,12}",
            value in "\\PC{0,20}",
        ) {
            let environment = vec![(format!("TERSE_{name}").into(), value.into())];
            for outcome in [read_file(&file), RawConfig::read(Inputs { environment, ..Inputs::default() })] {
                if let Err(error) = outcome {
                    prop_assert!(!error.message.contains('\n') && error.exit == crate::exit::Exit::Config, "{error}");
                }
            }
        }
    }
}
