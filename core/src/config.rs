//! Text to a checked [`Config`], or to every error at once.

pub mod matcher;
mod model;

pub use model::*;
