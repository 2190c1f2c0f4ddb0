//! Configurations: whatever is written, it is either good or told what is wrong, each fault with its path,
//! and the same each time. No file that it names is read here.

#![no_main]

use kore_gateway::config::{Layer, Sources, effective, load};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    // A path could lead to a file that never ends.
    if text.contains("file") {
        return;
    }
    let sources = Sources { layers: vec![Layer::Text(text.to_owned())], environment: Vec::new() };
    match load(&sources) {
        Ok((written, config)) => {
            assert!(!config.accounts.is_empty());
            let shown = effective(written).expect("it can be written");
            assert!(shown.parse::<toml::Table>().is_ok());
        }
        Err(faults) => {
            assert!(!faults.is_empty());
            for fault in &faults {
                assert!(!fault.path.is_empty() && !fault.problem.is_empty(), "{fault:?}");
                assert!(!fault.to_string().contains('\n'), "{fault:?}");
            }
            let Err(again) = load(&sources) else { panic!("good the second time") };
            let told = |faults: &[kore_gateway::config::ConfigFault]| {
                faults.iter().map(ToString::to_string).collect::<Vec<_>>()
            };
            assert_eq!(told(&faults), told(&again));
        }
    }
});
