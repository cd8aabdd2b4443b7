//! Manifests, indexes, configs, credentials and challenges of registries.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| reddwarf_pull::fuzz::documents(bytes));
