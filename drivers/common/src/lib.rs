//! What every driver needs.
