//! Tests that need something a machine may lack.

/// Says that a test is left out, and why.
///
/// # Panics
/// Where the variable CI is `true`: there, what the tests need is installed, and a test left out is a failure.
pub fn skip(why: &str) {
    println!("skipped: {why}");
    let continuous_integration = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!continuous_integration, "skipped where nothing may be: {why}");
}
