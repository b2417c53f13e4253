//! Unit tests of the modules of `ext` that work on bytes and numbers alone. The crate itself can't be linked
//! without a server, so they are compiled here a second time.

#[allow(dead_code)]
#[path = "../src/types/numeric.rs"]
mod numeric;

#[allow(dead_code)]
#[path = "../src/copy_input/parse.rs"]
mod parse;

#[allow(dead_code)]
#[path = "../src/catalog/forward.rs"]
mod forward;

#[path = "../src/compact/choice.rs"]
mod choice;

#[allow(dead_code)]
#[path = "../src/catalog/layout_text.rs"]
mod layout_text;
