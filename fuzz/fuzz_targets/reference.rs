//! References to images: what is read means the same once it is written out.
#![no_main]

use reddwarf_host::ImageReference;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(one) = ImageReference::parse(text) {
        let again = ImageReference::parse(&one.to_string()).expect("its full form");
        assert_eq!(again.to_string(), one.to_string());
        assert!(!one.repository().contains("..") && !one.registry().is_empty());
    }
});
