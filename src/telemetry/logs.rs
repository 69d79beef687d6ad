//! Log lines on stderr: readable on a terminal, one JSON object per line elsewhere.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
pub use tracing_subscriber::filter::LevelFilter;

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people, with colours or without.
    Pretty {
        /// Whether to colour.
        colours: bool,
    },
    /// One flat JSON object per line.
    Json,
}

impl Format {
    /// Pretty on a terminal, JSON otherwise. `no_color`: the value of `NO_COLOR`; any text but the empty one takes the colours away (<https://no-color.org>).
    pub fn choose(terminal: bool, no_color: Option<&str>) -> Self {
        match terminal {
            true => Self::Pretty { colours: no_color.is_none_or(str::is_empty) },
            false => Self::Json,
        }
    }
}

/// Sends every log line of this process to stderr from now on, from `level` up unless `RUST_LOG` says otherwise.
///
/// Called once by `main`; where something else has already set a subscriber up (a test, a program that embeds the crate), that one stays.
pub fn init(level: LevelFilter) {
    let no_color = std::env::var("NO_COLOR").ok();
    let filter = EnvFilter::builder().with_default_directive(level.into()).from_env_lossy();
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let _already_set = match Format::choose(io::stderr().is_terminal(), no_color.as_deref()) {
        Format::Pretty { colours } => lines.with_target(false).with_ansi(colours).try_init(),
        Format::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init(),
    };
}

#[cfg(test)]
mod tests {
    use super::Format;

    #[test]
    fn a_terminal_gets_colours_unless_no_color_is_set() {
        assert_eq!(Format::choose(true, None), Format::Pretty { colours: true });
        assert_eq!(Format::choose(true, Some("")), Format::Pretty { colours: true });
        assert_eq!(Format::choose(true, Some("1")), Format::Pretty { colours: false });
        assert_eq!(Format::choose(false, None), Format::Json);
    }
}
