//! The options that Zaqar 23.0.1 registers, with their types, defaults and former names.
//!
//! The table has every option of the reference, also those that mean nothing here: a value may refer to any of them, and an
//! option that is in no table is one that the reference does not know either. A test compares it with the reference itself.

use self::Unassigned::{Items, Pairs, Raw, Unset};
use super::value::Kind::{
    self, AnyCase, Bool, Choice, Choices, Float, Host, Int, List, Map, Multi, NotNegative, Text,
};

const INT: Kind = Int(i64::MIN, i64::MAX);
const PORT: Kind = Int(0, 65535);

/// The default of an option.
#[derive(Debug, Clone, Copy)]
pub(super) enum Unassigned {
    Unset,
    /// As it would be written in a file.
    Raw(&'static str),
    Items(&'static [&'static str]),
    Pairs(&'static [(&'static str, &'static str)]),
}

/// An option.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opt {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) default: Unassigned,
    /// Names that it had before, in the same group.
    pub(super) former: &'static [&'static str],
    /// No output shows its value.
    pub(super) is_secret: bool,
}

const fn option(name: &'static str, kind: Kind, default: Unassigned) -> Opt {
    Opt {
        name,
        kind,
        default,
        former: &[],
        is_secret: false,
    }
}

const fn secret(name: &'static str, kind: Kind, default: Unassigned) -> Opt {
    Opt {
        is_secret: true,
        ..option(name, kind, default)
    }
}

impl Opt {
    const fn once(self, former: &'static [&'static str]) -> Self {
        Self { former, ..self }
    }
}

/// The options of a group of the reference.
pub(super) fn group(name: &str) -> Option<&'static [Opt]> {
    GROUPS
        .iter()
        .find(|(group, _)| *group == name)
        .map(|(_, options)| *options)
}

/// The options that an authentication plugin adds to the group that names it (`auth_type`).
pub(super) fn plugin(auth_type: &str) -> Option<&'static [Opt]> {
    match auth_type {
        "password" => Some(PLUGIN_PASSWORD),
        "v3password" => Some(PLUGIN_V3PASSWORD),
        "v3applicationcredential" => Some(PLUGIN_V3APPLICATIONCREDENTIAL),
        _ => None,
    }
}

/// What a group gets that `auth_section` names.
pub(super) const AUTH: &[Opt] = &[
    option("auth_section", Text, Unset),
    option("auth_type", Text, Unset).once(&["auth_plugin"]),
];

/// Every group.
pub(super) const GROUPS: &[(&str, &[Opt])] = &[
    ("DEFAULT", DEFAULT),
    ("drivers", DRIVERS),
    ("drivers:transport:wsgi", DRIVERS_TRANSPORT_WSGI),
    ("drivers:transport:websocket", DRIVERS_TRANSPORT_WEBSOCKET),
    ("drivers:message_store:redis", DRIVERS_MESSAGE_STORE_REDIS),
    (
        "drivers:management_store:redis",
        DRIVERS_MANAGEMENT_STORE_REDIS,
    ),
    (
        "drivers:management_store:sqlalchemy",
        DRIVERS_MANAGEMENT_STORE_SQLALCHEMY,
    ),
    (
        "drivers:message_store:mongodb",
        DRIVERS_MESSAGE_STORE_MONGODB,
    ),
    (
        "drivers:management_store:mongodb",
        DRIVERS_MANAGEMENT_STORE_MONGODB,
    ),
    ("drivers:message_store:swift", DRIVERS_MESSAGE_STORE_SWIFT),
    ("transport", TRANSPORT),
    ("storage", STORAGE),
    ("notification", NOTIFICATION),
    ("signed_url", SIGNED_URL),
    ("pooling:catalog", POOLING_CATALOG),
    ("keystone_authtoken", KEYSTONE_AUTHTOKEN),
    ("trustee", TRUSTEE),
    ("oslo_policy", OSLO_POLICY),
    ("cors", CORS),
    ("cache", CACHE),
    ("profiler", PROFILER),
    ("profiler_jaeger", PROFILER_JAEGER),
    ("profiler_otlp", PROFILER_OTLP),
    ("oslo_concurrency", OSLO_CONCURRENCY),
    ("oslo_middleware", OSLO_MIDDLEWARE),
    ("oslo_reports", OSLO_REPORTS),
];

