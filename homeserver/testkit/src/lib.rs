//! matron-testkit
