//! The fast shared store.
