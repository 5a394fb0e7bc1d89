//! Authentication by Keystone, OpenStack's identity service.
//!
//! ```text
//! a request -> authenticator   tokens, service tokens, access rules: the decision table
//!                |  decision   what becomes of the request, and the answers
//!              validator       the cache first, then Keystone, once for all who ask at the same time
//!                |  cache      digests of tokens, bounded (lru); 404s apart;  single_flight
//!              client          one validation: breaker, renewal on 401, what each answer means
//!                |  service_token   the service's own token;  endpoint  where to ask;  credentials
//!              transport       connections, time limits;  tls
//!
//! a subscription of trust+http(s) -> trusts   creates them, gets their tokens for notifications, deletes them
//!
//! token         the document of a token -> identity: who asks, for policies, handlers and the log
//! access_rules  what an application credential is limited to
//! config        [keystone] and [trustee] -> settings;  metrics, health  what operators see
//! ```
//!
//! No library of OpenStack's is involved: the service needs four HTTP requests and a cache. What a request says of itself
//! in headers such as `X-Roles` is not read at all, rather than removed and set anew as in the reference: there is one
//! typed value, and nothing else to be forged. Tokens appear in no log line, no error and no `Debug` output.
//!
//! Source: `docs/compatibility/keystone.md`.

mod access_rules;
mod authenticator;
mod breaker;
mod cache;
mod client;
mod config;
mod credentials;
mod decision;
mod endpoint;
mod health;
mod identity;
mod lru;
mod metrics;
mod service_token;
mod settings;
mod single_flight;
mod tls;
mod token;
mod transport;
mod trusts;
mod validator;

use std::time::Duration;

pub use self::access_rules::{AccessRule, AccessRules, RequestTarget};
pub use self::authenticator::{Authenticator, Malformed, Proof, RequestParts, Tokens};
pub use self::config::{KeystoneConfig, TrusteeConfig};
pub use self::decision::{Decision, PROJECT_MISSING_DESCRIPTION, PROJECT_MISSING_TITLE, Refusal};
pub use self::health::{Fault, KeystoneState};
pub use self::identity::{
    ApplicationCredential, Caller, Domain, Identity, Project, Scope, Trust, User,
};
pub use self::metrics::{Sample, Value};
pub use self::settings::{Settings, TrusteeSettings};
pub use self::trusts::{TrustError, Trustor, Trusts};

/// The time that a request may take until it is decided about, all questions to Keystone included (section 6.3).
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
