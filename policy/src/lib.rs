//! matron-policy