const DEFAULT: &[Opt] = &[
    option("admin_mode", Bool, Raw("False")),
    option("daemon", Bool, Raw("False")),
    option("debug", Bool, Raw("False")),
    option("log_config_append", Text, Unset).once(&["log-config", "log_config"]),
    option("log_date_format", Text, Raw("%Y-%m-%d %H:%M:%S")),
    option("log_file", Text, Unset).once(&["logfile"]),
    option("log_dir", Text, Unset).once(&["logdir"]),
    option("use_syslog", Bool, Raw("False")),
    option("use_journal", Bool, Raw("False")),
    option("syslog_log_facility", Text, Raw("LOG_USER")),
    option("use_json", Bool, Raw("False")),
    option("use_stderr", Bool, Raw("False")),
    option("log_color", Bool, Raw("False")),
    option("log_rotate_interval", INT, Raw("1")),
    option(
        "log_rotate_interval_type",
        AnyCase(&["Seconds", "Minutes", "Hours", "Days", "Weekday", "Midnight"]),
        Raw("days"),
    ),
    option("max_logfile_count", INT, Raw("30")),
    option("max_logfile_size_mb", INT, Raw("200")),
    option(
        "log_rotation_type",
        Choice(&["interval", "size", "none"]),
        Raw("none"),
    ),
    option(
        "logging_context_format_string",
        Text,
        Raw(
            "%(asctime)s.%(msecs)03d %(process)d %(levelname)s %(name)s [%(global_request_id)s %(request_id)s %(user_identity)s] %(instance)s%(message)s",
        ),
    ),
    option(
        "logging_default_format_string",
        Text,
        Raw(
            "%(asctime)s.%(msecs)03d %(process)d %(levelname)s %(name)s [-] %(instance)s%(message)s",
        ),
    ),
    option(
        "logging_debug_format_suffix",
        Text,
        Raw("%(funcName)s %(pathname)s:%(lineno)d"),
    ),
    option(
        "logging_exception_prefix",
        Text,
        Raw("%(asctime)s.%(msecs)03d %(process)d ERROR %(name)s %(instance)s"),
    ),
    option(
        "logging_user_identity_format",
        Text,
        Raw("%(user)s %(project)s %(domain)s %(system_scope)s %(user_domain)s %(project_domain)s"),
    ),
    option(
        "default_log_levels",
        List,
        Items(&[
            "amqp=WARN",
            "boto=WARN",
            "sqlalchemy=WARN",
            "suds=INFO",
            "oslo.messaging=INFO",
            "oslo_messaging=INFO",
            "iso8601=WARN",
            "requests.packages.urllib3.connectionpool=WARN",
            "urllib3.connectionpool=WARN",
            "websocket=WARN",
            "requests.packages.urllib3.util.retry=WARN",
            "urllib3.util.retry=WARN",
            "keystonemiddleware=WARN",
            "routes.middleware=WARN",
            "stevedore=WARN",
            "taskflow=WARN",
            "keystoneauth=WARN",
            "oslo.cache=INFO",
            "oslo_policy=INFO",
            "dogpile.core.dogpile=INFO",
        ]),
    ),
    option("publish_errors", Bool, Raw("False")),
    option("instance_format", Text, Raw("[instance: %(uuid)s] ")),
    option("instance_uuid_format", Text, Raw("[instance: %(uuid)s] ")),
    option("rate_limit_interval", INT, Raw("0")),
    option("rate_limit_burst", INT, Raw("0")),
    option(
        "rate_limit_except_level",
        Choice(&["CRITICAL", "ERROR", "INFO", "WARNING", "DEBUG", ""]),
        Raw("CRITICAL"),
    ),
    option("pooling", Bool, Raw("False")).once(&["sharding"]),
    option("unreliable", Bool, Raw("False")),
    option(
        "enable_deprecated_api_versions",
        Choices(&["1.1"]),
        Items(&[]),
    ),
    option("enable_checksum", Bool, Raw("False")),
    option("auth_strategy", Text, Raw("")),
];

