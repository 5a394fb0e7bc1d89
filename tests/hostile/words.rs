//! What requests are spoilt with.

/// JSON that is wrong, or right and unexpected.
#[rustfmt::skip]
pub(crate) const VALUES: &[&str] = &[
    "null", "true", "false", "0", "-1", "1", "59", "60", "1e2", "60.0", "-0", "-0.0", "0.1", "1e-400", "\"\"",
    "\"60\"", "[]", "{}", "[[]]", "[null]", "[{}]", "[\"messages\"]", "[1, \"a\"]", "{\"a\": 1, \"a\": 2}",
    "{\"messages\": 1}", "{\"\": \"\"}", "9223372036854775807", "9223372036854775808", "-9223372036854775809",
    "18446744073709551615", "18446744073709551616", "1e400", "-1e400", "1E+9999999999", "4294967296", "2147483648",
    "99999999999999999999999999999999999999999999", "1208925819614629174706176.5", "\"\\u0000\"", "\"\\ud800\"",
    "\"\\udc00\\ud800\"", "\"\\ud83d\\ude00\"", "\"\\ud83d\"", "\"\u{7f}\u{80}\u{feff}\u{ffff}\"", "\"/metadata/\"",
    "\"/metadata/a/b\"", "\"metadata\"", "\"//~2~\"", "\"move\"", "\"AÄ\"", "\"../../etc/passwd\"", "\"a.b.c\"",
    "\"'; DROP TABLE messages; --\"", "\"%00%s%n{}\"", "\"\\n\\r\\t\"",
];

/// Text that is not JSON.
#[rustfmt::skip]
pub(crate) const NOT_VALUES: &[&[u8]] = &[
    b"NaN", b"Infinity", b"-Infinity", b"-NaN", b"nan", b"+1", b"01", b"1.", b".5", b"1e", b"0x10", b"1_000", b"'a'",
    b"\"a", b"\"\\x41\"", b"\"\\u12\"", b"\"\n\"", b"\"\0\"", b"\"\xff\xfe\"", b"\"\xc3\"", b"\"\xed\xa0\x80\"",
    b"\"\xf4\x90\x80\x80\"", b"\"\xc0\xaf\"", b"[1,]", b"{\"a\":1,}", b"{a: 1}", b"{1: 2}", b"{\"a\" 1}", b"[1 2]",
    b"tru", b"True", b"None", b"undefined", b"/* */ 1", b"// 1\n", b"", b" ", b"\0", b"\x0c1", b"]", b"}", b"[", b"{",
    b"1 2", b"{} {}", b"\xef\xbb\xbf{}", b"\xff\xfe{\0}\0", b"\xfe\xff\0{\0}",
];

/// Text for queries and paths. Blanks and line ends are not among them: they would end the request line.
#[rustfmt::skip]
pub(crate) const TEXTS: &[&str] = &[
    "", "0", "-1", "1", "21", "+5", "1_0", "%205%20", "5.0", "1e1", "0x5", "\u{7f}", "99999999999999999999", "1,2",
    ",", ",,,", "true", "TRUE", "yes", "maybe", "null", "%", "%%", "%2", "%zz", "%00", "%0A", "%0d%0aX-Injected:1",
    "%2F", "%2e%2e", "..", ".", "%252F", "%C3%A9", "%c3", "%ff%fe", "%ED%A0%80", "%u0041", "+", "a+b", ";", "a;b=c",
    "a=b=c", "&", "&&", "?", "#", "a#b", "[]", "{}", "|", "\\", "\"", "<script>", "'", "`", "^", "~", "@", ":", "//",
    "%F0%9F%98%80", "*", "$ne", "..%5c", "c8cbd19a-842e-4794-8e25-3d5e2df00f2b",
    "C8CBD19A-842E-4794-8E25-3D5E2DF00F2B", "c8cbd19a842e47948e253d5e2df00f2b", "00000000-0000-0000-0000-000000000000",
    "18446744073709551615", "9223372036854775808", "-9223372036854775809", "queues", "_", "-", "a.b",
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
];

#[rustfmt::skip]
pub(crate) const HEADERS: &[&str] = &[
    "Client-ID", "X-Project-Id", "X-Roles", "Accept", "Content-Type", "Host", "Connection", "Expect", "X-Auth-Token",
    "URL-Signature", "URL-Expires", "URL-Methods", "URL-Paths", "Origin", "Access-Control-Request-Method", "Cookie",
    "Content-Encoding", "Accept-Encoding", "Range", "If-Match", "X-OpenStack-Request-ID", "X-HTTP-Method-Override",
    "EXTRA-SPEC", "X-Tenant-Id", "Authorization", "TE", "Upgrade", "Keep-Alive", "X-Forwarded-For", "traceparent",
];

#[rustfmt::skip]
pub(crate) const HEADER_VALUES: &[&[u8]] = &[
    b"", b" ", b"admin", b"a, b, ,", b"text/html", b"text/xml, application/json;q=0.5", b"application/json;q=0",
    b"application/x-www-form-urlencoded", b"*/*", b"*", b";;;===,,,", b"gzip", b"100-continue", b"close", b"keep-alive",
    b"upgrade", b"bytes=0-", b"{3381af92-2b9e-11e3-b191-71861300734c}", b"urn:uuid:3381af922b9e11e3b19171861300734c",
    b"not-a-uuid", b"\xff\xfe", b"\xc3\xa9", b"\xe9", b"a\tb", b"\"", b"%00", b"GET", b"-1", b"99999999999999999999",
    b"application/openstack-messaging-v2.0-json-patch", b"application/json; charset=utf-16", b"http://a b/",
    b"2030-01-01T00:00:00", b"req-zzz", b"00-00000000000000000000000000000000-0000000000000000-00",
];

/// Values that a header cannot have.
#[rustfmt::skip]
pub(crate) const NOT_HEADER_VALUES: &[&[u8]] = &[b"\0", b"a\0b", b"a\rb", b"a\nb", b"\x01", b"a\r\n b", b"\x7f"];

#[rustfmt::skip]
pub(crate) const METHODS: &[&str] = &["GET", "PUT", "POST", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "FOO", "get", "PRI", "M-SEARCH"];
