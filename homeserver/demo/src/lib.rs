//! matron-demo
