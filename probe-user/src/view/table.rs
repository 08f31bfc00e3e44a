//! Columns that line up, by what a terminal shows rather than by bytes, and that never wrap.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Which side a column's cells lean to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// Rows under a heading. The last column takes what is left of the width and is cut there.
pub struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub fn new(columns: &[(&'static str, Align)]) -> Self {
        Self {
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; missing cells are empty.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The lines, heading first, none wider than `width` (if given), no blanks at the end.
    pub fn lines(&self, width: Option<usize>) -> Vec<String> {
        let heading: Vec<String> = self.columns.iter().map(|(name, _)| (*name).to_owned()).collect();
        let all: Vec<&Vec<String>> = std::iter::once(&heading).chain(&self.rows).collect();
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|column| {
                all.iter()
                    .filter_map(|row| row.get(column))
                    .map(|cell| cell.width())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        all.iter().map(|row| self.line(row, &widths, width)).collect()
    }

    fn line(&self, row: &[String], widths: &[usize], width: Option<usize>) -> String {
        let mut line = String::new();
        for (column, (_, align)) in self.columns.iter().enumerate() {
            let cell = row.get(column).map_or("", String::as_str);
            let padding = " ".repeat(widths[column].saturating_sub(cell.width()));
            if column > 0 {
                line.push_str("  ");
            }
            match align {
                Align::Left => line.extend([cell, &padding]),
                Align::Right => line.extend([padding.as_str(), cell]),
            }
        }
        cut(line.trim_end(), width)
    }
}

/// Cuts text to a width, with an ellipsis where something is missing.
pub fn cut(text: &str, width: Option<usize>) -> String {
    let Some(width) = width.filter(|&width| text.width() > width) else {
        return text.to_owned();
    };
    let mut out = String::new();
    let mut used = 0;
    for character in text.chars() {
        used += character.width().unwrap_or(0);
        if used + 1 > width {
            break;
        }
        out.push(character);
    }
    out.push('…');
    out
}

/// The terminal's width; `None` if the output goes elsewhere, where nothing needs to be cut.
pub fn terminal_width() -> Option<usize> {
    terminal_size::terminal_size_of(std::io::stdout()).map(|(width, _)| usize::from(width.0).max(40))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_by_display_width() {
        let mut table = Table::new(&[
            ("PID", Align::Right),
            ("NAME", Align::Left),
            ("REST", Align::Left),
        ]);
        table.row(vec!["7".into(), "日本".into(), "x".into()]);
        table.row(vec!["1234".into(), "a".into(), "a long rest".into()]);
        let expected = [" PID  NAME  REST", "   7  日本  x", "1234  a     a long rest"];
        assert_eq!(table.lines(None), expected);
        assert_eq!(table.lines(Some(16))[2], "1234  a     a l…");
        assert!(table.lines(Some(16)).iter().all(|line| line.width() <= 16));
    }

    #[test]
    fn cutting_counts_wide_characters() {
        assert_eq!(cut("日本語", Some(5)), "日本…");
        assert_eq!(cut("abc", Some(3)), "abc");
    }
}
