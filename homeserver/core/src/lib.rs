//! matron-core
