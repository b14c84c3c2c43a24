//! The hello of a control connection, and messages on its streams.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relay::parsers;

fuzz_target!(|bytes: &[u8]| {
    parsers::hello(bytes);
    assert_eq!(parsers::messages(bytes, 1), parsers::messages(bytes, 4096), "cuts do not matter");
});
