//! One event loop per worker thread.
