//! `docs/claims.toml`: what is claimed, and whether it makes sense.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::workspace::Workspace;

/// Where the claims are.
pub const CLAIMS: &str = "docs/claims.toml";

/// The file as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// The numbers.
    #[serde(default)]
    pub claim: Vec<Claim>,
    /// Texts that a page takes as a command prints them.
    #[serde(default)]
    pub output: Vec<Output>,
}

/// A text that a page takes as a command prints it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// Its name: `{{output NAME}}`.
    pub id: String,
    /// The command of terse that prints it.
    pub command: String,
}

/// Where a number comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// By a formula from inputs.
    Estimated,
    /// On a machine that is named in the file.
    Measured,
    /// By a program with a fixed seed.
    Simulated,
    /// From somebody else, or from the source that sets it.
    Cited,
}

impl Kind {
    /// The letter that stands behind the number in the book.
    #[must_use]
    pub const fn letter(self) -> char {
        match self {
            Self::Estimated => 'E',
            Self::Measured => 'M',
            Self::Simulated => 'S',
            Self::Cited => 'C',
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Estimated => "estimated",
            Self::Measured => "measured",
            Self::Simulated => "simulated",
            Self::Cited => "cited",
        }
    }
}

/// A number of the book.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// Its name: `{{claim NAME}}`.
    pub id: String,
    /// What it is.
    pub text: String,
    /// Where it comes from.
    pub kind: Kind,
    /// What prints it or measures it.
    pub command: Option<String>,
    /// A file in `docs/measurements/`.
    pub file: Option<String>,
    /// The place in what the command prints or the file holds.
    pub at: Option<String>,
    /// For a cited number: an address, or a file of ours.
    pub source: Option<String>,
    /// What stands in that file.
    pub contains: Option<String>,
    /// The cited number.
    pub value: Option<f64>,
    /// What the value is multiplied with before it is shown and checked.
    #[serde(default = "one")]
    pub scale: f64,
    /// What is written behind it.
    #[serde(default)]
    pub unit: String,
    /// Significant digits.
    #[serde(default = "three")]
    pub digits: u32,
    /// What must be true of it.
    #[serde(default)]
    pub check: Check,
}

const fn one() -> f64 {
    1.0
}

const fn three() -> u32 {
    3
}

/// What must be true of a number.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    equals: Option<f64>,
    within: Option<f64>,
    at_least: Option<f64>,
    at_most: Option<f64>,
    below: Option<String>,
    above: Option<String>,
    ratio: Option<Ratio>,
}

/// A number in times of another.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ratio {
    /// The other claim.
    pub of: String,
    /// The least.
    pub at_least: f64,
    /// The greatest.
    pub at_most: f64,
}

/// A single thing that must be true.
#[derive(Debug)]
pub enum Limit<'a> {
    /// This number, within this part of it.
    Equals(f64, f64),
    /// No less.
    AtLeast(f64),
    /// No more.
    AtMost(f64),
    /// Less than that claim.
    Below(&'a str),
    /// More than that claim.
    Above(&'a str),
    /// So many times that claim.
    Ratio(&'a Ratio),
}

impl Check {
    /// Everything that must be true.
    pub fn limits(&self) -> impl Iterator<Item = Limit<'_>> {
        let within = self.within.unwrap_or(0.005);
        let numbers = [
            self.equals.map(|value| Limit::Equals(value, within)),
            self.at_least.map(Limit::AtLeast),
            self.at_most.map(Limit::AtMost),
        ];
        let others = [
            self.below.as_deref().map(Limit::Below),
            self.above.as_deref().map(Limit::Above),
            self.ratio.as_ref().map(Limit::Ratio),
        ];
        numbers.into_iter().chain(others).flatten()
    }

    /// The claims that it names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let ratio = self.ratio.as_ref().map(|ratio| ratio.of.as_str());
        [self.below.as_deref(), self.above.as_deref(), ratio].into_iter().flatten()
    }
}

/// The claims of the book, each of which makes sense.
#[derive(Debug)]
pub struct Claims {
    /// As they are written.
    pub file: File,
}

impl Claims {
    /// Reads the file of the workspace.
    ///
    /// # Errors
    /// When it can't be read or a claim makes no sense.
    pub fn read(workspace: &Workspace) -> Result<Self> {
        let path = workspace.root.join(CLAIMS);
        Self::parse(&fs::read_to_string(&path).with_context(|| path.display().to_string())?).context(CLAIMS)
    }

    /// Reads a file's text.
    ///
    /// # Errors
    /// When a claim makes no sense.
    pub fn parse(text: &str) -> Result<Self> {
        let file: File = toml::from_str(text)?;
        let mut ids = BTreeSet::new();
        let names = file.claim.iter().map(|claim| &claim.id).chain(file.output.iter().map(|output| &output.id));
        for id in names {
            let fits = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
            if id.is_empty() || !id.chars().all(fits) || !ids.insert(id.as_str()) {
                bail!("claim '{id}': a name has letters a-z, digits and '-', and stands once");
            }
        }
        for claim in &file.claim {
            claim.check_form().with_context(|| format!("claim '{}'", claim.id))?;
            if let Some(unknown) = claim.check.names().find(|id| !ids.contains(id)) {
                bail!("claim '{}': there is no claim '{unknown}'", claim.id);
            }
        }
        Ok(Self { file })
    }

    /// All claims.
    pub fn all(&self) -> impl Iterator<Item = &Claim> {
        self.file.claim.iter()
    }

    /// The claim of this name.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Claim> {
        self.all().find(|claim| claim.id == id)
    }
}

impl Claim {
    /// Whether it has what its kind needs, and a check.
    fn check_form(&self) -> Result<()> {
        let has = [self.command.is_some(), self.file.is_some(), self.at.is_some(), self.value.is_some()];
        match self.kind {
            Kind::Estimated | Kind::Simulated if has != [true, false, true, false] => {
                bail!("a number that is {} has command and at", self.kind.name())
            }
            Kind::Measured if has != [true, true, true, false] => bail!("a measured number has command, file and at"),
            Kind::Cited if has != [false, false, false, true] || self.source.is_none() => {
                bail!("a cited number has source and value")
            }
            Kind::Cited => {}
            _ if self.check.limits().next().is_none() => bail!("there is no check"),
            _ => {}
        }
        let ours = self.source.as_ref().is_some_and(|source| !source.starts_with("https://"));
        if ours != self.contains.is_some() {
            bail!("a source of ours, and no other, comes with what it contains");
        }
        Ok(())
    }
}
