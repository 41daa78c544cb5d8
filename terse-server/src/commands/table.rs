//! Tables on the terminal.

/// Rows as lines, each column as wide as its widest cell, two spaces between columns.
pub(super) fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; COLUMNS] = std::array::from_fn(width);
    let line = |row: &[String; COLUMNS]| {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["A", "BB"], ["ccc", "ä"], ["", "x"]].map(|row| row.map(str::to_owned));
        assert_eq!(table(&rows), "A    BB\nccc  ä\n     x");
        assert_eq!(table::<2>(&[]), "");
    }
}
