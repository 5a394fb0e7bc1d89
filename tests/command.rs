//! The command line: the real binary, what it says of a wrong configuration, how it starts and stops, what an operator
//! sees of it, and what it does when its disk is full.

#[path = "command/admin.rs"]
mod admin;
#[path = "command/full_disk.rs"]
mod full_disk;
#[path = "command/operators.rs"]
mod operators;
#[path = "command/pools.rs"]
mod pools;
#[path = "command/process.rs"]
mod process;
#[path = "command/refused.rs"]
mod refused;
#[path = "support/server.rs"]
mod server;
#[path = "command/starting.rs"]
mod starting;
#[path = "command/stopping.rs"]
mod stopping;
#[path = "command/tokens.rs"]
mod tokens;
#[path = "command/wire.rs"]
mod wire;
