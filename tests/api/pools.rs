//! Pools (spec: pools-flavors.md 1 and 2).

mod changing;
mod listing;
mod moving;
mod placing;
mod registering;
mod removing;
mod secrets;
