//! Unit tests of the modules of `ext` that work on bytes, numbers and plans alone. The crate itself can't be
//! linked without a server, so they are compiled here a second time.

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

#[path = "../src/lower/explain/mod.rs"]
mod explain;

#[allow(dead_code)]
#[path = "../src/catalog/layout_text.rs"]
mod layout_text;

#[allow(dead_code)]
#[path = "../src/catalog/store_options.rs"]
mod store_options;

#[allow(dead_code)]
#[path = "../src/catalog/option_text.rs"]
mod option_text;

#[path = "../src/pg/epoch.rs"]
mod epoch;
#[path = "../src/cold/read_ahead.rs"]
mod read_ahead;

#[path = "../src/sweep/setbacks.rs"]
mod setbacks;
