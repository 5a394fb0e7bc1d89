//! What tests of the whole program share.

pub(crate) mod script;
pub(crate) mod server;