const DRIVERS: &[Opt] = &[
    option("transport", Choice(&["wsgi", "websocket"]), Raw("wsgi")),
    option("message_store", Text, Raw("mongodb")).once(&["storage"]),
    option("management_store", Text, Raw("mongodb")),
];

const DRIVERS_TRANSPORT_WSGI: &[Opt] = &[
    option("bind", Host, Raw("127.0.0.1")),
    option("port", PORT, Raw("8888")),
];

const DRIVERS_TRANSPORT_WEBSOCKET: &[Opt] = &[
    option("bind", Host, Raw("127.0.0.1")),
    option("port", PORT, Raw("9000")),
    option("external_port", PORT, Unset),
    option("notification_bind", Host, Unset),
    option("notification_port", PORT, Raw("0")),
];

const DRIVERS_MESSAGE_STORE_REDIS: &[Opt] = &[
    secret("uri", Text, Raw("redis://127.0.0.1:6379")),
    option("max_reconnect_attempts", INT, Raw("10")),
    option("reconnect_sleep", Float, Raw("1.0")),
];

const DRIVERS_MANAGEMENT_STORE_REDIS: &[Opt] = &[
    secret("uri", Text, Raw("redis://127.0.0.1:6379")),
    option("max_reconnect_attempts", INT, Raw("10")),
    option("reconnect_sleep", Float, Raw("1.0")),
];

const DRIVERS_MANAGEMENT_STORE_SQLALCHEMY: &[Opt] =
    &[secret("uri", Text, Raw("sqlite:///:memory:"))];

const DRIVERS_MESSAGE_STORE_MONGODB: &[Opt] = &[
    option("ssl_keyfile", Text, Unset),
    option("ssl_certfile", Text, Unset),
    option(
        "ssl_cert_reqs",
        Choice(&["CERT_NONE", "CERT_OPTIONAL", "CERT_REQUIRED"]),
        Raw("CERT_REQUIRED"),
    ),
    option("ssl_ca_certs", Text, Unset),
    secret("uri", Text, Unset),
    option("database", Text, Raw("zaqar")),
    option("max_attempts", Int(0, i64::MAX), Raw("1000")),
    option("max_retry_sleep", Float, Raw("0.1")),
    option("max_retry_jitter", Float, Raw("0.005")),
    option("max_reconnect_attempts", INT, Raw("10")),
    option("reconnect_sleep", Float, Raw("0.02")),
    option("partitions", INT, Raw("2")),
];

const DRIVERS_MANAGEMENT_STORE_MONGODB: &[Opt] = &[
    option("ssl_keyfile", Text, Unset),
    option("ssl_certfile", Text, Unset),
    option(
        "ssl_cert_reqs",
        Choice(&["CERT_NONE", "CERT_OPTIONAL", "CERT_REQUIRED"]),
        Raw("CERT_REQUIRED"),
    ),
    option("ssl_ca_certs", Text, Unset),
    secret("uri", Text, Unset),
    option("database", Text, Raw("zaqar")),
    option("max_attempts", Int(0, i64::MAX), Raw("1000")),
    option("max_retry_sleep", Float, Raw("0.1")),
    option("max_retry_jitter", Float, Raw("0.005")),
    option("max_reconnect_attempts", INT, Raw("10")),
    option("reconnect_sleep", Float, Raw("0.02")),
];

