//! Files have a largest size.

use super::{Case, Finding, reason};
use crate::request::Action;
use crate::verdict::{ReasonCode, RuleId};

const RULE: RuleId = RuleId::MediaSize;

pub(super) fn check(case: &Case<'_>) -> Finding {
    let Action::UploadMedia { size_bytes } = case.act else {
        return Finding::Silent;
    };
    let Some(limit_bytes) = case.policy.layer().media_max_bytes else {
        return Finding::Silent;
    };
    if *size_bytes > limit_bytes {
        return Finding::Refuse(reason(
            RULE,
            ReasonCode::MediaTooLarge,
            format!("The file has {size_bytes} bytes; {limit_bytes} are allowed."),
        ));
    }
    Finding::Pass(reason(RULE, ReasonCode::MediaFits, "The file is small enough."), Vec::new())
}
