//! The breakers of a process by name, for whoever shows or forces them.

use std::fmt;
use std::sync::Arc;

use crate::Breaker;

/// Named breakers in the order in which they were added. It is filled while a
/// process is wired and only read after that; how many there are is bounded by
/// what the process is configured to call.
#[derive(Clone, Debug, Default)]
pub struct Breakers {
    named: Vec<(String, Arc<Breaker>)>,
}

/// There is a breaker of that name already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameTaken(
    /// The name.
    pub String,
);

impl fmt::Display for NameTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is a breaker named '{}' already", self.0)
    }
}

impl std::error::Error for NameTaken {}

impl Breakers {
    /// No breakers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `breaker` as the last one.
    ///
    /// # Errors
    /// [`NameTaken`] when there is one named `name` already; it stays.
    pub fn add(&mut self, name: impl Into<String>, breaker: Arc<Breaker>) -> Result<(), NameTaken> {
        let name = name.into();
        if self.get(&name).is_some() {
            return Err(NameTaken(name));
        }
        self.named.push((name, breaker));
        Ok(())
    }

    /// The breaker named `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Breaker>> {
        self.named.iter().find(|(known, _)| known == name).map(|(_, breaker)| breaker)
    }

    /// All of them with their names, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Arc<Breaker>)> {
        self.named.iter().map(|(name, breaker)| (name.as_str(), breaker))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::BreakerSettings;
    use crate::test_clock::TestClock;

    fn breaker() -> Arc<Breaker> {
        Arc::new(Breaker::new(BreakerSettings::default(), TestClock::at(0), 1).unwrap())
    }

    #[test]
    fn breakers_are_listed_in_the_order_in_which_they_came() {
        let mut breakers = Breakers::new();
        for name in ["main/write", "main/read", "cache"] {
            breakers.add(name, breaker()).unwrap();
        }
        let names: Vec<&str> = breakers.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["main/write", "main/read", "cache"]);
        assert_eq!(breakers.iter().len(), 3);
    }

    #[test]
    fn a_breaker_is_found_by_its_whole_name_alone() {
        let mut breakers = Breakers::new();
        let (read, write) = (breaker(), breaker());
        breakers.add("main/read", read.clone()).unwrap();
        breakers.add("main/write", write.clone()).unwrap();
        assert!(breakers.get("main/read").is_some_and(|found| Arc::ptr_eq(found, &read)));
        assert!(breakers.get("main/write").is_some_and(|found| Arc::ptr_eq(found, &write)));
        for unknown in ["", "main", "main/", "MAIN/READ", "main/read/"] {
            assert!(breakers.get(unknown).is_none(), "{unknown}");
        }
        assert!(Breakers::new().get("main/read").is_none());
    }

    #[test]
    fn a_name_belongs_to_its_first_breaker() {
        let mut breakers = Breakers::new();
        let first = breaker();
        breakers.add("main/read", first.clone()).unwrap();
        let refused = breakers.add("main/read", breaker()).unwrap_err();
        assert_eq!(refused.to_string(), "there is a breaker named 'main/read' already");
        assert_eq!(breakers.iter().len(), 1);
        assert!(breakers.get("main/read").is_some_and(|found| Arc::ptr_eq(found, &first)));
    }
}