const DRIVERS_MESSAGE_STORE_SWIFT: &[Opt] = &[
    option("auth_url", Text, Raw("http://127.0.0.1:5000/v3/")),
    secret("uri", Text, Raw("swift://demo:nomoresecrete@/demo")),
    option("insecure", Bool, Raw("False")),
    option("project_domain_id", Text, Unset),
    option("project_domain_name", Text, Raw("Default")),
    option("user_domain_id", Text, Unset),
    option("user_domain_name", Text, Raw("Default")),
    option("region_name", Text, Unset),
    option("interface", Text, Raw("public")),
];

const TRANSPORT: &[Opt] = &[
    option("default_message_ttl", INT, Raw("3600")),
    option("default_message_delay", INT, Raw("0")),
    option("default_claim_ttl", INT, Raw("300")),
    option("default_claim_grace", INT, Raw("60")),
    option("default_subscription_ttl", INT, Raw("3600")),
    option("max_queues_per_page", INT, Raw("20")),
    option("max_messages_per_page", INT, Raw("20")),
    option("max_subscriptions_per_page", INT, Raw("20")),
    option("max_messages_per_claim_or_pop", INT, Raw("20")),
    option("max_queue_metadata", INT, Raw("65536")),
    option("max_messages_post_size", INT, Raw("262144")),
    option("max_message_ttl", INT, Raw("1209600")),
    option("max_message_delay", INT, Raw("900")),
    option("max_claim_ttl", INT, Raw("43200")),
    option("max_claim_grace", INT, Raw("43200")),
    option(
        "subscriber_types",
        List,
        Items(&["http", "https", "mailto", "trust+http", "trust+https"]),
    ),
    option("max_flavors_per_page", INT, Raw("20")),
    option("max_pools_per_page", INT, Raw("20")),
    option(
        "client_id_uuid_safe",
        Choice(&["strict", "off"]),
        Raw("strict"),
    ),
    option("min_length_client_id", INT, Raw("10")),
    option("max_length_client_id", INT, Raw("36")),
    option("message_delete_with_claim_id", Bool, Raw("False")),
    option(
        "message_encryption_algorithms",
        Choice(&["AES256", "RSA"]),
        Raw("AES256"),
    ),
    secret("message_encryption_key", Text, Raw("AES256")),
];

const STORAGE: &[Opt] = &[
    option("queue_pipeline", List, Items(&[])),
    option("message_pipeline", List, Items(&[])),
    option("claim_pipeline", List, Items(&[])),
    option("subscription_pipeline", List, Items(&[])),
    option("topic_pipeline", List, Items(&[])),
];

const NOTIFICATION: &[Opt] = &[
    option(
        "smtp_mode",
        Choice(&["third_part", "self_local"]),
        Raw("third_part"),
    ),
    option("smtp_host", Host, Unset),
    option("smtp_port", PORT, Unset),
    option("smtp_user_name", Text, Unset),
    secret("smtp_user_password", Text, Unset),
    option("smtp_command", Text, Raw("/usr/sbin/sendmail -t -oi")),
    option("max_notifier_workers", INT, Raw("10")),
    option("require_confirmation", Bool, Raw("False")),
    option("external_confirmation_url", Text, Unset),
    option(
        "subscription_confirmation_email_template",
        Map,
        Pairs(&[
            ("topic", "Zaqar Notification - Subscription Confirmation"),
            (
                "body",
                "You have chosen to subscribe to the queue: {0}. This queue belongs to project: {1}. To confirm this subscription, click or visit this link below: {2}",
            ),
            ("sender", "Zaqar Notifications <no-reply@openstack.org>"),
        ]),
    ),
    option(
        "unsubscribe_confirmation_email_template",
        Map,
        Pairs(&[
            ("topic", "Zaqar Notification - Unsubscribe Confirmation"),
            (
                "body",
                "You have unsubscribed successfully to the queue: {0}. This queue belongs to project: {1}. To resubscribe this subscription, click or visit this link below: {2}",
            ),
            ("sender", "Zaqar Notifications <no-reply@openstack.org>"),
        ]),
    ),
];

const SIGNED_URL: &[Opt] = &[secret("secret_key", Text, Unset)];

