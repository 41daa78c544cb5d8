//! `terse estimate`: a capacity estimate from a preset and flags. It needs no configuration and no store.

use terse_estimate::{Form, Preset, render};

use super::say;
use crate::cli::EstimateOrder;
use crate::exit::StartError;

/// Prints the estimate that was asked for.
pub(super) fn estimate(order: &EstimateOrder) -> Result<(), StartError> {
    say(&estimated(order)?)
}

fn estimated(order: &EstimateOrder) -> Result<String, StartError> {
    let unknown = || StartError::config(format_args!("there is no preset '{}'", order.preset.escape_debug()));
    let preset = Preset::named(&order.preset).ok_or_else(unknown)?;
    let mut inputs = preset.inputs;
    if let Some(period) = order.per {
        inputs.per = period.into();
    }
    for (flag, text) in &order.inputs.0 {
        inputs.set_text(flag, text).map_err(StartError::config)?;
    }
    let form = match (order.json, order.markdown) {
        (true, _) => Form::Json,
        (_, true) => Form::Markdown,
        _ => Form::Table,
    };
    Ok(render(preset, &inputs, form))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use serde_json::Value;

    use super::*;
    use crate::cli::{Action, Parsed, parse};
    use crate::exit::Exit;

    fn run(line: &str) -> Result<String, StartError> {
        match parse(format!("terse estimate {line}").split_whitespace().map(OsString::from))? {
            Parsed::Do(cli) => match cli.action {
                Action::Estimate(order) => estimated(&order),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    fn value(line: &str, result: &str) -> f64 {
        let json: Value = serde_json::from_str(&run(&format!("{line} --json")).unwrap()).unwrap();
        json["results"][result]["value"].as_f64().unwrap()
    }

    #[test]
    fn every_input_has_a_flag_that_changes_it() {
        let preset = Preset::named("ours").unwrap();
        for field in terse_estimate::FIELDS {
            let other = field.least + ((field.get)(&preset.inputs) - field.least) / 2.0 + 1e-6 * field.least;
            let json = run(&format!("--json --{} {other}", field.flag)).unwrap();
            let json: Value = serde_json::from_str(&json).unwrap();
            assert!((json["inputs"][field.name()].as_f64().unwrap() - other).abs() < 1e-6 * other, "{}", field.flag);
        }
    }

    #[test]
    fn presets_and_periods_are_known_by_name() {
        assert!((value("--preset xu", "link_bytes") - 36.5e12).abs() < 1e9);
        assert!((value("--per day", "links_total") - 365e9).abs() < 1e6);
        assert!((value("--times 10 --links 100M", "links_per_second") - 385.8).abs() < 0.1);
    }

    #[test]
    fn a_bad_input_is_a_usage_error_in_one_line() {
        for (line, told) in [
            ("--links many", "--links must be a number"),
            ("--years 0", "--years must be"),
            ("--preset theirs", "theirs"),
            ("--per week", "week"),
            ("--json --markdown", "--markdown"),
            ("100M", "100M"),
        ] {
            let error = run(line).unwrap_err();
            assert!(error.exit == Exit::Config && error.message.contains(told), "{line}: {error}");
            assert!(!error.message.contains('\n'), "{error}");
        }
    }

    #[test]
    fn the_form_is_the_one_asked_for() {
        assert!(run("").unwrap().starts_with("INPUTS: TERSE"));
        assert!(run("--markdown").unwrap().starts_with("**inputs: terse**"));
        assert!(run("--json").unwrap().starts_with("{\n"));
    }
}
