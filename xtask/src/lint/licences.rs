//! Licences of all that is built in: each must allow use under terms that we
//! can keep, by an SPDX expression that says so.

use spdx::{Expression, Licensee, ParseMode};

use super::Problems;
use crate::workspace::Graph;

/// What may be linked into a program under MIT OR Apache-2.0. MPL-2.0 binds
/// its own files only.
const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// The packages whose licence isn't allowed, with it.
#[must_use]
pub fn problems(graph: &Graph) -> Problems {
    let judge = |package: &crate::workspace::Package| {
        let reason = objection(package.license.as_deref())?;
        Some(format!("{} {}: {reason}", package.name, package.version))
    };
    graph.packages.iter().filter_map(judge).collect()
}

/// Why a licence isn't allowed; `None` = it is.
fn objection(license: Option<&str>) -> Option<String> {
    let Some(text) = license else { return Some("states no licence".into()) };
    let Ok(expression) = Expression::parse_mode(text, ParseMode::LAX) else {
        return Some(format!("not an SPDX expression: {text}"));
    };
    let allowed: Vec<Licensee> = ALLOWED.iter().filter_map(|name| Licensee::parse(name).ok()).collect();
    let fits = expression.evaluate(|required| allowed.iter().any(|license| license.satisfies(required)));
    (!fits).then(|| format!("licence not allowed: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::tests::graph;

    #[test]
    fn every_allowed_licence_is_one_that_spdx_knows() {
        for name in ALLOWED {
            assert!(Licensee::parse(name).is_ok(), "{name}");
            assert_eq!(objection(Some(name)), None, "{name}");
        }
    }

    #[test]
    fn expressions_are_evaluated_not_searched() {
        for fine in [
            "MIT OR Apache-2.0",
            "MIT/Apache-2.0",
            "Apache-2.0 / MIT",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT",
            "MIT OR GPL-3.0-only",
            "MIT OR Apache-2.0 OR LGPL-2.1-or-later",
        ] {
            assert_eq!(objection(Some(fine)), None, "{fine}");
        }
        for bad in ["GPL-3.0-only", "MIT AND GPL-3.0-only", "AGPL-3.0", "LGPL-2.1-or-later", "SSPL-1.0", "BUSL-1.1"] {
            assert_eq!(objection(Some(bad)), Some(format!("licence not allowed: {bad}")));
        }
    }

    #[test]
    fn an_exception_is_allowed_only_with_its_licence() {
        assert!(objection(Some("GPL-2.0-only WITH LLVM-exception")).is_some());
        assert!(objection(Some("Apache-2.0 WITH Classpath-exception-2.0")).is_some());
    }

    #[test]
    fn a_package_with_no_or_a_forbidden_licence_is_named() {
        let mut graph = graph(&["a"], &[("a", "b", ""), ("a", "c", "")]);
        graph.packages[1].license = Some("GPL-3.0-only".into());
        graph.packages[2].license = None;
        assert_eq!(problems(&graph), ["b 1.2.3: licence not allowed: GPL-3.0-only", "c 1.2.3: states no licence"]);
        assert_eq!(objection(Some("see LICENSE")), Some("not an SPDX expression: see LICENSE".into()));
    }
}
