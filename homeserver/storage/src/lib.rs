//! matron-storage