const POOLING_CATALOG: &[Opt] = &[option("enable_virtual_pool", Bool, Raw("False"))];

const KEYSTONE_AUTHTOKEN: &[Opt] = &[
    option("www_authenticate_uri", Text, Unset),
    option("auth_version", Text, Unset),
    option("interface", Text, Raw("internal")),
    option("delay_auth_decision", Bool, Raw("False")),
    option("http_connect_timeout", INT, Unset),
    option("http_request_max_retries", INT, Raw("3")),
    option("cache", Text, Unset),
    option("certfile", Text, Unset),
    option("keyfile", Text, Unset),
    option("cafile", Text, Unset),
    option("insecure", Bool, Raw("False")),
    option("region_name", Text, Unset),
    option("memcached_servers", List, Unset).once(&["memcache_servers"]),
    option("token_cache_time", INT, Raw("300")),
    option(
        "memcache_security_strategy",
        AnyCase(&["None", "MAC", "ENCRYPT"]),
        Raw("None"),
    ),
    secret("memcache_secret_key", Text, Unset),
    option("memcache_tls_enabled", Bool, Raw("False")),
    option("memcache_tls_cafile", Text, Unset),
    option("memcache_tls_certfile", Text, Unset),
    option("memcache_tls_keyfile", Text, Unset),
    option("memcache_tls_allowed_ciphers", Text, Unset),
    option("memcache_pool_dead_retry", INT, Raw("300")),
    option("memcache_pool_maxsize", INT, Raw("10")),
    option("memcache_pool_socket_timeout", INT, Raw("3")),
    option("memcache_pool_unused_timeout", INT, Raw("60")),
    option("memcache_pool_conn_get_timeout", INT, Raw("10")),
    option("memcache_use_advanced_pool", Bool, Raw("True")),
    option("include_service_catalog", Bool, Raw("True")),
    option("enforce_token_bind", Text, Raw("permissive")),
    option("service_token_roles", List, Items(&["service"])),
    option("service_token_roles_required", Bool, Raw("True")),
    option("service_type", Text, Unset),
    option("memcache_sasl_enabled", Bool, Raw("False")),
    option("memcache_username", Text, Unset),
    secret("memcache_password", Text, Unset),
    option("auth_section", Text, Unset),
    option("auth_type", Text, Unset).once(&["auth_plugin"]),
];

const TRUSTEE: &[Opt] = &[
    option("auth_section", Text, Unset),
    option("auth_type", Text, Unset).once(&["auth_plugin"]),
    option("cafile", Text, Unset),
    option("certfile", Text, Unset),
    option("keyfile", Text, Unset),
    option("insecure", Bool, Raw("False")),
    option("timeout", Float, Unset),
    option("collect_timing", Bool, Raw("False")),
    option("split_loggers", Bool, Raw("False")),
    option("tls_ciphers", Text, Unset),
    option("tls_min_version", Choice(&["1.2", "1.3"]), Unset),
];

const OSLO_POLICY: &[Opt] = &[
    option("enforce_new_defaults", Bool, Raw("True")),
    option("policy_file", Text, Raw("policy.yaml")),
    option("policy_default_rule", Text, Raw("default")),
    option("policy_dirs", Multi, Items(&["policy.d"])),
    option(
        "remote_content_type",
        Choice(&["application/x-www-form-urlencoded", "application/json"]),
        Raw("application/x-www-form-urlencoded"),
    ),
    option("remote_ssl_verify_server_crt", Bool, Raw("False")),
    option("remote_ssl_ca_crt_file", Text, Unset),
    option("remote_ssl_client_crt_file", Text, Unset),
    option("remote_ssl_client_key_file", Text, Unset),
    option("remote_timeout", NotNegative, Raw("60")),
];

