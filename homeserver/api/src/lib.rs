//! matron-api
