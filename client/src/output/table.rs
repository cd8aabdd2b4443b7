//! One aligned table without borders.

use super::{Paint, Style, printable, status_paint};

/// Spaces between columns.
const GAP: usize = 3;

/// A cell and how it is painted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cell {
    text: String,
    paint: Paint,
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self { text: printable(&text), paint: Paint::Plain }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl Cell {
    /// A status word in its colour.
    pub(crate) fn status(word: &str) -> Self {
        Self { text: printable(word), paint: status_paint(word) }
    }

    /// The same paint with another text.
    pub(crate) fn with_text(self, text: &str) -> Self {
        Self { text: printable(text), ..self }
    }
}

/// Rows under a header.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    header: Vec<String>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(crate) fn new(header: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { header: header.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    pub(crate) fn push(&mut self, row: Vec<Cell>) {
        self.rows.push(row);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The widths that fit every cell, at least those given.
    pub(crate) fn widths(&self, least: &[usize]) -> Vec<usize> {
        let cell = |row: &Vec<Cell>, column: usize| row.get(column).map_or(0, |c| c.text.chars().count());
        (0..self.header.len())
            .map(|column| {
                let rows = self.rows.iter().map(|row| cell(row, column)).max().unwrap_or(0);
                rows.max(self.header[column].chars().count()).max(least.get(column).copied().unwrap_or(0))
            })
            .collect()
    }

    /// The text. `width` cuts the last column at the edge of a terminal; without it nothing is cut.
    pub(crate) fn render(&self, style: Style, width: Option<usize>) -> String {
        let widths = self.widths(&[]);
        self.header_line(style, &widths) + &self.lines(style, &widths, width)
    }

    /// The header's line.
    pub(crate) fn header_line(&self, style: Style, widths: &[usize]) -> String {
        let cells: Vec<Cell> = self.header.iter().map(|h| Cell { text: h.clone(), paint: Paint::Bold }).collect();
        line(style, &cells, widths, None)
    }

    /// The rows' lines.
    pub(crate) fn lines(&self, style: Style, widths: &[usize], width: Option<usize>) -> String {
        self.rows.iter().map(|row| line(style, row, widths, width)).collect()
    }
}

fn line(style: Style, cells: &[Cell], widths: &[usize], width: Option<usize>) -> String {
    let mut text = String::new();
    let mut used = 0;
    // Spaces before a cell are written only when the cell has something to say: no trailing blanks.
    let mut blanks = 0;
    for (index, cell) in cells.iter().enumerate() {
        let last = index + 1 == cells.len();
        let shown = match width {
            Some(width) if last => cut(&cell.text, width.saturating_sub(used + blanks)),
            _ => cell.text.clone(),
        };
        let length = shown.chars().count();
        if length > 0 {
            text.push_str(&" ".repeat(blanks));
            text.push_str(&style.paint(cell.paint, &shown));
            used += blanks + length;
            blanks = 0;
        }
        blanks += widths.get(index).copied().unwrap_or(0).saturating_sub(length) + GAP;
    }
    text.push('\n');
    text
}

/// The text within `width` columns, an ellipsis at its end when it was cut. Names are never last, so never cut;
/// where there is no room worth the name, the whole text is shown and the terminal wraps it.
fn cut(text: &str, width: usize) -> String {
    if width < 20 || text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width - 1).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(["NAME", "STATUS", "REASON"]);
        table.push(vec!["web".into(), Cell::status("Running"), "".into()]);
        table.push(vec![
            "a-longer-name".into(),
            Cell::status("CrashLoopBackOff"),
            "main: exit 3, and a long story about it\x1b[2J".into(),
        ]);
        table
    }

    #[test]
    fn columns_are_aligned_and_nothing_is_cut_when_piped() {
        assert_eq!(
            table().render(Style::default(), None),
            "NAME            STATUS             REASON\n\
             web             Running\n\
             a-longer-name   CrashLoopBackOff   main: exit 3, and a long story about it\\u{1b}[2J\n"
        );
    }

    #[test]
    fn a_terminal_cuts_the_last_column_and_colours_align() {
        let text = table().render(Style { colour: true }, Some(60));
        assert!(text.contains("\x1b[32mRunning\x1b[0m\n"), "{text:?}");
        assert!(text.ends_with("main: exit 3, and a long…\n"), "{text:?}");
    }
}
