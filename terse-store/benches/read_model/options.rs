//! What to measure, from the command line.

use std::path::PathBuf;
use std::str::FromStr;

use terse_store::SqliteReadModelConfig;

/// What to measure.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// How often all is measured, each time in a fresh file.
    pub(crate) rounds: u32,
    /// How many codes are clicked; each has three rows in play.
    pub(crate) codes: usize,
    /// How many rows are written at once when all are.
    pub(crate) batch: usize,
    /// How many days of old there are.
    pub(crate) history: u32,
    /// How many batches of those clicked are written.
    pub(crate) flushes: u32,
    /// How many clicks are counted between two of them.
    pub(crate) clicks: usize,
    /// How many reads of each kind.
    pub(crate) reads: u64,
    /// Where the files are made.
    pub(crate) folder: PathBuf,
    page_bytes: Option<u32>,
    writer_cache_mib: Option<u32>,
    reader_cache_mib: Option<u32>,
    checkpoint_mib: Option<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            rounds: 1,
            codes: 50_000,
            batch: 100_000,
            history: 0,
            flushes: 20,
            clicks: 75_000,
            reads: 200,
            folder: std::env::temp_dir(),
            page_bytes: None,
            writer_cache_mib: None,
            reader_cache_mib: None,
            checkpoint_mib: None,
        }
    }
}

const USAGE: &str = "[--rounds N] [--codes N] [--batch N] [--history DAYS] [--flushes N] [--clicks N] [--reads N] \
     [--folder DIR] [--page-bytes N] [--writer-cache-mib N] [--reader-cache-mib N] [--checkpoint-mib N]";

impl Options {
    /// Reads the words of the command line, without the program's name.
    pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self::default();
        // `cargo bench` adds its own flag.
        let mut words = words.filter(|word| word != "--bench");
        while let Some(flag) = words.next() {
            let value = words.next().ok_or_else(|| format!("{flag} needs a value; usage: {USAGE}"))?;
            match flag.as_str() {
                "--rounds" => options.rounds = number(&flag, &value)?,
                "--codes" => options.codes = number(&flag, &value)?,
                "--batch" => options.batch = number::<usize>(&flag, &value)?.max(1),
                "--history" => options.history = number::<u32>(&flag, &value)?.min(1_000),
                "--flushes" => options.flushes = number(&flag, &value)?,
                "--clicks" => options.clicks = number(&flag, &value)?,
                "--reads" => options.reads = number(&flag, &value)?,
                "--folder" => options.folder = value.into(),
                "--page-bytes" => options.page_bytes = Some(number(&flag, &value)?),
                "--writer-cache-mib" => options.writer_cache_mib = Some(number(&flag, &value)?),
                "--reader-cache-mib" => options.reader_cache_mib = Some(number(&flag, &value)?),
                "--checkpoint-mib" => options.checkpoint_mib = Some(number(&flag, &value)?),
                _ => return Err(format!("{flag} is unknown; usage: {USAGE}")),
            }
        }
        Ok(options)
    }

    /// Makes `config` what the command line says of it.
    pub(crate) fn apply(&self, config: &mut SqliteReadModelConfig) {
        let given = [
            (self.page_bytes, &mut config.page_bytes),
            (self.writer_cache_mib, &mut config.writer_cache_mib),
            (self.reader_cache_mib, &mut config.reader_cache_mib),
            (self.checkpoint_mib, &mut config.checkpoint_mib),
        ];
        for (given, setting) in given {
            *setting = given.unwrap_or(*setting);
        }
    }
}

fn number<N: FromStr>(flag: &str, value: &str) -> Result<N, String> {
    value.parse().map_err(|_| format!("{flag} {value}: not a number that fits"))
}