const CORS: &[Opt] = &[
    option("allowed_origin", List, Unset),
    option("allow_credentials", Bool, Raw("True")),
    option(
        "expose_headers",
        List,
        Items(&[
            "X-Auth-Token",
            "X-Subject-Token",
            "X-Service-Token",
            "X-OpenStack-Request-ID",
        ]),
    ),
    option("max_age", INT, Raw("3600")),
    option(
        "allow_methods",
        List,
        Items(&["GET", "PUT", "POST", "DELETE", "PATCH", "HEAD"]),
    ),
    option(
        "allow_headers",
        List,
        Items(&[
            "X-Auth-Token",
            "X-Identity-Status",
            "X-Roles",
            "X-Service-Catalog",
            "X-User-Id",
            "X-Tenant-Id",
            "X-OpenStack-Request-ID",
            "X-Trace-Info",
            "X-Trace-HMAC",
            "Client-id",
        ]),
    ),
];

const CACHE: &[Opt] = &[
    option("config_prefix", Text, Raw("cache.oslo")),
    option("expiration_time", Int(1, i64::MAX), Raw("600")),
    option("backend_expiration_time", Int(1, i64::MAX), Unset),
    option("backend", Choice(BACKENDS), Raw("dogpile.cache.null")),
    secret("backend_argument", Multi, Items(&[])),
    option("proxies", List, Items(&[])),
    option("enabled", Bool, Raw("False")),
    option("debug_cache_backend", Bool, Raw("False")),
    option("memcache_servers", List, Items(&["localhost:11211"])),
    option("memcache_dead_retry", INT, Raw("300")),
    option("memcache_pool_maxsize", INT, Raw("10")),
    option("memcache_pool_unused_timeout", INT, Raw("60")),
    option("memcache_pool_connection_get_timeout", INT, Raw("10")),
    option("memcache_pool_flush_on_reconnect", Bool, Raw("False")),
    option("memcache_sasl_enabled", Bool, Raw("False")),
    option("redis_server", Text, Raw("localhost:6379")),
    option("redis_db", Int(0, i64::MAX), Raw("0")),
    option("redis_sentinels", List, Items(&["localhost:26379"])),
    option("redis_sentinel_service_name", Text, Raw("mymaster")),
    option("username", Text, Unset).once(&["memcache_username", "redis_username"]),
    secret("password", Text, Unset).once(&["memcache_password", "redis_password"]),
    option("tls_enabled", Bool, Raw("False")),
    option("tls_cafile", Text, Unset),
    option("tls_certfile", Text, Unset),
    option("tls_keyfile", Text, Unset),
    option("tls_allowed_ciphers", Text, Unset),
    option("socket_timeout", Float, Raw("1.0"))
        .once(&["memcache_socket_timeout", "redis_socket_timeout"]),
    option("enable_socket_keepalive", Bool, Raw("False")),
    option("socket_keepalive_idle", Int(0, i64::MAX), Raw("1")),
    option("socket_keepalive_interval", Int(0, i64::MAX), Raw("1")),
    option("socket_keepalive_count", Int(0, i64::MAX), Raw("1")),
    option("enable_retry_client", Bool, Raw("False")),
    option("retry_attempts", Int(1, i64::MAX), Raw("2")),
    option("retry_delay", Float, Raw("0")),
    option("hashclient_retry_attempts", Int(1, i64::MAX), Raw("2")),
    option("hashclient_retry_timeout", Float, Raw("1")).once(&["hashclient_retry_delay"]),
    option("hashclient_dead_timeout", Float, Raw("60")).once(&["dead_timeout"]),
];

const PROFILER: &[Opt] = &[
    option("enabled", Bool, Raw("False")).once(&["profiler_enabled"]),
    option("trace_sqlalchemy", Bool, Raw("False")),
    option("trace_requests", Bool, Raw("False")),
    secret("hmac_keys", Text, Raw("SECRET_KEY")),
    option("connection_string", Text, Raw("messaging://")),
    option("es_doc_type", Text, Raw("notification")),
    option("es_scroll_time", Text, Raw("2m")),
    option("es_scroll_size", INT, Raw("10000")),
    option("socket_timeout", Float, Raw("0.1")),
    option("sentinel_service_name", Text, Raw("mymaster")),
    option("filter_error_trace", Bool, Raw("False")),
    option("trace_wsgi_transport", Bool, Raw("False")),
    option("trace_message_store", Bool, Raw("False")),
    option("trace_management_store", Bool, Raw("False")),
];

