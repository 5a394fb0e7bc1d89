//! Files of random text, as the two readers may meet them.

use super::*;

/// Writes files of random text and compares what both readers make of them.
pub(super) struct Generator<'a> {
    pub(super) random: fastrand::Rng,
    pub(super) folder: &'a Path,
}

const TEXTS: &[&str] = &[
    "",
    "plain",
    "two words",
    "\"quoted\"",
    "'quoted'",
    "\"half",
    "a=b:c",
    "x # no comment",
    "pa$$ss",
    "pa\\$ss",
    "$",
    "$ x",
    "$9",
    "${",
    "${debug",
    "$debug",
    "${debug}",
    "$auth_strategy",
    "$uri",
    "${transport.max_claim_ttl}x",
    "$keystone_authtoken.service_token_roles",
    "$cors.allowed_origin",
    "$nothing_of_the_kind",
    "$drivers",
    "$drivers.transport",
    "$log_file.",
    "é ü",
    "\u{a0}x\u{a0}",
    "a\\b",
    "redis://:p%40ss@h:6379?dbid=2",
];
const NUMBERS: &[&str] = &[
    "0",
    "1",
    "-1",
    "60",
    "3600",
    "1_000",
    "_1",
    "+5",
    "1.5",
    "1e3",
    "nan",
    "inf",
    "0x10",
    "010",
    " 7 ",
    "",
    "'8'",
    "65536",
    "many",
    "$max_claim_ttl",
];
const WORDS: &[&str] = &[
    "true",
    "True",
    "YES",
    "on",
    "1",
    "false",
    "No",
    "off",
    "0",
    "",
    "'true'",
    "\" true\"",
    "maybe",
    "t",
    "$debug",
    "2",
];
const LISTS: &[&str] = &[
    "a,b",
    "a, b ,c,",
    ",",
    ",,a",
    "a,,b",
    "\"a\",b",
    "[a]",
    "a, ,",
    "a,\n  b,\n  c",
    "$debug,x",
    "https://a:1,*",
];
const MAPS: &[&str] = &[
    "a:b",
    "a:b,c:d",
    "a:b,c",
    "a:b, with, commas:c",
    ":x",
    "a:b,a:c",
    "topic: x y ,body:{0} {1}",
    "a",
];
const HOSTS: &[&str] = &[
    "127.0.0.1",
    "::1",
    "0.0.0.0",
    "mq.example",
    "mq.example.",
    "1.2.3",
    "a_b",
    "-a",
    "",
    "$bind",
    "[::1]",
];

impl Generator<'_> {
    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.random.usize(..from.len())]
    }

    fn value(&mut self, kind: Kind) -> &'static str {
        if self.random.u8(..12) == 0 {
            return self.pick(TEXTS);
        }
        match kind {
            Kind::Bool => self.pick(WORDS),
            Kind::Int(..) | Kind::Float | Kind::NotNegative => self.pick(NUMBERS),
            Kind::List | Kind::Choices(_) => self.pick(LISTS),
            Kind::Map => self.pick(MAPS),
            Kind::Host => self.pick(HOSTS),
            Kind::Choice(choices) | Kind::AnyCase(choices) if self.random.bool() => {
                self.pick(choices)
            }
            _ => self.pick(TEXTS),
        }
    }

    fn group(&mut self, name: &str) -> String {
        match self.random.u8(..10) {
            0 => name.to_uppercase(),
            1 => name.to_lowercase(),
            2 => {
                let mut characters = name.chars();
                let first = characters.next().into_iter().flat_map(char::to_uppercase);
                first.chain(characters).collect()
            }
            _ => name.to_owned(),
        }
    }

    fn text(&mut self) -> String {
        let mut text = String::new();
        for _ in 0..self.random.usize(1..6) {
            let (group, options) = self.pick(schema::GROUPS);
            let written = self.group(group);
            writeln!(text, "[{written}]").expect("a text");
            for _ in 0..self.random.usize(..12) {
                let option = self.pick(options);
                let mut name = option.name.to_owned();
                if !option.former.is_empty() && self.random.bool() {
                    name = self.pick(option.former).to_owned();
                }
                match self.random.u8(..30) {
                    0 => name = name.to_uppercase(),
                    1 => name = name.replace('_', "-"),
                    _ => {}
                }
                let value = self.value(option.kind);
                let separator = self.pick(&["=", " = ", ":", ": ", "  =\t"]);
                let behind = self.pick(&[
                    "\n",
                    "\n",
                    "\n",
                    "\n\n",
                    "\n# comment = x\n",
                    " \n",
                    "\r\n",
                    "\n  and more\n",
                ]);
                write!(text, "{name}{separator}{value}{behind}").expect("a text");
            }
            if self.random.u8(..60) == 0 {
                text.push_str(self.pick(&[
                    "word\n",
                    "[open\n",
                    "= x\n",
                    "[]\n",
                    "[a] # b\n",
                    "\n  x\n",
                ]));
            }
        }
        text
    }

    /// Credentials, in their own group or in another one.
    fn credentials(&mut self) -> String {
        let group = self.pick(&["keystone_authtoken", "trustee"]);
        let auth_type = self.pick(&[
            "password",
            "v3password",
            "v3applicationcredential",
            "no plugin",
            "",
        ]);
        let section = self.pick(&["", "shared", "Shared", "keystone_authtoken", "trustee"]);
        let name = self.pick(&[
            "username",
            "user-name",
            "user_name",
            "auth_plugin",
            "tenant_name",
            "project_name",
            "auth-url",
        ]);
        let value = self.pick(TEXTS);
        let mut text = format!("[{group}]\n");
        if !section.is_empty() {
            writeln!(text, "auth_section = {section}\n[{section}]").expect("a text");
        }
        writeln!(
            text,
            "auth_type = {auth_type}\n{name} = {value}\npassword = {}",
            self.pick(TEXTS)
        )
        .expect("a text");
        text
    }

    pub(super) fn case(&mut self, number: usize) -> Case {
        let mut case = Case {
            name: format!("case {number}"),
            ..Case::default()
        };
        for index in 0..self.random.usize(1..4) {
            let path = self.folder.join(format!("{number}-{index}.conf"));
            let mut text = self.text();
            if self.random.u8(..3) == 0 {
                text.push_str(&self.credentials());
            }
            std::fs::write(&path, &text).expect("a file");
            case.sources.push(Source::File(path));
        }
        if self.random.u8(..3) == 0 {
            let folder = self.folder.join(format!("{number}.d"));
            std::fs::create_dir(&folder).expect("a folder");
            for name in ["10-b.conf", "9-a.conf", "a.conf.off"]
                .iter()
                .take(self.random.usize(1..4))
            {
                std::fs::write(folder.join(name), self.text()).expect("a file");
            }
            case.sources.push(Source::Folder(folder));
        }
        for _ in 0..self.random.usize(..4) {
            let (group, options) = self.pick(schema::GROUPS);
            let option = self.pick(options);
            let value = self.value(option.kind).to_owned();
            let name = format!(
                "OS_{}__{}",
                group.to_uppercase(),
                option.name.to_uppercase()
            );
            case.environment.insert(name, value);
        }
        case
    }
}
