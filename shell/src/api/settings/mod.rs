//! Settings: named sections, each a JSON object that may have a schema.

use quorate_api::{Problem, ProblemCode};
use quorate_core::state::{
    Revision, SCHEMA_BYTES_MAX, SECTION_BYTES_MAX, SECTION_SETTINGS_MAX, SECTIONS_MAX,
    SETTING_VALUE_BYTES_MAX, SettingsRefusal,
};

use super::answer::Failure;

/// Why the state machine changed no settings.
pub(super) fn problem(refusal: SettingsRefusal) -> Problem {
    let detail = refusal.to_string();
    let problem = |code, action: &str| Problem::new(code, detail.clone(), action);
    let quota = |limit: usize| {
        let action =
            "nothing changed; remove settings that nobody needs (GET /v1/settings lists the sections)";
        problem(ProblemCode::QuotaReached, action).with_limit(limit as u64)
    };
    let too_large = |limit: usize| {
        problem(ProblemCode::ValueTooLarge, "nothing changed; send less").with_limit(limit as u64)
    };
    match refusal {
        SettingsRefusal::NotAsJudged => {
            problem(ProblemCode::Busy, "nothing changed; try again, more slowly").with_retry_after(1)
        }
        SettingsRefusal::Conflict {
            current: Revision(current),
        } => *Failure::conflict(current, false).problem,
        SettingsRefusal::NamedTwice => problem(ProblemCode::BadRequest, "nothing changed; leave one out"),
        SettingsRefusal::ValueTooLarge => too_large(SETTING_VALUE_BYTES_MAX),
        SettingsRefusal::SchemaTooLarge => too_large(SCHEMA_BYTES_MAX),
        SettingsRefusal::TooManySettings => quota(SECTION_SETTINGS_MAX),
        SettingsRefusal::SectionTooLarge => quota(SECTION_BYTES_MAX),
        SettingsRefusal::TooManySections => quota(SECTIONS_MAX),
    }
}
