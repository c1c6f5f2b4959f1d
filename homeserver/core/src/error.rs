//! Why a use case was refused. `matron-api` maps each arm to an errcode and a status, exhaustively.

use std::borrow::Cow;

use matron_storage::CommitError;

pub use matron_storage::StoreError;

/// A sentence for the person who reads the error. Never holds content, tokens or patient ids.
pub type Sentence = Cow<'static, str>;

/// Why a use case was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `M_FORBIDDEN`, 403.
    #[error("{0}")]
    Forbidden(Sentence),
    /// `M_FORBIDDEN`, 403, by Matron's policy; carries the decision id with which `matron policy explain` answers.
    #[error("{sentence} (decision {decision_id})")]
    PolicyDenied { sentence: String, decision_id: String },
    /// 503 `M_UNKNOWN` with `Retry-After`: policy lacks a fact, a later try may pass.
    #[error("{sentence} (decision {decision_id})")]
    PolicyUndetermined { sentence: String, decision_id: String },
    /// `M_MISSING_TOKEN`, 401.
    #[error("no access token was given")]
    MissingToken,
    /// `M_UNKNOWN_TOKEN`, 401.
    #[error("this access token is not known, or no longer valid")]
    UnknownToken { soft_logout: bool },
    /// `M_UNAUTHORIZED`, 401.
    #[error("{0}")]
    Unauthorized(Sentence),
    /// `M_NOT_FOUND`, 404.
    #[error("{0}")]
    NotFound(Sentence),
    /// `M_UNRECOGNIZED`, 404.
    #[error("this endpoint is not known")]
    Unrecognized,
    /// `M_BAD_JSON`, 400.
    #[error("{0}")]
    BadJson(Sentence),
    /// `M_NOT_JSON`, 400.
    #[error("the request body is not JSON")]
    NotJson,
    /// `M_MISSING_PARAM`, 400.
    #[error("{0}")]
    MissingParam(Sentence),
    /// `M_INVALID_PARAM`, 400.
    #[error("{0}")]
    InvalidParam(Sentence),
    /// `M_UNKNOWN`, 400.
    #[error("{0}")]
    Unknown(Sentence),
    /// `M_TOO_LARGE`, 413.
    #[error("{0}")]
    TooLarge(Sentence),
    /// `M_LIMIT_EXCEEDED`, 429.
    #[error("too many requests; try again later")]
    LimitExceeded { retry_after_ms: u64 },
    /// `M_USER_IN_USE`, 400.
    #[error("this user name is taken")]
    UserInUse,
    /// `M_INVALID_USERNAME`, 400.
    #[error("{0}")]
    InvalidUsername(Sentence),
    /// `M_EXCLUSIVE`, 400.
    #[error("{0}")]
    Exclusive(Sentence),
    /// `M_WEAK_PASSWORD`, 400.
    #[error("{0}")]
    WeakPassword(Sentence),
    /// `M_USER_DEACTIVATED`, 403.
    #[error("this account is deactivated")]
    UserDeactivated,
    /// `M_USER_LOCKED`, 401, soft logout.
    #[error("this account is locked")]
    UserLocked,
    /// `M_USER_SUSPENDED`, 403.
    #[error("this account is suspended")]
    UserSuspended,
    /// `M_GUEST_ACCESS_FORBIDDEN`, 403.
    #[error("guests may not do this")]
    GuestForbidden,
    /// `M_ROOM_IN_USE`, 400.
    #[error("this alias is taken")]
    RoomInUse,
    /// `M_INVALID_ROOM_STATE`, 400.
    #[error("{0}")]
    InvalidRoomState(Sentence),
    /// `M_UNSUPPORTED_ROOM_VERSION`, 400.
    #[error("this room version is not supported")]
    UnsupportedRoomVersion,
    /// `M_INCOMPATIBLE_ROOM_VERSION`, 400.
    #[error("the room has version {room_version}, which your server does not support")]
    IncompatibleRoomVersion { room_version: String },
    /// `M_BAD_STATE`, 403 or 400.
    #[error("{0}")]
    BadState(Sentence),
    /// `M_BAD_ALIAS`, 400.
    #[error("{0}")]
    BadAlias(Sentence),
    /// `M_UNABLE_TO_AUTHORISE_JOIN`, 400.
    #[error("{0}")]
    UnableToAuthoriseJoin(Sentence),
    /// `M_UNABLE_TO_GRANT_JOIN`, 400.
    #[error("{0}")]
    UnableToGrantJoin(Sentence),
    /// `M_WRONG_ROOM_KEYS_VERSION`, 403.
    #[error("this is not the current backup version")]
    WrongRoomKeysVersion { current_version: String },
    /// `M_NOT_YET_UPLOADED`, 504.
    #[error("the content has not been uploaded yet")]
    NotYetUploaded,
    /// `M_CANNOT_OVERWRITE_MEDIA`, 409.
    #[error("this content has been uploaded already")]
    CannotOverwriteMedia,
    /// `M_DUPLICATE_ANNOTATION`, 400.
    #[error("this reaction has been sent already")]
    DuplicateAnnotation,
    /// `M_UNKNOWN_POS`, 400.
    #[error("this sync position is not known any more")]
    UnknownPos,
    /// 401 with the flows of user-interactive authentication; the value is the whole answer.
    #[error("more authentication is needed")]
    Interactive(Box<serde_json::Value>),
    /// An error with its own errcode, for the few that need no arm of their own.
    #[error("{message}")]
    Custom { status: u16, errcode: &'static str, message: Sentence },
    /// 502 `M_UNKNOWN`: another server did not answer, or refused in a way that is not ours to repeat.
    #[error("{0}")]
    Peer(Sentence),
    /// An error that a peer gave and that its user must see as it is.
    #[error("the other server answered {status}")]
    PeerAnswer { status: u16, body: Box<serde_json::Value> },
    /// 500 `M_UNKNOWN`: storage failed; 507 `M_RESOURCE_LIMIT_EXCEEDED` on a full disk.
    #[error("storage failed")]
    Store(#[from] StoreError),
    /// 500 `M_UNKNOWN`: a defect of Matron; the text is for the log only.
    #[error("internal error: {0}")]
    Internal(Sentence),
}

impl From<CommitError> for Error {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Store(store) => Self::Store(store),
            CommitError::Conflict(_) => Self::Internal("a batch met a conflict that its writer did not handle".into()),
        }
    }
}

impl Error {
    /// `M_FORBIDDEN` with this sentence.
    pub fn forbidden(sentence: impl Into<Sentence>) -> Self {
        Self::Forbidden(sentence.into())
    }

    /// `M_NOT_FOUND` with this sentence.
    pub fn not_found(sentence: impl Into<Sentence>) -> Self {
        Self::NotFound(sentence.into())
    }

    /// `M_BAD_JSON` with this sentence.
    pub fn bad_json(sentence: impl Into<Sentence>) -> Self {
        Self::BadJson(sentence.into())
    }

    /// `M_INVALID_PARAM` with this sentence.
    pub fn invalid(sentence: impl Into<Sentence>) -> Self {
        Self::InvalidParam(sentence.into())
    }

    /// 500 with this sentence in the log.
    pub fn internal(sentence: impl Into<Sentence>) -> Self {
        Self::Internal(sentence.into())
    }
}
