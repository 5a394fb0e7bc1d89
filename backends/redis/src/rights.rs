//! What the user may do, found out when a connection is made: a right that is missing is told then, and not in the middle
//! of somebody's call.

use isimud_contract::{Error, ErrorKind, Result};
use redis::ServerErrorKind;

use crate::call::Call;
use crate::connect::Wire;
use crate::keys::Names;
use crate::scripts::scripts;

scripts! {
    RIGHTS: "rights.lua";
}

/// What is published to find out whether it may be. It tells nobody anything.
pub(crate) const NOTHING: &str = "-";

/// Refuses a user who may not do all that this store does. What the server does not say is no obstacle.
pub(crate) async fn check(wire: &mut Wire, names: &Names) -> Result<()> {
    let call = Call::new(&RIGHTS, &[&[names.nobody()]])
        .bytes(names.changes().as_bytes())
        .bytes(NOTHING.as_bytes());
    let mut answer = wire.send(&call.command).await;
    if answer.as_ref().is_err_and(Call::is_unknown) {
        answer = wire.send(&call.with_text()).await;
    }
    let refused: Vec<String> = match answer {
        Ok(answer) => redis::from_redis_value(answer).unwrap_or_default(),
        Err(error) if error.kind() == redis::ErrorKind::Server(ServerErrorKind::NoPerm) => {
            vec![error.detail().unwrap_or("EVAL and EVALSHA").to_owned()]
        }
        // The next call meets it, too.
        Err(_) => return Ok(()),
    };
    if refused.is_empty() {
        return Ok(());
    }
    let missing = refused.join(", ");
    Err(Error::new(
        ErrorKind::Internal,
        format!("the Redis user may not do all that this store needs; missing: {missing}"),
    ))
}
