//! Brackets that are broken over lines as the formatters of the languages break them.

/// A piece of an expression.
#[derive(Debug, Clone)]
pub(super) enum Piece {
    /// Never broken.
    Word(String),
    /// `open item, item close`; with a space inside of the brackets where `spaced`, never on one line where `broken`.
    Group { open: String, items: Vec<Piece>, close: &'static str, spaced: bool, broken: bool },
}

/// How a group that is too long for its line is broken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    /// Longest line.
    pub(super) width: usize,
    /// Of one level.
    pub(super) indent: usize,
    /// Longest list of items that stays on the line of its brackets, as rustfmt has it for calls.
    pub(super) narrow: usize,
    /// Whether all items are first tried on one line of their own, as Black does.
    pub(super) together: bool,
}

impl Piece {
    pub(super) fn word(text: impl Into<String>) -> Self {
        Self::Word(text.into())
    }

    pub(super) fn group(open: impl Into<String>, items: impl IntoIterator<Item = Self>, close: &'static str) -> Self {
        Self::Group { open: open.into(), items: items.into_iter().collect(), close, spaced: false, broken: false }
    }

    /// An object literal of TypeScript.
    pub(super) fn object(open: impl Into<String>, items: impl IntoIterator<Item = Self>) -> Self {
        Self::Group { open: open.into(), items: items.into_iter().collect(), close: "}", spaced: true, broken: false }
    }

    /// The same group, never on one line.
    pub(super) fn broken(self) -> Self {
        match self {
            Self::Group { open, items, close, spaced, .. } => Self::Group { open, items, close, spaced, broken: true },
            word => word,
        }
    }

    fn is_broken(&self) -> bool {
        matches!(self, Self::Group { items, broken, .. } if *broken || items.iter().any(Self::is_broken))
    }

    fn flat(&self) -> String {
        match self {
            Self::Word(text) => text.clone(),
            Self::Group { open, items, close, spaced, .. } => {
                let space = if *spaced && !items.is_empty() { " " } else { "" };
                format!("{open}{space}{}{space}{close}", flat(items))
            }
        }
    }

    /// The text, where `before` stands on its first line and `after` on its last; `depth` levels in.
    pub(super) fn render(&self, style: Style, depth: usize, before: usize, after: usize) -> String {
        let whole = self.flat();
        let Self::Group { open, items, close, .. } = self else { return whole };
        let short = before + whole.chars().count() + after <= style.width && flat(items).chars().count() <= style.narrow;
        if items.is_empty() || !self.is_broken() && short {
            return whole;
        }
        let inner = " ".repeat(style.indent * (depth + 1));
        let outer = " ".repeat(style.indent * depth);
        let together = flat(items);
        if style.together && !self.is_broken() && inner.len() + together.chars().count() <= style.width {
            return format!("{open}\n{inner}{together}\n{outer}{close}");
        }
        let lines = items.iter().map(|item| format!("{inner}{},\n", item.render(style, depth + 1, inner.len(), 1)));
        format!("{open}\n{}{outer}{close}", lines.collect::<String>())
    }
}

fn flat(items: &[Piece]) -> String {
    items.iter().map(Piece::flat).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::{Piece, Style};

    #[test]
    fn a_group_is_broken_only_where_it_does_not_fit() {
        let words = || ["alpha", "beta", "gamma"].map(Piece::word);
        let nested = Piece::group("f(", [Piece::group("[", words(), "]"), Piece::word("x")], ")");
        let style = |width, together| Style { width, indent: 2, narrow: usize::MAX, together };
        assert_eq!(nested.render(style(40, true), 0, 0, 0), "f([alpha, beta, gamma], x)");
        assert_eq!(nested.render(style(25, true), 0, 0, 0), "f(\n  [alpha, beta, gamma], x\n)");
        assert_eq!(nested.render(style(25, false), 0, 0, 0), "f(\n  [alpha, beta, gamma],\n  x,\n)");
        assert_eq!(nested.render(style(12, false), 0, 0, 0), "f(\n  [\n    alpha,\n    beta,\n    gamma,\n  ],\n  x,\n)");
    }
}