const PROFILER_JAEGER: &[Opt] = &[
    option("service_name_prefix", Text, Unset),
    option("process_tags", Map, Pairs(&[])),
];

const PROFILER_OTLP: &[Opt] = &[option("service_name_prefix", Text, Unset)];

const OSLO_CONCURRENCY: &[Opt] = &[
    option("disable_process_locking", Bool, Raw("False")),
    option("lock_path", Text, Unset),
];

const OSLO_MIDDLEWARE: &[Opt] = &[option(
    "http_basic_auth_user_file",
    Text,
    Raw("/etc/htpasswd"),
)];

const OSLO_REPORTS: &[Opt] = &[
    option("log_dir", Text, Unset),
    option("file_event_handler", Text, Unset),
    option("file_event_handler_interval", INT, Raw("1")),
];

const PLUGIN_PASSWORD: &[Opt] = &[
    option("auth_url", Text, Unset),
    option("system_scope", Text, Unset),
    option("domain_id", Text, Unset),
    option("domain_name", Text, Unset),
    option("project_id", Text, Unset).once(&["tenant-id", "tenant_id"]),
    option("project_name", Text, Unset).once(&["tenant-name", "tenant_name"]),
    option("project_domain_id", Text, Unset),
    option("project_domain_name", Text, Unset),
    option("trust_id", Text, Unset),
    option("default_domain_id", Text, Unset),
    option("default_domain_name", Text, Unset),
    option("user_id", Text, Unset),
    option("username", Text, Unset).once(&["user-name", "user_name"]),
    option("user_domain_id", Text, Unset),
    option("user_domain_name", Text, Unset),
    secret("password", Text, Unset),
];

const PLUGIN_V3PASSWORD: &[Opt] = &[
    option("auth_url", Text, Unset),
    option("system_scope", Text, Unset),
    option("domain_id", Text, Unset),
    option("domain_name", Text, Unset),
    option("project_id", Text, Unset),
    option("project_name", Text, Unset),
    option("project_domain_id", Text, Unset),
    option("project_domain_name", Text, Unset),
    option("trust_id", Text, Unset),
    option("user_id", Text, Unset),
    option("username", Text, Unset).once(&["user-name", "user_name"]),
    option("user_domain_id", Text, Unset),
    option("user_domain_name", Text, Unset),
    secret("password", Text, Unset),
];

const PLUGIN_V3APPLICATIONCREDENTIAL: &[Opt] = &[
    option("auth_url", Text, Unset),
    option("system_scope", Text, Unset),
    option("domain_id", Text, Unset),
    option("domain_name", Text, Unset),
    option("project_id", Text, Unset),
    option("project_name", Text, Unset),
    option("project_domain_id", Text, Unset),
    option("project_domain_name", Text, Unset),
    option("trust_id", Text, Unset),
    option("user_id", Text, Unset),
    option("username", Text, Unset).once(&["user-name", "user_name"]),
    option("user_domain_id", Text, Unset),
    option("user_domain_name", Text, Unset),
    secret("application_credential_secret", Text, Unset),
    option("application_credential_id", Text, Unset),
    option("application_credential_name", Text, Unset),
];

const BACKENDS: &[&str] = &[
    "oslo_cache.memcache_pool",
    "oslo_cache.dict",
    "oslo_cache.etcd3gw",
    "dogpile.cache.pymemcache",
    "dogpile.cache.memcached",
    "dogpile.cache.pylibmc",
    "dogpile.cache.bmemcached",
    "dogpile.cache.dbm",
    "dogpile.cache.redis",
    "dogpile.cache.redis_sentinel",
    "dogpile.cache.memory",
    "dogpile.cache.memory_pickle",
    "dogpile.cache.null",
];
