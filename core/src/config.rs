//! Text to a checked [`Config`], or to every error at once.
//!
//! [`parse`] reads the TOML tree (`file`, `pool`, `strategy`, `middlewares`, `certificates` with the typed
//! `reader`), then looks at the whole for what is allowed but can't be meant (`doubts`). It opens no file:
//! whether pages and certificates are there is the driver's side to check.
//!
//! Every key, with its default, is in `testdata/configs/reference.toml`.

mod address;
mod certificates;
mod diagnostic;
mod doubts;
mod duration;
mod file;
pub mod matcher;
mod middlewares;
mod model;
mod pool;
mod reader;
mod strategy;
mod suggest;

pub use diagnostic::{Diagnostic, Severity, render};
pub use file::{Parsed, parse};
pub use matcher::Matcher;
pub use model::*;
