//! The command line: the real binary, what it says of a wrong configuration, how it starts and stops, what an operator
//! sees of it, and what it does when its disk is full.

mod admin;
mod files;
mod full_disk;
mod operators;
mod pools;
mod process;
mod refused;
mod starting;
mod stopping;
mod tokens;
mod unused;
mod wire;
