//! How many cases a property test tries. Also part of the library's own tests.

use proptest::test_runner::Config;

/// `cases`, times the factor of the environment: `PROPTEST_FACTOR=100 cargo test`.
pub fn with_cases(cases: u32) -> Config {
    let usual = Config::default();
    Config {
        // What a test passes over grows with what it tries.
        max_global_rejects: times_factor(usual.max_global_rejects),
        max_local_rejects: times_factor(usual.max_local_rejects),
        cases: times_factor(cases),
        ..usual
    }
}

/// A number of cases, or of steps, times the factor of the environment.
pub fn times_factor(cases: u32) -> u32 {
    let factor = match std::env::var("PROPTEST_FACTOR") {
        Ok(factor) => factor.parse().expect("PROPTEST_FACTOR is a whole number"),
        Err(_) => 1,
    };
    cases.saturating_mul(factor)
}
