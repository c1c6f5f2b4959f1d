//! matron-net
