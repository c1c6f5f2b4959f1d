//! The binary `matron-appservice`.

fn main() {}
