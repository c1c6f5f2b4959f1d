//! One question, one answer.

use crate::effective::{EffectivePolicy, PolicySet};
use crate::facts::Facts;
use crate::request::Request;
use crate::rules::{self, Case, Finding};
use crate::verdict::{Obligation, Outcome, Reason, Verdict};

/// The verdict on a request, from what is known and what is demanded. Pure: equal questions get equal answers.
#[must_use]
pub fn decide(request: &Request, facts: &Facts, policies: &PolicySet) -> Verdict {
    decide_with(request, facts, &policies.effective(&facts.room.policy))
}

/// As [`decide`], with an effective policy that the caller keeps for the room.
///
/// `policy` must come from [`PolicySet::effective`] with the very `facts.room.policy`.
#[must_use]
pub fn decide_with(request: &Request, facts: &Facts, policy: &EffectivePolicy) -> Verdict {
    let case = Case { request, act: request.action.essence(), facts, policy };
    let mut found = Findings::default();
    if let Some(finding) = rules::shortcut(&case) {
        found.add(finding);
    } else {
        for rule in rules::ALL {
            found.add(rule(&case));
        }
    }
    let (outcome, mut reasons) = found.weigh();
    if !matches!(outcome, Outcome::Permit(_)) {
        reasons.extend(rules::instead(&case));
    }
    Verdict::new(outcome, reasons, policy.revision(), request.digest())
}

#[derive(Default)]
struct Findings {
    pros: Vec<Reason>,
    cons: Vec<Reason>,
    gaps: Vec<Reason>,
    obligations: Vec<Obligation>,
}

impl Findings {
    fn add(&mut self, finding: Finding) {
        match finding {
            Finding::Silent => {}
            Finding::Pass(reason, obligations) => {
                self.pros.push(reason);
                self.obligations.extend(obligations);
            }
            Finding::Refuse(reason) => self.cons.push(reason),
            Finding::Unclear(reason) => self.gaps.push(reason),
        }
    }

    /// INVARIANT: one refusal refuses, whatever else is missing; one gap withholds the permit.
    fn weigh(mut self) -> (Outcome, Vec<Reason>) {
        if !self.cons.is_empty() {
            return (Outcome::Deny, self.cons);
        }
        if !self.gaps.is_empty() {
            return (Outcome::Undetermined, self.gaps);
        }
        if self.pros.is_empty() {
            self.pros.push(rules::nothing_to_say());
        }
        (Outcome::Permit(strictest(self.obligations)), self.pros)
    }
}

/// Each kind of duty once, with its strictest value, in order.
fn strictest(mut obligations: Vec<Obligation>) -> Vec<Obligation> {
    // Sorted by kind and then by value, of which the smaller is the stricter in every kind.
    obligations.sort_unstable();
    obligations.dedup_by(|later, earlier| std::mem::discriminant(later) == std::mem::discriminant(earlier));
    obligations
}
