//! matron-appservice
