//! What `/readyz` and `/livez` answer: parts report, the page names the failing one.
