//! The closed vocabularies of member, visibility and join rule events.

/// Declares an enum of wire words, with its parser and printer.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant),+
        }

        impl $name {
            /// The value that this word of the wire means, if it is known.
            pub fn parse(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(Self::$variant),)+
                    _ => None,
                }
            }

            /// The word of the wire.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// What a user is to a room. Spec: <https://spec.matrix.org/v1.19/client-server-api/#mroommember>.
    Membership {
        /// In the room.
        Join = "join",
        /// Asked in.
        Invite = "invite",
        /// Outside, by leaving, by a kick, or never having been in.
        Leave = "leave",
        /// Kept out.
        Ban = "ban",
        /// Asking to be let in (since version 7).
        Knock = "knock",
    }
}

words! {
    /// Who may read what was said. Spec: <https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility>.
    HistoryVisibility {
        /// Members, from their invitation on.
        Invited = "invited",
        /// Members, from their joining on.
        Joined = "joined",
        /// Members, from the beginning.
        Shared = "shared",
        /// Anyone.
        WorldReadable = "world_readable",
    }
}

words! {
    /// How people come in. Spec: <https://spec.matrix.org/v1.19/client-server-api/#mroomjoin_rules>.
    JoinRule {
        /// Anyone may.
        Public = "public",
        /// By invitation.
        Invite = "invite",
        /// By knocking, then invitation.
        Knock = "knock",
        /// Members of other rooms may.
        Restricted = "restricted",
        /// Members of other rooms may; others knock.
        KnockRestricted = "knock_restricted",
        /// Reserved by the specification; nobody may.
        Private = "private",
    }
}

impl HistoryVisibility {
    /// The visibility of a room that has no such event.
    pub const DEFAULT: Self = Self::Shared;

    /// Whether a user may see an event that was sent under this visibility.
    ///
    /// `at_event` is the user's membership then; `joined_since` says whether the user joined at any time after it.
    /// Spec: <https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility>, server behaviour.
    pub fn allows(self, at_event: Option<Membership>, joined_since: bool) -> bool {
        match (self, at_event) {
            (Self::WorldReadable, _) | (_, Some(Membership::Join)) => true,
            (Self::Invited, Some(Membership::Invite)) => true,
            (Self::Shared, _) => joined_since,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{HistoryVisibility, Membership};

    #[test]
    fn history_is_seen_by_those_whom_the_specification_names() {
        use HistoryVisibility::{Invited, Joined, Shared, WorldReadable};
        let cases = [
            (WorldReadable, None, false, true),
            (Shared, None, true, true),
            (Shared, None, false, false),
            (Shared, Some(Membership::Invite), false, false),
            (Invited, Some(Membership::Invite), false, true),
            (Invited, None, true, false),
            (Joined, Some(Membership::Invite), true, false),
            (Joined, Some(Membership::Join), false, true),
            (Joined, Some(Membership::Ban), true, false),
        ];
        for (visibility, at_event, joined_since, expected) in cases {
            assert_eq!(visibility.allows(at_event, joined_since), expected, "{visibility} {at_event:?}");
        }
    }
}
