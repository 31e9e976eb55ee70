//! Nothing: what there is stands in `pass/` and `fail/`, and `tests/ui.rs` runs it.
