//! Rows in aligned columns without borders: for people and for grep.

use super::out;

/// Rows, a page at a time.
pub struct Columns<const N: usize> {
    header: Option<[&'static str; N]>,
    rows: Vec<[String; N]>,
}

impl<const N: usize> Columns<N> {
    /// A page with that header on top.
    pub fn new(header: [&'static str; N]) -> Self {
        Self { header: Some(header), rows: Vec::new() }
    }

    /// Adds a row; each 500 are printed.
    ///
    /// # Errors
    /// Where stdout cannot be written.
    pub fn put(&mut self, row: [String; N]) -> anyhow::Result<()> {
        self.rows.push(row);
        if self.rows.len() >= 500 { self.flush() } else { Ok(()) }
    }

    /// Prints what is left.
    ///
    /// # Errors
    /// Where stdout cannot be written.
    pub fn flush(&mut self) -> anyhow::Result<()> {
        let mut rows = std::mem::take(&mut self.rows);
        if let Some(header) = self.header.take() {
            rows.insert(0, header.map(str::to_owned));
        }
        let widths: [usize; N] = std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
        let line = |row: &[String; N]| {
            let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            format!("{}\n", cells.join("  ").trim_end())
        };
        Ok(out(&rows.iter().map(line).collect::<String>())?)
    }
}

/// Text in one line, cut to `longest` characters: control characters could repaint a terminal.
pub fn one_line(text: &str, longest: usize) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if clean.chars().count() <= longest { clean } else { clean.chars().take(longest - 1).chain(['…']).collect() }
}

/// `-` where there is nothing.
pub fn or_dash(text: &str, longest: usize) -> String {
    if text.is_empty() { "-".to_owned() } else { one_line(text, longest) }
}

#[cfg(test)]
mod tests {
    use super::one_line;

    #[test]
    fn no_cell_repaints_the_terminal() {
        assert_eq!(one_line("a\u{1b}[31m\nb", 20), "a [31m b");
        assert_eq!(one_line("abcdef", 4), "abc…");
    }
}
